"""The input sets that reach what a model decides by."""

from __future__ import annotations

import onnx

from onnx_harness.inputs.decisions.batch import Attempt
from onnx_harness.inputs.decisions.constants import constant_sets
from onnx_harness.inputs.decisions.indices import index_sets
from onnx_harness.inputs.decisions.supports import support_sets
from onnx_harness.inputs.decisions.trees import forest_sets
from onnx_harness.inputs.decisions.vocabulary import word_sets
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.sets import InputSet


def decisive_sets(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> tuple[list[InputSet], list[InputSet]]:
    """The usual sets that visit leaves, keys, words, indices and support vectors.

    And those that lie where a last bit decides.

    A model without trees, tables, SVMs and comparisons gets none, and costs no more than a look at
    its nodes.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None where it doesn't run.
    """
    leaves, thresholds = forest_sets(model, recipe, seed, base, attempt)
    words, fractions = word_sets(model, recipe, seed, base, attempt)
    indices = index_sets(model, recipe, seed, base, attempt)
    supports = support_sets(model, recipe, seed, base, attempt)
    return [*leaves, *words, *indices, *supports], [
        *thresholds,
        *fractions,
        *constant_sets(recipe, seed, base, attempt),
    ]
