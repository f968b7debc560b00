"""Load a cell's subject: the model, its input sets and the reference's outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import onnx_harness
from onnx_harness import providers
from onnx_harness.cards.seeded import seed_note
from onnx_harness.cell.generation import check_generation
from onnx_harness.cell.state import CellEnded, Subject, Task, Way
from onnx_harness.errors import InputError, MachineError, ModelError, first_line
from onnx_harness.inputs import reached
from onnx_harness.inputs.decisions.coverage import Coverage
from onnx_harness.inputs.values.sets import digest_of
from onnx_harness.judging.influence import influence
from onnx_harness.judging.recorded import missed
from onnx_harness.judging.reference import (
    Reference,
    given,
    recorded_files,
    reference,
    runtime_key,
)
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.file import Model, operator_counts
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.cells import GraphChange, Status, Symptom
from onnx_harness.results.codec import as_json
from onnx_harness.results.coverage import CoverageRecord, Reached
from onnx_harness.results.workbench import workbench


def load(way: Way, cache: Cache) -> Subject:
    """The model, its input sets, and the outputs of the reference."""
    try:
        subject, graph = read_subject(way.task, cache)
    except (MachineError, ModelError, InputError) as error:
        if not way.task.cell.card.suite:
            raise
        # ONNX Runtime has no kernel for every operator, nor does each type pass between it and
        # Python, nor has each machine every locale.
        raise CellEnded(
            Status.NOT_APPLICABLE, first_line(error), symptom=Symptom.NOT_RUN
        ) from error
    model = subject.model
    way.found = replace(way.found, model_sha256=model.sha256, opset=model.opset, graph=graph)
    subject = replace(subject, reference=without_sets(subject.reference, way.task.skipped))
    way.found = replace(way.found, inputs_sha256=digest_of(subject.reference.sets))
    if way.task.cell.card.suite and subject.missed is not None:
        reason = f"ONNX Runtime itself departs from the suite: {subject.missed.reason()}"
        raise CellEnded(Status.NOT_APPLICABLE, reason, symptom=Symptom.NOT_RUN)
    way.notes += subject.reference.notes
    seeded = seed_note(subject.model.skeleton, way.task.cell.card)
    way.notes += [seeded] if seeded else []
    _cover(way, subject, cache)
    return subject


def subject_of(task: Task) -> Subject:
    """Return what :func:`judge` judged against.

    Meant to run in the worker, which has it at hand.
    """
    subject = read_subject(task, workbench().cache)[0]
    return replace(subject, reference=without_sets(subject.reference, task.skipped))


def read_subject(task: Task, cache: Cache) -> tuple[Subject, GraphChange]:
    """The subject and the size of its graph.

    The last one is remembered: cells come model by model.
    """
    card, settings = task.cell.card, task.settings
    recorded = (
        [task.recorded] if task.recorded is not None else recorded_files(card, task.model)
    )
    own = (_states([task.model]), settings.cell_memory, settings.trust_models)
    external = workbench().last("files", own, lambda: _external_files(task))
    states = _states([task.model, *recorded, *external])
    chosen = (
        settings.input_sets,
        settings.seed,
        settings.tolerance_override,
        settings.custom_ops,
    )
    # A recorded file may be the one that lies beside the model, or not be there.
    key = (states, card, *chosen, task.unusual, task.recorded)
    return workbench().last("subject", key, lambda: _read(task, cache))


def _states(files: Iterable[Path]) -> list[tuple[Path, int, int]]:
    """Return what tells of the files that are there whether they have changed."""
    states = []
    for file in files:
        if file.is_file():
            states.append((file, file.stat().st_mtime_ns, file.stat().st_size))
    return states


def _external_files(task: Task) -> tuple[Path, ...]:
    """Return the files of a model's external data, once its bounds are known to be sane."""
    settings = task.settings
    check_bounds(task.model, settings.cell_memory, trusted=settings.trust_models)
    return Model(task.model).external_files


def _read(task: Task, cache: Cache) -> tuple[Subject, GraphChange]:
    card, settings = task.cell.card, task.settings
    model = Model(task.model, card.name)
    card.check_outputs([output.name for output in model.signature.outputs])
    card.check_providers(providers.registry())
    check_generation(model, card.generate)
    operators, size = operator_counts(model.skeleton.graph), model.size_bytes
    if task.recorded is not None:
        answers = given(model, task.recorded)
    else:
        answers = reference(model, card, settings, cache, unusual=task.unusual)
    subject = Subject(model, answers, missed(model, answers, card, settings, cache))
    nodes = sum(operators.values())
    return subject, GraphChange(nodes, nodes, size, size, 0.0, operators, operators)


def without_sets(reference: Reference, skipped: tuple[int, ...]) -> Reference:
    """Return the reference without the input sets at those positions."""
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
    coverage, low = workbench().last(
        "coverage", key, lambda: _coverage(way.task, subject, cache)
    )
    way.found = replace(way.found, coverage=coverage)
    way.notes += [low] if low else []


def _coverage(
    task: Task, subject: Subject, cache: Cache
) -> tuple[CoverageRecord | None, str]:
    card = task.cell.card
    explained = task.explained and not card.suite
    key = cache.key(
        subject.model.sha256,
        digest_of(subject.reference.sets),
        {name: spec.said() for name, spec in card.inputs.items()},
        explained,
        onnx_harness.__version__,
        runtime_key(),
        source_digest(),
    )
    seen = cache.remember(
        "coverage",
        key,
        lambda: _seen(task, subject, cache, explained=explained),
        as_json(Coverage),
    )
    kinds = {kind: Reached(*counts) for kind, counts in seen.kinds.items()}
    record = CoverageRecord(kinds, notes=seen.notes) if kinds or seen.notes else None
    return record, seen.low()


def _seen(task: Task, subject: Subject, cache: Cache, *, explained: bool) -> Coverage:
    try:
        seen = reached(subject.model.skeleton, task.cell.card.inputs, subject.reference.sets)
    except InputError:  # of inputs that nobody could make, and that were recorded
        seen = Coverage()
    if not explained:
        return seen
    counts, notes = influence(subject.model, subject.reference, cache)
    return Coverage(seen.kinds | counts, (*seen.notes, *notes))
