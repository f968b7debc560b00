"""Input sets that hold every index of a table: a row that is never looked up is never judged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs.decisions.batch import INDEX, Attempt, Batch
from onnx_harness.inputs.decisions.ensembles import Ints
from onnx_harness.inputs.plan.edges import is_light
from onnx_harness.inputs.plan.large import is_small
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.rule import Make, Rule
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value

_LOOKED_UP = (Make.IDS, Make.INTEGERS, Make.POSITIONS)
_MOST_INDICES = 1 << 16
_TURNS = 3  # of an index that isn't alone in its row
_MOST_SETS = 16  # where a run of all rows together would cost more than next to nothing


def index_sets(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> list[InputSet]:
    """Make sets that together hold each index that an input can have.

    Those of one input at a time, for models of which a run costs next to nothing.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None where it doesn't run.
    """
    sets: list[InputSet] = []
    indexed = [
        name for name, rule in recipe.rules.items() if _count(rule, name, recipe.specs) > 1
    ]
    if not indexed or not is_light(model, recipe, base, with_tables=False):
        return sets
    for name in indexed:
        for values, rows in _feeds(model, recipe, seed, base, name):
            if attempt(values) is None:
                break
            sets.append(
                InputSet(f"every index of {name} (seed {seed}, {rows} rows)", values)
            )
    return sets


def _count(rule: Rule, name: str, specs: Mapping[str, InputSpec]) -> int:
    """Count the indices that an input can have; 0 where no table bounds them."""
    fixed = name in specs and bool(specs[name].values)
    if fixed or rule.make not in _LOOKED_UP or not rule.certain or rule.dim is not None:
        return 0
    if rule.low is None or rule.high is None:
        return 0
    count = int(rule.high) - int(rule.low) + 1
    return count if count <= _MOST_INDICES else 0


def _feeds(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, name: str
) -> Iterator[tuple[dict[str, Value], int]]:
    """Feeds whose rows hold the indices of one input in turn, each with its number of rows."""
    usual = recipe.values(INDEX, seed, base)[name]
    if not isinstance(usual, np.ndarray) or usual.size == 0:
        return
    width = usual.size // usual.shape[0] if usual.ndim else 1
    indices = _rows(recipe.rules[name], name, width, seed)
    batch = Batch(model, recipe, base, [name])

    def filled(part: Ints) -> dict[str, Value]:
        def fill(values: dict[str, Value]) -> None:
            array = values[name]
            assert isinstance(array, np.ndarray)
            array.reshape(-1)[:] = np.resize(part, array.size)

        return batch.values(seed, len(part), fill)

    for pieces in (1, 4, _MOST_SETS):
        rows = math.ceil(len(indices) / pieces)
        if is_small(model, filled(indices[:rows])):
            break
    else:
        return
    count = 0
    for start in range(0, len(indices), rows):
        for part in batch.parts(indices[start : start + rows]):
            count += 1
            if count > _MOST_SETS:
                return
            yield filled(part), len(part)


def _rows(rule: Rule, name: str, width: int, seed: int) -> Ints:
    """Every index, in rows of ``width``: positions in order, others mixed, [R, width].

    Mixed ones come several times, among others each time: the maximum over a row hides some.
    """
    assert rule.low is not None
    assert rule.high is not None
    indices = np.arange(int(rule.low), int(rule.high) + 1)
    if rule.make is not Make.POSITIONS:
        rng = seeded(seed, INDEX, name)
        turns = _TURNS if width > 1 else 1
        mixed = np.concatenate([rng.permutation(indices) for _ in range(turns)])
        # The ends come first: not all of the others may fit into the sets that there are.
        ends = np.isin(mixed, indices[[0, -1]])
        indices = np.concatenate([mixed[ends], mixed[~ends]])
    rows = math.ceil(len(indices) / width)
    return np.resize(indices, (rows, width))
