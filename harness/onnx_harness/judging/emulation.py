"""Judge what emulated float16 hides: the outputs on hardware that computes in float16."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnx_harness import providers
from onnx_harness.accuracy.failures import listed
from onnx_harness.errors import NotApplicable, first_line
from onnx_harness.inputs import InputSet
from onnx_harness.judging.half_range import (
    LARGEST,
    OUTPUT,
    OVERFLOWS,
    Place,
    computes_in_half,
    computes_in_narrow,
    rounded,
    watch,
)
from onnx_harness.judging.reference import Reference, runtime_key
from onnx_harness.judging.simulation import simulated, unknown_types
from onnx_harness.judging.verdict import Standard, Verdict, verdict
from onnx_harness.model.file import INLINE_BYTES, Model
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.cells import NOT_SIMULATED, Status, Symptom
from onnx_harness.results.codec import as_data

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

_MOST = 8
_NARROW = {"float16": 10, "bfloat16": 16}  # of TensorProto: onnx is imported where it's needed


@dataclass(frozen=True, slots=True)
class Overflow:
    """A float16 value whose magnitude float16 can't hold, computed in float32.

    Attributes:
        place: the value, and the node that gives it.
        greatest: its greatest magnitude.
        input_set: the number of the input set, from 0.
    """

    place: Place
    greatest: float
    input_set: int


@dataclass(frozen=True, slots=True)
class RangeVerdict:
    """The verdict on a model's range.

    Attributes:
        reason: one sentence; None unless outputs are wrong where float16 computes.
        detail: further lines for a person.
        notes: remarks on a verdict that stands.
        failing: positions of the input sets on which an output is worst.
    """

    reason: str | None = None
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failing: tuple[int, ...] = ()


def judge_half(standard: Standard, candidate: Model, emulated: Verdict) -> Verdict:
    """Judge a model that asks for float16 and was computed in float32.

    It's judged by what float16 would have made of it.

    A variant that converts to float16 is run once more with every float16 value rounded as it's
    made, and the outputs are held to what the cell's are held to: see
    :func:`onnx_harness.judging.simulation.simulated`. Where the run in float32 gave wrong values
    and float16 doesn't, float16 decides. A model that asked for float16 before it was converted has
    no reference in float32 to hold that against, and is judged by its range alone.

    Args:
        standard: what the outputs are held to.
        candidate: the model that was judged.
        emulated: what is to be said of its outputs, computed in float32.

    Returns:
        What is to be said of the model. The distances are those of the outputs that decide; those
        of both runs are kept beside them.
    """
    if not emulated.passed and emulated.symptom is not Symptom.WRONG_VALUES:
        return emulated
    half, notes = _simulate(standard, candidate)
    outcome = _decided(standard, candidate, emulated, half, (*emulated.notes, *notes))
    return replace(
        outcome, emulated=emulated.comparison, simulated=None if half is None else half.comparison
    )


def _decided(
    standard: Standard,
    candidate: Model,
    emulated: Verdict,
    half: Verdict | None,
    notes: tuple[str, ...],
) -> Verdict:
    """The verdict of the run in float32, of the simulated one, or of what overflows.

    See :func:`judge_half`.
    """
    if not emulated.passed:
        if half is None or not half.passed:
            return replace(emulated, notes=notes)
        why = (
            f"float16 as hardware computes it is right, and decides. In float32, as computed "
            f"here: {emulated.reason}"
        )
        return replace(half, notes=(*half.notes, why))
    ranged = judge_range(standard, candidate, half)
    notes += ranged.notes
    if ranged.reason is not None:
        outcome = Verdict(
            Status.FAIL,
            emulated.comparison,
            ranged.reason,
            ranged.detail,
            notes,
            Symptom.WRONG_VALUES,
        )
        return replace(outcome, failing=ranged.failing)
    if half is None or half.passed:
        return replace(emulated, notes=notes)
    return replace(
        half, reason=f"float16 as hardware computes it departs: {half.reason}", notes=notes
    )


def half_as_hardware(
    original: Model, reference: Reference, candidate: Model, cache: Cache
) -> onnx.ModelProto | None:
    """Return the model that float16 is judged by where a provider computed it in float32.

    Args:
        original: the untouched model.
        reference: its input sets.
        candidate: the model that was judged; it asks for float16.
        cache: the cache.

    Returns:
        The simulated model, or where float16 isn't simulated the one with its overflowing values
        rounded; its float16 inputs and outputs are float32, and it has to run with ONNX Runtime's
        optimizations disabled. None where there is neither.
    """
    if not computes_in_half(original.skeleton):
        return simulated(candidate.load(), candidate.skeleton)
    usual = []
    for overflow in _overflows(candidate, reference.sets, cache):
        if not reference.sets[overflow.input_set].unusual:
            usual.append(overflow)
    return (
        rounded(watch(candidate.load(), candidate.skeleton).model, list(_by_value(usual)))
        if usual
        else None
    )


def judge_simulated(standard: Standard, candidate: Model) -> Verdict:
    """Judge a model that the provider can't run, by a simulated run alone.

    The provider has no kernels of its type.

    Args:
        standard: what the outputs are held to.
        candidate: the model; it asks for bfloat16 or float16.

    Raises:
        NotApplicable: it can't be simulated either.
    """
    why = _not_simulated(standard)
    if why is None:
        try:
            outcome = verdict(standard, _simulated_outputs(standard, candidate))
        except Exception as error:  # what onnx and ONNX Runtime raise has no common class
            why = first_line(error)
        else:
            notes = (*outcome.notes, *_not_rounded(candidate))
            return replace(outcome, notes=notes, simulated=outcome.comparison)
    raise NotApplicable(f"it could not be simulated: {why}")


def half_verdict(standard: Standard, candidate: Model) -> Verdict:
    """Judge a model where float16 computes, whatever this provider computes it in.

    Args:
        standard: what the outputs are held to.
        candidate: the model; it asks for float16.

    Raises:
        Exception: whatever onnx and ONNX Runtime raise of a model that can't be simulated.
    """
    if _not_simulated(standard) is None:
        return verdict(standard, _simulated_outputs(standard, candidate))
    places = overflowing(standard, candidate)
    return (
        _judge_overflows(standard, candidate, [place.value for place in places])
        if places
        else Verdict(Status.PASS)
    )


def overflowing(standard: Standard, candidate: Model) -> list[Place]:
    """Return the float16 values that overflow on usual input sets, in the graph's order."""
    sets = standard.reference.sets
    overflows = []
    for overflow in _overflows(candidate, sets, standard.kept):
        if not sets[overflow.input_set].unusual:
            overflows.append(overflow)
    return [each.place for each in _by_value(overflows).values()]


