"""Draw some of a room's mutants, and say how far the score of those can be believed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from tests.mutants.reading import Mutant

_Z = 1.96  # of a normal distribution, 95% lie within so many deviations


def draw(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """Take every n-th mutant in the order of files and lines, so that each file has its share.

    Args:
        mutants: all that count.
        count: how many to take; all where there are no more.
        seed: of the first one's place.
    """
    if count >= len(mutants):
        return list(mutants)
    ordered = sorted(mutants, key=lambda mutant: (mutant.file, mutant.line, mutant.key))
    stride = len(ordered) / count
    start = random.Random(seed).random() * stride
    return [ordered[int(start + place * stride)] for place in range(count)]


def interval(noticed: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share in percent (Wilson 1927)."""
    if count == 0:
        return 0.0, 100.0
    share = noticed / count
    centre = share + _Z**2 / (2 * count)
    margin = _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    whole = 1 + _Z**2 / count
    return 100 * (centre - margin) / whole, 100 * (centre + margin) / whole
