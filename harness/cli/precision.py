"""Which arithmetic a model was converted to, read from its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model import subgraphs
from harness.transforms import Precision

if TYPE_CHECKING:
    import onnx

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger", "MatMulNBits", "QAttention")


def loosest(model: onnx.ModelProto, *, beyond: onnx.ModelProto) -> Precision:
    """The loosest arithmetic in ``model`` that isn't in ``beyond``: what their difference has to be judged by."""
    found = _precisions(model) - _precisions(beyond)
    return max(found, key=list(Precision).index, default=Precision.FP32)


def _precisions(model: onnx.ModelProto) -> set[Precision]:
    found: set[Precision] = set()
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        if any(_is_half(tensor.data_type) for tensor in graph.initializer):
            found.add(Precision.FP16)
        for info in (*graph.input, *graph.output):
            if _is_half(info.type.tensor_type.elem_type):
                found.add(Precision.FP16)
        for node in graph.node:
            if node.op_type.endswith(_QUANTIZED) or node.op_type.startswith("QLinear"):
                found.add(Precision.INT8)
            for attribute in node.attribute:
                casts = attribute.name == "to" and node.op_type == "Cast" and _is_half(attribute.i)
                if casts or _is_half(attribute.t.data_type):
                    found.add(Precision.FP16)
            waiting += subgraphs(node)
    return found


def _is_half(data_type: int) -> bool:
    import onnx

    return data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
