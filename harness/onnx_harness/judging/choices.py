"""Outputs that a model chooses by, and integers that are levels of a measurement and no choices."""

from __future__ import annotations

import onnx

from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import MOVES, is_standard, opset_of

# By operator: the axis where its attribute is left out.
_DEFAULT_AXIS = {"ArgMax": 0, "TopK": -1, "LogSoftmax": -1}
_BYTES = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
_FLOATS = frozenset(
    {
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
    }
)
_HANDS_ON = MOVES | {"Clip", "Pad"}
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
        axis = next(
            (attribute.i for attribute in node.attribute if attribute.name == "axis"), None
        )
        if name not in outputs or (
            axis is None and node.op_type == "LogSoftmax" and opset < _LAST_AXIS_SINCE
        ):
            continue
        axes[name] = _DEFAULT_AXIS[node.op_type] if axis is None else axis
    return axes


def level_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the outputs of 8 bits that floats are cast or quantized to, as those of a picture are.

    A level next to the right one is nearly right, while a class or an index next to it is wrong.

    Args:
        model: its weights aren't needed.
    """
    outputs = [
        info.name for info in model.graph.output if info.type.tensor_type.elem_type in _BYTES
    ]
    if not outputs:
        return frozenset()
    graph = infer_types(model).graph
    infos = (*graph.input, *graph.value_info, *graph.output)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    makers = {name: node for node in graph.node for name in node.output}
    levels = set()
    for output in outputs:
        maker = makers.get(output)
        while maker is not None and is_standard(maker, *_HANDS_ON):
            maker = makers.get(maker.input[0])
        if maker is None:
            continue
        is_cast = (
            is_standard(maker, "Cast", "CastLike") and types.get(maker.input[0]) in _FLOATS
        )
        if is_cast or is_standard(maker, "QuantizeLinear"):
            levels.add(output)
    return frozenset(levels)
