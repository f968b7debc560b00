"""Pieces of what was joined, joints of what was cut, and the like, without the detour.

No value is computed differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing
from onnx_harness.transforms.simplification.bias_and_scale import take_over
from onnx_harness.transforms.simplification.chains import TO_THE_END, axis_of, cuts_of
from onnx_harness.transforms.simplification.concats import concat_axis, set_inputs
from onnx_harness.transforms.simplification.constants import (
    constant_array,
    constant_value,
    new_constant,
)
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, is_private
from onnx_harness.transforms.simplification.padding import padded_amounts, padding_value
from onnx_harness.transforms.simplification.pairs import Rule, apply_rules

# Since this version Slice and Pad have their bounds as inputs.
_BOUNDS_ARE_INPUTS = 11


def merge_pieces(editing: Editing, facts: Facts) -> int:
    """Apply the rules of this file; the preconditions are with each."""
    if editing.opset < _BOUNDS_ARE_INPUTS:
        return 0
    return apply_rules(editing, facts, _RULES)


def _producer(editing: Editing, value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and editing.is_standard(node, op_type) else None


def _cut(node: ir.Node, axis: int, facts: Facts) -> tuple[int, int] | None:
    """Start and end of a Slice that cuts that axis alone, by steps of 1 and counted from the front.

    None for others.
    """
    cuts = cuts_of(node, _rank(node.outputs[0], facts))
    if cuts is None or list(cuts) != [axis]:
        return None
    start, end, step = cuts[axis]
    return (start, end) if step == 1 and 0 <= start <= end else None


def _rank(value: ir.Value | None, facts: Facts) -> int | None:
    fact = fact_of(value, facts)
    return None if fact is None or fact.shape is None else len(fact.shape)


def _size(value: ir.Value | None, axis: int, facts: Facts) -> int | None:
    fact = fact_of(value, facts)
    return None if fact is None or fact.shape is None else fact.shape[axis]


def _join_neighbours(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Slice once what a Concat joins of neighbouring slices.

    Precondition: they're cut out of one tensor along the Concat's axis, each begins where the one
    before ends, and fewer nodes are left.
    """
    axis = concat_axis(node, facts)
    if axis is None:
        return False
    for first in range(len(node.inputs) - 1):
        run = _neighbours(editing, node.inputs[first:], axis, facts)
        gone = 1 if len(run) == len(node.inputs) else 0
        for value, _, _ in run:
            gone += is_private(value, node)
        if len(run) < 2 or gone < 2:
            continue
        name = f"{node.outputs[0].name}_piece"
        numbers = []
        bounds = (("starts", run[0][1]), ("ends", run[-1][2]), ("axes", axis))
        for word, number in bounds:
            numbers.append(constant_value(editing, f"{name}_{word}", [number]))
        slices = run[0][0].producer()
        assert slices is not None
        joined = ir.node(
            "Slice", [slices.inputs[0], *numbers], name=editing.fresh_name(name)
        )
        joined.outputs[0].name = editing.fresh_name(name)
        assert isinstance(node.graph, ir.Graph)
        node.graph.insert_before(node, joined)
        after = node.inputs[first + len(run) :]
        set_inputs(node, [*node.inputs[:first], joined.outputs[0], *after])
        return True
    return False


def _neighbours(
    editing: Editing, values: Sequence[ir.Value | None], axis: int, facts: Facts
) -> list[tuple[ir.Value, int, int]]:
    """The first of some values as far as they're slices side by side, each with start and end."""
    run: list[tuple[ir.Value, int, int]] = []
    source = None
    for value in values:
        piece = _producer(editing, value, "Slice")
        bounds = None if piece is None else _cut(piece, axis, facts)
        if value is None or piece is None or bounds is None:
            break
        if run and (piece.inputs[0] is not source or run[-1][2] != bounds[0]):
            break
        source = piece.inputs[0]
        run.append((value, *bounds))
    return run


