"""Make rows of input columns that visit every leaf of the trees.

Further ones lie on every threshold and next to it.

The box of a tree node, the values that lead to it, is known exactly: an interval of each column (or
a part of its elements), cut in two at each branch above it. Every row is a point of such a box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_harness.inputs.decisions.boxes import Boxes, joined, moved_to
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Bools, Ensemble, Ints, Mode
from onnx_harness.inputs.decisions.packing import Packed, Pins, pack
from onnx_harness.inputs.decisions.space import Asked, Slot

_BATCH = 1 << 22  # numbers of the boxes that are worked on at a time: tree nodes times slots
_STEPS_AT_ONCE = 1 << 21  # rows times trees that are walked at a time
_POOL, _BACKGROUNDS = 2048, 24
_WALKS = 1 << 20  # rows times trees that the choice of backgrounds may cost
_TRIES = 5  # for a row whose sides of a branch end in leaves that differ
_MANY, _TRIES_OF_MANY = 20_000, 2  # branches
_MORE_TRIES = 24  # where a sigmoid hides the difference
_VISIBLE = 1e-4  # of a probability; what is judged by the noise of float32 shows a hundredth of it
_FEW_WALKS = 1 << 23  # rows times trees: half a second a run
_STEEP = 2.0  # of a score, where a sigmoid still shows a tenth of what changes
_WIDE = 64  # units in the last place; what is moved by a few of them stays where it is


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that were made.

    Attributes:
        leaves: rows that visit every leaf that can be, [R, S].
        steady: which of them lie far enough from all thresholds that a few last bits decide
            nothing, [R].
        edges: rows on thresholds and next to them: of each branch those of its two sides first,
            [R', S].
        unreachable: branches and leaves that no input reaches.
    """

    leaves: Floats
    steady: Bools
    edges: Floats
    unreachable: int


def rows_of(questions: Sequence[Asked], slots: Sequence[Slot], rng: np.random.Generator) -> Rows:
    """Make the rows for some ensembles that look at ``slots``."""
    maker = _Maker(questions, slots, rng)
    leaves: list[Floats] = []
    edges: tuple[list[Floats], list[Floats]] = ([], [])
    unreachable = 0
    for question in questions:
        visited = np.zeros(len(question.ensemble.mode), bool)
        for boxes in maker.boxes(question):
            unreachable += int((~boxes.open).sum())
            leaves.append(maker.leaf_rows(question, boxes, visited))
            for more, points in zip(edges, maker.edge_rows(question, boxes), strict=True):
                more.append(points)
    empty = np.zeros((0, len(slots)))
    rows = np.concatenate([empty, *leaves, maker.missing_rows()])
    first, others = edges
    return Rows(rows, maker.is_steady(rows), np.concatenate([empty, *first, *others]), unreachable)


def reachable(questions: Sequence[Asked], slots: Sequence[Slot]) -> list[Bools]:
    """Return which tree nodes of each ensemble some input reaches."""
    maker = _Maker(questions, slots, np.random.default_rng(0))
    reached = []
    for question in questions:
        open_ = np.zeros(len(question.ensemble.mode), bool)
        for boxes in maker.boxes(question):
            open_[boxes.nodes] = boxes.open
        reached.append(open_)
    return reached


