"""Input sets whose elements lie on the constants that they are compared with, and next to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_harness.inputs.decisions.batch import INDEX, Attempt
from onnx_harness.inputs.decisions.cuts import Floats, Grid
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import Array, InputSet, shape_text

ON_CONSTANTS = "with elements on the constants that they are compared with"
"""The name of such a set."""

_MOST_SETS = 16  # where a set has fewer elements than there are constants


def constant_sets(
    recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> list[InputSet]:
    """Make sets in which half of the elements lie on a constant or next to it.

    That is one unit in the last place above, or one below. In a last set all of them do: a score
    that is just above a threshold is often suppressed by a greater one.

    Args:
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None where it doesn't run.
    """
    compared = {
        name: rule.edges
        for name, rule in recipe.rules.items()
        if rule.edges and name not in recipe.specs
    }
    if not compared:
        return []
    sets = []
    shape = shape_text(np.shape(recipe.values(INDEX, seed, base)[next(iter(compared))]))
    for turn in range(_MOST_SETS):
        values = recipe.values(INDEX, seed, base)
        most_remaining = 0
        for name, constants in compared.items():
            value = values[name]
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
                values[name], remaining = _on(
                    value, constants, seeded(seed, INDEX + 1, name), turn
                )
                most_remaining = max(most_remaining, remaining)
        if attempt(values) is not None:
            again = f", {turn + 1}" if turn else ""
            name = f"unusual: {ON_CONSTANTS} (seed {seed}, {shape}{again})"
            sets.append(InputSet(name, values, ON_CONSTANTS, poised=True))
        if most_remaining <= 0:
            break
    values = recipe.values(INDEX, seed, base)
    for name, constants in compared.items():
        value = values[name]
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            near = _near(value.dtype, constants)
            turns = seeded(seed, INDEX + 2, name).permutation(np.resize(near, value.size))
            values[name] = turns.astype(value.dtype).reshape(value.shape)
    if attempt(values) is not None:
        name = f"unusual: {ON_CONSTANTS} (seed {seed}, {shape}, all)"
        sets.append(InputSet(name, values, ON_CONSTANTS, poised=True))
    return sets


def _near(dtype: np.dtype[Any], constants: tuple[float, ...]) -> Floats:
    """The constants and their neighbours in a type."""
    grid = Grid(dtype)
    exact = np.asarray(constants, np.float64).astype(dtype).astype(np.float64)
    return np.concatenate([exact, grid.step(exact, 1), grid.step(exact, -1)])


def _on(
    array: Array, constants: tuple[float, ...], rng: np.random.Generator, turn: int
) -> tuple[Array, int]:
    """Return the array with elements on constants and next to them.

    The second item is how many numbers are left for further turns.
    """
    near = _near(array.dtype, constants)
    changed = np.array(array)
    flat = changed.reshape(-1)
    count = min(flat.size, max(len(near), flat.size // 2))
    width = changed.shape[-1] if changed.ndim else 1
    if len(constants) > 1 and flat.size < len(near) * width:
        # Each may be what another column is compared with: all of them go through every place.
        shift, remaining = turn, len(near) - (turn + 1)
    else:
        shift = turn * count
        remaining = len(near) - (turn + 1) * count
    flat[rng.permutation(flat.size)[:count]] = np.resize(np.roll(near, -shift), count)
    return changed, remaining
