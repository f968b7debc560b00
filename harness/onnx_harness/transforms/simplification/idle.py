"""Nodes that hand on one of their inputs because of what the others are.

A condition that is always true and the like.

No value is changed. A Where is exact as ONNX defines it: ONNX Runtime's kernel makes +0 of a -0
that it chooses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.chains import axis_of
from onnx_harness.transforms.simplification.concats import concat_axis
from onnx_harness.transforms.simplification.constants import constant_array
from onnx_harness.transforms.simplification.no_ops import (
    Facts,
    bypass,
    fact_of,
    widens_nothing,
)
from onnx_harness.transforms.simplification.pairs import axes_of

# Exporters write "to the end" as the greatest number of either width.
_TO_THE_END = 2**31 - 1
_FILLS_IN = -1
_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)
# Since this version a Resize may name sizes, and scales come after a region.
_RESIZES_TO_SIZES = 11


def remove_idle(editing: Editing, facts: Facts) -> int:
    """Remove nodes that hand on one of their inputs, or one of its producer's.

    The preconditions are with each.
    """
    removed = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            rule = _RULES.get(node.op_type)
            if rule is None or not editing.is_standard(node):
                continue
            source = rule(editing, node, facts)
            if source is not None:
                removed += bypass(editing, graph, node, source)
    return removed


def _cuts_to_the_end(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a Slice from 0 to the end slices, whatever its size is.

    Precondition: constant bounds, steps of 1.
    """
    if len(node.inputs) < 3:
        return None
    starts = constant_array(node.inputs[1])
    ends = constant_array(node.inputs[2])
    if starts is None or ends is None or starts.any() or (ends < _TO_THE_END).any():
        return None
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        steps = constant_array(node.inputs[4])
        if steps is None or (steps != 1).any():
            return None
    return node.inputs[0]


