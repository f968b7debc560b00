"""One trial of a diagnosis: a part of what a cell does, judged as the cell is.

Runs in the worker, which may die of it. What decides is
:func:`onnx_harness.judging.judge.judge_outputs`, as everywhere.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.cell.artifacts import checker_says
from onnx_harness.cell.checks import check_artifact
from onnx_harness.cell.comparison import is_emulated
from onnx_harness.cell.int8_mends import int8_mend_of
from onnx_harness.cell.mends import early_mend_of
from onnx_harness.cell.outputs import simulated_verdict
from onnx_harness.cell.pipeline import judge_alone
from onnx_harness.cell.repeats import AT_THE_END, Repeat, is_steady, wrong_repeat
from onnx_harness.cell.session import NoKernel, lacking_kernel
from onnx_harness.cell.state import Artifact, CellEnded, Findings, RunNote, Way
from onnx_harness.diagnose.bench import Bench, bench_of, open_candidate
from onnx_harness.diagnose.trials import Cost, Outcome, Question, Trial
from onnx_harness.isolate import note_stage, noting
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.mends import mend_of
from onnx_harness.judging.verdict import Verdict, verdict
from onnx_harness.model.file import Model
from onnx_harness.model.interface import interface_changes
from onnx_harness.providers.placement import placement, shortfall
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.results.cells import GraphChange, Stage, Status, Symptom
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    import onnxruntime as ort


def warm(question: Question) -> None:
    """Have at hand what every trial takes: the reference, and the noise that it is judged by.

    And the model, where nodes of it are chosen by verdicts.

    Meant for the worker.
    """
    bench = bench_of(question)
    verdict(bench.standard, bench.standard.reference.outputs)
    if any(step.transform.chosen for step in question.bound.changing):
        # A choice of nodes takes many verdicts: it's the longest part of a trial, and no trial's.
        bench.model(len(question.bound.changing), ())


def time_untouched(question: Question, trial: Trial) -> float:
    """Return the seconds that a trial of the untouched model takes, all of it. For the worker.

    It is opened with optimizations off, run on the input sets of the trial, and judged.
    """
    bench = bench_of(question)
    untouched, model = replace(trial, level="disable", count=0), bench.subject.model
    started = time.monotonic()
    with noting("the untouched model"):
        session = open_candidate(bench, untouched, model)
        outputs, emulated, _ = _outputs(bench, untouched, session, model)
        judge_outputs(bench.standard, outputs, model, emulated=emulated)
    return time.monotonic() - started


def attempt(question: Question, trial: Trial) -> Outcome:
    """Try a part of what a cell does, and judge it. Meant for the worker.

    Returns:
        What came of it. A death of the worker is for the caller to turn into an outcome.
    """
    way = Way(
        question.task,
        found=Findings(graph=GraphChange(0, 0, 0, 0, 0.0)),
        _bound=question.bound,
    )
    bench: list[Bench] = []
    try:
        with way.at(Stage.LOAD, fault=Status.ERROR):
            bench.append(bench_of(question))
        _attempt(way, bench[0], trial)
    except CellEnded as end:
        cost = bench[0].cost() if bench else Cost()
        return Outcome(end.status, way.stage, end.reason, end.symptom, end.failing, cost)
    return Outcome(Status.PASS, Stage.DONE, cost=bench[0].cost())


def _attempt(way: Way, bench: Bench, trial: Trial) -> None:
    with way.at(Stage.TRANSFORM):
        model = bench.model(trial.count, trial.off, named=trial.named)
    if trial.until is Stage.TRANSFORM:
        return
    with way.at(Stage.CHECK):
        _check(way, bench, trial, model)
    if trial.until is Stage.CHECK and bench.question.candidate is None:
        return
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-profile-", ignore_cleanup_errors=True
    ) as scratch:
        with way.at(Stage.SESSION):
            session = _opened(bench, trial, model, Path(scratch) / "profile")
        if trial.until is Stage.SESSION:
            return
        if isinstance(session, NoKernel):
            with way.at(Stage.COMPARE, fault=Status.ERROR):
                bench.count("runs")
                _conclude(
                    simulated_verdict(bench.standard, model, session.on(trial.provider))
                )
            return
        with way.at(Stage.PLACEMENT):
            _prove_placement(way, trial, session)
        with way.at(Stage.RUN):
            outputs, emulated, repeats = _outputs(bench, trial, session, model)
    with way.at(Stage.COMPARE, fault=Status.ERROR):
        first = feeds_for(session, bench.standard.reference.sets[0].values)
        outcome = judge_outputs(
            bench.standard,
            outputs,
            model,
            emulated=emulated,
            again=lambda: run(session, first),
        )
        _conclude(wrong_repeat(bench.standard, outputs, repeats) or outcome)
    if bench.question.candidate is not None:
        with way.at(Stage.CHECK):
            float_io = "float16" if bench.question.float16_io else None
            changes = interface_changes(
                bench.subject.model.signature, model.signature, float_io
            )
            if changes:
                raise CellEnded(
                    Status.FAIL,
                    f"the interface differs: {changes[0]}",
                    symptom=Symptom.CHANGED_TYPES,
                )


def _opened(
    bench: Bench, trial: Trial, model: Model, profile: Path
) -> ort.InferenceSession | NoKernel:
    """Open a candidate's session, as a cell's is: without a kernel in bfloat16 it's simulated."""
    try:
        return open_candidate(bench, trial, model, profile=profile)
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        provider = providers.get(trial.provider)
        lacking = lacking_kernel(error, bench.question.bound, provider)
        if lacking is None:
            raise
        return lacking


