"""Judge one cell, stage by stage.

load -> transform -> check -> session -> placement -> run -> compare -> latency.

Everything up to ``compare`` happens in the worker process (:func:`judge`). Latency is taken in the
process that owns the pytest-benchmark fixture (:func:`time_cell`), from models that have passed.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.accuracy.compare import Comparison
from onnx_harness.cards.card import PlacementSpec
from onnx_harness.cell import artifacts
from onnx_harness.cell.generation import check_generation, judge_decoding
from onnx_harness.cell.repeats import Runs, run_sets, wrong_repeat
from onnx_harness.cell.state import Artifact, CellEnded, Findings, Judged, Subject, Task, Way
from onnx_harness.errors import InputError, ModelError, NotApplicable, first_line
from onnx_harness.inputs import InputSet, reached
from onnx_harness.inputs.decisions.coverage import Coverage
from onnx_harness.inputs.values.sets import arrays_of, digest_of
from onnx_harness.judging.emulation import judge_simulated
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.influence import influence
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.mends import tried_mend
from onnx_harness.judging.recorded import missed
from onnx_harness.judging.reference import Reference, given, recorded_files, reference
from onnx_harness.judging.runs import MOST_BYTES
from onnx_harness.judging.verdict import Verdict, session_config
from onnx_harness.latency import measure
from onnx_harness.latency.plain import PlainRounds
from onnx_harness.latency.sessions import keeps_to_its_threads, timed_session
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.custom_ops import custom_operators
from onnx_harness.model.file import Model, has_loops, node_count
from onnx_harness.model.interface import interface_changes
from onnx_harness.providers import Provider
from onnx_harness.providers.placement import assignments, shortfall
from onnx_harness.providers.placement import judge as judge_placement
from onnx_harness.providers.profile import EMULATED, breach, contradiction, precision, read_profile
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import (
    BF16_SIMULATED,
    AccuracyRecord,
    CellResult,
    CoverageRecord,
    GraphChange,
    PlacementRecord,
    Reached,
    Stage,
    Status,
    Symptom,
)
from onnx_harness.results.timings import LatencyRecord
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    import onnxruntime as ort

# What ONNX Runtime says of an operator and its types for which the provider, and the CPU behind it,
# have nothing: that, or what is wrong with the definition that it puts in the operator's place,
# which may be older than bfloat16.
_NO_KERNEL = re.compile(
    r"Could not find an implementation for (\w+)"
    r"|Type 'tensor\(bfloat16\)' of input parameter \(.*\) of operator \((\w+)\)"
)


def judge(task: Task) -> Judged:
    """Take a cell from ``load`` to ``compare``.

    Meant to run in a worker: it may crash, hang or eat memory.
    """
    way = Way(task)
    bench = workbench()
    # A case is quicker made again than thousands are kept; its variants share what is made of it.
    cache = bench.passing_cache(task.model) if task.cell.card.suite else bench.cache
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-profile-", ignore_cleanup_errors=True
    ) as scratch:
        return _judge(way, cache, Path(scratch))


def _judge(way: Way, cache: Cache, scratch: Path) -> Judged:
    try:
        with way.at(
            Stage.LOAD, fault=Status.ERROR
        ):  # what is wrong with the model itself is a ModelError
            subject = _load(way, cache)
        with way.at(Stage.TRANSFORM):
            artifact = artifacts.transformed(way, subject, cache)
        with way.at(Stage.CHECK):
            check_artifact(way, subject, artifact)
        with way.at(Stage.SESSION):
            session = _session(way, subject, artifact, scratch)
        if isinstance(session, _NoKernel):
            with way.at(Stage.COMPARE, fault=Status.ERROR):
                _compare_simulated(way, subject, artifact, session, cache)
            # There is no model that could be timed here.
            return Judged(way.result(Status.PASS), None, artifact.level)
        with way.at(Stage.PLACEMENT):
            assigned = _prove_placement(way, session)
        with way.at(Stage.RUN):
            again = _reopening(way, subject, artifact, scratch)
            runs = run_sets(way, subject, session, again)
            if again is not None:
                del session  # the noise floor's sessions hold as much
        with way.at(Stage.PLACEMENT):
            _cross_check(way, assigned, runs.profile, artifact)
        with way.at(Stage.COMPARE, fault=Status.ERROR):
            _compare(way, subject, artifact, runs, cache)
            if way.task.cell.card.generate is not None:
                judged_standard = artifacts.judged_by(way, subject, cache)
                opened = again or (lambda: session)
                judge_decoding(way, subject, opened, judged_standard)
    except CellEnded as end:
        failing = tuple(way.task.place(place) for place in end.failing)
        return Judged(way.result(end.status, end.reason, end.detail, end.symptom), failing=failing)
    return Judged(way.result(Status.PASS), artifact.model.path, artifact.level)


def timing_inputs(task: Task) -> list[dict[str, Any]]:
    """The input sets to time a cell on.

    Meant to run in the worker, which has what :func:`judge` used at hand.

    Those of the first set's shapes, since a latency is that of one size; and no unusual ones:
    arithmetic on subnormal numbers alone is many times slower.
    """
    reference_sets = subject_of(task).reference
    usual = [reference_sets.sets[place] for place in reference_sets.everyday]
    input_sets: list[dict[str, Any]] = []
    for input_set in usual:
        if shapes(input_set) == shapes(usual[0]):
            input_sets.append(dict(input_set.values))
    return input_sets


def shapes(inputs: InputSet) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of a set's tensors by input."""
    shapes_by_name: dict[str, list[tuple[int, ...]]] = {}
    for name, value in inputs.values.items():
        shapes_by_name[name] = [array.shape for array in arrays_of(value)]
    return shapes_by_name


