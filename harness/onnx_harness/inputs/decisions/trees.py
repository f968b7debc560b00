"""Input sets for the trees of a model: what is fed to visit every leaf, and to tell one threshold from the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_harness.inputs.decisions.batch import INDEX, Attempt, Batch
from onnx_harness.inputs.decisions.columns import Column, NotTraced, trace
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Ensemble, Mode, read
from onnx_harness.inputs.decisions.rows import Rows, reachable, rows_of
from onnx_harness.inputs.decisions.space import Asked, Slot, asked_of, slots_of, values_of
from onnx_harness.inputs.graph.scopes import view
from onnx_harness.inputs.plan.edges import bounds
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value

MOST_BRANCHES = 200_000
"""Branches of a model's trees that rows are made for: a second for 10,000, three rows each."""

ON_THRESHOLDS = "with features on the thresholds of its trees"
"""What the sets are called that lie where a last bit decides."""


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
        """How many branches are asked for."""
        return sum(len(each.ensemble.branches) for each in self.asked)


def forest_of(model: onnx.ModelProto, recipe: Recipe) -> Forest | None:
    """Read the trees of a model; None where it has none.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
    """
    found = [ensemble for node in model.graph.node if (ensemble := read(node)) is not None]
    if not found:
        return None
    scope = view(model).main
    traced: list[tuple[Ensemble, list[Column]]] = []
    notes: list[str] = []
    branches = 0
    for ensemble in found:
        try:
            columns = trace(scope, recipe.inputs, ensemble.source)
            branches += len(ensemble.branches)
            if branches > MOST_BRANCHES:
                raise NotTraced(f"the trees have more than {MOST_BRANCHES:,} branches")
            traced.append((ensemble, columns))
        except NotTraced as reason:
            notes.append(f"no rows are made for the thresholds of {ensemble.name}: {reason}")
    slots = [_bounded(slot, recipe) for slot in slots_of(traced, recipe.inputs) if _is_free(recipe, slot.source)]
    return Forest(slots, [asked_of(ensemble, columns, slots) for ensemble, columns in traced], tuple(notes))


def _is_free(recipe: Recipe, name: str) -> bool:
    """Whether the card leaves an input's values open."""
    return name not in recipe.specs or not recipe.specs[name].values


def _bounded(slot: Slot, recipe: Recipe) -> Slot:
    low, high = bounds(recipe, slot.source)
    return replace(slot, low=-np.inf if low is None else low, high=np.inf if high is None else high)


def forest_rows(forest: Forest, seed: int) -> Rows:
    """The rows for a forest, the same for a seed on every machine."""
    return rows_of(forest.asked, forest.slots, seeded(seed, INDEX, "forest"))


def forest_sets(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> tuple[list[InputSet], list[InputSet]]:
    """The sets that visit every leaf, which are usual ones, and those on the thresholds, which aren't.

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
    usual = rows.leaves[rows.steady]
    edges = np.concatenate([rows.leaves[~rows.steady], rows.edges])

    def fed(part: Floats) -> dict[str, Value]:
        return batch.values(seed, len(part), lambda values: _filled(values, forest.slots, part))

    visiting = [
        InputSet(f"every leaf (seed {seed}, {len(part)} rows)", values)
        for part in batch.parts(usual)
        if attempt(values := fed(part)) is not None
    ]
    deciding = [
        InputSet(f"unusual: {ON_THRESHOLDS} (seed {seed}, {len(part)} rows)", values, ON_THRESHOLDS, poised=True)
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
    """How many leaves the sets visit, and how many thresholds have a row on either side, next to them; of how many.

    What no input reaches isn't counted.
    """
    leaves = leaves_of = met = thresholds = 0
    for each, open_ in zip(forest.asked, reachable(forest.asked, forest.slots), strict=True):
        ensemble = each.ensemble
        seen = _Seen(each)
        for made in sets:
            rows = _rows_in(made, forest.slots)
            for part in np.array_split(rows, max(1, len(rows) * len(ensemble.roots) >> 20)) if rows is not None else ():
                seen.walk(part, each.features(forest.slots, part))
        leaf = (ensemble.mode == Mode.LEAF) & open_
        leaves, leaves_of = leaves + int(seen.nodes[leaf].sum()), leaves_of + int(leaf.sum())
        # A threshold outside the box of its branch decides nothing: one of its sides can't be reached.
        inner = ensemble.branches
        inner = inner[open_[ensemble.yes[inner]] & open_[ensemble.no[inner]]]
        met, thresholds = met + int((seen.below & seen.above)[inner].sum()), thresholds + len(inner)
    return {"leaves": (leaves, leaves_of), "thresholds": (met, thresholds)}


class _Seen:
    """The tree nodes that rows came by, and the branches of which one lay next to the threshold, by side."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        count = len(asked.ensemble.mode)
        self.nodes, self.below, self.above = (np.zeros(count, bool) for _ in range(3))

    def walk(self, rows: Floats, features: Floats) -> None:
        asked, ensemble = self.asked, self.asked.ensemble
        current = np.tile(ensemble.roots, len(rows))
        row = np.repeat(np.arange(len(rows)), len(ensemble.roots))
        while current.size:
            self.nodes[current] = True
            active = ensemble.mode[current] != Mode.LEAF
            current, row = current[active], row[active]
            holds = ensemble.holds(current, features[row, ensemble.feature[current]])
            values = rows[row, asked.slot[current]]
            # Equalities and elements have no last place: there a row on each side is all there is.
            loose = np.isfinite(asked.span[current, 1]) | ~np.isfinite(asked.below[current])
            self.below[current[(loose & holds) | (values == asked.below[current])]] = True
            self.above[current[(loose & ~holds) | (values == asked.above[current])]] = True
            current = np.where(holds, ensemble.yes[current], ensemble.no[current])


def _rows_in(made: InputSet, slots: Sequence[Slot]) -> Floats | None:
    """What a set holds in the slots, [R, S]; elements by their number, unknown ones as the last."""
    columns = []
    for slot in slots:
        array = made.values.get(slot.source)
        if not isinstance(array, np.ndarray) or not array.ndim or not array.shape[0]:
            return None
        column = array.reshape(array.shape[0], -1)[:, slot.place]
        if slot.elements:
            known = {element: number for number, element in enumerate(slot.elements)}
            columns.append(np.asarray([known.get(value, len(known) - 1) for value in column.tolist()], np.float64))
        else:
            columns.append(column.astype(np.float64))
    return np.stack(columns, axis=1) if len({len(column) for column in columns}) == 1 else None
