"""Small rules that leave every value as it is to the last bit. Each takes the graph and says how often it applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from harness.transforms.surgery.editing import Editing, all_graphs
from harness.transforms.surgery.facts import Fact

Facts = Mapping[str, Fact]


def lift_constants(editing: Editing) -> int:
    """Turn ``Constant`` nodes of the main graph into initializers; one that is an output of the model stays a node."""
    lifted = 0
    for node in list(editing.graph):
        if not editing.is_standard(node, "Constant") or node.outputs[0].is_graph_output():
            continue
        tensor = constant_tensor(node)
        if tensor is not None:
            replace_by_initializer(editing, node.outputs[0], tensor)
            editing.graph.remove(node, safe=True)
            lifted += 1
    return lifted


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The value of a ``Constant`` node; None when it is sparse or an attribute of the function that it's in."""
    (name, attribute), *others = node.attributes.items()
    if others or attribute.is_ref():
        return None
    match name:
        case "value":
            return attribute.as_tensor() if attribute.type == ir.AttributeType.TENSOR else None
        case "value_float":
            return ir.tensor(np.array(attribute.as_float(), np.float32))
        case "value_floats":
            return ir.tensor(np.array(attribute.as_floats(), np.float32))
        case "value_int":
            return ir.tensor(np.array(attribute.as_int(), np.int64))
        case "value_ints":
            return ir.tensor(np.array(attribute.as_ints(), np.int64))
    return None