def subject_of(task: Task) -> Subject:
    """Return what :func:`judge` judged against.

    Meant to run in the worker, which has it at hand.
    """
    subject = _subject(task, workbench().cache)[0]
    return replace(subject, reference=_without(subject.reference, task.skipped))


def artifact_of(task: Task) -> Artifact:
    """Return what :func:`judge` judged.

    Meant to run in the worker: it comes from the cache, but a transform may run again.
    """
    cache = workbench().cache
    subject, graph = _subject(task, cache)
    return artifacts.transformed(Way(task, found=Findings(graph=graph)), subject, cache)


def place_of_artifact(task: Task) -> tuple[Path, str]:
    """Return the file of what `judge` judged, and ONNX Runtime's level for it.

    What a worker can answer.
    """
    artifact = artifact_of(task)
    return artifact.model.path, artifact.level


def time_by_itself(task: Task, result: CellResult) -> LatencyRecord | None:
    """Time a cell that passed, as :func:`time_cell` does, without pytest-benchmark's fixture.

    Meant to run in the worker of another machine, where no process but that one opens a model.
    """
    path, level = place_of_artifact(task)
    return time_cell(task, Judged(result, path, level), timing_inputs(task), PlainRounds())


def run_untouched(task: Task, place: int) -> None:
    """Run the untouched model on one of the reference's input sets.

    It runs on the cell's provider and at its level.

    Meant to run in the worker, after a worker died of that set with the transformed model: if this
    one dies too, the crash is ONNX Runtime's own and says nothing about the variant.

    Args:
        task: the cell.
        place: the set's position in the reference, from 0.
    """
    provider, level = providers.get(task.cell.provider), artifact_of(task).level
    session = open_session(task.model, provider, purpose=Purpose.ACCURACY, level=level)
    run(session, subject_of(replace(task, skipped=())).reference.sets[place].values)


def _load(way: Way, cache: Cache) -> Subject:
    """The model, its input sets, and the outputs of the reference."""
    try:
        subject, graph = _subject(way.task, cache)
    except (ModelError, InputError) as error:
        if not way.task.cell.card.suite:
            raise
        # ONNX Runtime has no kernel for every operator, nor does each type pass between it and
        # Python.
        raise CellEnded(
            Status.NOT_APPLICABLE, first_line(error), symptom=Symptom.NOT_RUN
        ) from error
    model = subject.model
    way.found = replace(way.found, model_sha256=model.sha256, opset=model.opset, graph=graph)
    subject = replace(subject, reference=_without(subject.reference, way.task.skipped))
    way.found = replace(way.found, inputs_sha256=digest_of(subject.reference.sets))
    if way.task.cell.card.suite and subject.missed is not None:
        reason = f"ONNX Runtime itself departs from the suite: {subject.missed.reason()}"
        raise CellEnded(Status.NOT_APPLICABLE, reason, symptom=Symptom.NOT_RUN)
    way.notes += subject.reference.notes
    _cover(way, subject, cache)
    return subject