def _simulate(standard: Standard, candidate: Model) -> tuple[Verdict | None, tuple[str, ...]]:
    """Judge the outputs that float16 gives, or say why that can't be done."""
    why = _not_simulated(standard)
    if why is None:
        try:
            return verdict(standard, _simulated_outputs(standard, candidate)), _not_rounded(
                candidate
            )
        except Exception as error:  # what onnx and ONNX Runtime raise has no common class
            why = first_line(error, 160)
    return None, (f"{NOT_SIMULATED}: {why}",)


def _not_rounded(candidate: Model) -> tuple[str, ...]:
    """A remark on the operators that give float16 and whose types nobody knows.

    They stay float32.
    """
    ops = unknown_types(candidate.skeleton)
    why = "neither ONNX nor ONNX Runtime says of what type it is"
    return (
        (f"not rounded in the simulated float16, since {why}: what {listed(ops)} gives",)
        if ops
        else ()
    )


def _not_simulated(standard: Standard) -> str | None:
    """Why float16 can't be held against the reference, which has to be computed in float32.

    None where it can.
    """
    if computes_in_narrow(standard.model.skeleton):
        return "the untouched model asks for it too, and so its reference was computed in float32"
    if standard.conversion is None or standard.conversion.type not in _NARROW:
        return f"it isn't all that the variant leaves behind ({standard.precision.value})"
    return None


