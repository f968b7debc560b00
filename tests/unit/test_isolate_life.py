"""A worker's first steps, and what its parent makes of its last ones, step by step in this process."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from onnx_harness.errors import DiedBefore, WorkerCrashed, WorkerOutOfMemory, WorkerTimedOut
from onnx_harness.isolate import serve, worker
from onnx_harness.isolate.answers import UnreadableAnswer, pack, unpack
from onnx_harness.isolate.limits import Limits, default_memory_bytes
from onnx_harness.isolate.notes import RISK, risking
from onnx_harness.isolate.worker import Worker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="by signals and handles of POSIX")


@contextlib.contextmanager
def recording() -> Iterator[tuple[pytest.MonkeyPatch, list[tuple[Any, ...]]]]:
    """Record what the system is asked for, which isn't done.

    No longer than in a block: pytest needs these calls between a test's parts.
    """
    calls: list[tuple[Any, ...]] = []

    def records(name: str) -> Any:
        return lambda *words: calls.append((name, *words))

    def copies(handle: int, target: int) -> None:
        os.write(handle, f"to {target}\n".encode())
        calls.append(("dup2", target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", records("signal"))
        patch.setattr(signal, "pthread_sigmask", records("mask"))
        patch.setattr(os, "dup2", copies)
        patch.setattr(sys, "stdout", sys.stdout)
        patch.setattr(sys, "stderr", sys.stderr)
        libraries = {None: SimpleNamespace(prctl=records("prctl"))}
        patch.setattr(ctypes, "CDLL", lambda name: libraries[name])
        yield patch, calls


@pytest.mark.parametrize("tied", [True, False])
def test_a_worker_begins_deaf_to_ctrl_c_and_with_its_output_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_TEST", "before")
    log = tmp_path / "log"
    log.write_text("said before\n")
    with recording() as (_, asked):
        serve._begin(str(log), {"ONNX_HARNESS_TEST": "after"}, tied)
        streams = [(sys.stdout, 1), (sys.stderr, 2)]
    assert asked == [
        ("signal", signal.SIGINT, signal.SIG_IGN),
        ("mask", signal.SIG_UNBLOCK, {signal.SIGINT}),
        ("dup2", 1),
        ("dup2", 2),
        *([("prctl", 1, signal.SIGKILL)] if tied else []),  # PR_SET_PDEATHSIG
    ]
    assert os.environ["ONNX_HARNESS_TEST"] == "after"
    assert log.read_text() == "said before\nto 1\nto 2\n"
    for stream, handle in streams:
        assert (stream.fileno(), stream.writable()) == (handle, True)
        assert isinstance(stream, io.TextIOWrapper)
        assert stream.line_buffering
        stream.close()
        os.fstat(handle)  # closing the stream leaves the handle


def fails(error: type[Exception]) -> Any:
    def fail(_name: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_a_call_is_missing_a_worker_begins_all_the_same(
    tmp_path: Path, error: type[Exception]
) -> None:
    with recording() as (patch, asked):
        patch.delattr(signal, "pthread_sigmask")
        patch.setattr(ctypes, "CDLL", fails(error))
        serve._begin(str(tmp_path / "log"), {}, True)
    assert [name for name, *_ in asked] == ["signal", "dup2", "dup2"]


class Listener:
    """A parent's end that takes the hello, asks for what is listed, and hangs up."""

    def __init__(self, events: list[tuple[Any, ...]], *tasks: bytes) -> None:
        self.events, self.tasks = events, list(tasks)

    def send_bytes(self, data: bytes) -> None:
        self.events.append(("send", data))

    def recv_bytes(self) -> bytes:
        if not self.tasks:
            raise EOFError
        return self.tasks.pop(0)


RULES = (("/x", 4),)


