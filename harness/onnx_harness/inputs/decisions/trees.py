"""Input sets for the trees of a model: what is fed to visit every leaf, and to tell one threshold from the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from onnx_harness.inputs.decisions.columns import Column, NotTraced, trace
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Ensemble, Mode, read
from onnx_harness.inputs.decisions.rows import Rows, rows_of
from onnx_harness.inputs.decisions.space import Asked, Slot, asked_of, slots_of, values_of
from onnx_harness.inputs.graph.scopes import view
from onnx_harness.inputs.plan.edges import bounds
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.sizes import Role
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value

MOST_BRANCHES = 200_000
"""Branches of a model's trees that rows are made for: a second for 10,000, three rows each."""

ON_THRESHOLDS = "with features on the thresholds of its trees"
"""What the sets are called that lie where a last bit decides."""

Attempt = Callable[[dict[str, Value]], Any]

_INDEX = 72  # a multiple of 4: of the signals that sets take turns with, the structured one
_MOST_ROWS = 1 << 16  # of a set
_MOST_ELEMENTS = 1 << 22
_MOST_SETS = 32  # of each kind, where a set can't have as many rows as there are
_ROWS_IN_MAPS = 256  # of a set, where each row becomes an output of its own: a sequence of maps


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
    return rows_of(forest.asked, forest.slots, seeded(seed, _INDEX, "forest"))


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


class Batch:
    """How many rows a set can have, and sets of that many.

    Args:
        model: its outputs count.
        recipe: of the model.
        base: what the first set ran with.
        sources: the inputs that the rows are for.
    """

    def __init__(self, model: onnx.ModelProto, recipe: Recipe, base: Guess, sources: Sequence[str]) -> None:
        self.recipe, self.base = recipe, base
        firsts = [(recipe.inputs[name].dims or (1,))[0] for name in sources]
        pinned = recipe.pinned(0)
        self.names = [dim for dim in firsts if isinstance(dim, str)]
        fixed = [dim for dim in firsts if isinstance(dim, int)]
        fixed += [base.sizes.get(name, 1) for name in self.names if not self._is_open(name, pinned)]
        self.fixed = fixed[0] if fixed else None
        width = sum(int(np.prod([dim for dim in recipe.inputs[name].dims or () if isinstance(dim, int)]))
                    for name in sources)  # fmt: skip
        most = max(1, min(_MOST_ROWS, _MOST_ELEMENTS // max(width, 1)))
        self.most = min(most, _ROWS_IN_MAPS) if _gives_sequences(model) else most

    def _is_open(self, name: str, pinned: Mapping[str, int]) -> bool:
        known = self.recipe.dimensions.get(name)
        return name not in pinned and known is not None and known.role is not Role.FIXED

    def parts(self, rows: Floats) -> Iterator[Floats]:
        """The rows, as many in each part as a set can have; evenly chosen ones where there are too many."""
        size = self.fixed or self.most
        if len(rows) > size * _MOST_SETS:
            rows = rows[: size * _MOST_SETS]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            if self.fixed and len(part) < size:
                part = np.concatenate([part, np.resize(part, (size - len(part), part.shape[1]))])
            yield part

    def values(self, seed: int, count: int, fill: Callable[[dict[str, Value]], None]) -> dict[str, Value]:
        """The values of all inputs for a set of ``count`` rows."""
        sizes = self.base.sizes
        if self.fixed is None:
            wanted = dict.fromkeys(self.names, count)
            sizes = self.recipe.fit(sizes | wanted, {*self.recipe.pinned(0), *wanted})
        values = self.recipe.values(_INDEX, seed, replace(self.base, sizes=sizes))
        fill(values)
        return values


def _gives_sequences(model: onnx.ModelProto) -> bool:
    return any(not info.type.HasField("tensor_type") for info in model.graph.output)


def visited(forest: Forest, sets: Sequence[InputSet]) -> dict[str, tuple[int, int]]:
    """How many leaves the sets visit, and how many branches they decide both ways, each of how many."""
    leaves = leaves_of = sides = branches = 0
    for each in forest.asked:
        ensemble = each.ensemble
        seen = np.zeros(len(ensemble.mode), bool)
        for made in sets:
            rows = _rows_in(made, forest.slots)
            if rows is not None and len(rows):
                features = each.features(forest.slots, rows)
                for part in np.array_split(features, max(1, len(features) * len(ensemble.roots) >> 21)):
                    starts = np.broadcast_to(ensemble.roots, (len(part), len(ensemble.roots)))
                    seen[ensemble.leaf_of(part, starts)] = True
        leaf = ensemble.mode == Mode.LEAF
        leaves, leaves_of = leaves + int(seen[leaf].sum()), leaves_of + int(leaf.sum())
        reached = _upwards(ensemble, seen)
        inner = ensemble.branches
        sides += int((reached[ensemble.yes[inner]] & reached[ensemble.no[inner]]).sum())
        branches += len(inner)
    return {"leaves": (leaves, leaves_of), "branches decided both ways": (sides, branches)}


def _upwards(ensemble: Ensemble, seen: Any) -> Any:
    """The tree nodes above those that were seen."""
    reached = seen.copy()
    inner = ensemble.branches
    while True:
        more = reached[ensemble.yes[inner]] | reached[ensemble.no[inner]]
        if (more == reached[inner]).all():
            return reached
        reached[inner] = more


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
