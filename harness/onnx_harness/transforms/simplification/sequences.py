"""Sequences that a graph puts together only to take them apart.

Their tensors are handed on without them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import (
    constant_array,
    constant_value,
    new_constant,
)
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of

_SPLITS_ARE_INPUTS = 13
# As many outputs as a Split is given by this rule: above, its list of outputs is longer than what
# it replaces.
_MOST_PARTS = 256


def merge_sequences(editing: Editing, facts: Facts) -> int:
    """Apply the rules of this file; the preconditions are with each."""
    merged = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if node.graph is not graph:
                continue
            if editing.is_standard(node, "ConcatFromSequence"):
                merged += _concat(editing, node) or _whole(editing, node, facts)
            elif editing.is_standard(node, "SequenceLength"):
                merged += _length(editing, node, facts)
            elif editing.is_standard(node, "SequenceAt"):
                merged += _element(editing, node) or _gather(editing, node, facts)
            elif editing.is_standard(node, "SplitToSequence"):
                merged += _split(editing, node, facts)
    return merged


def _maker(editing: Editing, node: ir.Node, op_type: str) -> ir.Node | None:
    """The node that makes the sequence which ``node`` reads, if it is of that type."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return (
        producer if producer is not None and editing.is_standard(producer, op_type) else None
    )


def _concat(editing: Editing, node: ir.Node) -> bool:
    """Join the elements of a SequenceConstruct by a Concat.

    Precondition: no axis is added, which would take an Unsqueeze for each.
    """
    first, added = (
        _maker(editing, node, "SequenceConstruct"),
        node.attributes.get("new_axis"),
    )
    axis = node.attributes.get("axis")
    if first is None or axis is None or axis.is_ref():
        return False
    if added is not None and (added.is_ref() or added.as_int() != 0):
        return False
    node.op_type = "Concat"
    node.attributes.pop("new_axis", None)
    _read(node, list(first.inputs))
    return True


