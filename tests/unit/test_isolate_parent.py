"""What a parent does with its worker's process, by a process and a pipe that only play theirs."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from onnx_harness.errors import (
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    WorkerOutOfMemory,
    WorkerTimedOut,
)
from onnx_harness.isolate import worker
from onnx_harness.isolate.answers import pack
from onnx_harness.isolate.limits import Limits
from onnx_harness.isolate.serve import serve
from onnx_harness.isolate.worker import Worker

GIB = 1 << 30


class Played:
    """A process with a pipe: both play what a test says, and write down what is asked of them."""

    pid, exitcode = 77, -11

    def __init__(
        self, polls: list[bool], answer: Any = b"", alive: list[bool] | None = None
    ) -> None:
        self.polls, self.answer = polls, answer
        self.alive = alive or []
        self.done: list[tuple[Any, ...]] = []
        self.residents: list[int] = []

    def send_bytes(self, data: bytes) -> None:
        self.done.append(("send", data))

    def poll(self, seconds: float = 0.0) -> bool:
        self.done.append(("poll", seconds))
        return self.polls.pop(0)

    def recv_bytes(self, most: int | None = None) -> bytes:
        self.done.append(("receive", most))
        if isinstance(self.answer, Exception):
            raise self.answer
        return bytes(self.answer)

    def is_alive(self) -> bool:
        return self.alive.pop(0) if self.alive else True

    def join(self, seconds: float | None = None) -> None:
        self.done.append(("join", seconds))

    def kill(self) -> None:
        self.done.append(("kill",))

    def close(self) -> None:
        self.done.append(("close",))

    def memory_info(self) -> SimpleNamespace:
        return SimpleNamespace(rss=self.residents.pop(0))


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Played], Worker]:
    """Make a worker of a played process, with 5 seconds and 4 GiB for a call."""
    log = tmp_path / "log"
    log.write_text("said before\n")

    def make(played: Played) -> Worker:
        made = Worker.__new__(Worker)
        fields = {
            "_pipe": played,
            "_process": played,
            "_limits": Limits(5.0, 4 * GIB),
            "_stage": SimpleNamespace(value=b"run"),
            "_died_of": (),
            "_log": log,
            "_files": None,
            "_up": True,
            "_ready": True,
            "_closed": False,
            "folder": SimpleNamespace(empty=lambda: played.done.append(("empty",))),
            "peak_bytes": 0,
        }
        for name, value in fields.items():
            setattr(made, name, value)
        monkeypatch.setattr(psutil, "Process", {77: played}.__getitem__)
        return made

    return make


def clock(monkeypatch: pytest.MonkeyPatch, *moments: float) -> None:
    left: Iterator[float] = iter(moments)
    monkeypatch.setattr(time, "monotonic", lambda: next(left))


def test_an_answer_is_waited_for_and_the_most_memory_remembered(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played([False, False, False, True], pack([42]))
    near = 4 * GIB - GIB // 32
    # the limit itself is no more than it
    played.residents = [GIB, 2 * GIB, near, 4 * GIB, GIB]
    clock(monkeypatch, 100.0, 101.0, 102.0, 105.0)  # the last moment is in time
    made = parent(played)
    assert made._answer(b"task", 0) == 42
    assert made.peak_bytes == 4 * GIB
    assert played.done == [
        ("send", b"task"),
        *[("poll", 0.05)] * 2,
        ("poll", 0.0078125),  # the nearer to the limit, the sooner it's looked at
        ("poll", 0.001),
        ("receive", 4 * GIB),
    ]


def test_what_is_used_at_the_end_counts_too(parent: Callable[[Played], Worker]) -> None:
    played = Played([True], pack([42]))
    played.residents = [0, 3 * GIB]
    made = parent(played)
    made._answer(b"task", 0)
    assert made.peak_bytes == 3 * GIB


def test_an_answer_that_comes_as_the_process_ends_is_read(
    parent: Callable[[Played], Worker],
) -> None:
    played = Played([False, True, True], pack([42]), alive=[False])
    played.residents = [GIB] * 3
    assert parent(played)._answer(b"task", 0) == 42
    assert played.done[1:4] == [("poll", 0.05), ("poll", 0.0), ("poll", 0.05)]


SEGFAULT = "the worker process was killed by SIGSEGV (signal 11)"


@pytest.mark.parametrize(
    ("played", "residents", "moments", "how", "what"),
    [
        (
            Played([False]),
            [4 * GIB + 1],
            [0.0],
            WorkerOutOfMemory,
            "used 4.0 GiB of memory, more than the limit of 4.0 GiB (--cell-memory)",
        ),
        (
            Played([False]),
            [0],
            [100.0, 105.5],
            WorkerTimedOut,
            "did not end within 5 s (--cell-timeout)",
        ),
        (Played([False, False], alive=[False]), [0], [0.0, 1.0], WorkerCrashed, SEGFAULT),
        (Played([True], EOFError()), [0], [0.0], WorkerCrashed, SEGFAULT),
        (Played([True], OSError("too long")), [0], [0.0], WorkerCrashed, SEGFAULT),
        (Played([True], psutil.NoSuchProcess(77)), [0], [0.0], WorkerCrashed, SEGFAULT),
        (
            Played([True], pack([])),
            [0],
            [0.0],
            WorkerCrashed,
            "the worker's answer is neither a result nor an error",
        ),
    ],
    ids=["memory", "time", "gone", "hung up", "too long", "no process", "no answer"],
)
def test_each_end_of_a_process_is_told_with_its_stage(
    parent: Callable[[Played], Worker],
    monkeypatch: pytest.MonkeyPatch,
    played: Played,
    residents: list[int],
    moments: list[float],
    how: type[WorkerDied],
    what: str,
) -> None:
    played.residents = [0, *residents]
    clock(monkeypatch, *moments)
    made = parent(played)
    with pytest.raises(WorkerDied) as caught:
        made._answer(b"task", len("said before\n"))
    assert (type(caught.value), caught.value.what, caught.value.stage) == (how, what, "run")
    if what == SEGFAULT:
        assert played.done[-1] == ("join", 10)  # for its exit code


def test_a_crash_is_told_with_what_was_said_during_the_call(
    parent: Callable[[Played], Worker],
) -> None:
    played = Played([True], EOFError())
    played.residents = [0, 0]
    with pytest.raises(WorkerCrashed, match="signal 11\\); it last said: said before"):
        parent(played)._answer(b"task", 0)


def restarting(monkeypatch: pytest.MonkeyPatch, played: Played) -> None:
    monkeypatch.setattr(Worker, "_end", lambda _self: played.done.append(("end",)))

    def start(self: Worker) -> None:
        played.done.append(("start",))
        self._ready = False

    monkeypatch.setattr(Worker, "_start", start)


HELLO = [("poll", 120), ("receive", None)]


@pytest.mark.parametrize(
    ("up", "ready", "alive", "done"),
    [
        (True, True, True, []),
        (True, False, True, HELLO),
        (True, False, False, HELLO),
        (True, True, False, [("end",), ("start",), *HELLO]),
        (False, True, True, [("end",), ("start",), *HELLO]),
        (False, False, True, [("end",), ("start",), *HELLO]),
    ],
)
def test_a_process_is_made_ready_once(
    parent: Callable[[Played], Worker],
    monkeypatch: pytest.MonkeyPatch,
    up: bool,
    ready: bool,
    alive: bool,
    done: list[tuple[Any, ...]],
) -> None:
    played = Played([True], b"hello", alive=[alive])
    made = parent(played)
    restarting(monkeypatch, played)
    made._up, made._ready = up, ready
    made._make_ready()
    assert played.done == done
    assert made._ready


@pytest.mark.parametrize(
    "played", [Played([False]), Played([True], EOFError()), Played([True], OSError())]
)
def test_a_process_that_says_no_hello_is_told_with_its_end(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch, played: Played
) -> None:
    made = parent(played)
    restarting(monkeypatch, played)
    made._ready = False
    with pytest.raises(WorkerNotStarted) as caught:
        made._make_ready()
    said = "; it last said: said before"
    assert str(caught.value).startswith(
        f"the worker process can't be started: {SEGFAULT}{said}. "
    )
    assert "Mend: free memory or processes on this machine" in str(caught.value)
    assert played.done[-2:] == [("join", 0.05), ("end",)]
    assert not made._ready


def test_a_call_is_sent_with_a_clean_slate(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = parent(Played([]))
    made.peak_bytes = 99
    seen: list[tuple[Any, ...]] = []

    def answer(self: Worker, task: bytes, heard: int) -> object:
        seen.append((pickle.loads(task), heard, self.doing, self.peak_bytes))
        return 42

    monkeypatch.setattr(Worker, "_answer", answer)
    assert made.call(abs, -3) == 42
    assert seen == [((abs, (-3,)), len("said before\n"), "", 0)]
    made._closed = True
    with pytest.raises(ValueError, match="the worker is closed"):
        made.call(abs, -3)


def test_an_error_of_the_call_is_raised_with_its_place(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = worker._Raised(KeyError("k"), "Traceback\n  here\n\n")
    monkeypatch.setattr(Worker, "_answer", lambda *_: raised)
    with pytest.raises(KeyError) as caught:
        parent(Played([])).call(abs, -3)
    assert caught.value.__notes__ == ["In the worker process:\nTraceback\n  here"]


@pytest.mark.parametrize("closed", [False, True])
def test_a_process_whose_call_did_not_end_is_replaced(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    played = Played([])
    made = parent(played)
    restarting(monkeypatch, played)

    def interrupted(self: Worker, _task: bytes, _heard: int) -> object:
        self._closed = closed  # by another thread
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.call(abs, -3)
    assert played.done == [("end",), *([] if closed else [("start",)])]


def test_a_replacement_that_does_not_come_up_is_left_to_the_next_call(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: Worker) -> None:
        raise WorkerNotStarted("no room")

    made = parent(Played([]))
    monkeypatch.setattr(Worker, "_end", lambda _self: None)
    monkeypatch.setattr(Worker, "_start", fails)
    made._replace()
    made._up = False
    with pytest.raises(WorkerNotStarted, match="no room"):
        made._make_ready()


def of_this_module(path: Path) -> str:
    return str(path)


@pytest.mark.parametrize(("new", "ends"), [(True, 1), (False, 0)])
def test_a_confined_process_goes_where_a_call_names_other_files(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch, new: bool, ends: int
) -> None:
    played = Played([])
    made = parent(played)
    restarting(monkeypatch, played)
    asked: list[tuple[list[Path], list[Path]]] = []

    def include(paths: list[Path], modules: list[Path]) -> bool:
        asked.append((paths, modules))
        return new

    own = Path(__file__).absolute()

    made._files = SimpleNamespace(include=include)  # type: ignore[assignment]
    monkeypatch.setattr(Worker, "_answer", lambda *_: 42)
    made.call(of_this_module, Path("m.onnx"))
    [(paths, modules)] = asked
    assert paths == [Path("m.onnx")]
    assert own in modules
    assert played.done == [("end",)] * ends


class PlayedContext:
    """What `multiprocessing` gives for one way of starting: nothing is started."""

    def __init__(self, error: OSError | None = None) -> None:
        self.ours, self.theirs = Played([]), Played([])
        self.error = error
        self.made: list[dict[str, Any]] = []

    def Pipe(self) -> tuple[Played, Played]:
        return self.ours, self.theirs

    def Process(self, **words: Any) -> SimpleNamespace:
        self.made.append(words)

        def start() -> None:
            if self.error is not None:
                raise self.error

        alive = SimpleNamespace(start=start, is_alive=lambda: False)
        alive.kill = alive.join = lambda: None
        return alive


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the interpreter is to do at its end; the temporary folder is this test's."""
    waiting: list[Any] = []
    monkeypatch.setattr(atexit, "register", waiting.append)
    monkeypatch.setattr(atexit, "unregister", waiting.remove)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return waiting


