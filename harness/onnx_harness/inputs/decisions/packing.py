"""Rows that serve many branches or leaves at once.

Boxes that have a point in common, put together first fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Bools, Ints

OPEN_ROWS = 32
"""Rows that a box is tried on before a new one is begun.

A box costs about 30 microseconds with so many.
"""


@dataclass(frozen=True, eq=False)
class Packed:
    """Boxes of rows, each the intersection of what was put into it.

    Attributes:
        low: least number of each slot, [P, S].
        high: greatest, [P, S]; with ``low`` the two sides of a threshold where a slot is pinned.
        pinned: the slots that lie on a threshold, [P, S].
        row: which of them each box was put into, [n].
    """

    low: Floats
    high: Floats
    pinned: Bools
    row: Ints


@dataclass(frozen=True, eq=False)
class Pins:
    """The slot that each box has on a threshold, with the numbers on both sides.

    Three arrays, [n].
    """

    slot: Ints
    below: Floats
    above: Floats


def pack(
    low: Floats, high: Floats, least: Floats, greatest: Floats, pins: Pins | None = None
) -> Packed:
    """Put boxes together first fit; a slot with a pin isn't bounded by its box.

    Args:
        low: least number of each slot, [n, S].
        high: greatest, [n, S].
        least: what each slot may hold at least, [S].
        greatest: and at most, [S].
        pins: of each box.
    """
    packer = _Packer(least, greatest)
    bounded = (low > least) | (high < greatest)
    if pins is not None:
        bounded[np.arange(len(low)), pins.slot] = False
    boxes, slots = np.nonzero(bounded)
    ends = np.searchsorted(boxes, np.arange(len(low) + 1))
    lows, highs = low[boxes, slots], high[boxes, slots]
    row = np.zeros(len(low), np.int64)
    for box in range(len(low)):
        part = slice(ends[box], ends[box + 1])
        pin = (
            None
            if pins is None
            else (int(pins.slot[box]), float(pins.below[box]), float(pins.above[box]))
        )
        row[box] = packer.put(slots[part], lows[part, None], highs[part, None], pin)
    return packer.packed(row)


class _Packer:
    """The open rows, a column each: what a box looks at lies side by side.

    A box fits a row where its high isn't below ``starts`` and its low isn't above ``stops``: the
    ends of what is left of a slot, and for a pinned one the numbers on both sides of the threshold,
    the greater first.
    """

    def __init__(self, least: Floats, greatest: Floats) -> None:
        self.least, self.greatest = least, greatest
        self.starts = np.tile(least[:, None], OPEN_ROWS)
        self.stops = np.tile(greatest[:, None], OPEN_ROWS)
        self.begun = 0
        self.closed: list[tuple[Floats, Floats]] = []

    def put(
        self, slots: Ints, low: Floats, high: Floats, pin: tuple[int, float, float] | None
    ) -> int:
        """Put a box into the first row that it fits, or into a new one; return the row's number."""
        starts, stops = self.starts[slots], self.stops[slots]
        fits = np.logical_and.reduce((starts <= high) & (stops >= low), axis=0)
        if pin is not None:
            slot, below, above = pin
            first, last = self.starts[slot], self.stops[slot]
            fits &= ((first <= below) & (last >= above)) | (
                (first == above) & (last == below)
            )
        place = int(fits.argmax())
        if not fits[place] or place >= self.begun:
            place = self._begin()
            starts[:, place], stops[:, place] = (
                self.starts[slots, place],
                self.stops[slots, place],
            )
        # Of a pinned slot neither changes: the box holds both of its numbers.
        self.starts[slots, place] = np.maximum(starts[:, place], low[:, 0])
        self.stops[slots, place] = np.minimum(stops[:, place], high[:, 0])
        if pin is not None:
            self.starts[slot, place], self.stops[slot, place] = above, below
        return self.begun - 1 - (self.begun - 1 - place) % OPEN_ROWS

    def _begin(self) -> int:
        place = self.begun % OPEN_ROWS
        if self.begun >= OPEN_ROWS:
            self._close(place)
        self.starts[:, place], self.stops[:, place] = self.least, self.greatest
        self.begun += 1
        return place

    def _close(self, place: int) -> None:
        self.closed.append((self.starts[:, place].copy(), self.stops[:, place].copy()))

    def packed(self, row: Ints) -> Packed:
        """Close all rows, in the order in which they were begun."""
        for number in range(max(0, self.begun - OPEN_ROWS), self.begun):
            self._close(number % OPEN_ROWS)
        none = np.zeros((0, len(self.least)))
        starts, stops = (
            (np.stack(arrays) for arrays in zip(*self.closed, strict=True))
            if self.closed
            else (none, none)
        )
        return Packed(
            np.minimum(starts, stops), np.maximum(starts, stops), starts > stops, row
        )