def _whole(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Hand on the tensor that a SplitToSequence takes apart, and this puts together again.

    Precondition: both do so along one axis, which is dropped and added, or neither; the lengths of
    the parts are right for certain.
    """
    split = _maker(editing, node, "SplitToSequence")
    axis, added = _integer(node, "axis", None), _integer(node, "new_axis", 0)
    if split is None or axis is None or added is None:
        return False
    apart, keeps = _integer(split, "axis", 0), _integer(split, "keepdims", 1)
    if apart is None or keeps is None or not _are_one_axis(split, apart, axis, facts):
        return False
    if len(split.inputs) > 1 and split.inputs[1] is not None:  # then no dimension is dropped
        parts = constant_array(split.inputs[1])
        is_chunk = parts is not None and parts.ndim == 0 and int(parts) > 0
        fits = added == 0 and (is_chunk or _lengths(split, facts) is not None)
    else:
        fits = (added == 0) == (keeps != 0)
    if not fits:
        return False
    node.op_type = "Identity"
    node.attributes.clear()
    _read(node, [split.inputs[0]])
    return True


def _integer(node: ir.Node, name: str, default: int | None) -> int | None:
    """Return an attribute; None where it isn't certain."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    return None if attribute.is_ref() else attribute.as_int()


def _are_one_axis(node: ir.Node, apart: int, together: int, facts: Facts) -> bool:
    """Return whether two numbers mean one axis of what ``node`` reads."""
    if apart == together:
        return True
    fact = fact_of(node.inputs[0], facts)
    if fact is None or fact.shape is None:
        return False
    return apart % len(fact.shape) == together % len(fact.shape)


def _length(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Count the elements of a sequence that this graph puts together, or takes apart."""
    construct = _maker(editing, node, "SequenceConstruct")
    split = _maker(editing, node, "SplitToSequence")
    if construct is not None:
        count = len(construct.inputs)
    elif split is not None:
        lengths = _lengths(split, facts, drops=True)
        if lengths is None:
            return False
        count = len(lengths[1])
    else:
        return False
    stem = f"{node.outputs[0].name}_count"
    node.op_type = "Identity"
    _read(node, [new_constant(editing, stem, np.array(count, np.int64))])
    return True


def _element(editing: Editing, node: ir.Node) -> bool:
    """Hand on the element of a SequenceConstruct.

    Precondition: its place is constant, and there is one.
    """
    first, place = _maker(editing, node, "SequenceConstruct"), constant_array(node.inputs[1])
    if first is None or place is None or place.size != 1:
        return False
    index = int(place.reshape(-1)[0])
    if not -len(first.inputs) <= index < len(first.inputs):
        return False
    node.op_type = "Identity"
    _read(node, [first.inputs[index]])
    return True


def _gather(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Gather a slice of what a SplitToSequence takes apart into slices of one less dimension.

    Precondition: the place is a scalar; it may be computed.
    """
    first = _maker(editing, node, "SplitToSequence")
    place = fact_of(node.inputs[1], facts)
    if first is None or place is None or place.shape != () or len(first.inputs) > 1:
        return False
    keeps, axis = first.attributes.get("keepdims"), first.attributes.get("axis")
    if (
        keeps is None
        or keeps.is_ref()
        or keeps.as_int() != 0
        or (axis is not None and axis.is_ref())
    ):
        return False
    node.op_type = "Gather"
    node.attributes["axis"] = ir.AttrInt64("axis", 0 if axis is None else axis.as_int())
    _read(node, [first.inputs[0], node.inputs[1]])
    return True


def _split(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Let a Split give the parts that are taken from a SplitToSequence.

    Precondition: the lengths of the parts and the places of those taken are constant, nothing else
    reads the sequence, and no dimension is dropped.
    """
    sequence = node.outputs[0]
    readers = [use.node for use in sequence.uses()]
    lengths = _lengths(node, facts)
    if (
        lengths is None
        or not readers
        or sequence.is_graph_output()
        or len(lengths[1]) > _MOST_PARTS
    ):
        return False
    axis, parts = lengths
    places = [_place(editing, reader, len(parts)) for reader in readers]
    if any(place is None for place in places):
        return False
    inputs = [node.inputs[0]]
    attributes: dict[str, int | list[int]] = {"axis": axis}
    if editing.opset < _SPLITS_ARE_INPUTS:
        attributes["split"] = parts
    else:
        inputs.append(constant_value(editing, f"{sequence.name}_split", parts))
    split = ir.node("Split", inputs, attributes, num_outputs=len(parts), name=node.name)
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, split)
    for value in split.outputs:
        value.name = editing.fresh_name(f"{sequence.name}_part")
    for reader, place in zip(readers, places, strict=True):
        assert place is not None
        reader.op_type = "Identity"
        _read(reader, [split.outputs[place]])
    node.graph.remove(node, safe=True)
    return True


def _lengths(
    node: ir.Node, facts: Facts, *, drops: bool = False
) -> tuple[int, list[int]] | None:
    """The axis of a SplitToSequence and the lengths of its parts.

    None where they aren't certain, or where the axis is dropped, unless it may be.
    """
    fact = fact_of(node.inputs[0], facts)
    axis = node.attributes.get("axis")
    if fact is None or fact.shape is None or (axis is not None and axis.is_ref()):
        return None
    number = 0 if axis is None else axis.as_int()
    size = fact.shape[number] if -len(fact.shape) <= number < len(fact.shape) else None
    if not size:
        return None
    if len(node.inputs) < 2 or node.inputs[1] is None:
        keeps = node.attributes.get("keepdims")
        keeps_dims = keeps is None or (not keeps.is_ref() and keeps.as_int() != 0)
        return (number, [1] * size) if keeps_dims or drops else None
    constant = constant_array(node.inputs[1])
    if constant is None or constant.ndim > 1 or (constant < 0).any():
        return None
    if constant.ndim == 1:
        return (number, constant.tolist()) if int(constant.sum()) == size else None
    chunk = int(constant)
    return (
        (number, [min(chunk, size - start) for start in range(0, size, chunk)])
        if chunk > 0
        else None
    )


def _place(editing: Editing, reader: ir.Node, parts: int) -> int | None:
    place = (
        constant_array(reader.inputs[1])
        if editing.is_standard(reader, "SequenceAt")
        else None
    )
    if place is None or place.size != 1 or not -parts <= int(place.reshape(-1)[0]) < parts:
        return None
    return int(place.reshape(-1)[0]) % parts


def _read(node: ir.Node, inputs: list[ir.Value | None]) -> None:
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
