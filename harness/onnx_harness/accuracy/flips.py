"""Tell departures that last bits cause where a model rounds from changes.

They're counted in steps, and told from changes by how rare they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_harness.accuracy.explain import MOST_L2, MOST_STEPS, Bound
from onnx_harness.accuracy.failures import OutputFailure, pair, place, share
from onnx_harness.accuracy.measure import Array, Measured
from onnx_harness.accuracy.noise import moved_elements

# Of 19 models that quantize or round, no honest variant departed in more sets than one of four by
# more than draws of their last bits did in that set. A scale changed by 1%, a zero point or a
# column of weights shows in all.
_SHARE_OF_FLIPS = 0.25


def without_flips(
    failures: Sequence[OutputFailure], usual: int, unusual: int
) -> tuple[list[OutputFailure], list[str]]:
    """Return the failures without those that may be chance, and remarks on these.

    Where last bits flip a value of a quantizer or a rounding, they do so in few sets. A change
    shows in all of them.

    Args:
        failures: of every set.
        usual: how many usual sets there are; they come first.
        unusual: how many others. Flips are counted apart there: a set of its own kind shows what no
            usual one does.
    """
    groups = (("input sets", 0, usual), ("unusual input sets", usual, unusual))
    chance: set[tuple[str, int | None]] = set()
    remarks = []
    for what, first, count in groups:
        for output, places in _flipped(failures, first, count).items():
            if len(places) <= max(1, round(_SHARE_OF_FLIPS * count)) < count:
                chance |= {(output, place) for place in places}
                remarks.append(
                    f"{output}: in {len(places)} of {count} {what} it departs as far as the "
                    f"model's own last bits "
                    "move it in others, which stands"
                )
    remaining = []
    for failure in failures:
        if not (failure.flip and (failure.output, failure.at) in chance):
            remaining.append(failure)
    return remaining, remarks


def _flipped(
    failures: Sequence[OutputFailure], first: int, count: int
) -> dict[str, set[int]]:
    """By output, in which of ``count`` sets from ``first`` on it departs as a flip does."""
    places: dict[str, set[int]] = {}
    for failure in failures:
        if failure.flip and failure.at is not None and first <= failure.at < first + count:
            places.setdefault(failure.output, set()).add(failure.at)
    return places


def is_flip(reference: Array, candidate: Array, departure: Measured, bound: Bound) -> bool:
    """Decide whether a float output departs as far as the model's own last bits move it elsewhere.

    Args:
        reference: its dtype is floating-point.
        candidate: of the same shape.
        departure: of one from the other.
        bound: what explains it.
    """
    # Only on a grid: elsewhere an infinity on both sides would be warned of.
    moved = moved_elements(reference, candidate, bound.step) if bound.step > 0 else 0
    return bound.happens(departure, moved)


def in_steps(
    reference: Array, candidate: Array, departure: Measured, moved: int, bound: Bound
) -> str:
    """The departure of an output on a grid: how many steps, in how many elements."""
    at, noise = departure.greatest_at or 0, bound.floor
    return (
        f"departs by {departure.max_abs / bound.step:,.0f} steps of its last quantizer or rounding"
        f"{place(reference, at, departure.labels)} ({pair(reference, candidate, at)}), and "
        f"{share(moved, departure.size)} lie on another "
        f"step; the untouched model's own last bits move {share(noise.moved, departure.size)} by "
        f"{noise.greatest / bound.step:,.1f} (at most {MOST_L2:g}x as many, {MOST_STEPS:g}x as far)"
    )
