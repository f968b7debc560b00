"""Running a mutant, a transformed model with a fault in it: is the fault caught? For the worker.

A mutant whose outputs the verdict accepts is either a miss or no fault at all. Which one is decided
without the verdict and its tolerances: the mutant and the unmutated model run side by side, in the
same kind of session, on the verdict's input sets and on as many others again, made from other
seeds. It is *equivalent* when in every one of them every output stays within `LIKENESS` times the
noise, and a miss otherwise. The noise of an output in an input set is what moves without any fault,
never what the verdict allows:

* FP32: the unmutated model's own greatest departure when its float inputs move by their last bit,
  and when ONNX Runtime optimizes it at another level.
* FP16, BF16 and INT8: the departure of the ideal conversion from the original,
  :mod:`onnx_harness.judging.ideal`. They aren't asked to be right on unusual inputs, and aren't
  examined on any.
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
from onnx_harness.cell.state import Judged, Subject, Task
from onnx_harness.cell.subjects import subject_of
from onnx_harness.errors import HarnessError, ModelError
from onnx_harness.inputs import InputSet
from onnx_harness.isolate import note_stage
from onnx_harness.judging.ideal import ideal_conversion
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import Standard, standard
from onnx_harness.judging.verdict import session_config, verdict
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
"""The noise's multiple by which a mutant's outputs may move and still be the unmutated model's.

So far do honest variants of the public zoo lie from the untouched model
(onnx_harness.accuracy.explain).
"""

# Added to the run's seed: no run that counts its seeds up comes there.
_INDEPENDENT_SEED = 1_000_003
_INDEPENDENT_SETS = 8
_LAST_BITS = 2  # draws of inputs moved by their last bit

Outputs = Mapping[str, Any]


class Fate(StrEnum):
    """The end of a fault."""

    CAUGHT = "caught"
    # ONNX Runtime doesn't open or run the mutant: caught before anything is compared.
    BROKEN = "broken"
    EQUIVALENT = "equivalent"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Trial:
    """A fault with its fate.

    Attributes:
        words: why it was caught; for a miss: where it shows, and by how many times the noise.
    """

    fault: Fault
    fate: Fate
    words: str = ""


@dataclass(frozen=True, slots=True)
class _Examination:
    """Input sets for uncaught mutants, with the unmutated model's outputs and their noise."""

    sets: Sequence[InputSet]
    outputs: Sequence[Outputs]
    noise: Yardstick


@dataclass(slots=True)
class _Bench:
    """One cell, ready for its mutants."""

    task: Task
    level: str
    subject: Subject
    standard: Standard
    atlas: Atlas
    examination: _Examination | None = None

    @property
    def is_full_precision(self) -> bool:
        """True where the variant's arithmetic stays float32."""
        return self.standard.conversion is None

    @property
    def own_sets(self) -> list[InputSet]:
        """The input sets that the verdict judges by."""
        reference = self.subject.reference
        if self.is_full_precision:
            return list(reference.sets)
        return [reference.sets[place] for place in reference.usual]

    def open(self, model: bytes, level: str | None = None) -> ort.InferenceSession:
        """Open a session like the pipeline's, of a serialized model."""
        variant = bind_variant(self.task.cell.variant)
        return open_session(
            model,
            providers.get(self.task.cell.provider),
            purpose=Purpose.ACCURACY,
            level=self.level if level is None else level,
            record_placement=False,
            external_data=self.atlas.folder,
            config=session_config(self.subject.model, variant, self.atlas.model),
        )

    def outputs(self, session: ort.InferenceSession) -> list[dict[str, Any]]:
        """Run the session on the verdict's input sets."""
        return [_run_on(session, input_set) for input_set in self.subject.reference.sets]


def _run_on(session: ort.InferenceSession, input_set: InputSet) -> dict[str, Any]:
    return run(session, feeds_for(session, input_set.values))


def _bench(task: Task, judged: Judged) -> _Bench:
    """The bench of a cell; the last one is remembered."""
    if judged.artifact is None:
        raise ValueError(f"{task.cell.id} did not pass: no fault is planted in it")
    key = (task, judged.artifact, judged.artifact.stat().st_mtime_ns)
    artifact = judged.artifact
    return workbench().last("mutants", key, lambda: _prepared(task, artifact, judged.level))


def _prepared(task: Task, artifact: Path, level: str) -> _Bench:
    cell, subject, cache = task.cell, subject_of(task), workbench().cache
    bound = bind_variant(cell.variant)
    expected = standard(
        subject.model,
        subject.reference,
        cell.card,
        bound,
        cell.provider,
        task.settings,
        cache,
    )
    return _Bench(task, level, subject, expected, atlas_of(artifact))


def plan(task: Task, judged: Judged, count: int, seed: int) -> list[Fault]:
    """Choose up to ``count`` faults for the cell's transformed model."""
    return choose(_bench(task, judged).atlas, count, seed)


def attempt(task: Task, judged: Judged, fault: Fault) -> Trial:
    """Plant a fault, and judge the mutant."""
    bench = _bench(task, judged)
    session, trial = _judged(bench, fault)
    if trial is not None:
        return trial
    assert session is not None
    return _examined(bench, fault, session)


