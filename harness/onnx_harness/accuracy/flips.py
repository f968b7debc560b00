"""Departures that last bits cause where a model rounds: counted in steps, told from changes by how rare they are."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_harness.accuracy.explain import MOST_L2, MOST_STEPS, Bound
from onnx_harness.accuracy.failures import OutputFailure, pair, place, share
from onnx_harness.accuracy.measure import Array, Measured

# Of 19 models that quantize or round, no honest variant departed in more sets than one of four by more than
# draws of their last bits did in that set. A scale changed by 1%, a zero point or a column of weights shows in all.
_SHARE_OF_FLIPS = 0.25


def without_flips(failures: Sequence[OutputFailure], sets: int) -> tuple[list[OutputFailure], list[str]]:
    """The failures without those that may be chance, and remarks on these.

    Where last bits flip a value of a quantizer or a rounding, they do so in few sets. A change shows in all of them.

    Args:
        failures: of every set.
        sets: how many usual sets there are.
    """
    most = max(1, round(_SHARE_OF_FLIPS * sets))
    flips: dict[str, set[int | None]] = {}
    for failure in failures:
        if failure.flip:
            flips.setdefault(failure.output, set()).add(failure.at)
    chance = {output: len(places) for output, places in flips.items() if len(places) <= most < sets}
    remarks = [
        f"{output}: in {count} of {sets} input sets it departs as far as the model's own last bits move it in others, "
        "which stands"
        for output, count in chance.items()
    ]
    return [failure for failure in failures if not (failure.flip and failure.output in chance)], remarks


def in_steps(reference: Array, candidate: Array, found: Measured, moved: int, bound: Bound) -> str:
    """The departure of an output on a grid: how many steps, in how many elements."""
    at, noise = found.greatest_at or 0, bound.floor
    return (
        f"departs by {found.max_abs / bound.step:,.0f} steps of its last quantizer or rounding"
        f"{place(reference, at)} ({pair(reference, candidate, at)}), and {share(moved, found.size)} lie on another "
        f"step; the untouched model's own last bits move {share(noise.moved, found.size)} by "
        f"{noise.greatest / bound.step:,.1f} (at most {MOST_L2:g}x as many, {MOST_STEPS:g}x as far)"
    )