def _without(reference: Reference, skipped: tuple[int, ...]) -> Reference:
    """The reference without the input sets at those positions."""
    if not skipped:
        return reference
    places = [place for place in range(len(reference.sets)) if place not in skipped]
    return replace(
        reference,
        sets=tuple(reference.sets[place] for place in places),
        outputs=tuple(reference.outputs[place] for place in places),
    )


def _cover(way: Way, subject: Subject, cache: Cache) -> None:
    """Record what the input sets reach of what the model decides by.

    Where that is little, a remark says so.
    """
    key = (subject.model.sha256, way.found.inputs_sha256)
    coverage, low = workbench().last("coverage", key, lambda: _coverage(way.task, subject, cache))
    way.found = replace(way.found, coverage=coverage)
    way.notes += [low] if low else []


def _coverage(task: Task, subject: Subject, cache: Cache) -> tuple[CoverageRecord | None, str]:
    try:
        seen = reached(subject.model.skeleton, task.cell.card.inputs, subject.reference.sets)
    except InputError:  # of inputs that nobody could make, and that were recorded
        seen = Coverage()
    if task.explained and not task.cell.card.suite:
        counts, notes = influence(subject.model, subject.reference, cache)
        seen = Coverage(seen.kinds | counts, (*seen.notes, *notes))
    kinds = {kind: Reached(*counts) for kind, counts in seen.kinds.items()}
    record = CoverageRecord(kinds, notes=seen.notes) if kinds or seen.notes else None
    return record, seen.low()


def _subject(task: Task, cache: Cache) -> tuple[Subject, GraphChange]:
    """The subject and the size of its graph.

    The last one is remembered: cells come model by model.
    """
    card, settings = task.cell.card, task.settings
    check_bounds(task.model, settings.cell_memory, trusted=settings.trust_models)
    recorded = [task.recorded] if task.recorded is not None else recorded_files(card, task.model)
    files = [task.model, *recorded, *Model(task.model).external_files]
    states = []
    for file in files:
        if file.is_file():
            states.append((file, file.stat().st_mtime_ns, file.stat().st_size))
    chosen = (settings.input_sets, settings.seed, settings.tolerance_override, settings.custom_ops)
    key = (states, card, *chosen, task.unusual)
    return workbench().last("subject", key, lambda: _read_subject(task, cache))


def _read_subject(task: Task, cache: Cache) -> tuple[Subject, GraphChange]:
    card, settings = task.cell.card, task.settings
    model = Model(task.model, card.name)
    card.check_outputs([output.name for output in model.signature.outputs])
    card.check_providers(providers.registry())
    check_generation(model, card.generate)
    nodes, size = node_count(model.skeleton.graph), model.size_bytes
    if task.recorded is not None:
        answers = given(model, task.recorded)
    else:
        answers = reference(model, card, settings, cache, unusual=task.unusual)
    subject = Subject(model, answers, missed(model, answers, card, settings, cache))
    return subject, GraphChange(nodes, nodes, size, size, 0.0)


def check_artifact(way: Way, subject: Subject, artifact: Artifact) -> None:
    """Check that the transformed model is valid ONNX.

    Its callers must notice no difference in what it takes and gives.
    """
    if not artifact.transformed:
        return
    if artifact.check is not None:
        original = artifacts.checker_says(subject.model.path)
        if original is None:
            reason = f"the ONNX checker rejects the transformed model: {artifact.check}"
            raise CellEnded(Status.FAIL, reason, symptom=Symptom.INVALID)
        way.notes.append(f"the ONNX checker rejects the original too: {original}")
    fixed = way.bound.fixed_shapes
    for input_set in subject.reference.sets:
        for name, shape in fixed.items():
            if name in input_set.values and shapes(input_set)[name] != [shape]:
                raise CellEnded(
                    Status.NOT_APPLICABLE,
                    f"the variant fixes the shape of input '{name}' at {list(shape)}, and the "
                    f"input sets have others. "
                    f"Mend: shapes = [{list(shape)}] under [inputs.{name}] of the model's card",
                )
    differences = interface_changes(
        subject.model.signature, artifact.model.signature, way.bound.float_io, fixed
    )
    if differences:
        reason = f"the model's interface changed: {differences[0]}"
        raise CellEnded(Status.FAIL, reason, tuple(differences[1:]), Symptom.CHANGED_TYPES)


