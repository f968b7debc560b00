"""Input sets for the trees of a model.

What is fed to visit every leaf, and to tell one threshold from the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_harness.inputs.decisions.batch import INDEX, Attempt, Batch
from onnx_harness.inputs.decisions.columns import Column, NotTraced, trace
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Bools, Ensemble, Ints, Mode, read
from onnx_harness.inputs.decisions.rows import Rows, reachable, rows_of
from onnx_harness.inputs.decisions.space import Asked, Slot, asked_of, slots_of, values_of
from onnx_harness.inputs.graph.scopes import view
from onnx_harness.inputs.plan.edges import bounds
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value

_PART_BITS = 9  # 512 rows at a time: after each, fewer trees are left
_PAIRS = 1 << 20  # of a row and a branch, walked at a time

MOST_BRANCHES = 200_000
"""Branches of a model's trees that rows are made for: a second for 10,000, three rows each."""

MOST_WALKS = 1 << 24
"""Rows times trees of the usual sets, and of those on thresholds.

About a second a run, and a cell takes some ten.
"""
_LEAST_ROWS = 1024

ON_THRESHOLDS = "with features on the thresholds of its trees"
"""The name of the sets that lie where a last bit decides."""


@dataclass(frozen=True, eq=False)
class Forest:
    """The trees of a model whose features can be followed back to the inputs.

    Attributes:
        slots: the input columns that the trees look at.
        asked: what the branches of each ensemble ask of them.
        notes: why others can't be, a sentence each.
    """

    slots: list[Slot]
    asked: list[Asked]
    notes: tuple[str, ...] = ()

    @property
    def branches(self) -> int:
        """Return how many branches are asked for."""
        return sum(len(question.ensemble.branches) for question in self.asked)


def forest_of(model: onnx.ModelProto, recipe: Recipe) -> Forest | None:
    """Read the trees of a model; None where it has none.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
    """
    ensembles = []
    for node in model.graph.node:
        if (ensemble := read(node)) is not None:
            ensembles.append(ensemble)
    if not ensembles:
        return None
    scope = view(model).main
    traced: list[tuple[Ensemble, list[Column]]] = []
    notes: list[str] = []
    branches = 0
    for ensemble in ensembles:
        try:
            columns = trace(scope, recipe.inputs, ensemble.source)
            branches += len(ensemble.branches)
            if branches > MOST_BRANCHES:
                raise NotTraced(f"the trees have more than {MOST_BRANCHES:,} branches")
            traced.append((ensemble, columns))
        except NotTraced as reason:
            notes.append(f"no rows are made for the thresholds of {ensemble.name}: {reason}")
    slots = []
    for slot in slots_of(traced, recipe.inputs):
        if _is_free(recipe, slot.source):
            slots.append(_bounded(slot, recipe))
    return Forest(
        slots,
        [asked_of(ensemble, columns, slots) for ensemble, columns in traced],
        tuple(notes),
    )


def _is_free(recipe: Recipe, name: str) -> bool:
    """Return whether the card leaves an input's values open."""
    return name not in recipe.specs or not recipe.specs[name].values


def _bounded(slot: Slot, recipe: Recipe) -> Slot:
    low, high = bounds(recipe, slot.source)
    return replace(
        slot, low=-np.inf if low is None else low, high=np.inf if high is None else high
    )


def forest_rows(forest: Forest, seed: int) -> Rows:
    """The rows for a forest, the same for a seed on every machine."""
    return rows_of(forest.asked, forest.slots, seeded(seed, INDEX, "forest"))


