"""A trial in a process of its own, forked from the worker.

One that dies or hangs costs milliseconds, not a worker.

The fork has all that the worker has loaded. It opens its own sessions, and the worker runs none
meanwhile. Not for
devices: their drivers don't survive a fork.
"""

from __future__ import annotations

from onnx_harness.cell.state import RunNote, stage_of
from onnx_harness.diagnose.attempts import attempt
from onnx_harness.diagnose.bench import bench_of
from onnx_harness.diagnose.forked import forked, manner_of
from onnx_harness.diagnose.trials import Cost, Outcome, Question, Trial
from onnx_harness.errors import named
from onnx_harness.isolate import noted
from onnx_harness.isolate.answers import pack, unpack
from onnx_harness.results.cells import Stage, Status, Symptom


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
    end = forked(lambda say: say(pack(_attempted(question, trial))), seconds)
    if not end.in_time:
        return of_note(noted(), too_long(seconds))
    if end.said:
        outcome: Outcome = unpack(end.said)
        return outcome
    return of_note(noted(), manner_of(end.status))


def too_long(seconds: float) -> str:
    """Return the reason of a trial that was given up."""
    return f"the process did not end within {seconds:.3g} s"


def of_note(stage: str, words: str) -> Outcome:
    """Return the outcome of a trial whose process died, by what it last noted."""
    cost = Cost(transforms=1, sessions=1)
    note = RunNote.read(stage)
    if note is not None:
        return Outcome(Status.FAIL, Stage.RUN, words, Symptom.CRASH, (note.place,), cost)
    return Outcome(Status.FAIL, stage_of(stage)[0], words, Symptom.CRASH, cost=cost)


def _attempted(question: Question, trial: Trial) -> Outcome:
    try:
        return attempt(question, trial)
    except Exception as error:  # of the harness itself
        return Outcome(Status.ERROR, Stage.LOAD, named(error))
