"""Running a mutant, a transformed model with a fault in it, and telling what became of the fault. For the worker.

A mutant whose outputs the verdict accepts is either a miss or no fault at all. Which one is decided without the verdict
and its tolerances: the mutant and the unmutated model run side by side, in the same kind of session, on the verdict's
input sets and on as many others again, made from other seeds. It is *equivalent* when in every one of them every
output stays within `LIKENESS` times the noise, and a miss otherwise. The noise of an output in an input set is what
moves without any fault, never what the verdict allows:

* FP32: the unmutated model's own greatest departure when its float inputs move by their last bit, and when ONNX Runtime
  optimizes it at another level.
* FP16, BF16 and INT8: the departure of the ideal conversion from the original, :mod:`onnx_harness.judging.ideal`. They
  aren't asked to be right on unusual inputs, and aren't examined on any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnx_harness import inputs, providers
from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.noise import Noise, gaps, worst
from onnx_harness.cell.pipeline import subject_of
from onnx_harness.cell.state import Judged, Subject, Task
from onnx_harness.errors import HarnessError, ModelError
from onnx_harness.inputs import InputSet
from onnx_harness.isolate import note_stage
from onnx_harness.judging.ideal import ideal_conversion
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.verdict import Standard, session_config, standard, verdict
from onnx_harness.mutation.atlas import Atlas
from onnx_harness.mutation.distance import furthest
from onnx_harness.mutation.faults import Fault
from onnx_harness.mutation.planting import atlas_of, choose, planted
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cells import Stage
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms.variant import bind_variant

if TYPE_CHECKING:
    import onnxruntime as ort

LIKENESS = 3.0
"""How many times the noise a mutant's outputs may move and still be the unmutated model's: so far do honest variants of
the public zoo lie from the untouched model (onnx_harness.accuracy.explain)."""

_OTHER_SEED = 1_000_003  # added to the run's seed: no run that counts its seeds up comes there
_OTHER_SETS = 8
_LAST_BITS = 2  # draws of inputs moved by their last bit

Outputs = Mapping[str, Any]


class Fate(StrEnum):
    """What became of a fault."""

    CAUGHT = "caught"
    BROKEN = "broken"  # ONNX Runtime doesn't open or run the mutant: caught before anything is compared
    EQUIVALENT = "equivalent"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Trial:
    """A fault, and what became of it.

    Attributes:
        words: why it was caught; of a miss: where it shows, and by how many times the noise.
    """

    fault: Fault
    fate: Fate
    words: str = ""


@dataclass(frozen=True, slots=True)
class _Others:
    """What an uncaught mutant is examined on: input sets, what the unmutated model makes of them, and the noise."""

    sets: Sequence[InputSet]
    outputs: Sequence[Outputs]
    noise: Yardstick


@dataclass(slots=True)
class _Bench:
    """One cell, ready for its mutants."""

    task: Task
    level: str
    subject: Subject
    held: Standard
    atlas: Atlas
    others: _Others | None = None

    @property
    def is_full_precision(self) -> bool:
        """Whether the variant's arithmetic stays float32."""
        return self.held.conversion is None

    @property
    def own_sets(self) -> list[InputSet]:
        """The input sets that the verdict judges by."""
        made = self.subject.reference
        return list(made.sets) if self.is_full_precision else [made.sets[place] for place in made.usual]

    def open(self, model: bytes, level: str | None = None) -> ort.InferenceSession:
        """A session as the pipeline's, of a serialized model."""
        return open_session(
            model,
            providers.get(self.task.cell.provider),
            purpose=Purpose.ACCURACY,
            level=self.level if level is None else level,
            record_placement=False,
            external_data=self.atlas.folder,
            config=session_config(self.subject.model, bind_variant(self.task.cell.variant), self.atlas.model),
        )

    def outputs(self, session: ort.InferenceSession) -> list[dict[str, Any]]:
        """What the session makes of the verdict's input sets."""
        return [run(session, feeds_for(session, each.values)) for each in self.subject.reference.sets]


def _bench(task: Task, judged: Judged) -> _Bench:
    """The bench of a cell; the last one is remembered."""
    if judged.artifact is None:
        raise ValueError(f"{task.cell.id} did not pass: no fault is planted in it")
    key = (task, judged.artifact, judged.artifact.stat().st_mtime_ns)
    artifact = judged.artifact
    return workbench().last("mutants", key, lambda: _prepared(task, artifact, judged.level))


def _prepared(task: Task, artifact: Path, level: str) -> _Bench:
    cell, subject, kept = task.cell, subject_of(task), workbench().cache
    bound = bind_variant(cell.variant)
    held = standard(subject.model, subject.reference, cell.card, bound, cell.provider, task.settings, kept)
    return _Bench(task, level, subject, held, atlas_of(artifact))


def plan(task: Task, judged: Judged, count: int, seed: int) -> list[Fault]:
    """Up to ``count`` faults for the cell's transformed model."""
    return choose(_bench(task, judged).atlas, count, seed)