def is_caught(task: Task, judged: Judged, fault: Fault) -> bool:
    """Plant a fault; True where the verdict, or something before it, catches it."""
    _, trial = _judged(_bench(task, judged), fault)
    return trial is not None


def _judged(bench: _Bench, fault: Fault) -> tuple[ort.InferenceSession | None, Trial | None]:
    """Return the mutant's session, and the trial where it ends by being caught."""
    mutant = _serialized(planted(bench.atlas, fault))
    try:
        note_stage(Stage.SESSION)
        session = bench.open(mutant)
        note_stage(Stage.RUN)
        outputs = bench.outputs(session)
    except HarnessError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        return None, Trial(fault, Fate.BROKEN, _first_line(error))
    note_stage(Stage.COMPARE)
    judgement = verdict(bench.standard, outputs)
    if judgement.passed:
        return session, None
    return None, Trial(fault, Fate.CAUGHT, judgement.reason or "")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _examined(bench: _Bench, fault: Fault, mutant: ort.InferenceSession) -> Trial:
    """Compare a mutant that wasn't caught with the unmutated model: a miss or equivalent."""
    if bench.examination is None:
        bench.examination = _examination(bench)
    examination = bench.examination
    pairs = zip(examination.sets, examination.outputs, strict=True)
    for index, (input_set, unmutated) in enumerate(pairs):
        try:
            outputs = _run_on(mutant, input_set)
        except Exception as error:
            return Trial(fault, Fate.MISSED, f"fails on other inputs: {_first_line(error)}")
        name, times = furthest(unmutated, outputs, examination.noise, index)
        if times > LIKENESS:
            where = (
                "on the same inputs" if index < len(bench.own_sets) else "on other inputs"
            )
            return Trial(
                fault, Fate.MISSED, f"{name} moves by {times:.2g} times the noise {where}"
            )
    return Trial(fault, Fate.EQUIVALENT)


def _examination(bench: _Bench) -> _Examination:
    """Prepare the verdict's own input sets and independent ones."""
    original = open_session(
        bench.subject.model.path,
        providers.get("cpu"),
        purpose=Purpose.ACCURACY,
        level="disable",
    )
    model = _serialized(bench.atlas.model)
    unmutated = bench.open(model)
    sets = (*bench.own_sets, *_independent(bench, original))
    outputs = [_run_on(unmutated, input_set) for input_set in sets]
    conversion = bench.standard.conversion
    if conversion is None:
        noise = _own_noise(bench, model, sets, outputs)
        return _Examination(sets, outputs, Yardstick(noise))
    original_outputs = tuple(run(original, input_set.values) for input_set in sets)
    reference = Reference(sets, original_outputs, bench.standard.reference.unstable)
    ideal = ideal_conversion(bench.subject.model, reference, conversion, bench.standard.kept)
    nothing = Noise(({},) * len(sets))
    return _Examination(
        sets, outputs, Yardstick(nothing, ideal.digits, type=conversion.type)
    )


def _own_noise(
    bench: _Bench, model: bytes, sets: Sequence[InputSet], outputs: Sequence[Outputs]
) -> Noise:
    """Measure how far the unmutated model's outputs move without a fault."""
    unmutated = bench.open(model)
    levels = [level for level in ("disable", "all") if level != bench.level]
    sessions = [bench.open(model, level) for level in levels]
    noise = []
    for input_set, usual in zip(sets, outputs, strict=True):
        values = feeds_for(unmutated, input_set.values)
        runs = [run(session, values) for session in sessions]
        runs += [run(unmutated, moved) for moved in _moved(values)]
        noise.append(worst(gaps(usual, moved) for moved in runs))
    return Noise(tuple(noise))


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    # What protobuf raises on more than 2 GiB has changed its type over time.
    except Exception as error:
        raise ModelError(
            f"faults are planted in models up to 2 GB, external data not counted: {error}"
        ) from error


def _independent(bench: _Bench, reference: ort.InferenceSession) -> Sequence[InputSet]:
    settings = bench.task.settings
    return inputs.generate(
        bench.subject.model.skeleton,
        bench.task.cell.card.inputs,
        count=max(_INDEPENDENT_SETS, 2 * settings.input_sets),
        seed=settings.seed + _INDEPENDENT_SEED,
        try_run=lambda values: run(reference, values),
        unusual=bench.task.unusual and bench.is_full_precision,
    )


def _moved(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Move every float of the inputs to a neighbour; zeros stay."""
    rng = np.random.default_rng(0)
    floats = [name for name, value in values.items() if _is_float(value)]
    if not floats:
        return
    for _ in range(_LAST_BITS):
        yield {**values, **{name: _neighbour(values[name], rng) for name in floats}}


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _neighbour(value: Any, rng: np.random.Generator) -> Any:
    ends = np.array([-np.inf, np.inf], value.dtype)
    towards = rng.choice(ends, value.shape)
    moved = np.where(value == 0, value, np.nextafter(value, towards))
    return moved.astype(value.dtype)