def _slice_part(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Slice the part that the slice of a Concat lies in.

    Precondition: the sizes of the parts before are known, and that of the part where it isn't the
    last.
    """
    concat = _producer(editing, node.inputs[0], "Concat")
    axis = None if concat is None else concat_axis(concat, facts)
    bounds = None if axis is None else _cut(node, axis, facts)
    if concat is None or axis is None or bounds is None:
        return False
    start, end = bounds
    offset = 0
    for value in concat.inputs:
        size = _size(value, axis, facts)
        last = value is concat.inputs[-1]
        if start >= offset and (last or (size is not None and end <= offset + size)):
            if concat.inputs.count(value) > 1:
                return False
            name = str(node.outputs[0].name)
            ends = min(end, TO_THE_END) if end >= TO_THE_END else end - offset
            bounds_of_part = (("starts", start - offset), ("ends", ends), ("axes", axis))
            node.resize_inputs(4)
            node.replace_input_with(0, value)
            for index, (word, number) in enumerate(bounds_of_part, start=1):
                node.replace_input_with(
                    index, constant_value(editing, f"{name}_{word}", [number])
                )
            return True
        if size is None:
            return False
        offset += size
    return False


def _split_into_parts(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Hand on the parts of a Concat that a Split cuts where they were joined.

    Precondition: all sizes are known, and none is an output of a graph.
    """
    concat = _producer(editing, node.inputs[0], "Concat")
    axis = None if concat is None else concat_axis(concat, facts)
    rank = _rank(node.inputs[0], facts)
    if concat is None or axis is None or not rank:
        return False
    if axis != axis_of(node, rank) or len(concat.inputs) == 1:
        return False
    parts = [_size(value, axis, facts) for value in concat.inputs]
    sizes = [_size(value, axis, facts) for value in node.outputs]
    if (
        None in parts
        or parts != sizes
        or any(output.is_graph_output() for output in node.outputs)
    ):
        return False
    for output, part in zip(node.outputs, concat.inputs, strict=True):
        assert part is not None
        ir.convenience.replace_all_uses_with(output, part)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return True


def _gather_once(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Gather at once what is gathered twice along one axis by constant indices."""
    first = _producer(editing, node.inputs[0], "Gather")
    if first is None:
        return False
    inner = constant_array(first.inputs[1])
    outer = constant_array(node.inputs[1])
    rank = _rank(first.inputs[0], facts)
    if inner is None or outer is None or inner.ndim != 1 or not rank:
        return False
    axis = axis_of(first, rank)
    if axis is None or axis != axis_of(node, rank):
        return False
    if outer.size == 0 or outer.min() < -inner.size or outer.max() >= inner.size:
        return False
    name = f"{node.outputs[0].name}_indices"
    node.replace_input_with(
        1, new_constant(editing, name, np.asarray(inner[outer], inner.dtype))
    )
    node.replace_input_with(0, first.inputs[0])
    return True


def _gather_with_axis(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Let a Gather of one index keep the axis that an Unsqueeze after it puts back.

    Precondition: nothing else reads it, and the index is a constant.
    """
    value = node.inputs[0]
    first = _producer(editing, value, "Gather")
    if value is None or first is None or not is_private(value, node):
        return False
    rank = _rank(first.inputs[0], facts)
    index = constant_array(first.inputs[1])
    axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if index is None or index.ndim or axes is None or not rank:
        return False
    if axes.shape != (1,) or int(axes[0]) % rank != axis_of(first, rank):
        return False
    first.replace_input_with(
        1, new_constant(editing, f"{node.outputs[0].name}_index", index.reshape(1))
    )
    take_over(node.outputs[0], value)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return True


def _pad_once(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Pad at once what is padded twice with one constant. Precondition: nothing is cut off."""
    first = _producer(editing, node.inputs[0], "Pad")
    rank = None if first is None else _rank(first.inputs[0], facts)
    if first is None or not rank:
        return False
    inner, outer = padding_value(first), padding_value(node)
    before, after = padded_amounts(first, rank), padded_amounts(node, rank)
    if inner is None or outer is None or before is None or after is None:
        return False
    if inner != outer or np.signbit(inner) != np.signbit(outer):
        return False
    # A fourth input names axes.
    if len(node.inputs) > 3:
        return False
    if min(*before, *after) < 0:
        return False
    total = np.add(before, after).tolist()
    node.replace_input_with(0, first.inputs[0])
    node.replace_input_with(
        1, constant_value(editing, f"{node.outputs[0].name}_pads", total)
    )
    return True


_RULES: dict[str, Rule] = {
    "Concat": _join_neighbours,
    "Gather": _gather_once,
    "Pad": _pad_once,
    "Slice": _slice_part,
    "Split": _split_into_parts,
    "Unsqueeze": _gather_with_axis,
}