@dataclass(frozen=True, slots=True)
class _NoKernel:
    """An operator that a provider doesn't have in bfloat16."""

    operator: str


def _session(
    way: Way, subject: Subject, artifact: Artifact, scratch: Path
) -> ort.InferenceSession | _NoKernel:
    provider = providers.get(way.task.cell.provider)
    profile = scratch / "profile" if _is_profiled(way, artifact) else None
    accuracy, level = Purpose.ACCURACY, artifact.level
    config = session_config(subject.model, way.bound, artifact.model.skeleton)
    try:
        return open_session(
            artifact.model.path,
            provider,
            purpose=accuracy,
            level=level,
            profile=profile,
            config=config,
        )
    except Exception as error:
        # The model is valid, as its check has shown: which types a provider computes in is a fact
        # about the provider.
        missing = _NO_KERNEL.search(str(error))
        if missing is not None and any(
            step.transform.precision is Precision.BF16 for step in way.bound.steps
        ):
            operator = missing[1] or missing[2]
            if not provider.fallback:  # of the CPU nobody asks to be the hardware
                return _NoKernel(operator)
            raise NotApplicable(
                f"provider '{provider.name}' has no {operator} in bfloat16"
            ) from error
        raise


def _reopening(
    way: Way, subject: Subject, artifact: Artifact, scratch: Path
) -> Callable[[], ort.InferenceSession] | None:
    """Return what opens the session of a large model again, which nobody holds beside another."""
    if artifact.model.size_bytes <= MOST_BYTES:
        return None

    def opened() -> ort.InferenceSession:
        session = _session(way, subject, artifact, scratch)
        assert not isinstance(session, _NoKernel)
        return session

    return opened


def _is_profiled(way: Way, artifact: Artifact) -> bool:
    """Return whether a run is profiled: a device's always, since another one may do its work.

    On the CPU the profile tells no more than what float16 became. A loop's costs more than the
    loop, and one of each of a suite's cases takes longer than the case.
    """
    if providers.get(way.task.cell.provider).fallback:
        return True
    if way.task.cell.card.suite or not way.task.explained:
        return False
    return not has_loops(artifact.model.skeleton.graph) or computes_in_half(artifact.model.skeleton)


def _contract(way: Way) -> tuple[Provider, PlacementSpec]:
    """Return the provider, with what the card allows it to leave to the CPU.

    The second item is what the card asks of it.
    """
    provider = providers.get(way.task.cell.provider)
    demands = way.task.cell.card.placement.of(provider.name)
    if (
        not provider.fallback
    ):  # nothing stands behind the CPU: a card can't ask less of it than everything
        return provider, PlacementSpec()
    return replace(provider, cpu_ops=provider.cpu_ops.union(demands.allowed_cpu_ops)), demands


def _prove_placement(way: Way, session: ort.InferenceSession) -> Counter[tuple[str, str]]:
    """The nodes are assigned where they were asked to be.

    ONNX Runtime falls back to the CPU without an error.

    Where it hangs on what may be arithmetic on shapes, the profile of a run will tell: see
    :func:`_cross_check`.
    """
    provider, _ = _contract(way)
    assigned = assignments(session, provider)
    at_best = _judge_placement(way, assigned, assigned if provider.fallback else Counter())
    short = _judge_placement(way, assigned, Counter())
    if at_best is not None:
        raise CellEnded(Status.FAIL, short or at_best)
    return assigned


def _judge_placement(
    way: Way, assigned: Counter[tuple[str, str]], sizes: Counter[tuple[str, str]]
) -> str | None:
    """Why too many nodes are assigned elsewhere, or None.

    ``sizes`` are those that compute nothing but shapes.
    """
    provider, demands = _contract(way)
    judged = judge_placement(assigned, provider, sizes)
    record = PlacementRecord(
        judged.requested, dict(judged.nodes), dict(judged.off_provider_ops), judged.share
    )
    way.found = replace(way.found, placement=record)
    demanded = way.task.settings.min_placement
    return shortfall(judged, provider, demands.min_share if demanded is None else demanded)