@pytest.mark.parametrize(
    ("compiled", "rules", "why", "confines"),
    [
        (True, None, None, []),
        (True, RULES, None, [("restrict", RULES), ("explain_denials",)]),
        (True, RULES, "why not", [("restrict", RULES)]),
        (False, RULES, None, [("restrict", RULES), ("explain_denials",)]),
    ],
)
def test_a_worker_confines_itself_before_it_imports_what_starts_threads(
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
    rules: Any,
    why: str | None,
    confines: list[tuple[Any, ...]],
) -> None:
    events: list[tuple[Any, ...]] = []

    def records(name: str, answer: object = None) -> Any:
        def record(*words: object, **named: object) -> object:
            events.append((name, *words, *named.items()))
            return answer

        return record

    names = ("take_notes", "_begin", "limit_resources", "leave_network", "explain_denials")
    for name in (*names, "renew_time", "_import"):
        monkeypatch.setattr(serve, name, records(name))
    monkeypatch.setattr(serve, "restrict", records("restrict", why))
    monkeypatch.setattr(serve, "_has_bytecode", records("has_bytecode", compiled))
    thread = SimpleNamespace(start=records("start"))
    monkeypatch.setattr(threading, "Thread", records("thread", thread))
    large, preload = ("numpy", "onnx", "onnxruntime"), ("json",)
    pipe: Any = Listener(events, pickle.dumps((len, ("abc",))), pickle.dumps((len, (3,))))
    serve.serve(
        pipe, "stage", ("died",), "log", {"A": "1"}, preload, Limits(5.0, 9), rules, 7, True
    )
    *before, first, again, second = events
    assert before == [
        ("take_notes", "stage", ("died",)),
        ("_begin", "log", {"A": "1"}, True),
        ("limit_resources", 5.0, 9),
        *(("has_bytecode", name) for name in (*large, *preload)[: 4 if compiled else 1]),
        ("_import", () if compiled else (*large, *preload)),
        ("leave_network",),
        *confines,
        ("thread", ("target", serve._leave_with), ("args", (7,)), ("daemon", True)),
        ("start",),
        ("_import", preload),
        ("send", b"hello"),
        ("renew_time", 5.0),
    ]
    assert (unpack(first[1]), again) == ([3], ("renew_time", 5.0))
    error, where = unpack(second[1])
    assert isinstance(error, TypeError)
    assert where.startswith('Traceback (most recent call last):\n  File "')
    assert where.endswith("TypeError: object of type 'int' has no len()\n")


def test_a_module_that_cannot_be_imported_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "oh_broken.py").write_text("raise ValueError('broken')")
    (tmp_path / "oh_whole.py").write_text("")
    serve._import(("oh_missing", "oh_broken", "oh_whole"))
    assert "oh_whole" in sys.modules
    monkeypatch.delitem(sys.modules, "oh_whole")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages: one compiled, one not, and one of whose modules one is."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    for name in ("oh_compiled", "oh_fresh"):
        (tmp_path / name / "inner").mkdir(parents=True)
        for file in ("__init__.py", "module.py", "inner/__init__.py"):
            (tmp_path / name / file).write_text("")
    for file in ("__init__.py", "inner/__init__.py"):
        compiled = Path(
            importlib.util.cache_from_source(str(tmp_path / "oh_compiled" / file))
        )
        compiled.parent.mkdir(exist_ok=True)
        compiled.touch()
    (tmp_path / "oh_plain.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("module", "has"),
    [
        ("oh_compiled", True),
        ("oh_compiled.inner", True),
        ("oh_compiled.module", False),
        ("oh_compiled.missing", True),  # whoever needs it meets the error
        ("oh_fresh", False),
        ("oh_fresh.inner", False),
        ("oh_fresh.module", False),
        ("oh_plain", True),  # a single file is soon compiled
        ("oh_nowhere", True),
        ("sys", True),
    ],
)
@pytest.mark.usefixtures("packages")
def test_importing_compiles_what_has_no_bytecode_yet(
    monkeypatch: pytest.MonkeyPatch, module: str, has: bool
) -> None:
    assert serve._has_bytecode(module) is has
    with monkeypatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        assert serve._has_bytecode(module)
    with monkeypatch.context() as patch:
        patch.setattr(sys.implementation, "cache_tag", None)
        assert serve._has_bytecode(module)


@pytest.mark.parametrize("module", ["oh_compiled.module", "oh_fresh"])
def test_where_bytecode_cannot_be_kept_none_is_waited_for(
    packages: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    tested: list[tuple[Path, int]] = []

    def access(folder: Path, mode: int) -> bool:
        tested.append((Path(folder), mode))
        return False

    monkeypatch.setattr(os, "access", access)
    assert serve._has_bytecode(module)
    folder = packages / "oh_compiled" / "__pycache__"
    if module == "oh_fresh":  # it has none yet
        folder = packages / "oh_fresh"
    assert tested == [(folder, os.W_OK)]


def test_a_worker_leaves_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = [7, 7, 1]
    slept: list[float] = []
    left: list[int] = []
    monkeypatch.setattr(os, "getppid", lambda: parents.pop(0))
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(os, "_exit", left.append)
    serve._leave_with(7)
    assert (parents, slept, left) == ([], [1, 1], [1])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "left with exit code 0"),
        (3, "left with exit code 3"),
        (None, "left with exit code None"),
        (-11, "was killed by SIGSEGV (signal 11)"),
        (-9, "was killed by SIGKILL (signal 9)"),
        (-1, "was killed by SIGHUP (signal 1)"),
        (-200, "was killed by a signal (signal 200)"),
    ],
)
def test_an_end_is_told_by_its_code_or_its_signal(code: int | None, words: str) -> None:
    assert worker._manner(code) == f"the worker process {words}"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0.0 KiB"),
        (512, "0.5 KiB"),
        (2**20 - 1, "1024.0 KiB"),
        (2**20, "1.0 MiB"),
        (3 * 2**19, "1.5 MiB"),
        (2**30 - 1, "1024.0 MiB"),
        (2**30, "1.0 GiB"),
        (5 * 2**31, "10.0 GiB"),
    ],
)
def test_memory_is_told_in_powers_of_1024(count: int, words: str) -> None:
    assert worker._gib(count) == words


