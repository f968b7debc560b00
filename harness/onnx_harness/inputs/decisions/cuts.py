"""Where the values of an input's column are cut in two by a threshold behind it.

To the unit in the last place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Apply = Callable[[NDArray[Any]], NDArray[Any]]

_STEPS = 66  # halvings: the numbers of a type of 64 bits
_PROBES = (-1e4, -100.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 100.0, 1e4)
# Nobody's feature is beyond it; a product of it and a scale is still finite.
_GREATEST = 1e30


@dataclass(frozen=True)
class Grid:
    """The numbers that an input's type can hold, with an order that counts them.

    Attributes:
        dtype: of the input.
    """

    dtype: np.dtype[Any]

    @property
    def greatest(self) -> float:
        """The greatest number that is made."""
        if self.dtype.kind in "iu":
            return float(min(np.iinfo(self.dtype).max, 2**53))
        return min(float(np.finfo(self.dtype).max), _GREATEST)

    @property
    def least(self) -> float:
        """The least number that is made."""
        if self.dtype.kind in "iu":
            return float(max(np.iinfo(self.dtype).min, -(2**53)))
        return -self.greatest

    def keys(self, values: Floats) -> NDArray[np.int64]:
        """The place of numbers of the type in their order; zeros of either sign share one."""
        if self.dtype.kind in "iu":
            return values.astype(np.int64)
        signed = np.dtype(f"i{self.dtype.itemsize}")
        bits = values.astype(self.dtype).view(signed).astype(np.int64)
        magnitude = bits & np.iinfo(signed).max
        return np.where(bits < 0, -magnitude, magnitude)

    def values(self, keys: NDArray[np.int64]) -> Floats:
        """The numbers at places, the reverse of :meth:`keys`."""
        if self.dtype.kind in "iu":
            return keys.astype(np.float64)
        signed = np.dtype(f"i{self.dtype.itemsize}")
        magnitude = np.abs(keys).astype(signed).view(self.dtype).astype(np.float64)
        return np.where(keys < 0, -magnitude, magnitude)

    def step(self, values: Floats, count: int) -> Floats:
        """The numbers ``count`` places on, within what is made."""
        keys = self.keys(np.clip(values, self.least, self.greatest)) + count
        return np.clip(self.values(keys), self.least, self.greatest)

    def between(self, low: Floats, high: Floats) -> Floats:
        """The numbers of the type next to the middle."""
        middle = low + (high - low) / 2
        middle = (
            np.floor(middle)
            if self.dtype.kind in "iu"
            else middle.astype(self.dtype).astype(np.float64)
        )
        return np.clip(middle, low, high)


def direction(grid: Grid, apply: Apply) -> int:
    """1 where greater values give greater ones, -1 where lesser, 0 where neither is seen."""
    values = []
    for value in _PROBES:
        if grid.least <= value <= grid.greatest:
            values.append(value)
    probes = np.asarray(values)
    if grid.dtype.kind in "iu":
        probes = np.unique(np.floor(probes))
    images = np.asarray(apply(probes.astype(grid.dtype)), np.float64)
    change = images[-1] - images[0]
    return int(np.sign(change)) if np.isfinite(change) else 0


def last_where(
    grid: Grid, predicate: Callable[[NDArray[Any]], NDArray[np.bool_]], count: int
) -> Floats:
    """Return the greatest number for which each of ``count`` predicates holds.

    Each holds below some number and not above.

    Args:
        grid: the numbers.
        predicate: from values of the grid's type, [count], to truth values, [count].
        count: of the predicates.

    Returns:
        float64, [count]; -inf where a predicate holds for none.
    """
    low = np.full(count, int(grid.keys(np.asarray([grid.least]))[0]) - 1)
    high = np.full(count, int(grid.keys(np.asarray([grid.greatest]))[0]))
    first = low.copy()
    for _ in range(_STEPS):
        if (low >= high).all():
            break
        middle = (low >> 1) + (high >> 1) + (((low & 1) + (high & 1) + 1) >> 1)
        holds = predicate(grid.values(middle).astype(grid.dtype))
        open_ = low < high
        low = np.where(open_ & holds, middle, low)
        high = np.where(open_ & ~holds, middle - 1, high)
    return np.where(low == first, -np.inf, grid.values(np.maximum(low, first + 1)))


def cut(
    grid: Grid, apply: Apply, rising: int, thresholds: Floats, *, strict: bool
) -> Floats:
    """The greatest number on the lower side of each threshold.

    The lower side holds ``f(x) <= t`` (``f(x) < t`` where strict), or, where f falls, what doesn't
    hold it.

    Args:
        grid: of the input's type.
        apply: f, from the input's column to what is compared.
        rising: of f, as :func:`direction` has it; not 0.
        thresholds: t, [k].
        strict: whether the comparison is ``<``.

    Returns:
        float64, [k]; -inf where nothing is on the lower side.
    """

    def predicate(values: NDArray[Any]) -> NDArray[np.bool_]:
        images = apply(values).astype(np.float64)
        below = images < thresholds if strict else images <= thresholds
        return below if rising > 0 else ~below

    return last_where(grid, predicate, len(thresholds))
