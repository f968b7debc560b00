"""The edges of integers and of truth values: large ones, negative indices, what is cut off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_harness.inputs.graph.demand import Kind
from onnx_harness.inputs.graph.demands import BECOMES_TRUTH
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.rule import Make
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import Value

_Maker = Callable[[Recipe, str, Value, Guess, int], Value | None]


def _large_integers(
    recipe: Recipe,
    name: str,
    value: Value,
    base: Guess,  # noqa: ARG001 - every maker of a set takes it
    seed: int,
) -> Value | None:
    """Integers beyond what float32 tells apart, and int64 beyond int32.

    Only where nothing restricts them.
    """
    entry, rule = recipe.inputs[name], recipe.rules[name]
    # What is compared, divided or cut off alone may be as large.
    demands = recipe.findings[name].demands
    is_free = all(demand.kind in (Kind.AMONG, Kind.CUT) for demand in demands)
    free = rule.make is Make.INTEGERS and not rule.certain and is_free
    if not entry.is_integer or not free or name in recipe.specs or isinstance(value, list):
        return None
    low, high = entry.integer_range
    numbers = [
        2**24 + 1,  # the first integer that float32 lacks
        -(2**24) - 1,
        2**31 + 5,  # beyond int32
        -(2**31) - 5,
        2**15 + 1,  # beyond int16
        1,
        -1,
        7,
    ]
    fitting = [number for number in numbers if low < number < high] + [high - 1]
    # Each of them, where there's room.
    turns = seeded(seed, 200, name).permutation(np.asarray(fitting, dtype=object))
    return np.asarray(np.resize(turns, value.shape), dtype=entry.dtype)


def _negative_indices(
    recipe: Recipe, name: str, value: Value, base: Guess, seed: int
) -> Value | None:
    """Half of the indices counted from the end, as ONNX allows for whatever is gathered."""
    entry, rule = recipe.inputs[name], recipe.rules[name]
    indexing = []
    for d in recipe.findings[name].demands:
        if d.kind is Kind.BOUND and d.why.startswith("it indexes"):
            indexing.append(d)
    if (
        not indexing
        or name in recipe.specs
        or isinstance(value, list)
        or entry.dtype.kind != "i"
        or rule.low != 0
    ):
        return None
    size = None if rule.high is None else int(rule.high) + 1
    if rule.dim:
        size = base.sizes.get(rule.dim)
    if not size:
        return None
    flipped = seeded(seed, 201, name).random(value.shape) < 0.5
    return np.asarray(
        np.where(flipped, np.asarray(value, np.int64) - size, value), dtype=entry.dtype
    )


def _other_truth(
    recipe: Recipe,
    name: str,
    value: Value,
    base: Guess,  # noqa: ARG001 - every maker of a set takes it
    seed: int,
) -> Value | None:
    """Floats that are true without being 1: what rounds them first takes some for false."""
    entry = recipe.inputs[name]
    is_cast = any(
        demand.kind is Kind.MASK and demand.why.startswith(BECOMES_TRUTH)
        for demand in recipe.findings[name].demands
    )
    if not entry.is_float or not is_cast or name in recipe.specs or isinstance(value, list):
        return None
    picked = seeded(seed, 202, name).choice([0.0, -0.0, 0.5, -0.25, 1.0, 3.0], value.shape)
    return np.asarray(picked, dtype=entry.dtype)


def _at_cuts(
    recipe: Recipe,
    name: str,
    value: Value,
    base: Guess,  # noqa: ARG001 - every maker of a set takes it
    seed: int,  # noqa: ARG001
) -> Value | None:
    """Integers at what they are cut off at, and next to it; of a single one, just beyond it."""
    numbers: list[float] = []
    for demand in recipe.findings[name].demands:
        if demand.kind is Kind.CUT:
            numbers += demand.values
    return _in_turn(recipe, name, value, numbers)


def _outside(
    recipe: Recipe,
    name: str,
    value: Value,
    base: Guess,  # noqa: ARG001
    seed: int,  # noqa: ARG001
) -> Value | None:
    """Classes that there are none of: a OneHot gives rows without a 1."""
    numbers: list[float] = []
    for demand in recipe.findings[name].demands:
        is_class = demand.kind is Kind.BOUND and " in OneHot" in demand.why
        if is_class and demand.high is not None:
            numbers += [
                demand.high + 1,
                0,
                demand.high + 7,
            ]
    return _in_turn(recipe, name, value, numbers)


def _in_turn(
    recipe: Recipe,
    name: str,
    value: Value,
    numbers: list[float],
) -> Value | None:
    """A value of the same shape that holds numbers in turn; None without such."""
    if not numbers or name in recipe.specs:
        return None
    if isinstance(value, list):
        return None
    dtype = recipe.inputs[name].dtype
    return np.resize(numbers, value.shape).astype(dtype)


MAKERS: tuple[tuple[str, _Maker], ...] = (
    ("with large integers", _large_integers),
    ("with negative indices", _negative_indices),
    ("with truth that is neither 0 nor 1", _other_truth),
    ("with integers at what they are cut off at", _at_cuts),
    ("with classes that there are none of", _outside),
)
"""Ways of being unusual, each with what makes an input's values so; None where they stay."""
