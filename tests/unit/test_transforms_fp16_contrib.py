"""Models that ONNX Runtime's optimizer wrote: its own operators compute in float16, and so does
what lies between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.half.contrib import STAYS_FLOAT32
from tests.unit.transform_models import copy_of, floats, ops, run

OURS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]


def model_of_nodes(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    weights: dict[str, Any],
    rank: int = 3,
) -> onnx.ModelProto:
    """The model of those nodes, its inputs of the dtypes of the arrays."""
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        infos,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * rank)],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=OURS, ir_version=8)


def contrib(
    op: str, inputs: list[str], outputs: list[str], **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, domain="com.microsoft", **attributes)


def product(source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [source, "w"], [result])


X, W = floats(2, 3, 16), floats(16, 16, seed=1) / 4
ONE, ZERO = np.ones(16, np.float32), np.zeros(16, np.float32)
PACKED = np.random.default_rng(2).integers(0, 255, (16, 1, 8), dtype=np.uint8)
PAST = {
    "x": X[:1],
    "past_key": floats(1, 2, 4, 8),
    "past_value": floats(1, 2, 4, 8, seed=3),
    "lengths": np.array([6], np.int32),
    "total": np.array(7, np.int32),
}

CASES: dict[str, tuple[onnx.NodeProto, dict[str, Any], dict[str, Any]]] = {
    "FastGelu": (contrib("FastGelu", ["a"], ["b"]), {}, {}),
    "Gelu": (contrib("Gelu", ["a"], ["b"]), {}, {}),
    "QuickGelu": (contrib("QuickGelu", ["a"], ["b"], alpha=1.702), {}, {}),
    "BiasGelu": (contrib("BiasGelu", ["a", "one"], ["b"]), {}, {}),
    "FusedMatMul": (contrib("FusedMatMul", ["a", "w"], ["b"], transB=1, alpha=0.5), {}, {}),
    "SkipLayerNormalization": (
        contrib("SkipLayerNormalization", ["a", "x", "one", "zero"], ["b"]),
        {},
        {},
    ),
    "SkipSimplifiedLayerNormalization": (
        contrib("SkipSimplifiedLayerNormalization", ["a", "x", "one"], ["b", "", "", "s"]),
        {},
        {},
    ),
    "SimplifiedLayerNormalization": (
        helper.make_node("SimplifiedLayerNormalization", ["a", "one"], ["b"]),
        {},
        {},
    ),
    "MultiHeadAttention": (
        contrib("MultiHeadAttention", ["a", "a", "x"], ["b"], num_heads=2),
        {},
        {},
    ),
    "GroupQueryAttention": (
        contrib(
            "GroupQueryAttention",
            ["a", "x", "x", "past_key", "past_value", "lengths", "total"],
            ["b", "present_key", "present_value"],
            num_heads=2,
            kv_num_heads=2,
        ),
        PAST,
        {},
    ),
    "RotaryEmbedding": (
        contrib("RotaryEmbedding", ["a", "at", "cos", "sin"], ["b"], num_heads=2),
        {"at": np.array([[0, 1, 2], [4, 5, 6]], np.int64)},
        {"cos": np.cos(floats(8, 4)), "sin": np.sin(floats(8, 4))},
    ),
    "MatMulNBits": (
        contrib(
            "MatMulNBits",
            ["a", "packed", "scales"],
            ["b"],
            K=16,
            N=16,
            bits=4,
            block_size=16,
        ),
        {},
        {"packed": PACKED, "scales": np.abs(floats(16)) / 8},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_lies_between_onnx_runtimes_operators_computes_in_float16(name: str) -> None:
    node, inputs, weights = CASES[name]
    constants = {"w": W, "one": ONE, "zero": ZERO, **weights}
    model = model_of_nodes(
        [product("x", "a"), node, product("b", "z")], {"x": X, **inputs}, constants
    )
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    assert (
        numpy_helper.to_array(
            next(each for each in result.graph.initializer if each.name == "w")
        ).dtype
        == "float16"
    )
    kinds = {info.name: info.type.tensor_type.elem_type for info in result.graph.value_info}
    assert kinds["b"] == TensorProto.FLOAT16
    feeds = {"x": X, **inputs}
    (ours,), (expected,) = run(result, **feeds), run(model, **feeds)
    np.testing.assert_allclose(ours, expected, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("attributes", "activation"),
    [
        ({"activation": "Relu"}, "Relu"),
        ({"activation": "LeakyRelu", "activation_params": [0.3]}, "LeakyRelu"),
        ({"activation": "Clip", "activation_params": [0.0, 0.5]}, "Clip"),
    ],
)
@pytest.mark.parametrize("with_sum", [False, True])
def test_a_fused_convolution_is_taken_apart(
    attributes: dict[str, Any], activation: str, with_sum: bool
) -> None:
    """CUDA has a kernel of FusedConv in float32 alone."""
    x, w = floats(1, 2, 5, 5), floats(3, 2, 3, 3, seed=1)
    addend = {"s": floats(1, 3, 3, 3, seed=2)} if with_sum else {}
    node = contrib(
        "FusedConv", ["x", "w", "", *addend], ["z"], kernel_shape=[3, 3], **attributes
    )
    model = model_of_nodes([node], {"x": x, **addend}, {"w": w}, rank=4)
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    counts = ops(result)
    assert counts["Conv"] == counts[activation] == 1
    assert "FusedConv" not in counts
    onnx.checker.check_model(result, full_check=True)
    (ours,), (expected,) = run(result, x=x, **addend), run(model, x=x, **addend)
    np.testing.assert_allclose(ours, expected, rtol=1e-2, atol=2e-2)


def test_a_fused_product_is_taken_apart() -> None:
    node = contrib(
        "FusedGemm",
        ["x", "w", "one"],
        ["z"],
        activation="LeakyRelu",
        activation_alpha=0.2,
        transB=1,
    )
    model = model_of_nodes([node], {"x": X[0]}, {"w": W, "one": ONE}, rank=2)
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    assert ops(result) == {"Gemm": 1, "LeakyRelu": 1, "Cast": 2}
    (ours,), (expected,) = run(result, x=X[0]), run(model, x=X[0])
    np.testing.assert_allclose(ours, expected, rtol=1e-2, atol=2e-2)


def test_what_scales_integers_stays_float32() -> None:
    nodes = [
        contrib("DequantizeLinear", ["q", "scale", "nothing"], ["a"]),
        product("a", "z"),
    ]
    q = np.arange(32, dtype=np.uint8).reshape(2, 16)
    model = model_of_nodes(
        nodes, {"q": q}, {"scale": np.float32(1e-6), "nothing": np.uint8(0), "w": W}, rank=2
    )
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    scale = next(each for each in result.graph.initializer if each.name == "scale")
    assert scale.data_type == TensorProto.FLOAT
    assert "DequantizeLinear" in STAYS_FLOAT32


def test_block_scales_below_float16_stay_float32() -> None:
    node, _, weights = CASES["MatMulNBits"]
    tiny = {**weights, "scales": weights["scales"] * np.float32(1e-6)}
    model = model_of_nodes(
        [product("x", "a"), node, product("b", "z")], {"x": X}, {"w": W, **tiny}
    )
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    (ours,), (expected,) = run(result, x=X), run(model, x=X)
    np.testing.assert_allclose(ours, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


def test_a_blocked_operator_of_onnx_runtime_stays_float32() -> None:
    node, _, _ = CASES["FastGelu"]
    model = model_of_nodes([product("x", "a"), node, product("b", "z")], {"x": X}, {"w": W})
    result = convert_float_to_float16(
        copy_of(model), keep_io_types=True, op_block_list=["FastGelu"]
    )
    kinds = {info.name: info.type.tensor_type.elem_type for info in result.graph.value_info}
    assert kinds["b"] == TensorProto.FLOAT
