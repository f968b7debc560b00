"""How far a mutant's outputs lie from the unmutated model's, in units of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx_harness.accuracy.explain import Bound, Yardstick
from onnx_harness.accuracy.measure import Array
from onnx_harness.accuracy.noise import Gap, gaps, pool
from onnx_harness.accuracy.values import Leaf, Value, walk


def furthest(
    unmutated: Mapping[str, Value], mutant: Mapping[str, Value], noise: Yardstick, index: int
) -> tuple[str, float]:
    """The output that moved furthest, with the multiple of its noise, in the L2 norm or in its worst element.

    What isn't floating-point has no noise: equal, or infinitely far. So are other kinds, shapes and dtypes, and NaN or
    infinity elsewhere; unless noise alone does that to an output, which then says nothing.

    Args:
        unmutated: outputs by name.
        mutant: the same.
        noise: by input set.
        index: of this input set in ``noise``.
    """
    arrays: dict[str, Array] = {}
    for output, value in unmutated.items():
        for part in walk(output, value, mutant.get(output)):
            if not isinstance(part, Leaf):
                return part.name, math.inf
            if part.reference is None or part.candidate is None:
                continue
            if (part.reference.shape, part.reference.dtype) != (part.candidate.shape, part.candidate.dtype):
                return part.name, math.inf
            arrays[pool(part)] = part.reference
    most = ("", 0.0)
    for name, gap in gaps(unmutated, mutant).items():
        times = _times(gap, noise.bound(index, name, arrays[name], gap.scale))
        if times > most[1]:
            most = (name, times)
    return most


def _times(gap: Gap, bound: Bound) -> float:
    if any(each is not None and (each.changed or each.nonfinite) for each in (bound.floor, bound.ideal)):
        return 0.0
    if gap.changed or gap.nonfinite:
        return math.inf
    return max(_ratio(gap.l2, bound.l2), _ratio(gap.greatest, bound.greatest))


def _ratio(gap: float, noise: float) -> float:
    return 0.0 if gap == 0 else math.inf if noise == 0 else gap / noise
