"""Compare a model's ideal conversion with its reference: what a type costs the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from onnx_harness.accuracy.noise import Noise
from onnx_harness.inputs import InputSet
from onnx_harness.judging.quantizing import Range, Scheme, quantize_through, watch, watched
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.rounding import Clamp, round_through
from onnx_harness.judging.runs import (
    DRAWS,
    Draw,
    few_elements,
    gaps_of,
    in_memory,
    kept_noise,
    nudged,
    open_cpu,
)
from onnx_harness.model.file import Model
from onnx_harness.model.inlining import inline_functions
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache

# Above this relative L2 error float16 has lost more than digits: rounding by 2^-11 left 1e-2 at
# most on the outputs of the public zoo, and 0.6 to 1.2 where a sum of squares or a variance
# overflowed.
_MORE_THAN_DIGITS = 0.05

# What rounding to nearest moves a number by, at most: half the distance of two neighbours, relative
# to the lower one.
_UNITS = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "int8": 2.0**-8,
    "int4": 2.0**-8,
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """The type and the means of a variant's conversion.

    Attributes:
        type: what it is called, for people: ``float16``, ``bfloat16``, ``int8`` or ``int4``.
        clamp: of weights, which a conversion to float16 documents.
        all_inputs: the converted model takes its float inputs in the type.
        scheme: of the quantization, where that is what it is.
    """

    type: str
    clamp: Clamp | None = None
    all_inputs: bool = False
    scheme: Scheme | None = None


@dataclass(frozen=True, slots=True)
class Ideal:
    """The ideal conversion's effect on the outputs.

    Attributes:
        digits: what the digits of the type cost.
        range: what its digits and its range cost: something else where values overflow.
    """

    digits: Noise
    range: Noise


def ideal_conversion(
    model: Model,
    reference: Reference,
    conversion: Conversion,
    cache: Cache,
    calibration: Sequence[InputSet] = (),
) -> Ideal:
    """The gaps of the ideal conversion of a model; from the cache when they're there.

    Args:
        model: the untouched model.
        reference: its input sets and outputs.
        conversion: the type, and what is documented about the conversion.
        cache: the cache.
        calibration: the input sets over which a static quantization finds its ranges, which those
            that it is judged on may exceed; the reference's where there are none.

    Raises:
        Exception: the graph can't be changed so, or ONNX Runtime can't run it then.
    """
    measured = partial(_measured, model, reference, conversion, cache)
    scheme = conversion.scheme
    if scheme is not None:
        sets = list(calibration) or [reference.sets[place] for place in reference.usual]
        noise = measured(
            [repr(scheme), [input_set.digest() for input_set in calibration]],
            lambda graph: quantize_through(graph, scheme, _ranges(model, sets, scheme)),
        )
        return Ideal(noise, noise)
    kind = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[
        conversion.type
    ]

    def through(clamp: Clamp | None, *, ranged: bool) -> Noise:
        return measured(
            [repr(clamp), conversion.all_inputs, ranged],
            lambda graph: round_through(
                graph, kind, clamp, all_inputs=conversion.all_inputs, ranged=ranged
            ),
        )

    ranged = through(conversion.clamp, ranged=True)
    if _overflows(ranged):
        unlimited = conversion.clamp and replace(conversion.clamp, most=float("inf"))
        return Ideal(through(unlimited, ranged=False), ranged)
    return Ideal(ranged, ranged)


def _measured(
    model: Model,
    reference: Reference,
    conversion: Conversion,
    cache: Cache,
    details: list[object],
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> Noise:
    """Return the gaps of the changed model; ``details`` tell the change from others."""

    def make() -> Noise:
        session = open_cpu(change(in_memory(model)))
        # No conversion to a narrower type has to be usable on an unusual set.
        draws = _draws(conversion, reference)
        gaps = dict(gaps_of(session, reference, reference.usual, draws))
        sets = tuple(gaps.get(index, {}) for index in range(len(reference.sets)))
        return Noise(sets, (f"ideal {conversion.type}",))

    return kept_noise("ideal", model, reference, cache, [conversion.type, *details], make)


def _draws(conversion: Conversion, reference: Reference) -> list[Draw]:
    """Rounded otherwise: the inputs moved by no more than rounding them moves them."""
    moved: Draw = partial(_moved, _UNITS[conversion.type])
    return [_as_they_are, *[moved] * (DRAWS - 1 if few_elements(reference) else 0)]


def _as_they_are(values: Mapping[str, Any], _: np.random.Generator) -> Mapping[str, Any]:
    return values


def _moved(
    unit: float, values: Mapping[str, Any], generator: np.random.Generator
) -> Mapping[str, Any]:
    return {name: nudged(value, generator, unit) for name, value in values.items()}


def _overflows(noise: Noise) -> bool:
    for input_set in noise.sets:
        for gap in input_set.values():
            if gap.nonfinite or gap.l2 > _MORE_THAN_DIGITS * gap.norm:
                return True
    return False


def _ranges(model: Model, sets: Sequence[InputSet], scheme: Scheme) -> dict[str, Range]:
    """Return the least and the greatest of each activation of the untouched model on input sets."""
    graph = inline_functions(in_memory(model))
    names = watch(graph, watched(graph, scheme))
    if not names:
        return {}
    session = open_cpu(graph)
    ranges: dict[str, Range] = {}
    for input_set in sets:
        seen = run(session, input_set.values)
        for name, (least, most) in names.items():
            low, high = ranges.get(name, (float("inf"), float("-inf")))
            ranges[name] = (min(low, float(seen[least])), max(high, float(seen[most])))
    return {
        name: (low, high)
        for name, (low, high) in ranges.items()
        if -float("inf") < low <= high < float("inf")
    }
