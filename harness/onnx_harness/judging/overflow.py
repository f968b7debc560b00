"""Find the float16 values that overflow where float16 computes, and judge a model by them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_harness.inputs import InputSet
from onnx_harness.judging.half_range import LARGEST, OUTPUT, OVERFLOWS, Place, rounded, watch
from onnx_harness.judging.half_runs import float32_inputs, in_type_of, open_simulated
from onnx_harness.judging.reference import runtime_key
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import Verdict, verdict
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.codec import as_data

_MOST = 8


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


def overflowing(standard: Standard, candidate: Model) -> list[Place]:
    """Return the float16 values that overflow on usual input sets, in the graph's order."""
    sets = standard.reference.sets
    overflows = []
    for overflow in overflows_of(candidate, sets, standard.kept):
        if not sets[overflow.input_set].unusual:
            overflows.append(overflow)
    return [each.place for each in by_value(overflows).values()]


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
    overflows = overflows_of(candidate, sets, standard.kept)
    usual = [overflow for overflow in overflows if not sets[overflow.input_set].unusual]
    if not usual:
        return RangeVerdict(notes=_unusually(sets, overflows))
    places = by_value(usual)
    judged = (
        simulated
        if simulated is not None and simulated.passed
        else judge_overflows(standard, candidate, list(places))
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
    lines += [
        f"{place.place}: {place.greatest:.3g}" for place in list(places.values())[:_MOST]
    ]
    if len(places) > _MOST:
        lines.append(f"and {len(places) - _MOST} more values")
    return RangeVerdict(
        reason, tuple(lines), failing=judged.worst_sets or (worst.input_set,)
    )


def judge_overflows(standard: Standard, candidate: Model, values: Sequence[str]) -> Verdict:
    """Return what is to be said of the outputs when those values alone are rounded to float16."""
    session = open_simulated(
        rounded(watch(candidate.load(), candidate.skeleton).model, values),
        candidate.size_bytes,
        level="disable",
    )
    outputs = []
    for input_set, expected in zip(
        standard.reference.sets, standard.reference.outputs, strict=True
    ):
        narrow = run(session, float32_inputs(input_set.values))
        widened = {}
        for name, value in narrow.items():
            if name != OUTPUT:
                widened[name] = in_type_of(value, expected.get(name))
        outputs.append(widened)
    return verdict(standard, outputs)


def overflows_of(candidate: Model, sets: Sequence[InputSet], cache: Cache) -> list[Overflow]:
    """Return what overflows on which input set, by the cache or by running the model in float32."""
    digests = [input_set.digest() for input_set in sets]
    key = cache.key(candidate.sha256, digests, runtime_key(), source_digest())
    return cache.remember("range", key, lambda: _watch_run(candidate, sets), as_data(list))


# There's no greatest of no elements, for one; and ONNX Runtime's own optimizer may break a model.
_WAYS = ((False, "all"), (True, "all"), (True, "disable"))


def _watch_run(candidate: Model, sets: Sequence[InputSet]) -> list[Overflow]:
    for with_empty, level in _WAYS[:-1]:
        # ONNX Runtime's errors have no common class.
        with contextlib.suppress(Exception):
            return _magnitudes(candidate, sets, level, with_empty=with_empty)
    with_empty, level = _WAYS[-1]
    return _magnitudes(candidate, sets, level, with_empty=with_empty)


def _magnitudes(
    candidate: Model, sets: Sequence[InputSet], level: str, *, with_empty: bool
) -> list[Overflow]:
    watched = watch(candidate.load(), candidate.skeleton, with_empty=with_empty)
    if not watched.places:
        return []
    session = open_simulated(watched.model, candidate.size_bytes, level=level)
    magnitudes = []
    for index, input_set in enumerate(sets):
        if (
            input_set.unusual and not input_set.magnified
        ):  # zeros and infinities say nothing about range
            continue
        greatest = run(session, float32_inputs(input_set.values))[OUTPUT].tolist()
        overflows = []
        for place, value in zip(watched.places, greatest, strict=True):
            if OVERFLOWS <= value < math.inf:
                overflows.append(Overflow(place, value, index))
        magnitudes += overflows
    return magnitudes


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


def by_value(overflows: Sequence[Overflow]) -> dict[str, Overflow]:
    """The greatest overflow of every value, in the order of the graph."""
    values: dict[str, Overflow] = {}
    for overflow in overflows:
        greatest = values.get(overflow.place.value)
        if greatest is None or overflow.greatest > greatest.greatest:
            values[overflow.place.value] = overflow
    return values