def _chooses_one(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a Where always chooses. Precondition: nothing else makes its result larger."""
    condition, first, second = node.inputs
    constant = constant_array(condition)
    chosen = first if first is second else None
    if constant is not None and constant.size and (constant.all() or not constant.any()):
        chosen = first if constant.all() else second
    return chosen if _has_shape_of(node.outputs[0], chosen, facts) else None


def _is_neutral(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what x and true, x or false, x xor false and x to the power of 1 are.

    Precondition: it isn't widened.
    """
    neutral = node.op_type in ("And", "Pow")
    places = (1,) if node.op_type == "Pow" else (0, 1)
    for place in places:
        constant = constant_array(node.inputs[place])
        source = node.inputs[1 - place]
        if constant is None or not (constant == neutral).all():
            continue
        if widens_nothing(constant, fact_of(source, facts)):
            return source
    return None


def _joins_one(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what x and x, x or x, and the greatest and the least of x and x are."""
    first = node.inputs[0]
    return first if all(value is first for value in node.inputs) else None


def _is_logical(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:
    """Return what x and x, x and true, and the like, are."""
    return _joins_one(editing, node, facts) or _is_neutral(editing, node, facts)


def _undoes(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what was negated twice."""
    return _read_by_producer(editing, node, node.op_type)


def _unwraps(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what was made an optional before."""
    return _read_by_producer(editing, node, "Optional")


def _fills_in_itself(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a Reshape reads that keeps every dimension but one.

    That one is then kept as well.
    """
    shape = constant_array(node.inputs[1])
    fact = fact_of(node.inputs[0], facts)
    if (
        shape is None
        or fact is None
        or fact.shape is None
        or len(fact.shape) != shape.size
        or "allowzero" in node.attributes
    ):
        return None
    entries = shape.tolist()
    kept = []
    for entry, dim in zip(entries, fact.shape, strict=True):
        if entry != _FILLS_IN:
            kept.append(entry == 0 or entry == dim)
    return node.inputs[0] if all(kept) and len(kept) == len(entries) - 1 else None


def _reduces_nothing(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a reduction reads that reduces nothing.

    It has no axes and then reduces nothing, or it reduces dimensions of 1 and keeps them: a sum of
    integers, since one of floats begins with +0.
    """
    if _reduces_ones(node, facts):
        return node.inputs[0]
    idle = node.attributes.get("noop_with_empty_axes")
    if idle is None or idle.is_ref() or not idle.as_int() or "axes" in node.attributes:
        return None
    return node.inputs[0] if len(node.inputs) < 2 or node.inputs[1] is None else None


def _reduces_ones(node: ir.Node, facts: Facts) -> bool:
    before = fact_of(node.inputs[0], facts)
    after = fact_of(node.outputs[0], facts)
    if before is None or after is None or not before.shape or after.shape is None:
        return False
    if before.dtype not in _INTEGERS and node.op_type not in ("ReduceMax", "ReduceMin"):
        return False
    axes = axes_of(node, len(before.shape))
    if axes is None or len(before.shape) != len(after.shape):
        return False
    return all(before.shape[axis] == 1 for axis in axes)


def _gathers_all(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a Gather reads that takes every element in its order.

    Precondition: the size is known.
    """
    fact = fact_of(node.inputs[0], facts)
    indices = constant_array(node.inputs[1])
    if fact is None or not fact.shape or indices is None or indices.ndim != 1:
        return None
    axis = axis_of(node, len(fact.shape))
    if axis is None:
        return None
    size = fact.shape[axis]
    return (
        node.inputs[0]
        if size == indices.size and (indices == np.arange(size)).all()
        else None
    )


def _pools_nothing(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a pool of single elements reads. Precondition: it pads and skips nothing."""
    ones = [node.attributes.get(name) for name in ("kernel_shape", "strides")]
    pads = node.attributes.get("pads")
    if ones[0] is None or any(
        attribute is not None and attribute.is_ref() for attribute in ones
    ):
        return None
    if any(set(attribute.as_ints()) != {1} for attribute in ones if attribute is not None):
        return None
    if pads is not None and (pads.is_ref() or any(pads.as_ints())):
        return None
    return node.inputs[0]


def _moves_no_blocks(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:  # noqa: ARG001
    """Return what a DepthToSpace or SpaceToDepth reads whose blocks are single elements."""
    size = node.attributes.get("blocksize")
    return (
        node.inputs[0]
        if size is not None and not size.is_ref() and size.as_int() == 1
        else None
    )


def _resizes_nothing(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:
    """Return what a Resize by 1 reads, whatever it would interpolate.

    Precondition: it doesn't cut a region out.
    """
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and (mode.is_ref() or mode.as_string() == "tf_crop_and_resize"):
        return None
    place = 2 if node.op_type == "Resize" and editing.opset >= _RESIZES_TO_SIZES else 1
    scales = constant_array(node.inputs[place]) if len(node.inputs) > place else None
    if scales is not None and scales.size:
        return node.inputs[0] if bool((scales == 1).all()) else None
    fact = fact_of(node.inputs[0], facts)
    sizes = constant_array(node.inputs[3]) if len(node.inputs) > 3 else None
    axes = node.attributes.get("axes")
    if sizes is None or axes is not None or fact is None or fact.static_shape is None:
        return None
    return node.inputs[0] if sizes.tolist() == list(fact.static_shape) else None


def _joins_what_was_split(editing: Editing, node: ir.Node, facts: Facts) -> ir.Value | None:
    """Return what a Split cut into the pieces that a Concat puts together again, in their order."""
    split = node.inputs[0].producer() if node.inputs[0] is not None else None
    if split is None or not editing.is_standard(split, "Split"):
        return None
    if list(node.inputs) != list(split.outputs):
        return None
    fact = fact_of(split.inputs[0], facts)
    if fact is None or not fact.shape:
        return None
    joined = concat_axis(node, facts)
    cut = axis_of(split, len(fact.shape))
    return split.inputs[0] if joined is not None and joined == cut else None


def _read_by_producer(editing: Editing, node: ir.Node, op_type: str) -> ir.Value | None:
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    if producer is None or not editing.is_standard(producer, op_type) or not producer.inputs:
        return None
    source = producer.inputs[0]
    return source if constant_array(source) is None else None  # what is constant is folded


def _has_shape_of(result: ir.Value, source: ir.Value | None, facts: Facts) -> bool:
    before, after = fact_of(source, facts), fact_of(result, facts)
    if (
        before is None
        or after is None
        or before.dimensions is None
        or None in before.dimensions
    ):
        return False
    return before.dimensions == after.dimensions


_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_RULES: dict[str, Callable[[Editing, ir.Node, Facts], ir.Value | None]] = {
    "And": _is_logical,
    "AveragePool": _pools_nothing,
    "Concat": _joins_what_was_split,
    "DepthToSpace": _moves_no_blocks,
    "Gather": _gathers_all,
    "Max": _joins_one,
    "MaxPool": _pools_nothing,
    "Min": _joins_one,
    "Neg": _undoes,
    "Not": _undoes,
    "OptionalGetElement": _unwraps,
    "Or": _is_logical,
    "Pow": _is_neutral,
    "Reshape": _fills_in_itself,
    "Resize": _resizes_nothing,
    "Slice": _cuts_to_the_end,
    "SpaceToDepth": _moves_no_blocks,
    "Upsample": _resizes_nothing,
    "Where": _chooses_one,
    "Xor": _is_neutral,
    **dict.fromkeys(_REDUCTIONS, _reduces_nothing),
}
