"""The worker process: every way to die, and that the next call doesn't notice."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from onnx_harness.errors import (
    DiedBefore,
    HarnessError,
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    WorkerOutOfMemory,
    WorkerTimedOut,
)
from onnx_harness.isolate import (
    RISK,
    Limits,
    Worker,
    default_memory_bytes,
    note_stage,
    noted,
    noting,
    risking,
)

MIB = 2**20
PATIENCE = 30.0


class TwoArguments(Exception):
    """Pickles, but can't be built from its pickle: the usual mistake of exception types."""

    def __init__(self, node: str, axis: int) -> None:
        super().__init__(f"node {node}, axis {axis}")


class Unpicklable(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


def answer() -> int:
    return 42


def double(value: int) -> int:
    return 2 * value


def send_signal(number: int) -> None:
    note_stage("transform")
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_talking() -> None:
    os.write(1, b"reading weights\n")
    os.write(2, b"assertion failed: axis < rank\n")
    os.abort()


def leave(code: int) -> None:
    os._exit(code)


def exit_politely() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def eat(count: int) -> None:
    note_stage("session")
    held = bytearray(count)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(600)


def raise_error(error: Exception) -> NoReturn:
    raise error


def raise_value_error() -> None:
    note_stage("check")
    raise ValueError("axis 3 is out of range")


def raise_two_arguments() -> None:
    raise TwoArguments("conv_1", 3)


def raise_unpicklable() -> None:
    raise Unpicklable("the session is gone")


def raise_timeout() -> None:
    raise TimeoutError("the download took too long")


def give_a_lock() -> Any:
    return threading.Lock()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def heavy_modules() -> list[str]:
    return sorted({"onnx", "onnxruntime", "numpy", "hypothesis"} & set(sys.modules))


def die_in_the_answer() -> bytes:
    threading.Timer(0.2, os._exit, (9,)).start()
    return bytes(512 * MIB)


def start_a_child() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def wait_until(holds: Callable[[], bool]) -> bool:
    ends = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < ends:
        time.sleep(0.02)
    return holds()


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for everything: each test proves that those before it left it usable."""
    worker = Worker(Limits(seconds=60, memory_bytes=default_memory_bytes()))
    yield worker
    worker.close()


def test_a_call_runs_in_another_process_and_the_next_one_in_the_same(worker: Worker) -> None:
    first, second = worker.call(os.getpid), worker.call(os.getpid)
    assert first == second != os.getpid()
    assert worker.call(double, 21) == 42


@pytest.mark.parametrize(
    "number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGKILL, signal.SIGBUS]
)
def test_a_signal_is_named_with_the_stage_that_it_struck(
    worker: Worker, number: signal.Signals
) -> None:
    with pytest.raises(
        WorkerCrashed, match=rf"killed by {number.name} \(signal {number.value}\)"
    ) as caught:
        worker.call(send_signal, number)
    assert caught.value.stage == "transform"
    assert worker.call(answer) == 42


def test_a_stage_belongs_to_one_call(worker: Worker) -> None:
    with pytest.raises(ValueError, match="axis"):
        worker.call(raise_value_error)
    with pytest.raises(WorkerCrashed) as caught:
        worker.call(leave, 5)
    assert caught.value.stage == ""


@pytest.mark.parametrize("code", [0, 1, 3])
def test_leaving_is_a_crash_whatever_the_exit_code(worker: Worker, code: int) -> None:
    with pytest.raises(WorkerCrashed, match=f"left with exit code {code}"):
        worker.call(leave, code)
    assert worker.call(answer) == 42


def test_sys_exit_in_a_library_does_not_end_the_parent(worker: Worker) -> None:
    with pytest.raises(WorkerCrashed, match="left with exit code 3"):
        worker.call(exit_politely)
    assert worker.call(answer) == 42


def test_a_keyboard_interrupt_raised_in_the_worker_is_not_one_of_the_user(
    worker: Worker,
) -> None:
    with pytest.raises(
        WorkerCrashed, match=r"left with exit code 1; it last said: KeyboardInterrupt"
    ):
        worker.call(interrupt)


def test_the_last_words_of_a_crash_are_quoted(worker: Worker) -> None:
    with pytest.raises(
        WorkerCrashed,
        match=r"killed by SIGABRT \(signal 6\); it last said: assertion failed: axis <",
    ):
        worker.call(die_talking)


def test_last_words_of_an_earlier_call_are_not_quoted(worker: Worker) -> None:
    worker.call(print, "all is well")
    with pytest.raises(WorkerCrashed) as caught:
        worker.call(leave, 5)
    assert "it last said" not in caught.value.what


def test_what_libraries_print_does_not_reach_the_terminal(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    worker.call(print, "50%")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("function", "args"),
    [(time.sleep, (600,)), (re.match, (r"(a+)+$", "a" * 64 + "b"))],
    ids=["asleep", "holding the interpreter's lock"],
)
def test_a_hang_ends_at_the_time_limit(
    function: Callable[..., object], args: tuple[object, ...]
) -> None:
    worker = Worker(Limits(seconds=1, memory_bytes=default_memory_bytes()))
    try:
        pid = worker.call(os.getpid)
        with pytest.raises(
            WorkerTimedOut, match=r"did not end within 1 s \(--cell-timeout\)"
        ):
            worker.call(function, *args)
        assert is_gone(pid)
        assert worker.call(os.getpid) != pid
    finally:
        worker.close()


def test_memory_that_is_really_used_counts() -> None:
    eater = Worker(Limits(seconds=60, memory_bytes=256 * MIB))
    try:
        with pytest.raises(
            WorkerOutOfMemory, match=r"more than the limit of 256\.0 MiB \(--cell-memory\)"
        ) as caught:
            eater.call(eat, 1024 * MIB)
        assert caught.value.stage == "session"
        assert eater.call(answer) == 42
    finally:
        eater.close()


def test_address_space_that_is_only_reserved_does_not_count() -> None:
    worker = Worker(Limits(seconds=60, memory_bytes=256 * MIB))
    try:
        assert worker.call(reserve, 4096 * MIB) == 4096 * MIB
    finally:
        worker.close()


def reserve(count: int) -> int:
    import mmap

    with mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as reserved:
        time.sleep(0.3)
        return len(reserved)


def test_an_exception_arrives_as_raised_with_its_place_in_a_note(worker: Worker) -> None:
    with pytest.raises(ValueError, match=r"^axis 3 is out of range") as caught:
        worker.call(raise_value_error)
    assert str(caught.value) == "axis 3 is out of range"
    (note,) = caught.value.__notes__
    assert "raise_value_error" in note


def test_an_error_of_ours_keeps_its_fields(worker: Worker) -> None:
    with pytest.raises(WorkerDied) as caught:
        worker.call(raise_error, WorkerTimedOut("did not end", "run"))
    assert (type(caught.value), caught.value.what, caught.value.stage) == (
        WorkerTimedOut,
        "did not end",
        "run",
    )
    with pytest.raises(HarnessError, match="no such axis"):
        worker.call(raise_error, HarnessError("no such axis"))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raise_two_arguments, r"TwoArguments: node conv_1, axis 3"),
        (raise_unpicklable, r"Unpicklable: the session is gone"),
    ],
)
def test_an_exception_that_cannot_travel_is_quoted(
    worker: Worker, function: Callable[[], None], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        worker.call(function)
    assert worker.call(answer) == 42


def test_a_timeout_of_the_function_itself_is_not_the_limit(worker: Worker) -> None:
    with pytest.raises(TimeoutError, match="the download took too long") as caught:
        worker.call(raise_timeout)
    assert not isinstance(caught.value, WorkerDied)


def test_a_result_that_cannot_travel_is_an_error_of_this_call_only(worker: Worker) -> None:
    with pytest.raises(TypeError, match="isn't data"):
        worker.call(give_a_lock)
    assert worker.call(answer) == 42


def test_a_function_that_cannot_travel_is_an_error_of_this_call_only(worker: Worker) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        worker.call(lambda: 42)
    assert worker.call(answer) == 42


def test_a_function_that_the_worker_cannot_import_is_an_error_of_this_call_only(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("nowhere")
    exec("def lost(): ...", module.__dict__)
    monkeypatch.setitem(sys.modules, "nowhere", module)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        worker.call(module.lost)
    assert worker.call(answer) == 42


def test_a_worker_that_dies_between_calls_is_replaced_without_a_word(worker: Worker) -> None:
    pid = worker.call(os.getpid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert worker.call(os.getpid) != pid


def test_dying_in_the_middle_of_an_answer_is_a_crash(worker: Worker) -> None:
    with pytest.raises(WorkerCrashed, match="left with exit code 9"):
        worker.call(die_in_the_answer)
    assert worker.call(answer) == 42


def test_the_environment_is_set_before_anything_of_weight_is_imported() -> None:
    worker = Worker(Limits(60, default_memory_bytes()), {"ONNX_HARNESS_TEST": "set"})
    try:
        assert worker.call(heavy_modules) == []
        assert worker.call(environment, "ONNX_HARNESS_TEST") == "set"
        assert "ONNX_HARNESS_TEST" not in os.environ
    finally:
        worker.close()


def test_noting_a_stage_outside_a_worker_changes_nothing(worker: Worker) -> None:
    note_stage("run")
    with pytest.raises(WorkerCrashed) as caught:
        worker.call(leave, 5)
    assert caught.value.stage == ""


def test_a_stage_longer_than_its_room_is_cut(worker: Worker) -> None:
    with pytest.raises(WorkerCrashed) as caught:
        worker.call(note_and_leave, "ä" * 100)
    assert caught.value.stage.startswith("ä" * 31)


def note_and_leave(stage: str) -> None:
    note_stage(stage)
    os._exit(5)


def test_close_ends_the_worker_its_children_and_its_log() -> None:
    worker = Worker(Limits(60, default_memory_bytes()))
    pid = worker.call(os.getpid)
    child = worker.call(start_a_child)
    worker.close()
    assert is_gone(pid)
    assert wait_until(lambda: is_gone(child))
    assert not worker._log.exists()
    worker.close()
    with pytest.raises(ValueError, match="the worker is closed"):
        worker.call(answer)


def test_an_interrupted_call_leaves_no_answer_for_the_next(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = worker.call(os.getpid)

    def ctrl_c(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_harness.isolate.worker._resident_bytes", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        worker.call(time.sleep, 1)
    monkeypatch.undo()
    assert is_gone(pid)
    assert worker.call(answer) == 42


def parent_script(folder: Path, body: str) -> subprocess.Popen[str]:
    """A process of its own group that has a worker, whose pid it prints before ``body`` runs."""
    script = folder / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, re, signal, sys, time
            from onnx_harness.isolate import Limits, Worker

            if __name__ == "__main__":
                worker = Worker(Limits(300, 2**40))
                print(worker.call(os.getpid), flush=True)
            """
        )
        + textwrap.indent(textwrap.dedent(body), "    ")
    )
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def first_number(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def remaining_output(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    process.wait(timeout=PATIENCE)
    return process.stdout.read()


@pytest.mark.parametrize(
    "busy",
    [
        "time.sleep(600)",
        "worker.call(time.sleep, 600)",
        "worker.call(re.match, '(a+)+$', 'a' * 64 + 'b')",
    ],
)
def test_a_worker_leaves_when_its_parent_is_killed_outright(
    tmp_path: Path, busy: str
) -> None:
    with parent_script(tmp_path, busy) as parent:
        pid = first_number(parent)
        assert not is_gone(pid)
        parent.kill()
        assert wait_until(lambda: is_gone(pid))


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_call_in_the_parent_and_the_worker_by_close(tmp_path: Path) -> None:
    body = """
        try:
            worker.call(time.sleep, 600)
        except KeyboardInterrupt:
            print("interrupted", worker.call(str, "the worker lives"), flush=True)
            worker.close()
    """
    with parent_script(tmp_path, body) as parent:
        pid = first_number(parent)
        time.sleep(0.3)
        os.killpg(parent.pid, signal.SIGINT)
        out = remaining_output(parent)
        assert (out, parent.returncode) == ("interrupted the worker lives\n", 0)
        assert is_gone(pid)


def test_ctrl_c_alone_does_not_end_a_worker(tmp_path: Path) -> None:
    body = """
        signal.signal(signal.SIGINT, lambda *_: None)
        print(worker.call(time.sleep, 1), worker.call(os.getpid), flush=True)
    """
    with parent_script(tmp_path, body) as parent:
        pid = first_number(parent)
        time.sleep(0.3)
        os.killpg(parent.pid, signal.SIGINT)
        out = remaining_output(parent)
        assert out == f"None {pid}\n"


def test_a_parent_that_forgets_to_close_still_ends(tmp_path: Path) -> None:
    with parent_script(tmp_path, "print('done', flush=True)") as parent:
        pid = first_number(parent)
        out = remaining_output(parent)
        assert (out, parent.returncode) == ("done\n", 0)
        assert is_gone(pid)


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_harness.isolate.worker.serve", _never_starts)
    worker = Worker(Limits(60, default_memory_bytes()))
    try:
        with pytest.raises(
            WorkerNotStarted,
            match="can't be started: the worker process left with exit code 7",
        ):
            worker.call(answer)
    finally:
        worker.close()


def test_a_machine_without_room_for_a_process_is_told_of_and_the_next_call_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: SpawnProcess) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as full:
        full.setattr(SpawnProcess, "start", refuse)
        with pytest.raises(
            WorkerNotStarted, match=r"can't be started: .*Resource temporarily unavailable"
        ):
            Worker(Limits(60, default_memory_bytes()))
    worker = Worker(Limits(60, default_memory_bytes()))
    try:
        with monkeypatch.context() as full:
            full.setattr(SpawnProcess, "start", refuse)
            with pytest.raises(WorkerCrashed):
                worker.call(leave, 3)
            with pytest.raises(WorkerNotStarted):
                worker.call(answer)
        assert worker.call(answer) == 42
    finally:
        worker.close()


def _never_starts(*_: object) -> None:
    os._exit(7)


def test_the_default_memory_limit_leaves_the_machine_a_quarter() -> None:
    assert 0 < default_memory_bytes() <= psutil.virtual_memory().total * 3 // 4


def interruptible() -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_process_is_started_with_ctrl_c_held_back_until_it_ignores_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[bool] = []
    really = SpawnProcess.start

    def start(self: SpawnProcess) -> None:
        held.append(not interruptible())
        really(self)

    monkeypatch.setattr(SpawnProcess, "start", start)
    worker = Worker(Limits(seconds=PATIENCE, memory_bytes=1000 * MIB))
    try:
        # Not inherited by what the worker itself starts, which would never hear of it.
        assert worker.call(interruptible)
    finally:
        worker.close()
    assert held == [True]
    assert interruptible()


def risk(what: str) -> str:
    with contextlib.suppress(ValueError), risking("something that raises"):
        raise ValueError
    with risking(what):
        os.kill(os.getpid(), signal.SIGSEGV)
    return "survived"


def note_after() -> str:
    with noting("load"):
        with contextlib.suppress(ValueError), risking("something that raises"):
            raise ValueError
        return noted()


def test_what_a_process_died_of_is_not_tried_again() -> None:
    worker = Worker(Limits(PATIENCE, 8 * 1024 * MIB))
    try:
        with pytest.raises(WorkerCrashed) as death:
            worker.call(risk, "a deed")
        assert death.value.stage == f"{RISK}a deed"
        with pytest.raises(DiedBefore, match="dies of it"):
            worker.call(risk, "a deed")
        with pytest.raises(WorkerCrashed):
            worker.call(risk, "another one")
        assert worker.call(note_after) == "load"
    finally:
        worker.close()


def hang(what: str, seconds: float) -> str:
    with risking(what):
        time.sleep(seconds)
    return "survived"


def test_what_a_process_was_only_too_slow_for_is_tried_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.call(hang, "a deed", 0) == "survived"  # imports what the next call needs
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_limits", Limits(1, 8 * 1024 * MIB))
        with pytest.raises(WorkerTimedOut) as caught:
            worker.call(hang, "a deed", 600)
    assert caught.value.stage == f"{RISK}a deed"
    assert worker.call(hang, "a deed", 0) == "survived"
