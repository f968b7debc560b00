"""The distance of a mutant's outputs from the unmutated model's, in units of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx_harness.accuracy.explain import Bound, Yardstick
from onnx_harness.accuracy.measure import Array
from onnx_harness.accuracy.noise import Gap, gaps
from onnx_harness.accuracy.values import Leaf, Value, walk


def furthest(
    unmutated: Mapping[str, Value], mutant: Mapping[str, Value], noise: Yardstick, index: int
) -> tuple[str, float]:
    """Return the output that moved furthest, and by how many times its noise.

    In the L2 norm or in its worst element. What isn't floating-point has no noise: equal, or
    infinitely far. So are other kinds, shapes and dtypes, and NaN or infinity elsewhere; unless
    noise alone does that to an output, which then says nothing.

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
            if not _are_alike(part.reference, part.candidate):
                return part.name, math.inf
            arrays[part.name] = part.reference
    output, furthest_times = "", 0.0
    for name, gap in gaps(unmutated, mutant).items():
        bound = noise.bound(index, name, arrays[name], gap.scale)
        times = _times(gap, bound)
        if times > furthest_times:
            output, furthest_times = name, times
    return output, furthest_times


def _are_alike(first: Array, second: Array) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype


def _times(gap: Gap, bound: Bound) -> float:
    if _differs_in_kind(bound.floor) or _differs_in_kind(bound.ideal):
        return 0.0
    if _differs_in_kind(gap):
        return math.inf
    return max(_ratio(gap.l2, bound.l2), _ratio(gap.greatest, bound.greatest))


def _differs_in_kind(gap: Gap | None) -> bool:
    """True where a value changed that has no distance, or one became NaN or infinite."""
    if gap is None:
        return False
    return bool(gap.changed or gap.nonfinite)


def _ratio(gap: float, noise: float) -> float:
    if gap == 0:
        return 0.0
    return math.inf if noise == 0 else gap / noise
