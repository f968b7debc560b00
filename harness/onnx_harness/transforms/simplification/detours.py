"""Operands that needn't be widened, and reshapes that are undone behind an elementwise operator.

No value is computed differently.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import constant_array, new_constant
from onnx_harness.transforms.simplification.no_ops import (
    Facts,
    bypass,
    fact_of,
    is_private,
    permutation,
)

# Since this version elementwise operators broadcast as numpy does.
_NUMPY_BROADCAST = 8
_BROADCASTING = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Where",
        "Xor",
    }
)
_ELEMENTWISE = frozenset(
    {
        "Abs",
        "Cast",
        "Ceil",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
    }
)
_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def narrow_operands(editing: Editing, facts: Facts) -> int:
    """Let an elementwise operator widen an operand for itself.

    Precondition: the operand comes from an Expand or a ConstantOfShape, and another operand has the
    shape of the result, all of whose dimensions are known by number or name.
    """
    if editing.opset < _NUMPY_BROADCAST:
        return 0
    narrowed = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, *_BROADCASTING) or "axis" in node.attributes:
                continue
            for place in range(len(node.inputs)):
                narrow = None
                if _has_widest(node, place, facts):
                    narrow = _narrow(editing, node, place)
                if narrow is not None:
                    node.replace_input_with(place, narrow)
                    narrowed += 1
    return narrowed


def _narrow(editing: Editing, node: ir.Node, place: int) -> ir.Value | None:
    """Return what an operand is made of by widening it; None for what isn't."""
    value = node.inputs[place]
    producer = value.producer() if value is not None else None
    if value is None or producer is None or not editing.is_standard(producer):
        return None
    if producer.op_type == "Expand":
        return producer.inputs[0]
    if producer.op_type != "ConstantOfShape":
        return None
    filling = producer.attributes.get("value")
    if filling is not None and filling.is_ref():
        return None
    number = np.zeros(1, np.float32) if filling is None else filling.as_tensor().numpy()
    return new_constant(editing, f"{value.name}_number", number.reshape(()))


def _has_widest(node: ir.Node, place: int, facts: Facts) -> bool:
    result = fact_of(node.outputs[0], facts)
    if result is None or not result.dimensions or None in result.dimensions:
        return False
    for index, operand in enumerate(node.inputs):
        fact = fact_of(operand, facts) if index != place else None
        if fact is not None and fact.dimensions == result.dimensions:
            return True
    return False


def undo_reshapes(editing: Editing, facts: Facts) -> int:
    """Remove a transpose or reshape and the one behind it that undoes it.

    Precondition: between them are elementwise operators alone, which nothing else reads, and the
    result has the shape of what was reshaped, or the permutations cancel.
    """
    undone = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if editing.is_standard(node, *_RESHAPES) and node.graph is graph:
                undone += _undo(editing, node, facts)
    return undone


def _undo(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    between: list[ir.Node] = []
    reader, value = node, node.inputs[0]
    while value is not None and is_private(value, reader):
        producer = value.producer()
        assert producer is not None
        if not editing.is_standard(producer, *_ELEMENTWISE):
            break
        between.append(producer)
        reader, value = producer, producer.inputs[0]
    first = value.producer() if value is not None else None
    if not between or first is None or not editing.is_standard(first, *_RESHAPES):
        return False
    source = first.inputs[0]
    if constant_array(source) is not None or not _cancels(first, node, facts):
        return False
    between[-1].replace_input_with(0, source)
    for elementwise in between:
        # What was inferred of it holds no more.
        elementwise.outputs[0].name = editing.fresh_name(str(elementwise.outputs[0].name))
        elementwise.outputs[0].shape = None
    assert isinstance(node.graph, ir.Graph)
    return bypass(editing, node.graph, node, node.inputs[0])


def _cancels(first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    transposes = [node.op_type == "Transpose" for node in (first, second)]
    if all(transposes):
        inner, outer = permutation(first, facts), permutation(second, facts)
        if inner is None or outer is None or len(inner) != len(outer):
            return False
        return [inner[axis] for axis in outer] == sorted(inner)
    if any(transposes):
        return False
    before = fact_of(first.inputs[0], facts)
    after = fact_of(second.outputs[0], facts)
    if before is None or after is None or before.dimensions is None:
        return False
    return None not in before.dimensions and before.dimensions == after.dimensions