@pytest.mark.parametrize("confined", [True, False])
def test_a_process_is_started_with_all_that_it_has_to_know(
    monkeypatch: pytest.MonkeyPatch, at_exit: list[Any], tmp_path: Path, confined: bool
) -> None:
    context = PlayedContext()
    monkeypatch.setattr(multiprocessing, "get_context", {"spawn": context}.__getitem__)
    changed: list[Path] = []
    files: Any = SimpleNamespace(change=changed.append, rules=lambda: ("rules",))
    limits = Limits(5.0, 99)
    made = Worker(
        limits,
        {"A": "1", "TMPDIR": "x"},
        preload=["json"],
        files=files if confined else None,
    )
    [words] = context.made
    assert words["target"] is serve
    assert words["args"] == (
        context.theirs,
        made._stage,
        (),
        str(made.folder.log),
        {"A": "1", **made.folder.variables},
        ("json",),
        limits,
        ("rules",) if confined else None,
        os.getpid(),
        True,  # by the main thread
    )
    assert len(made._stage) == 256
    assert (made._up, made._ready, made.peak_bytes, made.doing) == (True, False, 0, "")
    assert context.theirs.done == [("close",)]
    assert changed == ([made.folder.path] if confined else [])
    assert at_exit == [made.close]
    made.close()
    assert context.ours.done == [("close",)]
    assert at_exit == list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="the worker is closed"):
        made.call(abs, -3)


