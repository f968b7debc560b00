"""Compare a cell's outputs with the reference's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.cell import artifacts
from onnx_harness.cell.int8_mends import tried_int8_mend
from onnx_harness.cell.repeats import Runs, wrong_repeat
from onnx_harness.cell.state import Artifact, CellEnded, Subject, Way
from onnx_harness.errors import NotApplicable
from onnx_harness.judging.emulation import judge_simulated
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.mends import tried_mend
from onnx_harness.judging.verdict import Verdict
from onnx_harness.providers.profile import EMULATED
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import BF16_SIMULATED, AccuracyRecord, Status, Symptom
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    from onnx_harness.judging.standard import Standard
    from onnx_harness.model.file import Model
from onnx_harness.cell.session import NoKernel


def compare(
    way: Way, subject: Subject, artifact: Artifact, runs: Runs, cache: Cache
) -> None:
    """The outputs are the reference's, and would be where float16 computes.

    See :mod:`onnx_harness.judging.verdict`.
    """
    judged_standard = artifacts.judged_by(way, subject, cache)
    placement = way.found.placement
    emulated = placement is not None and placement.precision in EMULATED
    outcome = judge_outputs(
        judged_standard, runs.outputs, artifact.model, emulated=emulated, again=runs.again
    )
    outcome = wrong_repeat(judged_standard, runs.outputs, runs.repeats) or outcome
    way.found = replace(
        way.found,
        accuracy=_record(outcome.comparison),
        accuracy_emulated=_record(outcome.emulated),
        accuracy_simulated=_record(outcome.simulated),
    )
    way.notes += outcome.notes
    if not outcome.passed:
        reason, detail = outcome.reason or "the outputs differ", outcome.detail
        halved = way.bound.precision in (Precision.FP16, Precision.BF16)
        mends = way.task.mending and outcome.of_values
        if mends and (emulated or halved):
            detail = (*detail, tried_mend(judged_standard, way.bound, artifact.model))
        elif mends and way.bound.precision is Precision.INT8:
            mend = tried_int8_mend(way, subject, cache)
            detail = (*detail, mend) if mend else detail
        raise CellEnded(outcome.status, reason, detail, outcome.symptom, outcome.worst_sets)
    _judge_recorded(way, subject)


def compare_simulated(
    way: Way, subject: Subject, artifact: Artifact, lacking: NoKernel, cache: Cache
) -> None:
    """Judge the outputs of a model that the provider has no kernels for.

    They're judged as bfloat16 would give them.
    """
    cell = way.task.cell
    why = lacking.on(cell.provider)
    if not way.task.explained:
        raise CellEnded(Status.NOT_APPLICABLE, why, symptom=Symptom.NOT_RUN)
    judged_standard = artifacts.judged_by(way, subject, cache)
    outcome = simulated_verdict(judged_standard, artifact.model, why)
    if outcome.comparison is not None:
        record = outcome.comparison.record
        way.found = replace(way.found, accuracy=record, accuracy_simulated=record)
    way.notes += (*outcome.notes, f"{BF16_SIMULATED}: {why}")
    if not outcome.passed:
        reason, detail = outcome.reason or "the outputs differ", outcome.detail
        if outcome.of_values and way.task.mending:
            detail = (*detail, tried_mend(judged_standard, way.bound, artifact.model))
        raise CellEnded(outcome.status, reason, detail, outcome.symptom, outcome.worst_sets)
    _judge_recorded(way, subject)


def simulated_verdict(judged_standard: Standard, candidate: Model, why: str) -> Verdict:
    """Judge a model that a provider has no kernels for, as bfloat16 would compute it.

    Args:
        judged_standard: what its outputs are judged by.
        candidate: the model.
        why: it can't be run.

    Raises:
        CellEnded: it can't be simulated either.
    """
    try:
        outcome = judge_simulated(judged_standard, candidate)
    except NotApplicable as error:
        raise CellEnded(
            Status.NOT_APPLICABLE, f"{why}, and {error}", symptom=Symptom.NOT_RUN
        ) from error
    if outcome.passed:
        return outcome
    words = outcome.reason or "the outputs differ"
    return replace(outcome, reason=f"bfloat16 as hardware computes it departs: {words}")


def _judge_recorded(way: Way, subject: Subject) -> None:
    """The untouched model gives the outputs that were recorded beside it.

    Its own cell says so, the others note it.
    """
    missed = subject.missed
    if missed is None:
        return
    words = f"the untouched model misses the outputs recorded beside it: {missed.reason()}"
    if way.task.cell.variant.steps or way.task.cell.card.recorded_outputs == "note":
        way.notes.append(words)
        return
    places = Verdict(Status.FAIL, missed).worst_sets
    lines = (
        *missed.lines(),
        'Accept it in the card, where the record is the worse: [recorded] outputs = "note"',
    )
    symptom = Symptom.WRONG_VALUES if missed.only_values else Symptom.CHANGED_TYPES
    raise CellEnded(Status.FAIL, words, lines, symptom, places)


def _record(comparison: Comparison | None) -> AccuracyRecord | None:
    return None if comparison is None else comparison.record
