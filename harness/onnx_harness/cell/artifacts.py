"""Make and cache what a cell's transforms make of its model.

The key is everything that it depends on, so that variants share it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_harness
from onnx_harness import transforms
from onnx_harness.cell.state import Artifact, Subject, Way
from onnx_harness.errors import named
from onnx_harness.inputs import InputSet
from onnx_harness.isolate import note_stage
from onnx_harness.judging.mixed.choose import chooser
from onnx_harness.judging.reference import calibration_sets, runtime_key
from onnx_harness.judging.standard import Standard, key_of, standard
from onnx_harness.model.file import Model, operator_counts
from onnx_harness.results.cache import Cache, source_digest, version
from onnx_harness.results.cells import Stage
from onnx_harness.transforms import BoundStep

if TYPE_CHECKING:
    import onnx

_MODEL_FILE, _FACTS_FILE = "model.onnx", "facts.json"


def transformed(way: Way, subject: Subject, cache: Cache) -> Artifact:
    """Apply the variant's steps.

    Each prefix of the chain is kept, so that variants share their beginnings.
    """
    current, seconds, check = subject.model, 0.0, None
    done: list[Any] = []
    for step in way.bound.changing:
        versions = {name: version(name) for name in step.transform.requires}
        sets = _calibrating(way, step, subject, cache)
        calibration: list[object] = [input_set.digest() for input_set in sets]
        standard_used = None
        if step.transform.chosen:
            standard_used = judged_by(way, subject, cache)
            calibration += key_of(standard_used)
        source = _source_of(step.transform.apply)
        done.append([step.name, dict(step.options), versions, source, calibration])
        key = cache.key(
            subject.model.sha256,
            done,
            onnx_harness.__version__,
            version("onnx"),
            runtime_key(),
            source_digest(),
        )
        before = current

        def write(
            folder: Path,
            step: BoundStep = step,
            before: Model = before,
            sets: Sequence[InputSet] = sets,
            judged_standard: Standard | None = standard_used,
        ) -> None:
            _write_artifact(
                folder,
                step,
                before,
                [input_set.values for input_set in sets],
                judged_standard,
            )

        folder = cache.get_or_put("transformed", key, write)
        facts = json.loads((folder / _FACTS_FILE).read_text(encoding="utf-8"))
        current = Model(folder / _MODEL_FILE, subject.model.name)
        seconds += facts["transform_seconds"]
        check = facts["check"]
        way.notes += facts["remarks"]
        _note_graph(way, facts, current.size_bytes, seconds)
    return Artifact(current, check, current is not subject.model, way.bound.level)


def _note_graph(
    way: Way, facts: Mapping[str, Any], bytes_after: int, seconds: float
) -> None:
    """Keep what the steps so far made of the graph, by the facts of the last one."""
    assert way.found.graph is not None
    graph = replace(
        way.found.graph,
        nodes_after=sum(facts["operators"].values()),
        bytes_after=bytes_after,
        transform_seconds=seconds,
        operators_after=facts["operators"],
        changes=(*way.found.graph.changes, *facts["changes"]),
    )
    way.found = replace(way.found, graph=graph)


def _calibrating(
    way: Way, step: BoundStep, subject: Subject, cache: Cache
) -> list[InputSet]:
    """Return the input sets that a step is calibrated on; none where it isn't."""
    if not step.transform.calibrated:
        return []
    sets = _calibration(way, subject, cache)
    way.notes += _judged_too(step, sets, subject.reference.sets)
    return sets


def _calibration(way: Way, subject: Subject, cache: Cache) -> list[InputSet]:
    task = way.task
    return calibration_sets(
        subject.model, task.cell.card, task.settings, cache, task.recorded
    )


def _judged_too(
    step: BoundStep, calibration: Sequence[InputSet], judged: Sequence[InputSet]
) -> list[str]:
    """Return what a reader has to know where a cell is judged on what it was calibrated on."""
    shared = {input_set.digest() for input_set in calibration} & {
        input_set.digest() for input_set in judged
    }
    if not shared:
        return []
    return [
        f"{step.name} was calibrated on {len(shared)} of the {len(judged)} input sets that judge it"
    ]


@cache
def _source_of(apply: transforms.Apply) -> str | None:
    """Hash of the file that defines a transform.

    Other packages' transforms change without our version.
    """
    try:
        file = inspect.getsourcefile(inspect.unwrap(apply))
        return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (TypeError, OSError):  # a callable object, or a file that's gone
        return None


def judged_by(way: Way, subject: Subject, cache: Cache) -> Standard:
    """Return what the cell's outputs are judged by."""
    cell = way.task.cell
    judged_standard = standard(
        subject.model,
        subject.reference,
        cell.card,
        way.bound,
        cell.provider,
        way.task.settings,
        cache,
    )
    calibration: list[InputSet] = []
    if any(step.transform.calibrated for step in way.bound.changing):
        calibration = _calibration(way, subject, cache)
    return replace(
        judged_standard, explained=way.task.explained, calibration=tuple(calibration)
    )


def _write_artifact(
    folder: Path,
    step: BoundStep,
    before: Model,
    samples: Sequence[Mapping[str, Any]],
    judged_standard: Standard | None = None,
) -> None:
    """Run one step and keep what it made, with what the checker says about it."""
    from onnx_harness.model.saving import save
    from onnx_harness.model.unchanged import Unchanged

    choose = None if judged_standard is None else chooser(judged_standard, transforms.remark)
    with step.opened(before) as model:
        started = time.perf_counter()
        with transforms.remarks() as remarks, transforms.details() as changes:
            after = step(model, samples, choose)
        seconds = time.perf_counter() - started
    del model  # of a large one, the weights that were replaced
    file = folder / _MODEL_FILE
    save(after, file, inline_bytes=before.inline_bytes, unchanged=Unchanged(before, folder))
    facts = {
        "operators": operator_counts(after.graph),
        "transform_seconds": seconds,
        "check": checker_says(file),
        "remarks": remarks,
        "changes": changes,
    }
    (folder / _FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")


def checker_says(file: Path) -> str | None:
    """Return what ``onnx.checker`` says against a model, or None.

    It's the full check: types and shapes are inferred too.
    """
    import onnx

    note_stage(Stage.CHECK)
    try:
        onnx.checker.check_model(_checkable(file), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and what protobuf raises
        return named(error)
    note_stage(Stage.TRANSFORM)
    return None


def _checkable(file: Path) -> str | onnx.ModelProto:
    """Return the file, or the model with the types without which the checker would die."""
    import onnx

    from onnx_harness.model.label_keys import may_lack_key_types, with_key_types

    if not may_lack_key_types(file):
        return str(file)
    model = onnx.load(file, load_external_data=False)
    if any(tensor.external_data for tensor in model.graph.initializer):
        return str(file)
    stated = with_key_types(model)
    return str(file) if stated is model else stated
