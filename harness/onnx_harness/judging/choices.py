"""Outputs that a model chooses by: the axis along which their greatest element is what counts."""

from __future__ import annotations

import onnx

from onnx_harness.model.ops import opset_of

# By operator: the axis where its attribute is left out.
_DEFAULT_AXIS = {"ArgMax": 0, "TopK": -1, "LogSoftmax": -1}
# Since this version the default axis of LogSoftmax is the last one.
_LAST_AXIS_SINCE = 13


def choice_axes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the axis along which an output is read for a choice, by output.

    An ArgMax or TopK reads along it, or a LogSoftmax made the output along it.

    Args:
        model: its weights aren't needed.
    """
    outputs = {info.name for info in model.graph.output}
    opset = opset_of(model)
    axes: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in _DEFAULT_AXIS:
            continue
        name = node.output[0] if node.op_type == "LogSoftmax" else node.input[0]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)
        if name not in outputs or (
            axis is None and node.op_type == "LogSoftmax" and opset < _LAST_AXIS_SINCE
        ):
            continue
        axes[name] = _DEFAULT_AXIS[node.op_type] if axis is None else axis
    return axes