def replace_by_initializer(editing: Editing, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let an initializer of the same name take the place of ``value``, whose node the caller removes."""
    name = value.name
    assert name is not None
    value.name = editing.fresh_name(name)
    initializer = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )
    tensor.name = name
    editing.graph.register_initializer(initializer)
    ir.convenience.replace_all_uses_with(value, initializer)


def replace_by_constant(editing: Editing, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let a constant take the place of ``value``, whose node the caller removes.

    It is an initializer, or a ``Constant`` node where that is an output of the model.
    """
    if not value.is_graph_output():
        replace_by_initializer(editing, value, tensor)
        return
    producer = value.producer()
    assert producer is not None
    assert value.name is not None
    output = ir.Value(name=value.name, type=value.type, shape=value.shape)
    value.name = editing.fresh_name(value.name)
    node = ir.node(
        "Constant", [], {"value": tensor}, outputs=[output], name=editing.fresh_name(f"{output.name}_constant")
    )
    editing.graph.insert_before(producer, node)
    ir.convenience.replace_all_uses_with(value, output, replace_graph_outputs=True)


def remove_dead(editing: Editing) -> int:
    """Remove nodes that nobody reads from, in every graph, and initializers of the main graph that nobody reads."""
    removed = 0
    for graph in reversed(list(all_graphs(editing.graph))):
        for node in reversed(list(graph)):
            if node.outputs and all(not value.uses() and not value.is_graph_output() for value in node.outputs):
                graph.remove(node, safe=True)
                removed += 1
    for name, value in list(editing.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del editing.graph.initializers[name]
            removed += 1
    return removed


def remove_nops(editing: Editing, facts: Facts) -> int:
    """Remove nodes that hand their first input on unchanged."""
    removed = 0
    for graph in all_graphs(editing.graph):
        known = facts if graph is editing.graph else {}
        for node in list(graph):
            test = _NOPS.get(node.op_type)
            if test is not None and editing.is_standard(node) and node.inputs and test(node, known):
                removed += _bypass(editing, graph, node)
    return removed


def _bypass(editing: Editing, graph: ir.Graph, node: ir.Node) -> bool:
    """Let the first input take the place of the first output, and remove the node; False when neither may go."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or not result.name or any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return False
    if result.is_graph_output():
        # The name and place of an output of the model can only go to a value that is free to take them.
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        name, kind, shape = result.name, result.type, result.shape
        result.name = editing.fresh_name(name)
        source.name, source.type, source.shape = name, kind, shape
    ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def _fact(value: ir.Value | None, facts: Facts) -> Fact | None:
    return None if value is None or value.name is None else facts.get(value.name)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of an initializer that can't be overridden, or of a Constant node."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None and value.is_initializer():
        return value.const_value.numpy()
    return None


def _is_identity(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001 (one signature for all)
    return True


def _keeps_dtype(node: ir.Node, facts: Facts) -> bool:
    before, after = _fact(node.inputs[0], facts), _fact(node.outputs[0], facts)
    return before is not None and after is not None and before.dtype == after.dtype


def _keeps_shape(node: ir.Node, facts: Facts) -> bool:
    before, after = _fact(node.inputs[0], facts), _fact(node.outputs[0], facts)
    if before is None or after is None or before.static_shape is None:
        return False
    return before.static_shape == after.static_shape


def _keeps_order(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    perm = node.attributes.get("perm")
    return perm is not None and not perm.is_ref() and list(perm.as_ints()) == list(range(len(perm.as_ints())))


def _is_single(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    return len(node.inputs) == 1


def _pads_nothing(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    # Equal shapes prove nothing: one side may grow by what the other is cut.
    attribute = node.attributes.get("pads", node.attributes.get("paddings"))
    if attribute is not None:
        return not attribute.is_ref() and not any(attribute.as_ints())
    pads = _constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


_NOPS: dict[str, Callable[[ir.Node, Facts], bool]] = {
    "Identity": _is_identity,
    "Cast": _keeps_dtype,
    "CastLike": _keeps_dtype,
    "Reshape": _keeps_shape,
    "Flatten": _keeps_shape,
    "Expand": _keeps_shape,
    "Squeeze": _keeps_shape,
    "Unsqueeze": _keeps_shape,
    "Transpose": _keeps_order,
    "Concat": _is_single,
    "Pad": _pads_nothing,
}


def fold_shapes(editing: Editing, facts: Facts) -> int:
    """Replace ``Shape`` and ``Size`` of static shapes, and the static part that is picked out of a ``Shape``."""
    folded = 0
    for node in list(editing.graph):
        if node.graph is None or not editing.is_standard(node, "Shape", "Size", "Gather", "Slice"):
            continue
        value = _static_value(editing, node, facts)
        if value is not None:
            replace_by_constant(editing, node.outputs[0], ir.tensor(value))
            editing.graph.remove(node, safe=True)
            folded += 1
    return folded


def _static_value(editing: Editing, node: ir.Node, facts: Facts) -> np.ndarray | None:
    dims: list[int | None] | int | None
    if node.op_type == "Size":
        fact = _fact(node.inputs[0], facts)
        if fact is None or fact.static_shape is None:
            return None
        return np.array(np.prod(fact.static_shape, dtype=np.int64), np.int64)
    if node.op_type == "Shape":
        dims = _dims(node, facts)
    else:
        shape = node.inputs[0].producer() if node.inputs[0] is not None else None
        known = _dims(shape, facts) if shape is not None and editing.is_standard(shape, "Shape") else None
        if known is None:
            return None
        dims = _gathered(node, known) if node.op_type == "Gather" else _sliced(node, known)
    if dims is None or (isinstance(dims, list) and None in dims):
        return None
    return np.array(dims, np.int64)


def _dims(shape: ir.Node, facts: Facts) -> list[int | None] | None:
    fact = _fact(shape.inputs[0], facts)
    if fact is None or fact.shape is None:
        return None
    rank = len(fact.shape)
    start, end = shape.attributes.get("start"), shape.attributes.get("end")
    first = _clamped(start.as_int() if start is not None else 0, rank)
    last = _clamped(end.as_int() if end is not None else rank, rank)
    return list(fact.shape[first:last])


def _clamped(index: int, rank: int) -> int:
    return min(max(index + rank if index < 0 else index, 0), rank)


def _gathered(node: ir.Node, dims: list[int | None]) -> list[int | None] | int | None:
    indices = _constant(node.inputs[1])
    if indices is None or indices.ndim > 1:
        return None
    wanted = [int(index) for index in indices.reshape(-1)]
    if any(not -len(dims) <= index < len(dims) for index in wanted):
        return None
    picked = [dims[index] for index in wanted]
    return picked if indices.ndim else picked[0]


def _sliced(node: ir.Node, dims: list[int | None]) -> list[int | None] | None:
    # Before opset 10 the bounds were attributes.
    if len(node.inputs) < 3:
        return None
    bounds = [_constant(value) for value in node.inputs[1:3]]
    steps = _constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.array([1])
    if any(bound is None or bound.size != 1 for bound in bounds) or steps is None or steps.reshape(-1)[0] != 1:
        return None
    first, last = (_clamped(int(bound.reshape(-1)[0]), len(dims)) for bound in bounds if bound is not None)
    return dims[first:last]