class _Maker:
    def __init__(
        self, questions: Sequence[Asked], slots: Sequence[Slot], rng: np.random.Generator
    ) -> None:
        self.slots = slots
        self.rng = rng
        sizes = [len(slot.elements) for slot in slots]
        self.first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.finite = [number for number, size in enumerate(sizes) if size]
        self.numeric = [number for number, size in enumerate(sizes) if not size]
        self.asked = questions
        self.low = np.asarray(
            [0.0 if slot.elements else max(slot.low, slot.grid.least) for slot in slots]
        )
        self.high = np.asarray(
            [0.0 if slot.elements else min(slot.high, slot.grid.greatest) for slot in slots]
        )
        self.cells = [self._cells(number) for number in range(len(slots))]
        self.backgrounds = self._pool()

    def _cells(self, number: int) -> tuple[Floats, Floats]:
        """The stretches between neighbouring thresholds of a slot: their ends, [k] and [k]."""
        slot = self.slots[number]
        if slot.elements:
            return np.zeros(0), np.zeros(0)
        below = []
        for question in self.asked:
            below.append(question.below[(question.slot == number) & np.isfinite(question.below)])
        spans = []
        for question in self.asked:
            spans.append(
                question.span[(question.slot == number) & np.isfinite(question.span[:, 1]), 1]
            )
        ends = np.unique(np.concatenate([*below, *spans]))
        if ends.size == 0:
            return np.asarray([-1.0]), np.asarray([1.0])
        starts = slot.grid.step(ends, 1)
        margin = max(1.0, float(ends[-1] - ends[0])) / 2
        first, last = slot.grid.between(ends[:1] - 2 * margin, ends[:1]), starts[-1:] + 2 * margin
        last = slot.grid.between(starts[-1:], np.minimum(last, slot.grid.greatest))
        first = np.minimum(np.maximum(first, slot.grid.least), ends[:1])
        return np.concatenate([first, starts]), np.concatenate(
            [ends, np.maximum(last, starts[-1:])]
        )

    def _pool(self) -> Floats:
        """Points to fill up with what a box leaves open.

        Where a sigmoid follows, those that it doesn't saturate on.
        """
        saturating = []
        for question in self.asked:
            if question.ensemble.saturating:
                saturating.append(question)
        trees = sum(len(question.ensemble.roots) for question in saturating)
        count = max(_BACKGROUNDS, min(_POOL, _WALKS // trees)) if trees else _BACKGROUNDS
        boxes = Boxes(
            np.arange(count),
            np.tile(self.low, (count, 1)),
            np.tile(self.high, (count, 1)),
            np.ones((count, int(self.first[-1])), bool),
            np.ones(count, bool),
        )
        points = self._points(boxes, None)
        scores = np.zeros(count)
        for question in saturating:
            scores += self._margins(question, points)
        return points[np.argsort(scores, kind="stable")[:_BACKGROUNDS]]

    def _margins(self, question: Asked, points: Floats) -> Floats:
        """Return how far the scores of points lie from where a sigmoid is steepest, [R]."""
        leaves = question.ensemble.leaf_of(
            question.features(self.slots, points), self._starts(question, len(points))
        )
        sums = np.sort(
            question.ensemble.weights[leaves].sum(axis=1) + question.ensemble.base, axis=1
        )
        return np.asarray(np.abs(sums[:, 0] if sums.shape[1] == 1 else sums[:, -1] - sums[:, -2]))

    def _starts(self, question: Asked, count: int) -> Ints:
        return np.broadcast_to(question.ensemble.roots, (count, len(question.ensemble.roots)))

    def boxes(self, question: Asked) -> Iterator[Boxes]:
        """The boxes of all tree nodes, some trees at a time."""
        ensemble = question.ensemble
        width = len(self.slots) + int(self.first[-1]) // 8 + 1
        sizes = np.diff(np.append(np.sort(ensemble.roots), len(ensemble.mode)))
        order = np.argsort(ensemble.roots, kind="stable")
        start = 0
        while start < len(order):
            total = np.cumsum(sizes[start:]) * width
            stop = start + max(1, int(np.searchsorted(total, _BATCH)))
            yield self._descend(question, ensemble.roots[order[start:stop]])
            start = stop

    def _descend(self, question: Asked, roots: Ints) -> Boxes:
        """The boxes of some trees' nodes, level by level."""
        count = len(roots)
        level = Boxes(
            roots,
            np.tile(self.low, (count, 1)),
            np.tile(self.high, (count, 1)),
            np.ones((count, int(self.first[-1])), bool),
            np.ones(count, bool),
        )
        levels = [level]
        # A cycle would make it go on for ever; ONNX Runtime refuses those.
        for _ in range(len(question.ensemble.mode)):
            inner = np.flatnonzero(question.ensemble.mode[level.nodes] != Mode.LEAF)
            if not inner.size:
                break
            parents = level.of(inner)
            sides = [self._side(question, parents, holds=holds) for holds in (True, False)]
            level = joined(sides)
            levels.append(level)
        return joined(levels)

    def _side(self, question: Asked, parents: Boxes, *, holds: bool) -> Boxes:
        """The boxes of the children on one side."""
        at = parents.nodes
        low, high, elements = parents.low.copy(), parents.high.copy(), parents.elements.copy()
        slot, rows = question.slot[at], np.arange(len(at))
        equal = np.isfinite(question.span[at, 1])
        numeric = (slot >= 0) & ~np.isin(at, list(question.allowed)) & ~equal
        lower = numeric & (question.low_holds[at] == holds)
        upper = numeric & ~lower
        high[rows[lower], slot[lower]] = np.minimum(
            high[rows[lower], slot[lower]], question.below[at[lower]]
        )
        low[rows[upper], slot[upper]] = np.maximum(
            low[rows[upper], slot[upper]], question.above[at[upper]]
        )
        same = equal & ((question.ensemble.mode[at] == Mode.NEQ) != holds)
        low[rows[same], slot[same]] = np.maximum(
            low[rows[same], slot[same]], question.span[at[same], 0]
        )
        high[rows[same], slot[same]] = np.minimum(
            high[rows[same], slot[same]], question.span[at[same], 1]
        )
        self._cut_out(question, at, np.flatnonzero(equal & ~same), low, high)
        for row in (
            rows[(slot >= 0) & np.isin(at, list(question.allowed))] if question.allowed else ()
        ):
            first, last = self.first[slot[row]], self.first[slot[row] + 1]
            allowed = question.allowed[int(at[row])]
            elements[row, first:last] &= allowed if holds else ~allowed
        within = parents.open & (low <= high).all(axis=1)
        for number in self.finite:
            within &= elements[:, self.first[number] : self.first[number + 1]].any(axis=1)
        children = (question.ensemble.yes if holds else question.ensemble.no)[at]
        return Boxes(children, low, high, elements, within)

    def _cut_out(self, question: Asked, at: Ints, rows: Ints, low: Floats, high: Floats) -> None:
        """Take what equals the split from the ends of boxes.

        Within one it stays, and few points meet it.
        """
        slot, span = question.slot[at], question.span[at]
        after, before = (
            self._stepped(question, at, span[:, 1], 1),
            self._stepped(question, at, span[:, 0], -1),
        )
        for row in rows:
            first, last = low[row, slot[row]], high[row, slot[row]]
            if span[row, 0] <= first <= span[row, 1]:
                low[row, slot[row]] = after[row]
            if span[row, 0] <= last <= span[row, 1]:
                high[row, slot[row]] = before[row]

    def _points(self, boxes: Boxes, backgrounds: Floats | None) -> Floats:
        """Return a point of each box.

        It's a background's numbers where they lie in it, else the middle of a stretch.
        """
        count = len(boxes.nodes)
        points = np.zeros((count, len(self.slots)))
        if backgrounds is not None:
            points = backgrounds[self.rng.integers(0, len(backgrounds), count)]
        for number in self.numeric:
            low, high, column = boxes.low[:, number], boxes.high[:, number], points[:, number]
            outside = (
                (column < low) | (column > high)
                if backgrounds is not None
                else np.ones(count, bool)
            )
            if outside.any():
                points[outside, number] = self._middles(number, low[outside], high[outside])
        for number in self.finite:
            mask = boxes.elements[:, self.first[number] : self.first[number + 1]]
            chosen = points[:, number].astype(np.int64)
            outside = (
                ~mask[np.arange(count), chosen] if backgrounds is not None else np.ones(count, bool)
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
        grid = self.slots[number].grid
        first = np.clip(np.searchsorted(starts, low, "right") - 1, 0, len(starts) - 1)
        last = np.clip(np.searchsorted(ends, high, "left"), first, len(ends) - 1)
        chosen = self.rng.integers(first, last, endpoint=True)
        again = self.rng.integers(first, last, endpoint=True)
        width = ends - starts
        chosen = np.where(width[again] > width[chosen], again, chosen)
        middles = grid.between(np.maximum(starts[chosen], low), np.minimum(ends[chosen], high))
        return np.clip(middles, low, high)

    def leaf_rows(self, question: Asked, boxes: Boxes, visited: Bools) -> Floats:
        """Rows that visit the leaves which none has visited yet."""
        ensemble = question.ensemble
        todo = np.flatnonzero((ensemble.mode[boxes.nodes] == Mode.LEAF) & boxes.open)
        packed, todo = self._packed_leaves(question, boxes, todo)
        rows_of_leaves: list[Floats] = [packed]
        trees = len(ensemble.roots)
        step = max(64, min(2048, _STEPS_AT_ONCE // max(trees, 1)))
        while todo.size:
            todo = todo[~visited[boxes.nodes[todo]]]
            batch, todo = todo[:step], todo[step:]
            if not batch.size:
                continue
            points = self._points(boxes.of(batch), self.backgrounds)
            leaves = ensemble.leaf_of(
                question.features(self.slots, points), self._starts(question, len(points))
            )
            chosen = []
            for row, reached in enumerate(leaves):
                if not visited[boxes.nodes[batch[row]]]:
                    chosen.append(row)
                    visited[reached] = True
            rows_of_leaves.append(points[chosen])
        return np.concatenate([np.zeros((0, len(self.slots))), *rows_of_leaves])

    def _packs(self, ensemble: Ensemble) -> bool:
        """Decide whether a row of its own for each branch costs more than packing them.

        Packing costs time, single rows cost runs.
        """
        return not self.finite and 3 * len(ensemble.branches) * len(ensemble.roots) > _FEW_WALKS

    def _packed_leaves(self, question: Asked, boxes: Boxes, leaves: Ints) -> tuple[Floats, Ints]:
        """Rows that visit many leaves each, and the leaves that need rows of their own."""
        if not self._packs(question.ensemble):
            return np.zeros((0, len(self.slots))), leaves
        part = boxes.of(leaves)
        rows = pack(part.low, part.high, self.low, self.high)
        points = self._filled(rows)
        return points, leaves[~self._shows(question, points)[rows.row]]

    def _filled(self, rows: Packed) -> Floats:
        """A point of each packed row, pinned slots aside."""
        count = len(rows.low)
        every = np.ones((count, int(self.first[-1])), bool)
        return self._points(
            Boxes(np.arange(count), rows.low, rows.high, every, np.ones(count, bool)),
            self.backgrounds,
        )

    def _shows(self, question: Asked, points: Floats) -> Bools:
        """Return whether no sigmoid hides what changes at the points."""
        if not question.ensemble.saturating:
            return np.ones(len(points), bool)
        return np.asarray(self._margins(question, points) <= _STEEP)

    def edge_rows(self, question: Asked, boxes: Boxes) -> tuple[Floats, Floats]:
        """Return rows on each threshold and next to it.

        Where there are such, their two sides end in leaves that differ.

        Returns:
            The two rows between which a branch decides, of all branches; and further ones.
        """
        ensemble = question.ensemble
        inner = np.flatnonzero(
            (ensemble.mode[boxes.nodes] != Mode.LEAF)
            & boxes.open
            & (question.slot[boxes.nodes] >= 0)
        )
        every, boxes = boxes, boxes.of(inner)
        nodes = boxes.nodes
        best = np.zeros((len(nodes), len(self.slots)))
        gain = np.full(len(nodes), -1.0)
        todo = np.arange(len(nodes))
        values = ensemble.weights @ np.random.default_rng(0).uniform(
            0.5, 1.5, ensemble.weights.shape[1]
        )
        affordable = 4 * _WALKS
        for _ in range(self._tries(ensemble)):
            part = boxes.of(todo)
            points = self._points(part, self.backgrounds)
            sides = []
            for holds, children in ((True, ensemble.yes), (False, ensemble.no)):
                moved = moved_to(
                    points, question.slot[part.nodes], self._edge(question, part, holds=holds)
                )
                leaves = ensemble.leaf_of(
                    question.features(self.slots, moved), children[part.nodes]
                )
                sides.append(values[leaves])
            differs = np.abs(sides[0] - sides[1])
            if (
                ensemble.saturating
                and (affordable := affordable - len(todo) * len(ensemble.roots)) > 0
            ):
                differs *= np.exp(-self._margins(question, moved))
            better = differs > gain[todo]
            best[todo[better]], gain[todo[better]] = points[better], differs[better]
            seen = gain[gain > 0]
            usual = float(np.median(seen)) if seen.size else 0.0
            todo = np.flatnonzero(gain < (_VISIBLE if ensemble.saturating else usual))
            if not todo.size:
                break
        packed, served = self._packed_edges(question, every, boxes, best)
        first, others = self._on_edges(question, boxes, best, ~served)
        return np.concatenate([*packed[:2], first]), np.concatenate([*packed[2:], others])

    def _tries(self, ensemble: Ensemble) -> int:
        if ensemble.saturating:
            return _MORE_TRIES
        return _TRIES if len(ensemble.branches) < _MANY else _TRIES_OF_MANY

    def _packed_edges(
        self, question: Asked, every: Boxes, boxes: Boxes, points: Floats
    ) -> tuple[list[Floats], Bools]:
        """Rows that lie on many thresholds each: below, above, and further.

        And which branches they serve.

        Args:
            question: the trees.
            every: the boxes of all nodes of the branches' trees.
            boxes: of the branches.
            points: of each branch, one whose two sides end in leaves that differ.
        """
        at, count = boxes.nodes, len(boxes.nodes)
        served = np.zeros(count, bool)
        if not self._packs(question.ensemble):
            return [], served
        slot, branches = question.slot[at], np.arange(count)
        sides = [self._edge(question, boxes, holds=holds) for holds in (True, False)]
        below, above = np.minimum(*sides), np.maximum(*sides)
        inside = (below >= boxes.low[branches, slot]) & (above <= boxes.high[branches, slot])
        branches = branches[inside & ~np.isfinite(question.span[at, 1])]
        place = np.zeros(len(question.ensemble.mode), np.int64)
        place[every.nodes] = np.arange(len(every.nodes))
        low, high = boxes.low[branches], boxes.high[branches]
        for values, children in zip(
            sides, (question.ensemble.yes, question.ensemble.no), strict=True
        ):
            moved = moved_to(points[branches], slot[branches], values[branches])
            leaves = place[
                question.ensemble.leaf_of(
                    question.features(self.slots, moved), children[at[branches]]
                )
            ]
            low, high = np.maximum(low, every.low[leaves]), np.minimum(high, every.high[leaves])
        rows = pack(
            low, high, self.low, self.high, Pins(slot[branches], below[branches], above[branches])
        )
        filled = self._filled(rows)
        ends = [np.where(rows.pinned, numbers, filled) for numbers in (rows.low, rows.high)]
        served[branches] = (self._shows(question, ends[0]) & self._shows(question, ends[1]))[
            rows.row
        ]
        return [*ends, np.where(rows.pinned, self._below(rows.low), filled)], served

    def _below(self, values: Floats) -> Floats:
        """The number before each, in its slot's type."""
        columns = [slot.grid.step(values[:, number], -1) for number, slot in enumerate(self.slots)]
        return np.stack(columns, axis=1)

    def _edge(self, question: Asked, boxes: Boxes, *, holds: bool) -> Floats:
        """The number next to the threshold on one side, or an element of that side, [n]."""
        at = boxes.nodes
        numbers = np.where(question.low_holds[at] == holds, question.below[at], question.above[at])
        equal = np.isfinite(question.span[at, 1])
        same = (question.ensemble.mode[at] == Mode.NEQ) != holds
        numbers = np.where(
            equal,
            np.where(
                same, question.span[at, 1], self._stepped(question, at, question.span[at, 1], 1)
            ),
            numbers,
        )
        for row in np.flatnonzero(np.isin(at, list(question.allowed))) if question.allowed else ():
            slot = question.slot[at[row]]
            allowed = question.allowed[int(at[row])]
            mask = boxes.elements[row, self.first[slot] : self.first[slot + 1]] & (
                allowed if holds else ~allowed
            )
            numbers[row] = int(np.argmax(mask))
        return np.where(np.isfinite(numbers), numbers, 0.0)

    def _stepped(self, question: Asked, at: Ints, values: Floats, count: int) -> Floats:
        stepped = values.copy()
        for number in np.unique(question.slot[at]):
            mine = (question.slot[at] == number) & np.isfinite(values)
            if number >= 0 and not self.slots[number].elements and mine.any():
                stepped[mine] = self.slots[number].grid.step(values[mine], count)
        return stepped

    def _on_edges(
        self, question: Asked, boxes: Boxes, points: Floats, alone: Bools
    ) -> tuple[Floats, Floats]:
        """Return rows of a branch each.

        They are those of its two sides for branches that are ``alone``, and further ones.
        """
        at = boxes.nodes
        slot, rows = question.slot[at], np.arange(len(at))
        below, above = (
            self._edge(question, boxes, holds=True),
            self._edge(question, boxes, holds=False),
        )
        below, above = np.minimum(below, above), np.maximum(below, above)
        finite = (
            np.isin(at, list(question.allowed)) if question.allowed else np.zeros(len(at), bool)
        )
        third = np.where(
            question.strict[at],
            self._stepped(question, at, above, 1),
            self._stepped(question, at, below, -1),
        )
        edge_points: list[Floats] = []
        about: list[Ints] = []
        for values in (below, above, third):
            inside = finite | (
                (values >= boxes.low[rows, slot]) & (values <= boxes.high[rows, slot])
            )
            inside &= alone
            if values is third:
                inside &= ~finite
            edge_points.append(moved_to(points[inside], slot[inside], values[inside]))
            about.append(rows[inside])
        looks = np.asarray(
            [slot_.missing is not None and np.isnan(slot_.missing) for slot_ in self.slots], bool
        )
        if looks.any():
            lacking = looks[slot] & ~finite
            edge_points.append(
                moved_to(points[lacking], slot[lacking], np.full(int(lacking.sum()), np.nan))
            )
        # Both rows of a branch stand together: where there is no room for all, neither says much by
        # itself.
        together = np.argsort(np.concatenate(about[:2]), kind="stable")
        return np.concatenate(edge_points[:2])[together], np.concatenate(edge_points[2:])

    def missing_rows(self) -> Floats:
        """A row for each slot of which a value is replaced, with that value."""
        places = []
        for number, slot in enumerate(self.slots):
            if slot.missing is not None:
                places.append(number)
        points = self.backgrounds[self.rng.integers(0, len(self.backgrounds), len(places))]
        for row, number in enumerate(places):
            missing = self.slots[number].missing
            points[row, number] = np.nan if missing is None else missing
        return points

    def is_steady(self, rows: Floats) -> Bools:
        """Decide whether no number of a row lies next to a threshold, [R].

        Next is so close that a few last bits decide.
        """
        steady = np.ones(len(rows), bool)
        for number in self.numeric:
            starts, ends = self.cells[number]
            values, grid = rows[:, number], self.slots[number].grid
            if grid.dtype.kind in "iu" or not len(values):
                continue
            at = np.clip(np.searchsorted(starts, values, "right") - 1, 0, len(starts) - 1)
            keys, first, last = (grid.keys(points) for points in (values, starts[at], ends[at]))
            inner = (at > 0) & (keys - first < _WIDE)
            outer = (at < len(starts) - 1) & (last - keys < _WIDE)
            steady &= np.isnan(values) | ~(inner | outer)
        return steady
