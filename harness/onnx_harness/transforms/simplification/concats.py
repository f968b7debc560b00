"""Concats in a Concat, and parts of it that hold nothing. No value is changed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, is_private


def merge_concats(editing: Editing, facts: Facts) -> int:
    """Put what a Concat joins into the Concat that reads it alone.

    Precondition: both are of one axis; the first is no output of a graph and in the same one.
    """
    merged = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, "Concat"):
                continue
            parts: list[ir.Value | None] = []
            for value in node.inputs:
                first = value.producer() if value is not None else None
                joined = (
                    first is not None
                    and editing.is_standard(first, "Concat")
                    and is_private(value, node)
                )
                if (
                    first is not None
                    and joined
                    and concat_axis(first, facts) == concat_axis(node, facts) is not None
                ):
                    parts += first.inputs
                    merged += 1
                else:
                    parts.append(value)
            set_inputs(node, parts)
    return merged


def drop_empty_parts(editing: Editing, facts: Facts) -> int:
    """Leave out of a Concat what has no elements along its axis.

    Precondition: the dimension is known to be 0; one part stays.
    """
    dropped = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            axis = concat_axis(node, facts) if editing.is_standard(node, "Concat") else None
            if axis is None:
                continue
            full = []
            for value in node.inputs:
                if not _is_empty(value, axis, facts):
                    full.append(value)
            parts = full or list(node.inputs[:1])
            dropped += len(node.inputs) - len(parts)
            set_inputs(node, parts)
    return dropped


def _is_empty(value: ir.Value | None, axis: int, facts: Facts) -> bool:
    fact = fact_of(value, facts)
    return (
        fact is not None
        and fact.shape is not None
        and axis < len(fact.shape)
        and fact.shape[axis] == 0
    )


def set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Let a node read these values, and no others."""
    if list(node.inputs) == list(inputs):
        return
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def concat_axis(concat: ir.Node, facts: Facts) -> int | None:
    """Return the axis that a Concat joins along, from the front; None where it isn't known."""
    fact = fact_of(concat.outputs[0], facts)
    attribute = concat.attributes.get("axis")
    if attribute is None or attribute.is_ref():
        return None
    axis = attribute.as_int()
    if axis >= 0:
        return axis
    return axis + len(fact.shape) if fact is not None and fact.shape is not None else None
