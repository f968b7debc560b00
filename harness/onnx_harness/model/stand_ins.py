"""Standard operators whose shapes and types those of ONNX Runtime's own operators have."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_harness.model.walk import walk

_CONTRIB = "com.microsoft"


@dataclass(frozen=True, slots=True)
class _StandIn:
    """The standard operator whose outputs have the shapes and types of one of ONNX Runtime's.

    Attributes:
        op_type: the standard operator.
        inputs: indices of the inputs that it reads.
        outputs: how many outputs it has.
        keeps_attributes: the attributes mean the same.
    """

    op_type: str
    inputs: tuple[int, ...] = (0,)
    outputs: int = 1
    keeps_attributes: bool = False


_SAME = _StandIn("Identity")


# From the schemas in ONNX Runtime's docs/ContribOperators.md.
_STAND_INS = {
    "BiasGelu": _SAME,
    "DynamicQuantizeLSTM": _StandIn("LSTM", (0,), 3, keeps_attributes=True),
    "DynamicQuantizeMatMul": _StandIn("MatMul", (0, 1)),
    "FastGelu": _SAME,
    "FusedConv": _StandIn("Conv", (0, 1), keeps_attributes=True),
    "Gelu": _SAME,
    "QLinearAdd": _StandIn("Add", (0, 3)),
    "QLinearLeakyRelu": _SAME,
    "QLinearMul": _StandIn("Mul", (0, 3)),
    "QLinearSigmoid": _SAME,
    "QLinearSoftmax": _SAME,
    "QuickGelu": _SAME,
    "SkipLayerNormalization": _SAME,
    "SkipSimplifiedLayerNormalization": _SAME,
}


def with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model, with standard operators for ONNX Runtime's where it has any.

    They have the same shapes and types.
    """
    if not any(
        node.domain == _CONTRIB and node.op_type in _STAND_INS for node in walk(model.graph)
    ):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in walk(copy.graph):
        stand_in = _STAND_INS.get(node.op_type) if node.domain == _CONTRIB else None
        if stand_in is None:
            continue
        inputs = []
        for index in stand_in.inputs:
            if index < len(node.input):
                inputs.append(node.input[index])
        node.domain, node.op_type = "", stand_in.op_type
        node.ClearField("input")
        node.input.extend(inputs)
        del node.output[stand_in.outputs :]
        if not stand_in.keeps_attributes:
            node.ClearField("attribute")
    return copy
