"""Small rules that leave every value as it is to the last bit.

Each takes the graph and says how often it applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs, all_nodes
from onnx_harness.model.types import Fact
from onnx_harness.transforms.simplification.constants import (
    COPIED_BYTES,
    can_be_constant,
    can_be_output,
    constant_array,
    replace_by_constant,
    replace_by_initializer,
)

Facts = Mapping[str, Fact]
_DROPOUT_INFERS = 7


def remove_whole(node: ir.Node) -> None:
    """Remove a node that nobody reads from.

    What the graphs inside it captured has these readers no more.
    """
    for inner in list(all_nodes(node))[1:]:
        inner.resize_inputs(0)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)


def remove_dead(editing: Editing) -> int:
    """Remove nodes that nobody reads from, in every graph.

    Initializers of the main graph that nobody reads go, too.
    """
    removed = 0
    for graph in reversed(list(all_graphs(editing.graph))):
        for node in reversed(list(graph)):
            if node.outputs and all(
                not value.uses() and not value.is_graph_output() for value in node.outputs
            ):
                remove_whole(node)
                removed += 1
    for name, value in list(editing.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del editing.graph.initializers[name]
            removed += 1
    return removed


def remove_nops(editing: Editing, facts: Facts) -> int:
    """Remove nodes that hand one input on unchanged."""
    removed = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            test = _NOPS.get(node.op_type)
            # Before this opset a Dropout trains unless told not to.
            if node.op_type == "Dropout" and editing.opset < _DROPOUT_INFERS:
                continue
            if test is None or not editing.is_standard(node) or not node.inputs:
                continue
            if test(node, facts):
                removed += bypass(editing, graph, node, node.inputs[0])
            elif node.op_type in _COMMUTATIVE and _is_neutral(node, facts, constant_at=0):
                removed += bypass(editing, graph, node, node.inputs[1])
    return removed


def bypass(
    editing: Editing, graph: ir.Graph, node: ir.Node, source: ir.Value | None
) -> bool:
    """Let ``source`` take the place of the first output, and remove the node.

    False when it has to stay.
    """
    result = node.outputs[0]
    if (
        source is None
        or not result.name
        or any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    ):
        return False
    if result.is_graph_output():
        # The name and place of an output of the model can only go to a value that is free to take
        # them.
        producer = source.producer()
        if producer is None and _give_constant(editing, graph, node, source):
            return True
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return _become_identity(node, source)
        name, kind, shape = result.name, result.type, result.shape
        result.name = editing.fresh_name(name)
        source.name, source.type, source.shape = name, kind, shape
    ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def _give_constant(
    editing: Editing, graph: ir.Graph, node: ir.Node, source: ir.Value
) -> bool:
    """Let a constant itself be the output that ``node`` hands it on to, and remove the node.

    One that something else reads is copied if it's small: each output has a name of its own.
    """
    tensor = source.const_value
    if tensor is None or source.is_graph_input() or source.is_graph_output():
        return False
    if not can_be_output(editing, graph) or not source.is_initializer():
        return False
    if len(source.uses()) == 1:
        del editing.graph.initializers[str(source.name)]
    elif tensor.nbytes <= COPIED_BYTES and tensor.numpy().dtype.kind in "biuf":
        tensor = ir.tensor(tensor.numpy())
    else:
        return False
    replace_by_initializer(editing, node.outputs[0], tensor)
    graph.remove(node, safe=True)
    return True


def _become_identity(node: ir.Node, source: ir.Value) -> bool:
    """Let a node that must stay read nothing but what it hands on.

    Its other operands may then go.
    """
    if node.op_type == "Identity" or len(node.outputs) != 1:
        return False
    node.op_type = "Identity"
    node.attributes.clear()
    node.resize_inputs(1)
    node.replace_input_with(0, source)
    return True


def fact_of(value: ir.Value | None, facts: Facts) -> Fact | None:
    """Return what is certain about the value, if anything is."""
    return None if value is None or value.name is None else facts.get(value.name)


def is_private(value: ir.Value | None, reader: ir.Node) -> bool:
    """Return whether one node in the same graph reads the value, once, and nothing else does."""
    producer = value.producer() if value is not None else None
    return (
        value is not None
        and producer is not None
        and producer.graph is reader.graph
        and len(value.uses()) == 1
        and not value.is_graph_output()
        and not any(
            output.uses() or output.is_graph_output() for output in producer.outputs[1:]
        )
    )


def _is_identity(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001 (one signature for all)
    return True


def _keeps_dtype(node: ir.Node, facts: Facts) -> bool:
    before = fact_of(node.inputs[0], facts)
    after = fact_of(node.outputs[0], facts)
    return before is not None and after is not None and before.dtype == after.dtype


def _keeps_shape(node: ir.Node, facts: Facts) -> bool:
    before = fact_of(node.inputs[0], facts)
    after = fact_of(node.outputs[0], facts)
    if before is None or after is None or before.dimensions is None:
        return False
    return None not in before.dimensions and before.dimensions == after.dimensions


def permutation(node: ir.Node, facts: Facts) -> list[int] | None:
    """The ``perm`` of a Transpose, which is the axes reversed where it isn't written.

    None where that isn't known.
    """
    perm = node.attributes.get("perm")
    fact = fact_of(node.inputs[0], facts)
    if perm is not None:
        return None if perm.is_ref() else list(perm.as_ints())
    return (
        None
        if fact is None or fact.shape is None
        else list(reversed(range(len(fact.shape))))
    )


def _keeps_order(node: ir.Node, facts: Facts) -> bool:
    perm = permutation(node, facts)
    return perm is not None and perm == sorted(perm)


def _is_undivided(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    return len(node.outputs) == 1


def _cuts_nothing(node: ir.Node, facts: Facts) -> bool:
    """Return whether a Slice gives all of its input: equal shapes, and no axis backwards."""
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        steps = constant_array(node.inputs[4])
        if steps is None or (steps != 1).any():
            return False
    return _keeps_shape(node, facts)


def _repeats_nothing(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    repeats = constant_array(node.inputs[1]) if len(node.inputs) == 2 else None
    return repeats is not None and bool((repeats == 1).all())


def _is_single(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    return len(node.inputs) == 1


def _pads_nothing(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    # Equal shapes prove nothing: one side may grow by what the other is cut.
    attribute = node.attributes.get("pads", node.attributes.get("paddings"))
    if attribute is not None:
        return not attribute.is_ref() and not any(attribute.as_ints())
    pads = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


def _drops_nothing(node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = constant_array(node.inputs[2])
    return training is not None and not training.any()


def _is_neutral(node: ir.Node, facts: Facts, constant_at: int = 1) -> bool:
    """Return whether nothing happens.

    X - 0, x * 1, x / 1 are x in every dtype, x + 0 only in integers: -0.0 + 0.0 is 0.0.
    """
    if len(node.inputs) != 2 or "axis" in node.attributes:
        return False
    constant, fact = (
        constant_array(node.inputs[constant_at]),
        fact_of(node.inputs[1 - constant_at], facts),
    )
    if (
        constant is None
        or constant.dtype.kind not in "iuf"
        or not widens_nothing(constant, fact)
    ):
        return False
    neutral = 1.0 if node.op_type in ("Mul", "Div") else 0.0
    if neutral == 0 and node.op_type == "Add" and constant.dtype.kind == "f":
        neutral = -0.0
    # The first element tells most weights: they needn't be read.
    return _holds_only(constant.reshape(-1)[:1], neutral) and _holds_only(constant, neutral)


def _holds_only(constant: np.ndarray, number: float) -> bool:
    return bool(((constant == number) & (np.signbit(constant) == np.signbit(number))).all())


def widens_nothing(constant: np.ndarray, fact: Fact | None) -> bool:
    """Return whether a tensor keeps its shape when the constant broadcasts with it."""
    if fact is None or fact.shape is None or len(fact.shape) < constant.ndim:
        return False
    dims = fact.shape[len(fact.shape) - constant.ndim :]
    return all(size in (1, dim) for size, dim in zip(constant.shape, dims, strict=True))


_COMMUTATIVE = ("Add", "Mul")
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
    "Sum": _is_single,
    "Max": _is_single,
    "Mean": _is_single,
    "Min": _is_single,
    "Split": _is_undivided,
    "Slice": _cuts_nothing,
    "Tile": _repeats_nothing,
    "Pad": _pads_nothing,
    "Dropout": _drops_nothing,
    "Add": _is_neutral,
    "Sub": _is_neutral,
    "Mul": _is_neutral,
    "Div": _is_neutral,
}


def fold_sizes(editing: Editing, facts: Facts) -> int:
    """Replace the ``Size`` of static shapes."""
    folded = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            fact = (
                fact_of(node.inputs[0], facts) if editing.is_standard(node, "Size") else None
            )
            if (
                fact is not None
                and fact.static_shape is not None
                and can_be_constant(editing, node.outputs[0], ir.DataType.INT64)
            ):
                size = np.array(np.prod(fact.static_shape, dtype=np.int64), np.int64)
                replace_by_constant(editing, node.outputs[0], ir.tensor(size))
                graph.remove(node, safe=True)
                folded += 1
    return folded
