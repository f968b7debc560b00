"""A session that is run again on what it was run on first: the second result must be the first's.

Sessions have been seen that are right once: a buffer that is planned for one size, a kernel that
keeps state, a first run that takes another path. Both looks cost a run on the first input set.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.cell.state import RunNote, Subject, Way
from onnx_harness.inputs.graph.chance import random_nodes
from onnx_harness.isolate import noting
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import Verdict, verdict
from onnx_harness.model.file import Model
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.results.workbench import workbench

if TYPE_CHECKING:
    import onnxruntime as ort

AT_ONCE, AT_THE_END = "run a second time", "run again after the other input sets"


@dataclass(frozen=True, slots=True)
class Repeat:
    """Outputs of one more run on the first input set.

    Attributes:
        when: it was run, in words that follow "the first input set".
        outputs: by name.
    """

    when: str
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Runs:
    """The outputs of a session.

    Attributes:
        outputs: by name, on each of the reference's input sets in order.
        repeats: further runs on the first of them.
        again: runs the session on the first of them once more.
        profile: the file with the profile of a run, where one is kept.
    """

    outputs: list[dict[str, Any]]
    repeats: list[Repeat]
    again: Callable[[], dict[str, Any]]
    profile: Path | None


def is_steady(model: Model, reference: Reference) -> bool:
    """Return whether the untouched model gives one result for one input.

    Its nodes and its runs tell, as far as they can.
    """
    if reference.unstable:
        return False
    outputs = reference.outputs[0].keys()
    return not workbench().last(
        "random nodes",
        (model.sha256, list(outputs)),
        lambda: random_nodes(model.skeleton, outputs),
    )


def run_sets(
    way: Way,
    subject: Subject,
    session: ort.InferenceSession,
    session_again: Callable[[], ort.InferenceSession] | None = None,
) -> Runs:
    """The outputs on every input set, and again on the first.

    Args:
        way: of the cell.
        subject: the untouched model and its reference.
        session: of the candidate.
        session_again: opens it once more, where nobody is to hold it meanwhile.
    """
    provider = providers.get(way.task.cell.provider)
    outputs: list[dict[str, Any]] = []
    repeats: list[Repeat] = []
    profile = None
    looks_again = (
        way.task.explained
        and not way.task.cell.card.suite
        and is_steady(subject.model, subject.reference)
    )
    for index, input_set in enumerate(subject.reference.sets):
        with noting(
            str(RunNote(way.task.place(index), bool(input_set.unusual), input_set.name))
        ):
            values = feeds_for(session, input_set.values)
            outputs.append(run(session, values))
            if index == 0 and provider.fallback:
                # A device compiles its kernels in its first run: the next tells where time goes.
                run(session, values)
        if index == 0 and session.get_session_options().enable_profiling:
            profile = Path(session.end_profiling())
        if index == 0 and looks_again:
            repeats.append(_repeated(way, subject, session, AT_ONCE))
    if looks_again and len(outputs) > 1:
        repeats.append(_repeated(way, subject, session, AT_THE_END))
    first = feeds_for(session, subject.reference.sets[0].values)
    if session_again is not None:
        return Runs(outputs, repeats, run_anew(session_again, first), profile)
    return Runs(outputs, repeats, lambda: run(session, first), profile)


def run_anew(
    opened: Callable[[], ort.InferenceSession], values: Mapping[str, Any]
) -> Callable[[], dict[str, Any]]:
    """Return what runs a session once more that nobody holds between two calls.

    A session that is opened anew draws from the start what the first one drew, so each call runs
    it once oftener than the call before.

    Args:
        opened: opens the session.
        values: its inputs by name.
    """
    runs_before = itertools.count(1)

    def run_again() -> dict[str, Any]:
        session = opened()
        for _ in range(next(runs_before)):
            run(session, values)
        return run(session, values)

    return run_again


def _repeated(
    way: Way, subject: Subject, session: ort.InferenceSession, when: str
) -> Repeat:
    """One more run on the first input set."""
    first = subject.reference.sets[0]
    with noting(
        str(RunNote(way.task.place(0), unusual=False, name=f"{first.name}, {when}"))
    ):
        return Repeat(when, run(session, feeds_for(session, first.values)))


def wrong_repeat(
    standard: Standard, outputs: Sequence[Mapping[str, Any]], repeats: Sequence[Repeat]
) -> Verdict | None:
    """Judge the repeated runs, each in the first run's place.

    Results that differ in bits are judged as the first is, since kernels on a device may add in any
    order.

    Args:
        standard: what the outputs are held to.
        outputs: the candidate's outputs on each of the reference's input sets in order.
        repeats: further runs on the first of them.

    Returns:
        A failure that says which run departs; None where the repeats are as right, or as wrong, as
        the first run.
    """
    differing = []
    for repeat in repeats:
        if not _same(repeat.outputs, outputs[0]):
            differing.append(repeat)
    if not differing:
        return None
    first, name = verdict(standard, outputs), standard.reference.sets[0].name
    for repeat in differing:
        again = verdict(standard, [repeat.outputs, *outputs[1:]])
        if first.passed and not again.passed:
            words = (
                f"the first input set ({name}) gives another result when it is {repeat.when}: "
                f"{again.reason}"
            )
            return replace(again, reason=words, failing=(0,))
        if again.passed and not first.passed:
            words = (
                f"the first run alone departs; when its input set ({name}) is {repeat.when}, "
                f"it is right"
            )
            return replace(first, reason=f"{words}: {first.reason}", failing=(0,))
    return None


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two results are the same bit for bit, sequences and maps included."""
    return pickle.dumps(dict(first)) == pickle.dumps(dict(second))
