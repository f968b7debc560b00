"""Says in a sentence why each input gets what it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs.decisions.coverage import Coverage, coverage
from onnx_harness.inputs.decisions.ensembles import read
from onnx_harness.inputs.decisions.sets import decisive_sets
from onnx_harness.inputs.graph.signature import Container, Input, addends
from onnx_harness.inputs.graph.tables import keys_of, ngrams_of, replaced_of
from onnx_harness.inputs.plan import edges, feedback
from onnx_harness.inputs.plan.recipe import Recipe, recipe_for
from onnx_harness.inputs.plan.rule import Make
from onnx_harness.inputs.plan.sizes import Dimension
from onnx_harness.inputs.values.sets import InputSet


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
    """Return what :func:`onnx_harness.inputs.generate` would try first for each input, and why.

    Raises:
        InputError: an input is of a type that no values are generated for.
        CardError: a spec contradicts the graph.
    """
    recipe = recipe_for(model, specs)
    pinned = recipe.pinned(0)
    pairs = feedback.states(model, recipe)
    explained = []
    for name, entry in recipe.inputs.items():
        dtype = (
            f"sequence of {entry.type_name}"
            if entry.container is Container.SEQUENCE
            else entry.type_name
        )
        sizes = _sizes(entry, recipe.dimensions, pinned)
        doubt = (
            ""
            if recipe.rules[name].certain
            else " Other values are tried if the model doesn't run on these."
        )
        more = _more(recipe, name, pairs)
        explained.append(
            Explanation(
                name,
                dtype,
                entry.shape_text(),
                f"{recipe.rules[name].why}{doubt}{more}{sizes}",
            )
        )
    return explained


def reached(
    model: onnx.ModelProto,
    specs: Mapping[str, InputSpec],
    sets: Sequence[InputSet] | None = None,
) -> Coverage:
    """Return what input sets reach of a model's trees, tables and vocabularies.

    Without sets: what is going to be made.

    Nothing runs: that a set which is going to be made runs on the model is taken for granted, and
    so is that a set can have as many rows as there are.

    Raises:
        InputError: an input is of a type that no values are generated for.
        CardError: a spec contradicts the graph.
    """
    if not any(
        read(node) or keys_of(node) or replaced_of(node) or ngrams_of(node)
        for node in model.graph.node
    ):
        return Coverage()
    recipe = recipe_for(model, specs)
    if sets is None:
        sets_by_kind = decisive_sets(model, recipe, 0, recipe.first_guess(0), lambda _: {})
        sets = [*sets_by_kind[0], *sets_by_kind[1]]
    return coverage(model, recipe, sets)


def _more(recipe: Recipe, name: str, pairs: Mapping[str, str]) -> str:
    """Return what further sets do with an input."""
    said = ""
    if name in pairs:
        said += (
            f" In a further set it is the output '{pairs[name]}' of a run before, which began "
            f"with zeros."
        )
    if recipe.rules[name].make is Make.POSITIONS:
        said += " Every second set ends with the greatest position."
    if edges.is_swept(recipe, name):
        low, high = edges.bounds(recipe, name)
        named = (("at least", low), ("at most", high))
        ends = [f"{words} {end:g}" for words, end in named if end is not None]
        bounds = f", kept to {' and '.join(ends)}" if ends else ""
        said += f" Unusual sets scale it by 10 and 100{bounds}."
    return said


def _sizes(
    entry: Input, dimensions: Mapping[str, Dimension], pinned: Mapping[str, int]
) -> str:
    parts = []
    for axis, dim in enumerate(entry.dims or ()):
        for name in addends(dim) if isinstance(dim, str) else ():
            if name in pinned:
                parts.append(f"axis {axis} as the card says")
            elif name in dimensions:
                parts.append(f"axis {axis} takes {dimensions[name].why}")
    return f" Sizes: {'; '.join(parts)}." if parts else ""
