"""An input set with a dimension beyond 2,048: above that float16 can't count by ones.

Positions, lengths and counts of terms are exact in float16 up to there, whatever a conversion does
to them, and usual sizes are smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import onnx
from onnx import TensorProto

from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.follow import read
from onnx_harness.inputs.graph.scopes import view
from onnx_harness.inputs.graph.shapes import Dims
from onnx_harness.inputs.graph.signature import read_inputs
from onnx_harness.inputs.plan.edges import Attempt, is_light
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.values.sets import InputSet, Value, arrays_of, shape_text
from onnx_harness.isolate import noting
from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import is_standard

EXACT = 2048
"""The greatest number up to which float16 holds every whole one."""

# Odd, so that float16 can't hold the size itself; far enough above for sums of positions to differ.
_SIZE = 3001
_MOST_TABLES = 2
_MANY_ROWS = 501  # enough for a weight of a class to change some choice
_INDEX = 41  # as of unusual sets: normal noise
_LENGTHS = (Role.SEQUENCE, Role.OTHER, Role.PAST, Role.WIDTH, Role.HEIGHT, Role.SAMPLES)
# A batch is no length: its elements don't meet in one sum as a rule. But a choice, such as that of
# an ArgMax, or a probability that is nearly always 0 or 1, tells of little but its own row, and the
# usual batches have a few.
_ROWS = (*_LENGTHS, Role.BATCH)
_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
# Of all values of a run together: about what a run of a usual set of a small model computes.
_MOST_ELEMENTS = 1 << 22


def large_set(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> InputSet | None:
    """Return a set with one free dimension at 3,001, or at the size of a table that ends before.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference.

    Returns:
        None where no length is free, where the usual sizes are that large already, where a run
        would not cost next to nothing, or where the reference doesn't run at that size.
    """
    pinned = recipe.pinned(0)
    roles = _ROWS if _gives_choices(model) or _is_table(recipe) else _LENGTHS
    free = {
        name: entry.role
        for name, entry in recipe.dimensions.items()
        if name not in pinned and entry.role in roles
    }
    if any(base.sizes[name] > EXACT for name in free):
        return None
    for name in sorted(free, key=lambda name: roles.index(free[name])):
        rows = (_MANY_ROWS,) if roles is _ROWS else ()
        for size in (_SIZE, *_table_sizes(model, base.sizes[name]), *rows):
            sizes = recipe.fit(base.sizes | {name: size}, {*pinned, name})
            guess = replace(base, sizes=sizes)
            if recipe.too_large(sizes) or not is_light(model, recipe, guess):
                continue
            values = recipe.values(_INDEX, seed, guess)
            if not is_small(model, values):
                continue
            with noting(f"inputs at a size of {size}"):
                if attempt(values) is not None:
                    return InputSet(_name(seed, values), values, large=True)
    return None


def _gives_choices(model: onnx.ModelProto) -> bool:
    """Return whether no output is a tensor of floats."""
    types = [info.type.tensor_type.elem_type for info in model.graph.output]
    return _FLOATS.isdisjoint(types)


def _is_table(recipe: Recipe) -> bool:
    """Return whether the inputs are rows of numbers, each for itself."""
    return all(
        entry.dims is not None and len(entry.dims) == 2 and isinstance(entry.dims[1], int)
        for entry in recipe.inputs.values()
    )


def _table_sizes(model: onnx.ModelProto, usual: int) -> list[int]:
    """The rows of the tables that something is gathered from, the most first.

    A length that counts positions can be as great as the table of the positions.
    """
    dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    rows = set()
    for node in model.graph.node:
        if is_standard(node, "Gather") and int(attribute(node, "axis", 0)) == 0:
            table = dims.get(node.input[0], ())
            if table and usual < table[0] < _SIZE:
                rows.add(int(table[0]))
    return sorted(rows, reverse=True)[:_MOST_TABLES]


def is_small(model: onnx.ModelProto, values: Mapping[str, Value]) -> bool:
    """Return whether all values of a run are few.

    By the shapes that onnx infers, not by the clock: the sets are the same on every machine. A
    dimension that it doesn't know is taken for the large one, and a value without a rank for many.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for info in sized.graph.input:
        if info.name in values and info.type.HasField("tensor_type"):
            shape = next(arrays_of(values[info.name])).shape
            kind = info.type.tensor_type.elem_type
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, kind, shape))
    # What the model states of the values between is of other sizes.
    del sized.graph.value_info[:]
    for info in sized.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    graph = infer_types(sized, follow_sizes=True).graph
    infos = {info.name: info for info in (*graph.value_info, *graph.output)}
    followed = read(view(sized).main, read_inputs(sized)).dims
    total = 0
    for node in graph.node:
        for output in filter(None, node.output):
            elements = _elements(infos.get(output), followed.get(output))
            if elements is None:
                return False
            total += elements
    return total <= _MOST_ELEMENTS


def _elements(info: onnx.ValueInfoProto | None, followed: Dims | None) -> int | None:
    """Count the elements of a tensor; None where its rank isn't known.

    Args:
        info: what onnx infers.
        followed: what follows from sizes that the graph computes, which onnx loses at times.
    """
    if info is None or not info.type.HasField("tensor_type"):
        return None
    dims: list[int | None] = []
    if info.type.tensor_type.HasField("shape"):
        for dim in info.type.tensor_type.shape.dim:
            dims.append(dim.dim_value if dim.HasField("dim_value") else None)
    elif followed is None:
        return None
    if followed is not None and (not dims or len(dims) == len(followed)):
        dims = dims or [None] * len(followed)
        for place, size in enumerate(followed):
            if dims[place] is None and isinstance(size, int):
                dims[place] = size
    return math.prod(_SIZE if size is None else size for size in dims)


def _name(seed: int, values: Mapping[str, Value]) -> str:
    largest = max(
        values.values(), key=lambda value: sum(array.size for array in arrays_of(value))
    )
    return f"large (seed {seed}, {shape_text(next(arrays_of(largest)).shape)})"
