"""Says in a sentence why each input gets what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs.graph.signature import Container, Input, addends
from onnx_harness.inputs.plan import edges, feedback
from onnx_harness.inputs.plan.recipe import Recipe, recipe_for
from onnx_harness.inputs.plan.sizes import Dimension


class Explanation(NamedTuple):
    """One input, for ``onnx-harness inspect``.

    Attributes:
        name: of the input.
        dtype: in ONNX's words; ``sequence of float`` for a sequence.
        shape: as declared, ``[batch, 3, ?, ?]``.
        sentence: what its values and its dynamic sizes will be, and why.
    """

    name: str
    dtype: str
    shape: str
    sentence: str


def describe(model: onnx.ModelProto, specs: Mapping[str, InputSpec]) -> list[Explanation]:
    """What :func:`onnx_harness.inputs.generate` would try first for each input, and why.

    Raises:
        InputError: an input is of a type that no values are generated for.
        CardError: a spec contradicts the graph.
    """
    recipe = recipe_for(model, specs)
    pinned = recipe.pinned(0)
    pairs = feedback.states(model, recipe)
    explained = []
    for name, entry in recipe.inputs.items():
        dtype = f"sequence of {entry.type_name}" if entry.container is Container.SEQUENCE else entry.type_name
        sizes = _sizes(entry, recipe.dimensions, pinned)
        doubt = "" if recipe.rules[name].certain else " Other values are tried if the model doesn't run on these."
        more = _more(recipe, name, pairs)
        explained.append(Explanation(name, dtype, entry.shape_text(), f"{recipe.rules[name].why}{doubt}{more}{sizes}"))
    return explained


def _more(recipe: Recipe, name: str, pairs: Mapping[str, str]) -> str:
    """What further sets do with an input."""
    said = ""
    if name in pairs:
        said += f" In a further set it is the output '{pairs[name]}' of a run before, which began with zeros."
    if edges.is_swept(recipe, name):
        low, high = edges.bounds(recipe, name)
        named = (("at least", low), ("at most", high))
        ends = [f"{words} {end:g}" for words, end in named if end is not None]
        kept = f", kept to {' and '.join(ends)}" if ends else ""
        said += f" Unusual sets scale it by 10 and 100{kept}."
    return said


def _sizes(entry: Input, dimensions: Mapping[str, Dimension], pinned: Mapping[str, int]) -> str:
    parts = []
    for axis, dim in enumerate(entry.dims or ()):
        for name in addends(dim) if isinstance(dim, str) else ():
            if name in pinned:
                parts.append(f"axis {axis} as the card says")
            elif name in dimensions:
                parts.append(f"axis {axis} takes {dimensions[name].why}")
    return f" Sizes: {'; '.join(parts)}." if parts else ""