def _simulated_outputs(standard: Standard, candidate: Model) -> list[dict[str, Any]]:
    """The outputs of the usual input sets, which are the first, as float16 gives them."""
    session = _open(
        simulated(candidate.load(), candidate.skeleton), candidate.size_bytes, level="disable"
    )
    names = {number: name for name, number in _NARROW.items()}
    kinds = {}
    for info in candidate.skeleton.graph.input:
        kinds[info.name] = names.get(info.type.tensor_type.elem_type, "")
    outputs = []
    for place in standard.reference.usual:
        expected = standard.reference.outputs[place]
        values = _single(standard.reference.sets[place].values, kinds)
        outputs.append(
            {name: _like(value, expected.get(name)) for name, value in run(session, values).items()}
        )
    return outputs


def judge_range(
    standard: Standard, candidate: Model, simulated: Verdict | None = None
) -> RangeVerdict:
    """Judge a model that asks for float16 by the values that float16 can't hold.

    It was computed in float32.

    An overflow alone is no fault: 1 / (1 + exp(x)) is right when exp(x) is infinite. So the values
    that overflow are rounded to float16, the rest computed in float32, and the outputs held to what
    the cell's outputs are held to. What overflows on larger inputs than the usual ones alone is
    told and not judged.

    Args:
        standard: what the outputs are held to.
        candidate: the model that was judged.
        simulated: what is to be said of the outputs where all of float16 is reckoned with: no
            overflow is a fault if they are right.
    """
    sets = standard.reference.sets
    overflows = _overflows(candidate, sets, standard.kept)
    usual = [overflow for overflow in overflows if not sets[overflow.input_set].unusual]
    if not usual:
        return RangeVerdict(notes=_unusually(sets, overflows))
    places = _by_value(usual)
    judged = (
        simulated
        if simulated is not None and simulated.passed
        else _judge_overflows(standard, candidate, list(places))
    )
    worst = max(usual, key=lambda overflow: overflow.greatest)
    where = f"{worst.place} reaches {worst.greatest:.3g}"
    if judged.passed:
        count = (
            f"{len(places)} float16 values overflow"
            if len(places) > 1
            else "a float16 value overflows"
        )
        note = (
            f"{count}, unseen where float32 computes and without consequence for the outputs: "
            f"{where}, "
            f"and float16 ends at {LARGEST:g}"
        )
        return RangeVerdict(notes=(note,))
    reason = (
        f"float16 overflows unseen, since this provider computes it in float32: {where} in input "
        f"set "
        f"{worst.input_set + 1} of {len(sets)} ({sets[worst.input_set].name}), and float16 ends "
        f"at {LARGEST:g}"
    )
    lines = [f"where float16 computes: {judged.reason}"]
    lines += [f"{place.place}: {place.greatest:.3g}" for place in list(places.values())[:_MOST]]
    if len(places) > _MOST:
        lines.append(f"and {len(places) - _MOST} more values")
    return RangeVerdict(reason, tuple(lines), failing=judged.worst_sets or (worst.input_set,))


def _judge_overflows(standard: Standard, candidate: Model, values: Sequence[str]) -> Verdict:
    """Return what is to be said of the outputs when those values alone are rounded to float16."""
    session = _open(
        rounded(watch(candidate.load(), candidate.skeleton).model, values),
        candidate.size_bytes,
        level="disable",
    )
    outputs = []
    for input_set, expected in zip(
        standard.reference.sets, standard.reference.outputs, strict=True
    ):
        narrow = run(session, _single(input_set.values))
        widened = {}
        for name, value in narrow.items():
            if name != OUTPUT:
                widened[name] = _like(value, expected.get(name))
        outputs.append(widened)
    return verdict(standard, outputs)


