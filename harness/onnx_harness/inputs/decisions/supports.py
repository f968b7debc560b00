"""Input sets that lie on the support vectors of SVMs, where their kernels aren't zero."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx

from onnx_harness.inputs.decisions.batch import INDEX, Attempt, Batch
from onnx_harness.inputs.decisions.columns import Column, NotTraced, trace
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.scopes import view
from onnx_harness.inputs.graph.tables import ML
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value

_MOST_VECTORS = 4096
_INVERTED = frozenset({"cast", "scale", "add", "rsub", "mul", "div"})


def support_sets(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> list[InputSet]:
    """Make sets whose rows are support vectors, and points between two of them.

    A kernel such as ``exp(-gamma * |x - v|**2)`` is zero away from its vector v: other inputs say
    nothing of its coefficient.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None where it doesn't run.
    """
    sets: list[InputSet] = []
    scope = view(model).main
    for node in model.graph.node:
        vectors = _vectors(node)
        if vectors is None:
            continue
        try:
            columns = trace(scope, recipe.inputs, node.input[0])
        except NotTraced:
            continue
        rows = _rows_before(columns, _with_middles(vectors, seed))
        if rows is None or any(column.source in recipe.specs for column in columns):
            continue
        sources = sorted({column.source for column in columns})
        batch = Batch(model, recipe, base, sources)
        for part in batch.parts(rows):
            fill = partial(_fill, columns=columns, rows=part)
            values = batch.values(seed, len(part), fill)
            if attempt(values) is not None:
                name = f"support vectors of {label(node)} (seed {seed}, {len(part)} rows)"
                sets.append(InputSet(name, values))
    return sets


def _vectors(node: onnx.NodeProto) -> Floats | None:
    """The support vectors of an SVM, [V, F]; None for other nodes."""
    if node.domain != ML or node.op_type not in ("SVMClassifier", "SVMRegressor"):
        return None
    numbers = np.asarray(attribute(node, "support_vectors", ()), np.float64)
    per_class = attribute(node, "vectors_per_class", ())
    count = int(attribute(node, "n_supports", 0)) or int(np.sum(per_class))
    if not count or not numbers.size or numbers.size % count:
        return None  # a linear one has coefficients alone
    return numbers.reshape(count, -1)[:_MOST_VECTORS]


def _with_middles(vectors: Floats, seed: int) -> Floats:
    """Every vector, and as many points between it and another one, [2 V, F]."""
    others = seeded(seed, INDEX, "supports").permutation(len(vectors))
    return np.concatenate([vectors, (vectors + vectors[others]) / 2])


def _rows_before(columns: list[Column], rows: Floats) -> Floats | None:
    """The inputs' rows that arrive at the SVM as these, [R, F]; None where a step can't be undone.

    The steps are affine: two points tell a column's scale and offset.
    """
    before = np.empty_like(rows)
    if len(columns) != rows.shape[1]:
        return None
    for number, column in enumerate(columns):
        if any(step.kind not in _INVERTED for step in column.maps):
            return None
        first, second = column.apply(np.asarray([0.0, 1.0])).astype(np.float64)
        if second == first or not np.isfinite(second - first):
            return None
        before[:, number] = (rows[:, number] - first) / (second - first)
    return before


def _fill(values: dict[str, Value], columns: list[Column], rows: Floats) -> None:
    """Put rows in the place of what the inputs hold."""
    for number, column in enumerate(columns):
        array = values[column.source]
        assert isinstance(array, np.ndarray)
        table = array.reshape(len(rows), -1)
        table[:, column.place] = rows[:, number].astype(array.dtype)
