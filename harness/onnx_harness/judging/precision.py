"""Read from a graph the arithmetic that a model was converted to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnx_harness.model.walk import subgraphs
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    import onnx

_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "MatMulNBits",
    "QAttention",
)


def loosest(model: onnx.ModelProto, *, beyond: onnx.ModelProto) -> Precision:
    """The loosest arithmetic in ``model`` that isn't in ``beyond``.

    What their difference has to be judged by.
    """
    precisions = _precisions(model) - _precisions(beyond)
    return max(precisions, key=list(Precision).index, default=Precision.FP32)


def _precisions(model: onnx.ModelProto) -> set[Precision]:
    precisions: set[Precision] = set()
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        precisions |= _halves(tensor.data_type for tensor in graph.initializer)
        elem_types = []
        for info in (*graph.input, *graph.output):
            elem_types.append(info.type.tensor_type.elem_type)
        precisions |= _halves(elem_types)
        for node in graph.node:
            if node.op_type.endswith(_QUANTIZED) or node.op_type.startswith("QLinear"):
                precisions.add(Precision.INT8)
            for attribute in node.attribute:
                casts = attribute.name == "to" and node.op_type == "Cast"
                precisions |= _halves(
                    [attribute.t.data_type, *([attribute.i] if casts else [])]
                )
            waiting += subgraphs(node)
    return precisions


def _halves(data_types: Iterable[int]) -> set[Precision]:
    import onnx

    halves: dict[int, Precision] = {
        onnx.TensorProto.FLOAT16: Precision.FP16,
        onnx.TensorProto.BFLOAT16: Precision.BF16,
    }
    return {halves[data_type] for data_type in data_types if data_type in halves}