def _overflows(candidate: Model, sets: Sequence[InputSet], cache: Cache) -> list[Overflow]:
    """Return what overflows on which input set, by the cache or by running the model in float32."""
    digests = [input_set.digest() for input_set in sets]
    key = cache.key(candidate.sha256, digests, runtime_key(), source_digest())
    return cache.remember("range", key, lambda: _watch_run(candidate, sets), as_data(list))


def _watch_run(candidate: Model, sets: Sequence[InputSet]) -> list[Overflow]:
    try:
        return _magnitudes(candidate, sets, with_empty=False)
    except (
        Exception
    ):  # there's no greatest of no elements, for one; ONNX Runtime's errors have no common class
        return _magnitudes(candidate, sets, with_empty=True)


def _magnitudes(candidate: Model, sets: Sequence[InputSet], *, with_empty: bool) -> list[Overflow]:
    watched = watch(candidate.load(), candidate.skeleton, with_empty=with_empty)
    if not watched.places:
        return []
    session = _open(watched.model, candidate.size_bytes, level="all")
    magnitudes = []
    for index, input_set in enumerate(sets):
        if (
            input_set.unusual and not input_set.magnified
        ):  # zeros and infinities say nothing about range
            continue
        greatest = run(session, _single(input_set.values))[OUTPUT].tolist()
        overflows = []
        for place, value in zip(watched.places, greatest, strict=True):
            if OVERFLOWS <= value < math.inf:
                overflows.append(Overflow(place, value, index))
        magnitudes += overflows
    return magnitudes


def _open(model: onnx.ModelProto, size: int, *, level: str) -> ort.InferenceSession:
    """A session on the CPU; a model that no message holds goes by way of a file."""

    def opened(source: Path | bytes) -> ort.InferenceSession:
        cpu = providers.get("cpu")
        return open_session(
            source, cpu, purpose=Purpose.ACCURACY, level=level, record_placement=False
        )

    if size <= INLINE_BYTES:
        return opened(model.SerializeToString())
    with tempfile.TemporaryDirectory(prefix="onnx-harness-range-") as folder:
        from onnx_harness.model.saving import save

        file = Path(folder) / "model.onnx"
        save(model, file)
        return opened(file)


def _single(values: Mapping[str, Any], kinds: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``values`` with float16 as float32, which is what the model takes now.

    Args:
        values: by input.
        kinds: of inputs: ``float16`` or ``bfloat16`` where float32 has to be numbers of that type.
    """
    kinds_by_name = kinds or {}
    return {
        name: [_widened(item) for item in value]
        if isinstance(value, list)
        else _widened(value, kinds_by_name.get(name, ""))
        for name, value in values.items()
    }


def _widened(array: Any, kind: str = "") -> Any:
    if kind and array.dtype == "float32":
        with np.errstate(over="ignore"):
            array = array.astype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    return array.astype("float32") if array.dtype.name in _NARROW else array


def _like(value: Any, expected: Any) -> Any:
    """An output in the type of the reference's, where that is a narrower float."""
    if getattr(expected, "dtype", None) == "float16" and getattr(value, "dtype", None) == "float32":
        return value.astype("float16")
    return value


def _unusually(sets: Sequence[InputSet], overflows: Sequence[Overflow]) -> tuple[str, ...]:
    """A remark on what overflows at the least of the magnitudes beyond the usual.

    How much room there is.
    """
    if not overflows:
        return ()
    first = max(overflow.input_set for overflow in overflows)  # the sweep goes downwards
    worst = max(
        (overflow for overflow in overflows if overflow.input_set == first),
        key=lambda overflow: overflow.greatest,
    )
    return (
        f"float16 would overflow {sets[first].unusual}: {worst.place} reaches {worst.greatest:.3g}",
    )


def _by_value(overflows: Sequence[Overflow]) -> dict[str, Overflow]:
    """The greatest overflow of every value, in the order of the graph."""
    values: dict[str, Overflow] = {}
    for overflow in overflows:
        greatest = values.get(overflow.place.value)
        if greatest is None or overflow.greatest > greatest.greatest:
            values[overflow.place.value] = overflow
    return values
