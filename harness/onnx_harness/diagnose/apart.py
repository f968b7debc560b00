"""A trial in a process of its own, forked from the worker: one that dies or hangs costs milliseconds, not a worker.

The fork has all that the worker has loaded. It opens its own sessions, and the worker runs none meanwhile. Not for
devices: their drivers don't survive a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time

from onnx_harness.answers import pack, unpack
from onnx_harness.cell.state import RunNote
from onnx_harness.diagnose.trials import Cost, Outcome, Question, Trial, attempt, bench_of
from onnx_harness.isolate import noted
from onnx_harness.results.cells import Stage, Status, Symptom

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CHUNK = 1 << 16


def attempt_apart(question: Question, trial: Trial, seconds: float) -> Outcome:
    """Try a part of what a cell does in a forked process. Meant for the worker.

    Args:
        question: what is diagnosed.
        trial: the part.
        seconds: that it may take.

    Returns:
        What came of it; its death is a failure like any other.
    """
    bench_of(question)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(question, trial, writing)
    os.close(writing)
    try:
        answer, in_time = _read(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not in_time:
        return of_note(noted(), f"the process did not end within {seconds:.3g} s")
    if answer:
        outcome: Outcome = unpack(answer)
        return outcome
    return of_note(noted(), _manner(status))


def of_note(stage: str, words: str) -> Outcome:
    """Return the outcome of a trial whose process died, by what it last noted."""
    cost = Cost(transforms=1, sessions=1)
    note = RunNote.read(stage)
    if note is not None:
        return Outcome(Status.FAIL, Stage.RUN, words, Symptom.CRASH, (note.place,), cost)
    known = {named.value: named for named in Stage}
    return Outcome(Status.FAIL, known.get(stage, Stage.LOAD), words, Symptom.CRASH, cost=cost)


def _answer(question: Question, trial: Trial, pipe: int) -> None:
    """The life of the forked process: it never returns."""
    try:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            outcome = attempt(question, trial)
        except Exception as error:  # of the harness itself
            outcome = Outcome(Status.ERROR, Stage.LOAD, f"{type(error).__name__}: {error}".splitlines()[0])
        data = pack(outcome)
        while data:
            data = data[os.write(pipe, data) :]
    finally:
        os._exit(0)


def _read(pipe: int, ends: float) -> tuple[bytes, bool]:
    """All that comes through the pipe until it is closed; and whether that was in time."""
    answer = b""
    while True:
        left = ends - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return answer, False
        part = os.read(pipe, _CHUNK)
        if not part:
            return answer, True
        answer += part


def _manner(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "a signal"
        return f"the process was killed by {name} (signal {number})"
    return f"the process left with exit code {os.WEXITSTATUS(status)}"
