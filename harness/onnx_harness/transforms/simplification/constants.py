"""Make constants, and put them in the place of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.graph import Editing, all_graphs, ir_constant

_CONSTANTS_OF_ANY_TYPE = 9


# No more than the node that would hand a constant on takes in a file, with its names.
COPIED_BYTES = 128


_CONSTANTS_BEFORE = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def lift_constants(editing: Editing) -> int:
    """Turn ``Constant`` nodes into initializers of the main graph.

    One that is an output of its graph stays a node, unless an initializer may be that output.
    """
    lifted = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, "Constant"):
                continue
            if node.outputs[0].is_graph_output() and not can_be_output(editing, graph):
                continue
            tensor = ir_constant(node)
            if tensor is not None:
                replace_by_initializer(editing, node.outputs[0], tensor)
                graph.remove(node, safe=True)
                lifted += 1
    return lifted


def constant_value(editing: Editing, stem: str, numbers: Sequence[int]) -> ir.Value:
    """A new initializer of the main graph, a vector of int64."""
    return new_constant(editing, stem, np.array(numbers, np.int64))


def new_constant(editing: Editing, stem: str, array: np.ndarray) -> ir.Value:
    """A new initializer of the main graph, its name begun by ``stem``."""
    name = editing.fresh_name(stem)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    editing.graph.register_initializer(value)
    return value


def replace_by_initializer(
    editing: Editing, value: ir.Value, tensor: ir.TensorProtocol
) -> None:
    """Let an initializer of the same name take the place of ``value``.

    The caller removes its node.
    """
    name = value.name
    assert name is not None
    value.name = editing.fresh_name(name)
    initializer = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    tensor.name = name
    editing.graph.register_initializer(initializer)
    ir.convenience.replace_all_uses_with(value, initializer, replace_graph_outputs=True)


def can_be_output(editing: Editing, graph: ir.Graph) -> bool:
    """Return whether an initializer may be an output of ``graph``.

    Of the main one, where no caller can override it. What a branch or a body gives has to be
    computed in it.
    """
    return graph is editing.graph and editing.model.ir_version >= FREE_INITIALIZERS


def can_be_constant(editing: Editing, value: ir.Value, dtype: int) -> bool:
    """Return whether a constant of that type can take the place of ``value``.

    An output needs a ``Constant`` node for it.
    """
    return (
        editing.opset >= _CONSTANTS_OF_ANY_TYPE
        or not value.is_graph_output()
        or dtype in _CONSTANTS_BEFORE
        or _is_free_output(editing, value)
    )


def _is_free_output(editing: Editing, value: ir.Value) -> bool:
    producer = value.producer()
    graph = producer.graph if producer is not None else None
    return isinstance(graph, ir.Graph) and can_be_output(editing, graph)


def replace_by_constant(
    editing: Editing, value: ir.Value, tensor: ir.TensorProtocol
) -> None:
    """Let a constant take the place of ``value``, whose node the caller removes.

    It is an initializer of the main graph, or a ``Constant`` node where that can't be an output of
    its graph.
    """
    if not value.is_graph_output() or _is_free_output(editing, value):
        replace_by_initializer(editing, value, tensor)
        return
    producer = value.producer()
    assert producer is not None
    assert value.name is not None
    output = ir.Value(name=value.name, type=value.type, shape=value.shape)
    value.name = editing.fresh_name(value.name)
    node = ir.node(
        "Constant",
        [],
        {"value": tensor},
        outputs=[output],
        name=editing.fresh_name(f"{output.name}_constant"),
    )
    assert isinstance(producer.graph, ir.Graph)
    producer.graph.insert_before(producer, node)
    ir.convenience.replace_all_uses_with(value, output, replace_graph_outputs=True)


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The value of an initializer that can't be overridden, or of a Constant node."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None and value.is_initializer():
        return value.const_value.numpy()
    return None
