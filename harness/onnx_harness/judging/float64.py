"""A model in float64: what its float32 arithmetic rounds away."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnx_harness.model.constants import constant_tensor, set_constant
from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import TYPE_ATTRIBUTES, is_standard
from onnx_harness.model.rewrite import retype
from onnx_harness.model.walk import graphs, subgraphs, walk

_FLOAT, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
# No value of these is rounded to fewer digits than float64 has.
_AS_WIDE = frozenset(
    {
        _DOUBLE,
        TensorProto.BOOL,
        TensorProto.STRING,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)

# The standard operators that ONNX Runtime's CPU provider computes in float32 and, in no version, in
# float64. Written down because its own list of kernels crashes in the build that carries OpenVINO;
# a test compares the two.
WITHOUT_KERNEL = frozenset(
    {
        "Acos",
        "Acosh",
        "Affine",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Attention",
        "AveragePool",
        "Col2Im",
        "Conv",
        "ConvTranspose",
        "Cosh",
        "Crop",
        "DequantizeLinear",
        "Det",
        "Elu",
        "Erf",
        "Gelu",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "HardSigmoid",
        "Hardmax",
        "ImageScaler",
        "InstanceNormalization",
        "LRN",
        "LeakyRelu",
        "LpPool",
        "MaxRoiPool",
        "MaxUnpool",
        "Mean",
        "MeanVarianceNormalization",
        "Multinomial",
        "NonZero",
        "OneHot",
        "PRelu",
        "ParametricSoftplus",
        "QLinearMatMul",
        "QuantizeLinear",
        "RNN",
        "Resize",
        "RotaryEmbedding",
        "Scale",
        "ScaledTanh",
        "Selu",
        "Sinh",
        "Softplus",
        "Softsign",
        "Tan",
        "TfIdfVectorizer",
        "ThresholdedRelu",
        "Upsample",
    }
)


def to_double(model: onnx.ModelProto) -> None:
    """Change every float32 of a model to float64, in place and mechanically.

    Weights, types, and what Casts cast to.

    Whether operators take float64 isn't asked: ONNX Runtime says so when it opens the model.
    """
    _double_graph(model.graph)


def double_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the float64 outputs of a model in which no value is known to be of a narrower float.

    Empty where a value's type isn't known.

    Args:
        model: its weights aren't needed.
    """
    if not any(info.type.tensor_type.elem_type == _DOUBLE for info in model.graph.output):
        return ()
    kinds = set()
    for graph in graphs(infer_types(model).graph):
        types = {}
        for info in (*graph.input, *graph.value_info, *graph.output):
            types[info.name] = info.type.tensor_type.elem_type
        for node in graph.node:
            constant = constant_tensor(node)
            if constant is not None:
                kinds.add(constant.data_type)
            kinds |= {types.get(name, 0) for name in node.output if name}
        kinds |= {*types.values(), *(tensor.data_type for tensor in graph.initializer)}
    if not kinds <= _AS_WIDE:
        return ()
    names = []
    for info in model.graph.output:
        if info.type.tensor_type.elem_type == _DOUBLE:
            names.append(info.name)
    return tuple(names)


def without_kernel(model: onnx.ModelProto) -> list[str]:
    """The operators of a model that can't be computed in float64, sorted.

    Found without opening it.
    """
    return sorted({node.op_type for node in walk(model.graph)} & WITHOUT_KERNEL)


def _double_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _double_tensor(tensor)
    for info in (*graph.input, *graph.output):
        retype(info.type, _FLOAT, _DOUBLE)
    graph.ClearField("value_info")  # inference finds them again
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == _FLOAT:
                attribute.i = _DOUBLE
            if attribute.HasField("t"):
                _double_tensor(attribute.t)
        if is_standard(node, "Constant"):
            _double_constant(node)
        if is_standard(node, "ConstantOfShape") and not node.attribute:
            set_constant(node, np.zeros(1))
        for body in subgraphs(node):
            _double_graph(body)


def _double_constant(node: onnx.NodeProto) -> None:
    tensor = constant_tensor(node)
    if tensor is not None and tensor.data_type == _FLOAT:
        set_constant(node, numpy_helper.to_array(tensor).astype(np.float64))


def _double_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == _FLOAT:
        tensor.CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(tensor).astype(np.float64), tensor.name
            )
        )