def test_ctrl_c_is_held_back_and_as_it_was_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with contextlib.suppress(KeyError), worker._interrupts_blocked():
        held = signal.pthread_sigmask(signal.SIG_BLOCK, set())
        raise KeyError
    assert held == before | {signal.SIGINT}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    monkeypatch.delattr(signal, "pthread_sigmask")
    with worker._interrupts_blocked():
        pass


def test_the_user_s_script_is_out_of_the_way_while_a_process_starts() -> None:
    main = sys.modules["__main__"]
    with contextlib.suppress(KeyError), worker._without_main():
        hidden = sys.modules["__main__"]
        raise KeyError
    assert hidden is not main
    assert hidden.__name__ == "__main__"
    assert not hasattr(hidden, "__file__")
    assert sys.modules["__main__"] is main


def bare(**fields: Any) -> Worker:
    """Return a worker without a process."""
    made = Worker.__new__(Worker)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("text", "heard", "words"),
    [
        ("", 0, ""),
        ("\n \n", 0, ""),
        ("one\ntwo  \n", 0, "; it last said: two"),
        ("one\ntwo\n", 4, "; it last said: two"),
        ("one\ntwo\n", 8, ""),
        ("x" * 2100, 0, f"; it last said: {'x' * 2000}"),
        ("x" * 2100, 2099, "; it last said: x"),
    ],
)
def test_the_last_words_are_those_of_this_call(
    tmp_path: Path, text: str, heard: int, words: str
) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    assert bare(_log=log)._last_words(heard) == words
    log.write_bytes(b"\xff\n")
    assert bare(_log=log)._last_words(0) == "; it last said: �"


def test_an_answer_is_a_result_or_an_error_with_its_place() -> None:
    made = bare()
    assert made._read(pack([None])) is None
    assert made._read(pack([[1, 2]])) == [1, 2]
    raised = made._read(pack([ValueError("no"), "w" * 30_000]))
    assert isinstance(raised, worker._Raised)
    assert (repr(raised.error), raised.where) == ("ValueError('no')", "w" * 20_000)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "neither a result nor an error"),
        ([1, 2, 3], "neither a result nor an error"),
        (7, "neither a result nor an error"),
        ((1,), "neither a result nor an error"),
        (["no", "where"], "something that is no error"),
    ],
)
def test_anything_else_is_no_answer(value: object, words: str) -> None:
    with pytest.raises(UnreadableAnswer, match=words):
        bare()._read(pack(value))


@pytest.mark.parametrize(
    ("how", "stage", "remembered"),
    [
        (WorkerCrashed, f"{RISK}a deed", ("earlier", f"{RISK}a deed")),
        (WorkerCrashed, "run", ("earlier",)),
        (WorkerTimedOut, f"{RISK}a deed", ("earlier",)),
        (WorkerOutOfMemory, f"{RISK}a deed", ("earlier",)),
    ],
)
def test_a_crash_at_a_risk_is_remembered(
    how: type[WorkerCrashed], stage: str, remembered: tuple[str, ...]
) -> None:
    made = bare(_stage=SimpleNamespace(value=stage.encode()), _died_of=("earlier",))
    death = made._died(how, "what")
    assert (type(death), death.what, death.stage) == (how, "what", stage)
    assert made._died_of == remembered


def test_a_stage_that_was_cut_in_a_letter_is_told() -> None:
    assert bare(_stage=SimpleNamespace(value="é".encode()[:1])).doing == "�"


def test_the_time_of_calls_can_be_changed_and_the_memory_stays() -> None:
    made = bare(_limits=Limits(5.0, 99))
    made.limit(7.5)
    assert made._limits == Limits(7.5, 99)


def test_memory_of_a_process_that_is_gone_is_none() -> None:
    def gone() -> None:
        raise psutil.NoSuchProcess(1)

    here = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=12.0))
    assert worker._resident_bytes(here) == 12
    assert worker._resident_bytes(SimpleNamespace(memory_info=gone)) == 0


def test_outside_of_a_worker_a_risk_is_taken() -> None:
    done = []
    with risking("a deed"):
        done.append(1)
    assert done == [1]
    assert issubclass(DiedBefore, Exception)
    assert default_memory_bytes() > 0
