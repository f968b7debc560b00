"""A Pad done by the convolution or the pooling that reads it, where that is the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import constant_array
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of

_DTYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
# Since this version an AveragePool can count what was padded.
_COUNTS_PADDING = 7
_BOUNDED_BELOW = (
    "Abs",
    "Elu",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Tanh",
)


def fuse_pads(editing: Editing, facts: Facts) -> int:
    """Let Conv, AveragePool and MaxPool pad for themselves what a Pad padded for them.

    Precondition: constant amounts, none negative, on spatial axes alone, and the value that the
    operator itself pads
    with: +0 for a Conv whose weights are finite constants and for an AveragePool that counts it,
    -inf for a MaxPool that gives no indices and never reads -inf: of nothing else, ONNX Runtime
    makes the least finite value where it pads for itself. A pooling window is larger than its
    padding, and none is begun that isn't whole.
    """
    if editing.opset < _COUNTS_PADDING:
        return 0
    fused = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            source = node.inputs[0] if node.inputs else None
            pad = source.producer() if source is not None else None
            if pad is None or not editing.is_standard(pad, "Pad"):
                continue
            if not editing.is_standard(node, "Conv", "AveragePool", "MaxPool"):
                continue
            amounts = _amounts(node, pad, facts)
            if amounts is None or (
                node.op_type == "MaxPool" and not _is_bounded_below(editing, pad.inputs[0])
            ):
                continue
            node.attributes.pop("auto_pad", None)
            node.attributes["pads"] = ir.AttrInt64s("pads", amounts)
            if node.op_type == "AveragePool":
                node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
            node.replace_input_with(0, pad.inputs[0])
            fused += 1
    return fused


def _amounts(node: ir.Node, pad: ir.Node, facts: Facts) -> list[int] | None:
    """The ``pads`` that ``node`` needs to do without ``pad``; None where it can't be the same."""
    fact, value = fact_of(pad.inputs[0], facts), padding_value(pad)
    if fact is None or fact.shape is None or fact.dtype not in _DTYPES or value is None:
        return None
    rank = len(fact.shape)
    added, own = padded_amounts(pad, rank), _own(node, rank - 2)
    if added is None or own is None:
        return None
    spatial = [*added[2:rank], *added[rank + 2 :]]
    if min(added) < 0 or any(added[axis] or added[axis + rank] for axis in (0, 1)):
        return None
    amounts = [one + other for one, other in zip(spatial, own, strict=True)]
    if node.op_type == "Conv":
        weight = constant_array(node.inputs[1])
        same = (
            weight is not None
            and bool(np.isfinite(weight).all())
            and value == 0
            and not np.signbit(value)
        )
        return amounts if same else None
    kernel = list(node.attributes["kernel_shape"].as_ints())
    if _number(node, "ceil_mode") or any(
        pads >= size for pads, size in zip(amounts, kernel * 2, strict=True)
    ):
        return None
    if node.op_type == "MaxPool":
        return amounts if value == -np.inf and len(node.outputs) == 1 else None
    # What the pooling itself pads is then counted too.
    counted = _number(node, "count_include_pad") or not any(own)
    return amounts if counted and value == 0 and not np.signbit(value) else None


def _is_bounded_below(editing: Editing, value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and editing.is_standard(producer, *_BOUNDED_BELOW)


def padding_value(pad: ir.Node) -> np.float64 | None:
    """Return what is padded with; None when it isn't constant, or copied from the tensor."""
    mode = pad.attributes.get("mode")
    if mode is not None and (mode.is_ref() or mode.as_string() != "constant"):
        return None
    if len(pad.inputs) == 1:
        value = pad.attributes.get("value")
        return np.float64(value.as_float() if value is not None else 0)
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return np.float64(0)
    constant = constant_array(pad.inputs[2])
    return (
        None
        if constant is None or constant.size != 1
        else np.float64(constant.reshape(-1)[0])
    )


def padded_amounts(pad: ir.Node, rank: int) -> list[int] | None:
    """Begin and end of every axis; None when they aren't constant."""
    if len(pad.inputs) == 1:
        attribute = pad.attributes.get("pads")
        amounts = (
            None if attribute is None or attribute.is_ref() else list(attribute.as_ints())
        )
        return amounts if amounts is not None and len(amounts) == 2 * rank else None
    constant = constant_array(pad.inputs[1])
    if constant is None:
        return None
    amounts = [int(number) for number in constant.reshape(-1)]
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        chosen = constant_array(pad.inputs[3])
        if chosen is None:
            return None
        axes = [int(axis) % rank for axis in chosen.reshape(-1)]
    if len(amounts) != 2 * len(axes) or len(set(axes)) != len(axes):
        return None
    whole = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        whole[axis], whole[axis + rank] = amounts[index], amounts[index + len(axes)]
    return whole


def _own(node: ir.Node, spatial: int) -> list[int] | None:
    """Return what the operator pads already; None where that depends on the size of its input."""
    auto = node.attributes.get("auto_pad")
    way = "NOTSET" if auto is None else auto.as_string()
    if spatial < 1 or way not in ("NOTSET", "VALID"):
        return None
    pads = node.attributes.get("pads")
    own = [0] * (2 * spatial) if pads is None or way == "VALID" else list(pads.as_ints())
    return own if len(own) == 2 * spatial and min(own) >= 0 else None


def _number(node: ir.Node, name: str) -> int:
    attribute = node.attributes.get(name)
    return 0 if attribute is None else attribute.as_int()
