"""A constant scale of channels, carried into the weights of the convolution after it.

The weights are computed anew in float64 and rounded once, as where a scale comes after them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import constant_array, new_constant
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, is_private

_DTYPES = (np.float32, np.float64)
# Since this version a Mul broadcasts as numpy does.
_NUMPY_BROADCAST = 7


def fuse_scales_before(editing: Editing, facts: Facts) -> int:
    """Let a Conv read what a Mul by a constant scales.

    Precondition: the Conv alone reads the product, its weights are a constant that no caller can
    override and that nothing else reads, and the constant varies along the channels alone. None is
    0, which would hide an infinity, or negative beside padding, which would change a zero's sign.
    """
    if editing.opset < _NUMPY_BROADCAST:
        return 0
    fused = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if editing.is_standard(node, "Conv"):
                fused += _fuse(editing, node, facts)
    return fused


def _fuse(editing: Editing, conv: ir.Node, facts: Facts) -> bool:
    product, weight = conv.inputs[0], conv.inputs[1]
    scaling = product.producer() if product is not None else None
    weights = constant_array(weight)
    if scaling is None or weights is None or weight is None or len(weight.uses()) != 1:
        return False
    if not editing.is_standard(scaling, "Mul") or not is_private(product, conv):
        return False
    if weights.dtype not in _DTYPES or weight.is_graph_output():
        return False
    for source, other in (tuple(scaling.inputs), tuple(reversed(scaling.inputs))):
        scale, fact = constant_array(other), fact_of(source, facts)
        if source is None or scale is None or fact is None or fact.shape is None:
            continue
        if len(fact.shape) != weights.ndim or scale.dtype != weights.dtype:
            continue
        scaled = _scaled(conv, weights, scale)
        if scaled is not None:
            conv.replace_input_with(1, new_constant(editing, str(weight.name), scaled))
            conv.replace_input_with(0, source)
            return True
    return False


def _scaled(
    conv: ir.Node, weights: npt.NDArray[np.generic], scale: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic] | None:
    """The weights times the scale of the channel that each reads; None where it doesn't fit."""
    group = conv.attributes.get("group")
    groups = 1 if group is None else group.as_int()
    channels = groups * weights.shape[1]
    if scale.ndim > weights.ndim or weights.shape[0] % groups:
        return None
    padded = (1,) * (weights.ndim - scale.ndim) + scale.shape
    if any(size != 1 for axis, size in enumerate(padded) if axis != 1):
        return None
    factors = scale.reshape(-1).astype(np.float64)
    if padded[1] not in (1, channels) or not np.isfinite(factors).all() or not factors.all():
        return None
    if (factors < 0).any() and _may_pad(conv):
        return None
    by_channel = np.broadcast_to(factors, channels)
    by_group = by_channel.reshape(groups, 1, weights.shape[1], 1)
    grouped = weights.astype(np.float64).reshape(
        groups, -1, weights.shape[1], _tail(weights)
    )
    with np.errstate(all="ignore"):
        result = (grouped * by_group).reshape(weights.shape).astype(weights.dtype)
    # What overflows, or underflows to 0, isn't the same weight.
    return (
        result
        if np.isfinite(result).all() and bool(((result == 0) == (weights == 0)).all())
        else None
    )


def _may_pad(conv: ir.Node) -> bool:
    pads, automatic = conv.attributes.get("pads"), conv.attributes.get("auto_pad")
    if automatic is not None and automatic.as_string() not in ("NOTSET", "VALID"):
        return True
    return pads is not None and any(pads.as_ints())


def _tail(weights: npt.NDArray[np.generic]) -> int:
    return int(np.prod(weights.shape[2:], dtype=np.int64))