def attempt(task: Task, judged: Judged, fault: Fault) -> Trial:
    """Plant a fault, and find out what becomes of it."""
    bench = _bench(task, judged)
    session, found = _judged(bench, fault)
    if found is not None:
        return found
    assert session is not None
    return _examined(bench, fault, session)


def is_caught(task: Task, judged: Judged, fault: Fault) -> bool:
    """Whether the verdict, or something before it, catches a fault."""
    return _judged(_bench(task, judged), fault)[1] is not None


def _judged(bench: _Bench, fault: Fault) -> tuple[ort.InferenceSession | None, Trial | None]:
    """The mutant's session, and the trial where it ends by being caught."""
    mutant = _serialized(planted(bench.atlas, fault))
    try:
        note_stage(Stage.SESSION)
        session = bench.open(mutant)
        note_stage(Stage.RUN)
        outputs = bench.outputs(session)
    except HarnessError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        return None, Trial(fault, Fate.BROKEN, str(error).strip().partition("\n")[0])
    note_stage(Stage.COMPARE)
    found = verdict(bench.held, outputs)
    if found.passed:
        return session, None
    return None, Trial(fault, Fate.CAUGHT, found.reason or "")


def _examined(bench: _Bench, fault: Fault, mutant: ort.InferenceSession) -> Trial:
    """Whether a mutant that wasn't caught differs from the unmutated model at all."""
    if bench.others is None:
        bench.others = _others(bench)
    others = bench.others
    for index, (each, unmutated) in enumerate(zip(others.sets, others.outputs, strict=True)):
        try:
            outputs = run(mutant, feeds_for(mutant, each.values))
        except Exception as error:
            return Trial(fault, Fate.MISSED, f"fails on other inputs: {str(error).strip().partition(chr(10))[0]}")
        name, times = furthest(unmutated, outputs, others.noise, index)
        if times > LIKENESS:
            where = "on the same inputs" if index < len(bench.own_sets) else "on other inputs"
            return Trial(fault, Fate.MISSED, f"{name} moves by {times:.2g} times the noise {where}")
    return Trial(fault, Fate.EQUIVALENT)


def _others(bench: _Bench) -> _Others:
    """The verdict's own input sets, then others: all with the unmutated model's outputs and its noise."""
    reference = open_session(bench.subject.model.path, providers.get("cpu"), purpose=Purpose.ACCURACY, level="disable")
    model = _serialized(bench.atlas.model)
    unmutated = bench.open(model)
    sets = (*bench.own_sets, *_independent(bench, reference))
    outputs = [run(unmutated, feeds_for(unmutated, each.values)) for each in sets]
    if bench.held.conversion is None:
        return _Others(sets, outputs, Yardstick(_own_noise(bench, model, sets, outputs)))
    made = Reference(sets, tuple(run(reference, each.values) for each in sets), bench.held.reference.unstable)
    nothing = Noise(({},) * len(sets))
    ideal = ideal_conversion(bench.subject.model, made, bench.held.conversion, bench.held.kept)
    return _Others(sets, outputs, Yardstick(nothing, ideal.digits, type=bench.held.conversion.type))


def _own_noise(bench: _Bench, model: bytes, sets: Sequence[InputSet], outputs: Sequence[Outputs]) -> Noise:
    """How far the unmutated model's outputs move without a fault."""
    unmutated = bench.open(model)
    levels = [bench.open(model, level) for level in ("disable", "all") if level != bench.level]
    found = []
    for each, usual in zip(sets, outputs, strict=True):
        values = feeds_for(unmutated, each.values)
        runs = [run(session, values) for session in levels]
        runs += [run(unmutated, moved) for moved in _moved(values)]
        found.append(worst(gaps(usual, other) for other in runs))
    return Noise(tuple(found))


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # what protobuf raises on more than 2 GiB has changed its type over time
        raise ModelError(f"faults are planted in models up to 2 GB, external data not counted: {error}") from error


def _independent(bench: _Bench, reference: ort.InferenceSession) -> Sequence[InputSet]:
    settings = bench.task.settings
    return inputs.generate(
        bench.subject.model.skeleton,
        bench.task.cell.card.inputs,
        count=max(_OTHER_SETS, 2 * settings.input_sets),
        seed=settings.seed + _OTHER_SEED,
        try_run=lambda values: run(reference, values),
        unusual=bench.task.unusual and bench.is_full_precision,
    )


def _moved(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same inputs, each float of them moved to a neighbour or left."""
    rng = np.random.default_rng(0)
    floats = [name for name, value in values.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    for _ in range(_LAST_BITS if floats else 0):
        yield {**values, **{name: _neighbour(values[name], rng) for name in floats}}


def _neighbour(value: Any, rng: np.random.Generator) -> Any:
    towards = rng.choice(np.array([-np.inf, np.inf], value.dtype), value.shape)
    return np.where(value == 0, value, np.nextafter(value, towards)).astype(value.dtype)
