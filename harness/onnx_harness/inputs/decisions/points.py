"""Choose points of boxes, and tell what they say about the trees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_harness.inputs.decisions.boxes import Boxes
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.domain import Domain
from onnx_harness.inputs.decisions.ensembles import Bools, Ensemble, Ints
from onnx_harness.inputs.decisions.packing import Packed
from onnx_harness.inputs.decisions.space import Asked

_POOL, _BACKGROUNDS = 2048, 24
WALKS = 1 << 20
"""Rows times trees that the choice of backgrounds may cost."""
_FEW_WALKS = 1 << 23  # rows times trees: half a second a run
_STEEP = 2.0  # of a score, where a sigmoid still shows a tenth of what changes
_WIDE = 64  # units in the last place; what is moved by a few of them stays where it is


class Points:
    """Points of boxes, filled up from a few backgrounds.

    Attributes:
        domain: what the slots can hold.
        rng: draws the points.
        cells: of each slot the stretches between neighbouring thresholds: starts and ends, [k].
        backgrounds: points to fill up with what a box leaves open, [24, S].
    """

    def __init__(
        self, domain: Domain, questions: Sequence[Asked], rng: np.random.Generator
    ) -> None:
        self.domain = domain
        self.rng = rng
        self.cells = [
            _stretches(domain, number, questions) for number in range(len(domain.slots))
        ]
        self.backgrounds = self._pool(questions)

    def _pool(self, questions: Sequence[Asked]) -> Floats:
        """Points to fill up with what a box leaves open.

        Where a sigmoid follows, those that it doesn't saturate on.
        """
        saturating = []
        for question in questions:
            if question.ensemble.saturating:
                saturating.append(question)
        trees = sum(len(question.ensemble.roots) for question in saturating)
        count = max(_BACKGROUNDS, min(_POOL, WALKS // trees)) if trees else _BACKGROUNDS
        points = self.of(self.domain.whole(np.arange(count)), None)
        scores = np.zeros(count)
        for question in saturating:
            scores += self.margins(question, points)
        return points[np.argsort(scores, kind="stable")[:_BACKGROUNDS]]

    def margins(self, question: Asked, points: Floats) -> Floats:
        """Return how far the scores of points lie from where a sigmoid is steepest, [R]."""
        leaves = question.ensemble.leaf_of(
            question.features(self.domain.slots, points), at_roots(question, len(points))
        )
        totals = question.ensemble.weights[leaves].sum(axis=1) + question.ensemble.base
        sums = np.sort(totals, axis=1)
        if sums.shape[1] == 1:
            return np.asarray(np.abs(sums[:, 0]))
        return np.asarray(np.abs(sums[:, -1] - sums[:, -2]))

    def of(self, boxes: Boxes, backgrounds: Floats | None) -> Floats:
        """Return a point of each box.

        It's a background's numbers where they lie in it, else the middle of a stretch.
        """
        count = len(boxes.nodes)
        points = np.zeros((count, len(self.domain.slots)))
        if backgrounds is not None:
            points = backgrounds[self.rng.integers(0, len(backgrounds), count)]
        for number in self.domain.numeric:
            low, high, column = (
                boxes.low[:, number],
                boxes.high[:, number],
                points[:, number],
            )
            outside = (
                (column < low) | (column > high)
                if backgrounds is not None
                else np.ones(count, bool)
            )
            if outside.any():
                points[outside, number] = self._middles(number, low[outside], high[outside])
        for number in self.domain.finite:
            mask = boxes.elements[
                :, self.domain.first[number] : self.domain.first[number + 1]
            ]
            chosen = points[:, number].astype(np.int64)
            outside = (
                ~mask[np.arange(count), chosen]
                if backgrounds is not None
                else np.ones(count, bool)
            )
            if outside.any():
                chances = self.rng.random(mask[outside].shape) * mask[outside]
                points[outside, number] = np.argmax(chances, axis=1)
        return points

    def _middles(self, number: int, low: Floats, high: Floats) -> Floats:
        """The middle of some stretch between thresholds within [low, high].

        Of two, the one that isn't narrow.
        """
        starts, ends = self.cells[number]
        grid = self.domain.slots[number].grid
        first = np.clip(np.searchsorted(starts, low, "right") - 1, 0, len(starts) - 1)
        last = np.clip(np.searchsorted(ends, high, "left"), first, len(ends) - 1)
        chosen = self.rng.integers(first, last, endpoint=True)
        again = self.rng.integers(first, last, endpoint=True)
        width = ends - starts
        chosen = np.where(width[again] > width[chosen], again, chosen)
        middles = grid.between(
            np.maximum(starts[chosen], low), np.minimum(ends[chosen], high)
        )
        return np.clip(middles, low, high)

    def filled(self, rows: Packed) -> Floats:
        """A point of each packed row, pinned slots aside."""
        count = len(rows.low)
        every = np.ones((count, int(self.domain.first[-1])), bool)
        return self.of(
            Boxes(np.arange(count), rows.low, rows.high, every, np.ones(count, bool)),
            self.backgrounds,
        )

    def shows(self, question: Asked, points: Floats) -> Bools:
        """Return whether no sigmoid hides what changes at the points."""
        if not question.ensemble.saturating:
            return np.ones(len(points), bool)
        return np.asarray(self.margins(question, points) <= _STEEP)

    def missing_rows(self) -> Floats:
        """A row for each slot of which a value is replaced, with that value."""
        places = []
        for number, slot in enumerate(self.domain.slots):
            if slot.missing is not None:
                places.append(number)
        points = self.backgrounds[self.rng.integers(0, len(self.backgrounds), len(places))]
        for row, number in enumerate(places):
            missing = self.domain.slots[number].missing
            points[row, number] = np.nan if missing is None else missing
        return points

    def is_steady(self, rows: Floats) -> Bools:
        """Decide whether no number of a row lies next to a threshold, [R].

        Next is so close that a few last bits decide.
        """
        steady = np.ones(len(rows), bool)
        for number in self.domain.numeric:
            starts, ends = self.cells[number]
            values, grid = rows[:, number], self.domain.slots[number].grid
            if grid.dtype.kind in "iu" or not len(values):
                continue
            at = np.clip(np.searchsorted(starts, values, "right") - 1, 0, len(starts) - 1)
            keys, first, last = (
                grid.keys(points) for points in (values, starts[at], ends[at])
            )
            inner = (at > 0) & (keys - first < _WIDE)
            outer = (at < len(starts) - 1) & (last - keys < _WIDE)
            steady &= np.isnan(values) | ~(inner | outer)
        return steady


def at_roots(question: Asked, count: int) -> Ints:
    """Return where rows begin to walk: the roots of all trees, [R, T]."""
    return np.broadcast_to(question.ensemble.roots, (count, len(question.ensemble.roots)))


def packs(domain: Domain, ensemble: Ensemble) -> bool:
    """Decide whether a row of its own for each branch costs more than packing them.

    Packing costs time, single rows cost runs.
    """
    return (
        not domain.finite and 3 * len(ensemble.branches) * len(ensemble.roots) > _FEW_WALKS
    )


def _stretches(
    domain: Domain, number: int, questions: Sequence[Asked]
) -> tuple[Floats, Floats]:
    """The stretches between neighbouring thresholds of a slot: their ends, [k] and [k]."""
    slot = domain.slots[number]
    if slot.elements:
        return np.zeros(0), np.zeros(0)
    below = []
    for question in questions:
        below.append(question.below[(question.slot == number) & np.isfinite(question.below)])
    spans = []
    for question in questions:
        spans.append(
            question.span[(question.slot == number) & np.isfinite(question.span[:, 1]), 1]
        )
    ends = np.unique(np.concatenate([*below, *spans]))
    if ends.size == 0:
        return np.asarray([-1.0]), np.asarray([1.0])
    starts = slot.grid.step(ends, 1)
    margin = max(1.0, float(ends[-1] - ends[0])) / 2
    first, last = (
        slot.grid.between(ends[:1] - 2 * margin, ends[:1]),
        starts[-1:] + 2 * margin,
    )
    last = slot.grid.between(starts[-1:], np.minimum(last, slot.grid.greatest))
    first = np.minimum(np.maximum(first, slot.grid.least), ends[:1])
    return np.concatenate([first, starts]), np.concatenate(
        [ends, np.maximum(last, starts[-1:])]
    )
