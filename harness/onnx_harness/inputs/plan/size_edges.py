"""Sizes that usual sets leave out: odd heights and widths, and what sizes are compared with.

A pooling that rounds up, or padding that suits even sizes alone, is right on every multiple of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.shapes import Meeting
from onnx_harness.inputs.plan.edges import is_light
from onnx_harness.inputs.plan.fitting import Sizes
from onnx_harness.inputs.plan.float_edges import Edge, scaled
from onnx_harness.inputs.plan.large import is_small
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.values.sets import Value

ODD = "with heights and widths that are odd, or as odd as the model takes them"
MET = "at a number that sizes are compared with"
"""The beginning of the words for such a set; the size follows."""

_INDEX = 41  # as of unusual sets: normal noise
_LESS = 3 / 4  # of a usual size
_COARSER = (1, 2, 4, 8)  # what all sizes are multiples of, where odd ones don't run
_LONGEST = 1 << 15
_MOST_MET = 6  # sets


def size_edges(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess
) -> Iterator[tuple[Edge, dict[str, Value]]]:
    """Candidates for unusual sets that differ from the usual ones in their sizes.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
    """
    for sizes in _odd(recipe, base.sizes):
        edge = Edge(ODD, scaled(1), always=True, smooth=True)
        yield edge, recipe.values(_INDEX, seed, replace(base, sizes=sizes))
    if not is_light(model, recipe, base):
        return
    count = 0
    for name, size in _met(recipe, base.sizes):
        sizes = recipe.fit(base.sizes | {name: size}, {*recipe.pinned(0), name})
        guess = replace(base, sizes=sizes)
        if recipe.too_large(sizes):
            continue
        values = recipe.values(_INDEX, seed, guess)
        if is_small(model, values):
            yield Edge(f"{MET} ({name} = {size})", scaled(1), smooth=True), values
            count += 1
        if count == _MOST_MET:
            return


def _odd(recipe: Recipe, usual: Sizes) -> Iterator[Sizes]:
    """Sizes of pictures that can't be halved; next, ones that can be once, twice, thrice."""
    pictured = []
    for name in _free(recipe):
        if recipe.dimensions[name].role in (Role.HEIGHT, Role.WIDTH):
            pictured.append(name)
    if not pictured:
        return
    for unit in _COARSER:
        odd = {}
        for name in pictured:
            # 1 above a multiple of 4: the half is even when rounded down, and odd when up.
            odd[name] = unit * (int(usual[name] * _LESS / unit) // 4 * 4 + 5)
        yield recipe.fit(usual | odd, {*recipe.pinned(0), *odd})


def _met(recipe: Recipe, usual: Sizes) -> list[tuple[str, int]]:
    """The dimensions with sizes that reach a number of the graph, and that go just beyond it."""
    free = _free(recipe)
    reached: dict[tuple[str, int], None] = {}
    for meeting in recipe.meetings:
        for name in sorted(terms.names(meeting.size) & free):
            for size in _sizes_at(meeting, name, usual, recipe.dimensions[name].preferred):
                reached[name, size] = None
    return list(reached)


def _sizes_at(
    meeting: Meeting, name: str, usual: Sizes, preferred: tuple[int, ...]
) -> Iterator[int]:
    """The least sizes of a dimension at which a term equals its number, and is beyond it.

    None where usual sets are beyond it, unless it is compared.
    """
    numbers = np.arange(1, _LONGEST + 1)
    reached = np.broadcast_to(
        terms.value(meeting.size, usual | {name: numbers}), numbers.shape
    )
    beyond, at = reached > meeting.number, reached == meeting.number
    is_usual = np.isin(numbers, preferred)
    if not beyond.any() or beyond.all():
        return
    passed = bool((beyond & is_usual).any())
    if passed and not meeting.compared:
        return
    if at.any() and not (at & is_usual).any():
        yield int(numbers[at][0])
    if not passed:
        yield int(numbers[beyond][0])


def _free(recipe: Recipe) -> frozenset[str]:
    pinned = recipe.pinned(0)
    free = []
    for name, entry in recipe.dimensions.items():
        if name not in pinned and entry.role is not Role.FIXED:
            free.append(name)
    return frozenset(free)
