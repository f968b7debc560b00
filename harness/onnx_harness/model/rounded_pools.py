"""Pools that round their size up (``ceil_mode``), spelt so that onnx infers their size rightly.

A window that would begin in the padding behind the data doesn't count, says the operator since
opset 22, and ONNX Runtime for every opset. Before 22, onnx's inference counts it (1.23).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from onnx_harness.model.ops import is_standard
from onnx_harness.model.walk import graphs, walk

RIGHT_SINCE = 22
"""The first opset for which inference leaves out the windows that don't count."""
_POOLS = ("AveragePool", "LpPool", "MaxPool")
_Sizes = Mapping[str, list[int | None]]


def with_floored_pools(
    model: onnx.ModelProto, inferred: onnx.ModelProto
) -> onnx.ModelProto | None:
    """Return a copy in which pools whose last window doesn't count round down instead.

    Padding behind the data makes up for it in the axes where the last window counts.

    Args:
        model: of an opset below `RIGHT_SINCE`.
        inferred: the same model with the shapes of its values.

    Returns:
        None where all pools are inferred rightly, by the shapes that are known.
    """
    if not any(_rounds_up(node) for node in walk(model.graph)):
        return None
    sizes = _sizes(inferred)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    changed = 0
    for node in walk(copy.graph):
        if _rounds_up(node):
            changed += _floor(node, sizes.get(node.input[0]))
    return copy if changed else None


def _rounds_up(node: onnx.NodeProto) -> bool:
    return is_standard(node, *_POOLS) and any(
        attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute
    )


def _sizes(inferred: onnx.ModelProto) -> dict[str, list[int | None]]:
    sizes: dict[str, list[int | None]] = {}
    for graph in graphs(inferred.graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            if info.type.tensor_type.HasField("shape"):
                sizes[info.name] = [
                    dim.dim_value if dim.HasField("dim_value") else None
                    for dim in info.type.tensor_type.shape.dim
                ]
    return sizes


def _floor(node: onnx.NodeProto, shape: list[int | None] | None) -> bool:
    """Let a pool round down, if a last window of it doesn't count; return whether it was."""
    attributes: dict[str, Any] = {
        attribute.name: onnx.helper.get_attribute_value(attribute)
        for attribute in node.attribute
    }
    padding = attributes.get("auto_pad", b"NOTSET")
    if padding.startswith(b"SAME"):  # one window a stride, however it rounds
        _set(node, ceil_mode=0)
        return True
    kernel = attributes["kernel_shape"]
    rank = len(kernel)
    if shape is None or len(shape) != rank + 2:
        return False
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    pads = [0] * (2 * rank)
    if padding == b"NOTSET":
        pads = list(attributes.get("pads", pads))
    uncounted = False
    for axis, size in enumerate(shape[2:]):
        begin, end, stride = pads[axis], pads[axis + rank], strides[axis]
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        # The place of the last window, rounded up.
        last = None if size is None else -(-(size + begin + end - reach) // stride) * stride
        if size is not None and last is not None and last >= size + begin:
            uncounted = True
        else:
            pads[axis + rank] += stride - 1
    if uncounted:
        _set(node, ceil_mode=0, auto_pad="NOTSET", pads=pads)
    return uncounted


def _set(node: onnx.NodeProto, **values: object) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    kept += [onnx.helper.make_attribute(name, value) for name, value in values.items()]
    del node.attribute[:]
    node.attribute.extend(kept)