def test_a_process_of_another_thread_is_not_tied_to_it(
    monkeypatch: pytest.MonkeyPatch, at_exit: list[Any]
) -> None:
    context = PlayedContext()
    monkeypatch.setattr(multiprocessing, "get_context", {"spawn": context}.__getitem__)
    made: list[Worker] = []
    thread = threading.Thread(target=lambda: made.append(Worker(Limits(5.0, 99))))
    thread.start()
    thread.join()
    assert context.made[0]["args"][-2:] == (os.getpid(), False)
    assert context.made[0]["args"][4] == made[0].folder.variables
    made[0].close()
    assert at_exit == []


def test_a_process_that_the_system_refuses_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, at_exit: list[Any], tmp_path: Path
) -> None:
    context = PlayedContext(OSError("no room"))
    monkeypatch.setattr(multiprocessing, "get_context", {"spawn": context}.__getitem__)
    with pytest.raises(
        WorkerNotStarted, match=r"can't be started: no room\. Mend: free memory"
    ):
        Worker(Limits(5.0, 99))
    assert (context.ours.done, context.theirs.done) == ([("close",)], [("close",)])
    assert at_exit == list(tmp_path.iterdir()) == []


def test_without_a_temporary_folder_there_is_no_worker(
    monkeypatch: pytest.MonkeyPatch, at_exit: list[Any], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(
        WorkerNotStarted, match=r"can't be made: .*gone.*Mend: set \$TMPDIR to a"
    ):
        Worker(Limits(5.0, 99))
    assert at_exit == []


def test_ending_kills_the_process_and_its_children_and_tidies_up(
    parent: Callable[[Played], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        played.done.append(("gone",))
        raise psutil.NoSuchProcess(1)

    played = Played([])
    made = parent(played)
    children = [
        SimpleNamespace(kill=gone),
        SimpleNamespace(kill=lambda: played.done.append(("child",))),
    ]
    tree = {True: children}
    monkeypatch.setattr(
        psutil,
        "Process",
        lambda _pid: SimpleNamespace(children=lambda recursive: tree[recursive]),
    )
    made._end()
    rest = [("kill",), ("join", None), ("close",), ("empty",)]
    assert played.done == [("gone",), ("child",), *rest]
    made._end()
    assert played.done[-1] == ("empty",)
    assert len(played.done) == 6
    dead = Played([], alive=[False])
    again = parent(dead)
    again._end()
    assert dead.done == rest
