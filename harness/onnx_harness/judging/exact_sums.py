"""Sessions without the integer kernels whose sums are coarser than a quantized model's own.

ONNX Runtime's optimizer puts integer kernels into a graph that never asked for them: on x86-64
without VNNI sums of uint8 x int8 products saturate
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html), MatMulNBits
quantizes its activations, and QLinearSoftmax sums a table of few digits: 3% of its values lie on
another level than a Softmax between quantizers gives. Where a Conv between quantizers has a float
weight, that is quantized too. What they do there is ONNX Runtime's own doing on this processor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.constants import named_constants
from onnx_harness.model.ops import MOVES, is_standard
from onnx_harness.model.walk import graphs, walk

_INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
    }
    | {"QAttention", "QGemm", "QLinearConv", "QLinearMatMul"}
)

# Their float weights are quantized where they lie between quantizers.
_QUANTIZED_TOO = ("Conv", "ConvTranspose", "Gemm")
_PASSED = MOVES | {"Clip", "Relu"}

# From onnxruntime_session_options_config_keys.h: int8 weights made uint8, whose products with uint8
# don't saturate; activations of MatMulNBits in float32; no integer kernel at all.
_WEIGHTS = "session.x64quantprecision"
_MATMULNBITS = "session.qdq_matmulnbits_accuracy_level"
_NO_KERNELS = "session.disable_quant_qdq"


def exact_sums(
    model: onnx.ModelProto, candidate: onnx.ModelProto | None = None
) -> Mapping[str, str]:
    """Return a configuration of sessions without integer kernels that saturate.

    A model that computes in floats between quantizers never saturates with optimizations off. One
    that holds integer kernels itself saturates with them, and is left as it is.

    Args:
        model: the untouched one.
        candidate: what was made of it and is to be run; None: itself.
    """
    operators = {node.op_type for node in walk(model.graph)}
    if "DequantizeLinear" not in operators:
        return {}
    # Of the untouched one: what folds the quantized weights of a model to floats answers for it.
    coarse = _has_quantized(candidate or model, "Softmax") or _has_quantized(
        model, *_QUANTIZED_TOO
    )
    if not operators.isdisjoint(_INTEGER_KERNELS):
        return {_NO_KERNELS: "1"} if coarse else {}
    config = {_MATMULNBITS: "1"}
    if coarse:
        config[_NO_KERNELS] = "1"
    elif _weights_can_be_made_unsigned(candidate or model):
        config[_WEIGHTS] = "1"
    elif _saturates():
        config[_NO_KERNELS] = "1"
    return config


def _has_quantized(model: onnx.ModelProto, *operators: str) -> bool:
    """Return whether such a node lies between quantizers, or does once they move past what moves.

    One with a weight counts where that is a float constant.
    """
    floats = _constants(model.graph)
    for graph in graphs(model.graph):
        levels: set[str] = set()
        found: set[str] = set()
        for node in graph.node:
            if is_standard(node, "DequantizeLinear"):
                levels.update(node.output)
                floats.difference_update(node.output)
            elif is_standard(node, *operators) and node.input[0] in levels:
                if floats.issuperset(node.input[1:2]):
                    found.update(node.output)
            elif is_standard(node, *_PASSED):
                for names in (levels, found):
                    if not names.isdisjoint(node.input[:1]):
                        names.update(node.output)
            elif is_standard(node, "QuantizeLinear") and not found.isdisjoint(node.input):
                return True
    return False


def _weights_can_be_made_unsigned(model: onnx.ModelProto) -> bool:
    """Return whether ONNX Runtime 1.32 can load a model whose int8 weights it makes uint8.

    It gives one without a zero point a scalar one, and a DequantizeLinear along an axis then can't
    run. And it makes each tensor anew for every node that reads it, under one name: "Attempt to
    replace the existing tensor" where weights, zero points or a dequantized weight are shared.
    """
    dequantizers = [node for node in walk(model.graph) if node.op_type == "DequantizeLinear"]
    if any(not any(node.input[2:]) for node in dequantizers):
        return False
    signed = set(_signed_tensors(model.graph))
    constant = _constants(model.graph)
    of_weights = []
    for node in dequantizers:
        if node.input[0] in constant and node.input[2] in signed:
            of_weights.append(node)
    read = Counter(_all_reads(model.graph))
    tensors = Counter(name for node in of_weights for name in (node.input[0], node.input[2]))
    return all(count == 1 for count in tensors.values()) and all(
        read[node.output[0]] == 1 for node in of_weights
    )


def _signed_tensors(graph: onnx.GraphProto) -> Iterator[str]:
    for inner in graphs(graph):
        for name, tensor in named_constants(inner):
            if tensor.data_type == TensorProto.INT8:
                yield name


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Return the names of constants, and of what ONNX Runtime folds to one."""
    names = {tensor.name for inner in graphs(graph) for tensor in inner.initializer}
    for inner in graphs(graph):
        for node in inner.node:
            if names.issuperset(name for name in node.input if name):
                names.update(node.output)
    return names


def _all_reads(graph: onnx.GraphProto) -> Iterator[str]:
    for inner in graphs(graph):
        for node in inner.node:
            yield from node.input
        for info in inner.output:
            yield info.name


@cache
def _saturates() -> bool:
    """Return whether sums of uint8 x int8 products saturate on this processor."""
    import onnxruntime

    right = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "right")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "right"], ["sums"])],
        "saturation",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 64])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [4, 16])],
        [right],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (sums,) = session.run(None, {"x": np.full((4, 64), 255, np.uint8)})
    return bool((sums != 255 * 127 * 64).any())