def _cross_check(
    way: Way, assigned: Counter[tuple[str, str]], file: Path | None, artifact: Artifact
) -> None:
    """The nodes ran where they are assigned, and as the card asks.

    ``file`` is the profile of a run.
    """
    provider, demands = _contract(way)
    if file is None:
        return
    profile = read_profile(file, provider)
    short = _judge_placement(way, assigned, profile.sizes)
    assert way.found.placement is not None
    ran = replace(
        way.found.placement,
        executed=profile.executed(),
        time_share=profile.time_share(provider),
        memcpy=profile.copies,
        inserted_casts=profile.inserted_casts,
        arithmetic=dict(profile.arithmetic.most_common()),
        precision=precision(
            profile, provider, wants_half=computes_in_half(artifact.model.skeleton)
        ),
    )
    way.found = replace(way.found, placement=ran)
    reason = (
        short
        or contradiction(assigned, profile, provider)
        or breach(
            profile, provider, min_time_share=demands.min_time_share, max_copies=demands.max_memcpy
        )
    )
    if reason is not None:
        raise CellEnded(Status.FAIL, reason)


def _compare(way: Way, subject: Subject, artifact: Artifact, runs: Runs, cache: Cache) -> None:
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
        if emulated and outcome.symptom is Symptom.WRONG_VALUES:
            detail = (*detail, tried_mend(judged_standard, way.bound, artifact.model))
        raise CellEnded(outcome.status, reason, detail, outcome.symptom, outcome.worst_sets)
    _judge_recorded(way, subject)


def _record(comparison: Comparison | None) -> AccuracyRecord | None:
    return None if comparison is None else comparison.record


def _compare_simulated(
    way: Way, subject: Subject, artifact: Artifact, lacking: _NoKernel, cache: Cache
) -> None:
    """Judge the outputs of a model that the provider has no kernels for.

    They're judged as bfloat16 would give them.
    """
    cell = way.task.cell
    why = f"provider '{cell.provider}' has no {lacking.operator} in bfloat16"
    if not way.task.explained:
        raise CellEnded(Status.NOT_APPLICABLE, why, symptom=Symptom.NOT_RUN)
    try:
        outcome = judge_simulated(artifacts.judged_by(way, subject, cache), artifact.model)
    except NotApplicable as error:
        raise CellEnded(
            Status.NOT_APPLICABLE, f"{why}, and {error}", symptom=Symptom.NOT_RUN
        ) from error
    if outcome.comparison is not None:
        record = outcome.comparison.record
        way.found = replace(way.found, accuracy=record, accuracy_simulated=record)
    way.notes += (*outcome.notes, f"{BF16_SIMULATED}: {why}")
    if not outcome.passed:
        reason = (
            f"bfloat16 as hardware computes it departs: {outcome.reason or 'the outputs differ'}"
        )
        raise CellEnded(outcome.status, reason, outcome.detail, outcome.symptom, outcome.worst_sets)
    _judge_recorded(way, subject)


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


def time_cell(
    task: Task, judged: Judged, sets: Sequence[Mapping[str, Any]], benchmark: Any
) -> LatencyRecord | None:
    """Time a cell that passed, paired with the baseline, through pytest-benchmark's fixture.

    Args:
        task: the cell.
        judged: what :func:`judge` said of it.
        sets: the inputs to time it on, of the dtypes that the original takes; both sides take them
            in turn.
        benchmark: pytest-benchmark's fixture.

    Returns:
        None when pytest-benchmark was told not to measure.
    """
    provider = providers.get(task.cell.provider)
    if judged.artifact is None:
        raise ValueError(f"{task.cell.id} did not pass: there is nothing to time")
    variant = judged.artifact
    with custom_operators(task.custom_ops):
        return measure(
            benchmark,
            baseline=lambda: timed_session(task.model, provider, sets),
            variant=lambda: timed_session(variant, provider, sets, level=judged.level),
            budget_s=task.settings.latency_budget,
            seed=task.settings.seed,
            pin=keeps_to_its_threads(provider),
            labels={
                "model": task.cell.card.name,
                "variant": task.cell.variant.id,
                "provider": provider.name,
            },
        )