def _conclude(outcome: Verdict) -> None:
    """End the trial where the outputs fail.

    Raises:
        CellEnded: they do.
    """
    if not outcome.passed:
        reason = outcome.reason or "the outputs differ"
        raise CellEnded(
            outcome.status, reason, outcome.detail, outcome.symptom, outcome.worst_sets
        )


def _check(way: Way, bench: Bench, trial: Trial, model: Model) -> None:
    """Check the transformed model as a cell's is.

    What the checker says is remembered beside the file.
    """
    if trial.count == 0 or bench.question.candidate is not None:
        return
    check_artifact(
        way, bench.subject, Artifact(model, checker_says(model.path), True, trial.level)
    )
    note_stage(Stage.CHECK)


def _prove_placement(way: Way, trial: Trial, session: ort.InferenceSession) -> None:
    provider = providers.get(trial.provider)
    if not provider.fallback:
        return
    demands = way.task.cell.card.placement.of(provider.name)
    allowed = replace(provider, cpu_ops=provider.cpu_ops.union(demands.allowed_cpu_ops))
    demanded = way.task.settings.min_placement
    least = demands.min_share if demanded is None else demanded
    short = shortfall(placement(session, allowed), allowed, least)
    if short:
        raise CellEnded(Status.FAIL, short)


def _outputs(
    bench: Bench, trial: Trial, session: ort.InferenceSession, model: Model
) -> tuple[list[dict[str, Any]], bool, list[Repeat]]:
    """The outputs on every input set, those that aren't run taken from the reference.

    And whether float16 is emulated.

    An output that isn't run thus is right: a part of the sets costs a part of the time, and is
    judged as all are.
    """
    reference = bench.standard.reference
    chosen = bench.places if trial.places is None else list(trial.places)
    outputs, emulated = [dict(output) for output in reference.outputs], False
    for number, place in enumerate(chosen):
        input_set = reference.sets[place]
        note = RunNote(
            bench.question.task.place(place), bool(input_set.unusual), input_set.name
        )
        with noting(str(note)):
            outputs[place] = run(session, feeds_for(session, input_set.values))
        bench.count("runs")
        if number == 0:
            emulated = is_emulated(
                session, providers.get(trial.provider), half=computes_in_half(model.skeleton)
            )
    looks_again = trial.places is None and not bench.standard.card.suite
    if not looks_again or not is_steady(bench.subject.model, reference):
        return outputs, emulated, []
    bench.count("runs")
    again = run(session, feeds_for(session, reference.sets[0].values))
    return outputs, emulated, [Repeat(AT_THE_END, again)]


def parts_of(question: Question, count: int) -> tuple[str, ...]:
    """Return the names of the parts of a step that can be left out. Meant for the worker."""
    bench = bench_of(question)
    parts = bench.step(count).transform.parts
    return (
        ()
        if parts is None
        else tuple(parts.names(bench.before(count), bench.step(count).options))
    )


def lacks_names(question: Question, count: int) -> bool:
    """Return whether a step is applied to nodes without a name of their own. For the worker."""
    graph = bench_of(question).before(count, named=False).graph
    names = [node.name for node in graph.node]
    return not all(names) or len(set(names)) < len(names)


def mend(question: Question, trial: Trial) -> tuple[str | None, str]:
    """Return what mends a conversion to a half type or a quantization. Meant for the worker.

    See `mend_of` and `int8_mend_of`.

    Args:
        question: what is diagnosed.
        trial: what fails, by the values that its model computes.
    """
    bench = bench_of(question)
    precisions = {step.transform.precision for step in question.bound.changing}
    if Precision.INT8 in precisions and precisions.isdisjoint(
        {Precision.FP16, Precision.BF16}
    ):
        way = Way(question.task, _bound=question.bound)
        return int8_mend_of(way, bench.subject, workbench().cache)
    candidate = bench.model(trial.count, trial.off)
    return mend_of(bench.standard, question.bound, candidate)


def early_mend(question: Question, stage: Stage) -> tuple[str | None, str]:
    """Return what passes in the place of a cell that fails before its values are compared.

    Or by them, where its arithmetic stays float32. Meant for the worker. See `early_mend_of`.

    Args:
        question: what is diagnosed.
        stage: it ends at.
    """
    bench = bench_of(question)
    way = Way(question.task, stage, _bound=question.bound)
    return early_mend_of(way, bench.subject, workbench().cache, judge_alone)
