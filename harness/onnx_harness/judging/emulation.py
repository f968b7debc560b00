"""What emulated float16 hides: what float16 makes of a model on hardware which computes in it."""

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
    """What is to be said of a model's range.

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


def judge_half(held: Standard, made: Model, emulated: Verdict) -> Verdict:
    """Judge a model that asks for float16 and was computed in float32 by what float16 would have
    made of it.

    A variant that converts to float16 is run once more with every float16 value rounded as it's made, and the outputs
    are held to what the cell's are held to: see :func:`onnx_harness.judging.simulation.simulated`. Where the run in
    float32 gave wrong values and float16 doesn't, float16 decides. A model that asked for float16 before it was
    converted has no reference in float32 to hold that against, and is judged by its range alone.

    Args:
        held: what the outputs are held to.
        made: the model that was judged.
        emulated: what is to be said of its outputs, computed in float32.

    Returns:
        What is to be said of the model. The distances are those of the outputs that decide; those of both runs are kept
        beside them.
    """
    if not emulated.passed and emulated.symptom is not Symptom.WRONG_VALUES:
        return emulated
    half, notes = _simulate(held, made)
    found = _decided(held, made, emulated, half, (*emulated.notes, *notes))
    return replace(
        found, emulated=emulated.comparison, simulated=None if half is None else half.comparison
    )


def _decided(
    held: Standard, made: Model, emulated: Verdict, half: Verdict | None, notes: tuple[str, ...]
) -> Verdict:
    """The verdict of the run in float32, of the simulated one, or of what overflows: see
    :func:`judge_half`.
    """
    if not emulated.passed:
        if half is None or not half.passed:
            return replace(emulated, notes=notes)
        why = (
            f"float16 as hardware computes it is right, and decides. In float32, as computed "
            f"here: {emulated.reason}"
        )
        return replace(half, notes=(*half.notes, why))
    ranged = judge_range(held, made, half)
    notes += ranged.notes
    if ranged.reason is not None:
        found = Verdict(
            Status.FAIL,
            emulated.comparison,
            ranged.reason,
            ranged.detail,
            notes,
            Symptom.WRONG_VALUES,
        )
        return replace(found, failing=ranged.failing)
    if half is None or half.passed:
        return replace(emulated, notes=notes)
    return replace(
        half, reason=f"float16 as hardware computes it departs: {half.reason}", notes=notes
    )


def half_as_hardware(
    original: Model, reference: Reference, made: Model, kept: Cache
) -> onnx.ModelProto | None:
    """Return the model that float16 is judged by where a provider computed it in float32.

    Args:
        original: the untouched model.
        reference: its input sets.
        made: the model that was judged; it asks for float16.
        kept: the cache.

    Returns:
        The simulated model, or where float16 isn't simulated the one with its overflowing values
        rounded; its float16 inputs and outputs are float32, and it has to run with ONNX Runtime's
        optimizations disabled. None where there is neither.
    """
    if not computes_in_half(original.skeleton):
        return simulated(made.load(), made.skeleton)
    usual = [
        each
        for each in _overflows(made, reference.sets, kept)
        if not reference.sets[each.input_set].unusual
    ]
    return (
        rounded(watch(made.load(), made.skeleton).model, list(_by_value(usual))) if usual else None
    )


def judge_simulated(held: Standard, made: Model) -> Verdict:
    """Judge a model that the provider can't run, since it has no kernels of its type, by a
    simulated run alone.

    Args:
        held: what the outputs are held to.
        made: the model; it asks for bfloat16 or float16.

    Raises:
        NotApplicable: it can't be simulated either.
    """
    why = _not_simulated(held)
    if why is None:
        try:
            outcome = verdict(held, _simulated_outputs(held, made))
        except Exception as error:  # what onnx and ONNX Runtime raise has no common class
            why = first_line(error)
        else:
            notes = (*outcome.notes, *_not_rounded(made))
            return replace(outcome, notes=notes, simulated=outcome.comparison)
    raise NotApplicable(f"it could not be simulated: {why}")


def half_verdict(held: Standard, made: Model) -> Verdict:
    """Return what is to be said of a model where float16 computes, whatever this provider computes
    it in.

    Args:
        held: what the outputs are held to.
        made: the model; it asks for float16.

    Raises:
        Exception: whatever onnx and ONNX Runtime raise of a model that can't be simulated.
    """
    if _not_simulated(held) is None:
        return verdict(held, _simulated_outputs(held, made))
    places = overflowing(held, made)
    return (
        _judge_overflows(held, made, [place.value for place in places])
        if places
        else Verdict(Status.PASS)
    )


def overflowing(held: Standard, made: Model) -> list[Place]:
    """Return the float16 values that overflow on the usual input sets, in the order of the graph."""
    sets = held.reference.sets
    found = [each for each in _overflows(made, sets, held.kept) if not sets[each.input_set].unusual]
    return [each.place for each in _by_value(found).values()]


def _simulate(held: Standard, made: Model) -> tuple[Verdict | None, tuple[str, ...]]:
    """What is to be said of the outputs that float16 gives, and why it can't be, if it can't."""
    why = _not_simulated(held)
    if why is None:
        try:
            return verdict(held, _simulated_outputs(held, made)), _not_rounded(made)
        except Exception as error:  # what onnx and ONNX Runtime raise has no common class
            why = first_line(error, 160)
    return None, (f"{NOT_SIMULATED}: {why}",)


def _not_rounded(made: Model) -> tuple[str, ...]:
    """A remark on the operators that give float16 and whose types nobody knows: they stay float32."""
    ops = unknown_types(made.skeleton)
    why = "neither ONNX nor ONNX Runtime says of what type it is"
    return (
        (f"not rounded in the simulated float16, since {why}: what {listed(ops)} gives",)
        if ops
        else ()
    )


def _not_simulated(held: Standard) -> str | None:
    """Why float16 can't be held against the reference, which has to be computed in float32.

    None where it can.
    """
    if computes_in_narrow(held.model.skeleton):
        return "the untouched model asks for it too, and so its reference was computed in float32"
    if held.conversion is None or held.conversion.type not in _NARROW:
        return f"it isn't all that the variant leaves behind ({held.precision.value})"
    return None


def _simulated_outputs(held: Standard, made: Model) -> list[dict[str, Any]]:
    """The outputs of the usual input sets, which are the first, as float16 gives them."""
    session = _open(simulated(made.load(), made.skeleton), made.size_bytes, level="disable")
    names = {number: name for name, number in _NARROW.items()}
    kinds = {
        info.name: names.get(info.type.tensor_type.elem_type, "")
        for info in made.skeleton.graph.input
    }
    outputs = []
    for place in held.reference.usual:
        expected = held.reference.outputs[place]
        values = _single(held.reference.sets[place].values, kinds)
        outputs.append(
            {name: _like(value, expected.get(name)) for name, value in run(session, values).items()}
        )
    return outputs


def judge_range(held: Standard, made: Model, simulated: Verdict | None = None) -> RangeVerdict:
    """Judge a model that asks for float16 and was computed in float32 by the values that float16
    can't hold.

    An overflow alone is no fault: 1 / (1 + exp(x)) is right when exp(x) is infinite. So the values that overflow are
    rounded to float16, the rest computed in float32, and the outputs held to what the cell's outputs are held to. What
    overflows on larger inputs than the usual ones alone is told and not judged.

    Args:
        held: what the outputs are held to.
        made: the model that was judged.
        simulated: what is to be said of the outputs where all of float16 is reckoned with: no overflow is a fault if
            they are right.
    """
    sets = held.reference.sets
    found = _overflows(made, sets, held.kept)
    usual = [each for each in found if not sets[each.input_set].unusual]
    if not usual:
        return RangeVerdict(notes=_unusually(sets, found))
    places = _by_value(usual)
    judged = (
        simulated
        if simulated is not None and simulated.passed
        else _judge_overflows(held, made, list(places))
    )
    worst = max(usual, key=lambda each: each.greatest)
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
    lines += [f"{each.place}: {each.greatest:.3g}" for each in list(places.values())[:_MOST]]
    if len(places) > _MOST:
        lines.append(f"and {len(places) - _MOST} more values")
    return RangeVerdict(reason, tuple(lines), failing=judged.worst_sets or (worst.input_set,))


def _judge_overflows(held: Standard, made: Model, values: Sequence[str]) -> Verdict:
    """What is to be said of the outputs when those values alone are rounded to float16."""
    session = _open(
        rounded(watch(made.load(), made.skeleton).model, values), made.size_bytes, level="disable"
    )
    outputs = []
    for each, expected in zip(held.reference.sets, held.reference.outputs, strict=True):
        given = run(session, _single(each.values))
        outputs.append(
            {
                name: _like(value, expected.get(name))
                for name, value in given.items()
                if name != OUTPUT
            }
        )
    return verdict(held, outputs)


def _overflows(made: Model, sets: Sequence[InputSet], kept: Cache) -> list[Overflow]:
    """What overflows on which input set, by the cache or by running the model in float32."""
    digests = [each.digest() for each in sets]
    key = kept.key(made.sha256, digests, runtime_key(), source_digest())
    return kept.remember("range", key, lambda: _watch_run(made, sets), as_data(list))


def _watch_run(made: Model, sets: Sequence[InputSet]) -> list[Overflow]:
    try:
        return _magnitudes(made, sets, with_empty=False)
    except (
        Exception
    ):  # there's no greatest of no elements, for one; ONNX Runtime's errors have no common class
        return _magnitudes(made, sets, with_empty=True)


def _magnitudes(made: Model, sets: Sequence[InputSet], *, with_empty: bool) -> list[Overflow]:
    watched = watch(made.load(), made.skeleton, with_empty=with_empty)
    if not watched.places:
        return []
    session = _open(watched.model, made.size_bytes, level="all")
    found = []
    for index, each in enumerate(sets):
        if each.unusual and not each.magnified:  # zeros and infinities say nothing about range
            continue
        greatest = run(session, _single(each.values))[OUTPUT].tolist()
        found += [
            Overflow(place, value, index)
            for place, value in zip(watched.places, greatest, strict=True)
            if OVERFLOWS <= value < math.inf
        ]
    return found


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
    taken = kinds or {}
    return {
        name: [_widened(each) for each in value]
        if isinstance(value, list)
        else _widened(value, taken.get(name, ""))
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


def _unusually(sets: Sequence[InputSet], found: Sequence[Overflow]) -> tuple[str, ...]:
    """A remark on what overflows at the least of the magnitudes beyond the usual: how much room
    there is.
    """
    if not found:
        return ()
    first = max(each.input_set for each in found)  # the sweep goes downwards
    worst = max((each for each in found if each.input_set == first), key=lambda each: each.greatest)
    return (
        f"float16 would overflow {sets[first].unusual}: {worst.place} reaches {worst.greatest:.3g}",
    )


def _by_value(found: Sequence[Overflow]) -> dict[str, Overflow]:
    """The greatest overflow of every value, in the order of the graph."""
    values: dict[str, Overflow] = {}
    for each in found:
        known = values.get(each.place.value)
        if known is None or each.greatest > known.greatest:
            values[each.place.value] = each
    return values