def forest_sets(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> tuple[list[InputSet], list[InputSet]]:
    """Make the sets that visit every leaf, and those on the thresholds.

    The former are usual ones, the latter aren't.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None where it doesn't run.
    """
    forest = forest_of(model, recipe)
    if forest is None or not forest.slots:
        return [], []
    rows = forest_rows(forest, seed)
    batch = Batch(model, recipe, base, sorted({slot.source for slot in forest.slots}))
    most = max(
        _LEAST_ROWS,
        MOST_WALKS // max(1, sum(len(question.ensemble.roots) for question in forest.asked)),
    )
    usual = rows.leaves[rows.steady][:most]
    # Rows for what is missing come last: of many trees they are the ones that are left out.
    edges = np.concatenate([rows.leaves[~rows.steady], rows.edges])[:most]

    def fed(part: Floats) -> dict[str, Value]:
        return batch.values(
            seed, len(part), lambda values: _filled(values, forest.slots, part)
        )

    visiting = [
        InputSet(f"every leaf (seed {seed}, {len(part)} rows)", values)
        for part in batch.parts(usual)
        if attempt(values := fed(part)) is not None
    ]
    deciding = [
        InputSet(
            f"unusual: {ON_THRESHOLDS} (seed {seed}, {len(part)} rows)",
            values,
            ON_THRESHOLDS,
            poised=True,
        )
        for part in batch.parts(edges)
        if attempt(values := fed(part)) is not None
    ]
    return visiting, deciding


def _filled(values: dict[str, Value], slots: Sequence[Slot], rows: Floats) -> None:
    """Put rows of slots in the place of what the inputs hold."""
    for number, slot in enumerate(slots):
        array = values[slot.source]
        assert isinstance(array, np.ndarray)
        array.reshape(len(rows), -1)[:, slot.place] = values_of(slot, rows[:, number])


def visited(forest: Forest, sets: Sequence[InputSet]) -> dict[str, tuple[int, int]]:
    """Count the leaves that the sets visit, and the thresholds with a row on either side.

    The rows lie next to them. Each count comes with the number of all.

    What no input reaches isn't counted.
    """
    leaves = leaves_of = met = thresholds = 0
    for question, open_ in zip(
        forest.asked, reachable(forest.asked, forest.slots), strict=True
    ):
        ensemble = question.ensemble
        seen = _Seen(question, open_)
        for input_set in sets:
            rows = _rows_in(input_set, forest.slots)
            if rows is not None:
                seen.walk(rows, question.features(forest.slots, rows))
        leaf = (ensemble.mode == Mode.LEAF) & open_
        leaves, leaves_of = leaves + int(seen.nodes[leaf].sum()), leaves_of + int(leaf.sum())
        # A threshold outside the box of its branch decides nothing: one of its sides can't be
        # reached.
        inner = ensemble.branches
        inner = inner[open_[ensemble.yes[inner]] & open_[ensemble.no[inner]]]
        met, thresholds = (
            met + int((seen.below & seen.above)[inner].sum()),
            thresholds + len(inner),
        )
    return {"leaves": (leaves, leaves_of), "thresholds": (met, thresholds)}


class _Seen:
    """The tree nodes that rows came by.

    Branches of which one lay next to the threshold are counted by side.

    A tree whose nodes have all been seen isn't walked again: of hundreds of thousands of rows times
    a thousand trees, that leaves few. A threshold is looked for in the rows that hold its number,
    in its own tree alone.
    """

    def __init__(self, question: Asked, open_: Bools) -> None:
        self.asked, self.open = question, open_
        ensemble = question.ensemble
        count = len(ensemble.mode)
        self.nodes, self.below, self.above = (np.zeros(count, bool) for _ in range(3))
        self.root = _roots_of(ensemble)
        # Equalities and elements have no last place: there a row on each side is all there is.
        loose = np.isfinite(question.span[:, 1]) | ~np.isfinite(question.below)
        self.loose = loose & (ensemble.mode != Mode.LEAF)
        self.exact = np.flatnonzero(
            ~loose & (ensemble.mode != Mode.LEAF) & (question.slot >= 0) & open_
        )

    def walk(self, rows: Floats, features: Floats) -> None:
        """Note what the rows come by."""
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) >> _PART_BITS)):
            unseen = self.open & ~self.nodes
            unseen |= self.open & self.loose & ~(self.below & self.above)
            roots = np.unique(self.root[unseen])
            if not roots.size:
                break
            self._walk(np.tile(roots, len(part)), np.repeat(part, len(roots)), features)
        for side, numbers in (
            (self.below, self.asked.below),
            (self.above, self.asked.above),
        ):
            self._meet(rows, features, side, numbers)

    def _meet(self, rows: Floats, features: Floats, side: Bools, numbers: Floats) -> None:
        """Walk the tree of each branch that isn't met yet with the rows that hold its number."""
        unmet = self.exact[~side[self.exact]]
        slots = self.asked.slot[unmet]
        for number in np.unique(slots):
            branches = unmet[slots == number]
            branches = branches[np.argsort(numbers[branches], kind="stable")]
            values, column = numbers[branches], rows[:, number]
            first, last = (
                np.searchsorted(values, column, where) for where in ("left", "right")
            )
            row = np.repeat(np.arange(len(column)), last - first)
            behind = np.arange(len(row)) - np.repeat(
                np.cumsum(last - first) - (last - first), last - first
            )
            branch = branches[first[row] + behind]
            for start in range(0, len(branch), _PAIRS):
                part = slice(start, start + _PAIRS)
                targets = branch[part]
                reached = self._walk(self.root[targets], row[part], features, targets)
                side[targets[reached]] = True

    def _walk(
        self, current: Ints, row: Ints, features: Floats, targets: Ints | None = None
    ) -> Bools:
        """Go down from tree nodes; return whether each comes by the node that is wanted."""
        ensemble = self.asked.ensemble
        number = np.arange(len(current))
        reached = np.zeros(len(current), bool)
        while current.size:
            self.nodes[current] = True
            if targets is not None:
                reached[number[current == targets[number]]] = True
            active = ensemble.mode[current] != Mode.LEAF
            current, row, number = current[active], row[active], number[active]
            holds = ensemble.holds(current, features[row, ensemble.feature[current]])
            loose = self.loose[current]
            self.below[current[loose & holds]] = True
            self.above[current[loose & ~holds]] = True
            current = np.where(holds, ensemble.yes[current], ensemble.no[current])
        return reached


def _roots_of(ensemble: Ensemble) -> Ints:
    """The root of the tree that each node belongs to, [N]."""
    root = np.zeros(len(ensemble.mode), np.int64)
    level = ensemble.roots
    of = ensemble.roots
    # A cycle would make it go on for ever; ONNX Runtime refuses those.
    for _ in range(len(ensemble.mode)):
        root[level] = of
        inner = ensemble.mode[level] != Mode.LEAF
        level, of = level[inner], of[inner]
        if not level.size:
            break
        level, of = np.concatenate([ensemble.yes[level], ensemble.no[level]]), np.tile(of, 2)
    return root


def _rows_in(input_set: InputSet, slots: Sequence[Slot]) -> Floats | None:
    """Return what a set holds in the slots, [R, S].

    Elements by their number, unknown ones as the last.
    """
    columns = []
    for slot in slots:
        array = input_set.values.get(slot.source)
        if not isinstance(array, np.ndarray) or not array.ndim or not array.shape[0]:
            return None
        column = array.reshape(array.shape[0], -1)[:, slot.place]
        if slot.elements:
            numbers = {element: number for number, element in enumerate(slot.elements)}
            columns.append(
                np.asarray(
                    [numbers.get(value, len(numbers) - 1) for value in column.tolist()],
                    np.float64,
                )
            )
        else:
            columns.append(column.astype(np.float64))
    return (
        np.stack(columns, axis=1) if len({len(column) for column in columns}) == 1 else None
    )
