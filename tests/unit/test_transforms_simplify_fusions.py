"""Rules of ``simplify`` that make one node of two: each with twins whose precondition fails, where
nothing is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.transform_models import copy_of, floats, ops, run, same_bits

VALUES = """int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] last = {-1}, int64[2] i01 = {0, 1},
    int64[2] i02 = {0, 2}, int64[1] flat = {-1}, int64[2] copy = {0, -1}, int64[3] wide = {1, -1, 1},
    int64[8] sides = {0, 0, 1, 2, 0, 0, 0, 1}, int64[8] channels = {0, 1, 0, 0, 0, 0, 1, 1},
    int64[8] cut = {0, 0, -1, 1, 0, 0, 1, 1}, int64[4] some = {1, 2, 0, 1}, int64[2] axes = {-2, 3},
    int64[3] ones = {1, 1, 1}, int64[3] repeats = {1, 2, 1},
    float null = {0}, float minus_null = {-0.0}, float seven = {7}"""


def model_of(
    inputs: str, output: str, text: str, opset: int = 18, **weights: Any
) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> agraph ({inputs}) => ({output} z) '
        f"<{VALUES}> {{ {text} }}"
    )
    weights = {"low": np.array(-np.inf, np.float32), **weights}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def left_of(model: onnx.ModelProto, **feeds: Any) -> dict[str, int]:
    """What is left of the model, once its outputs are seen to be the same to the bit."""
    result, _ = simplify_with_report(copy_of(model))
    onnx.checker.check_model(result, full_check=True)
    assert same_bits(run(model, **feeds), run(result, **feeds))
    return ops(result)


def pictures() -> Any:
    x = floats(2, 3, 6, 5)
    x[0, 0, :, :2], x[0, 1, 0, 0], x[0, 2, 3, 3], x[1, 0, 1, 1] = -1, -0.0, np.inf, -np.inf
    return x


@pytest.mark.parametrize(
    "text",
    [
        "p = Pad(x, sides) z = Conv(p, w)",
        "p = Pad(x, sides, null) z = Conv<pads = [1, 0, 0, 1], strides = [2, 1]>(p, w, b)",
        "p = Pad(x, sides) z = Conv<auto_pad = 'VALID', dilations = [2, 1]>(p, w)",
        "p = Pad(x, some, null, axes) z = Conv(p, w)",
        "p = Pad(x, sides) z = AveragePool<kernel_shape = [3, 3]>(p)",
        (
            "p = Pad(x, sides) z = AveragePool<kernel_shape = [4, 4], pads = [1, 1, 1, 1], "
            "count_include_pad = 1>(p)"
        ),
        (
            "r = Relu(x) p = Pad(r, sides, low) z = MaxPool<kernel_shape = [3, 3], strides = [1, "
            "2]>(p)"
        ),
        (
            "r = Relu(x) p = Pad(r, sides, low) z = MaxPool<kernel_shape = [4, 4], pads = [1, 1, "
            "1, "
            "1]>(p)"
        ),
    ],
)
def test_a_pad_goes_into_what_reads_it(text: str) -> None:
    weights: dict[str, Any] = {"w": floats(4, 3, 2, 2, seed=1), "b": floats(4, seed=2)}
    model = model_of("float[N,3,H,W] x", "float[A,B,C,D]", text.replace("'", '"'), **weights)
    assert left_of(model, x=pictures()) == {
        op: times for op, times in ops(model).items() if op != "Pad"
    }


@pytest.mark.parametrize(
    "text",
    [
        "p = Pad(x, sides, seven) z = Conv(p, w)",
        "p = Pad(x, sides, minus_null) z = Conv(p, w)",
        "p = Pad<mode = 'edge'>(x, sides) z = Conv(p, w)",
        "p = Pad(x, channels) z = Conv(p, v)",
        "p = Pad(x, cut) z = Conv(p, w)",
        "p = Pad(x, sides) z = Conv<auto_pad = 'SAME_UPPER', strides = [2, 2]>(p, w)",
        "p = Pad(x, sides) z = Conv(p, not_finite)",
        "p = Pad(x, sides, seven) z = AveragePool<kernel_shape = [3, 3]>(p)",
        "p = Pad(x, sides) z = AveragePool<kernel_shape = [4, 4], pads = [1, 1, 1, 1]>(p)",
        "p = Pad(x, sides) z = AveragePool<kernel_shape = [2, 2]>(p)",
        (
            "p = Pad(x, sides) z = AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode "
            "= "
            "1>(p)"
        ),
        "p = Pad(x, sides) z = MaxPool<kernel_shape = [3, 3]>(p)",
        "p = Pad(x, sides, low) z = MaxPool<kernel_shape = [3, 3]>(p)",
        "p = Pad(x, sides, low) z, at = MaxPool<kernel_shape = [3, 3]>(p) k = Cast<to = 1>(at)",
        "p = Pad(x, sides, u) z = Conv(p, w)",
        "p = Pad(x, amounts) z = Conv(p, w)",
        "p = Pad(x, sides) z = Conv(p, x)",
        "p = Pad(x, sides) z = ConvTranspose(p, v)",
    ],
)
def test_a_pad_stays_where_it_is_not_what_the_reader_pads(text: str) -> None:
    not_finite = floats(4, 3, 2, 2)
    not_finite[0, 0, 0, 0] = np.inf
    weights: dict[str, Any] = {
        "w": floats(4, 3, 2, 2, seed=1),
        "v": floats(4, 4, 2, 2, seed=1),
        "not_finite": not_finite,
    }
    if "ConvTranspose" in text:
        weights["v"] = floats(3, 4, 2, 2)
    if "(p, x)" in text:
        text = text.replace("(p, x)", "(p, y)")
    inputs = "float[N,3,6,5] x, float u, int64[8] amounts, float[1,3,2,2] y"
    output = "float[A,B,C,D]" if "at =" not in text else "float[A,B,C,D] k, float[A,B,C,D]"
    model = model_of(inputs, output, text.replace("'", '"'), **weights)
    feeds = {
        "x": pictures(),
        "u": np.array(0, np.float32),
        "amounts": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    }
    assert left_of(model, **feeds, y=floats(1, 3, 2, 2))["Pad"] == 1


def test_a_pad_that_others_read_stays_for_them() -> None:
    model = model_of("float[N,3,6,5] x", "float[A,B,C,D]", "p = Pad(x, sides) c = Conv(p, w) d = "
                                                           "Neg(p) "
                     "r = ReduceMax<keepdims = 0>(d) z = Mul(c, "
                     "r)", w=floats(4, 3, 2, 2, seed=1))  # fmt: skip
    assert left_of(model, x=floats(2, 3, 6, 5)) == {
        "Pad": 1,
        "Conv": 1,
        "Neg": 1,
        "ReduceMax": 1,
        "Mul": 1,
    }


@pytest.mark.parametrize(
    ("text", "rank", "expected"),
    [
        ("a = Unsqueeze(x, i0) b = Squeeze(a, i0) z = Neg(b)", 3, {"Neg": 1}),
        ("a = Unsqueeze(x, i0) z = Squeeze(a, last)", 3, {"Reshape": 1}),
        ("a = Squeeze(x, last) z = Squeeze(a, i1)", 1, {"Squeeze": 1}),
        ("a = Squeeze(x, i1) z = Squeeze(a, last)", 1, {"Squeeze": 1}),
        ("a = Squeeze(x) z = Unsqueeze(a, i02)", 3, {"Squeeze": 1, "Unsqueeze": 1}),
        ("a = Flatten(x) z = Reshape(a, flat)", 1, {"Reshape": 1}),
        ("a = Reshape(x, flat) z = Unsqueeze(a, i02)", 3, {"Reshape": 1}),
        ("a = Relu(x) b = Relu(a) z = Relu(b)", 3, {"Relu": 1}),
        ("a = Abs(x) z = Relu(a)", 3, {"Abs": 1, "Relu": 1}),
        (
            "a = Neg(x) b = Concat<axis = 0>(x, a) z = Concat<axis = -3>(b, x)",
            3,
            {"Neg": 1, "Concat": 1},
        ),
        ("a = Concat<axis = 0>(x, x) z = Concat<axis = 1>(a, a)", 3, {"Concat": 2}),
        (
            "a = Concat<axis = 0>(x, x) b = Concat<axis = 0>(a, x) z = Concat<axis = 0>(b, a)",
            3,
            {"Concat": 2},
        ),
        ("a = Sum(x) b = Max(a) c = Min(b) d = Tile(c, ones) z = Neg(d)", 3, {"Neg": 1}),
        ("a = Tile(x, repeats) z = Neg(a)", 3, {"Tile": 1, "Neg": 1}),
        ("a = Split<axis = 1, num_outputs = 1>(x) z = Neg(a)", 3, {"Neg": 1}),
        ("a = Slice(x, i0, i1, last) z = Neg(a)", 3, {"Neg": 1}),
        ("a = Slice(x, last, far, last, last) z = Neg(a)", 3, {"Neg": 1, "Slice": 1}),
    ],
)
def test_nodes_that_only_move_or_repeat(
    text: str, rank: int, expected: dict[str, int]
) -> None:
    shape = ",".join("ABC"[:rank])
    model = model_of("float[N,1,1] x", f"float[{shape}]", text, far=np.array([-9]))
    x = floats(3, 1, 1)
    x[0] = -0.0
    assert left_of(model, x=x) == expected


def test_a_slice_backwards_of_equal_shape_is_no_identity() -> None:
    model = model_of(
        "float[4] x",
        "float[4]",
        "a = Slice(x, last, far, i0, last) z = Neg(a)",
        far=np.array([-9]),
    )
    assert left_of(model, x=floats(4)) == {"Slice": 1, "Neg": 1}


@pytest.mark.parametrize(
    ("shape", "left"),
    [((3, 1), 2), ((1, 3), 1), ((3,), 1), ((1, 1), 1), ((), 1), ((3, 3), 2)],
)
def test_what_a_gemm_adds_may_vary_along_its_rows(shape: tuple[int, ...], left: int) -> None:
    weights = {
        "w": floats(4, 3, seed=1),
        "c": floats(*shape, seed=2),
        "d": floats(3, seed=3),
    }
    model = model_of(
        "float[3,4] x",
        "float[A,B]",
        "y = Gemm<beta = 0.5>(x, w, c) z = Add(y, d)",
        18,
        **weights,
    )
    result, _ = simplify_with_report(copy_of(model))
    (expected,), (got,) = run(model, x=floats(3, 4)), run(result, x=floats(3, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert sum(ops(result).values()) == left


def test_what_a_normalization_that_trains_writes_over_is_shared_with_nothing() -> None:
    model = model_of(
        "float[2,3,2] x",
        "float[A] k, float[A] l, float[B,C,D]",
        "z, k, l = BatchNormalization<training_mode = 1>(x, one, zero, mean, variance)",
        15,
        one=np.array([1, 2, 3], np.float32),
        zero=np.zeros(3, np.float32),
        mean=np.zeros(3, np.float32),
        variance=np.array([1, 2, 3], np.float32),
    )
    assert left_of(model, x=floats(2, 3, 2)) == {"BatchNormalization": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t = Transpose(x) z = Gemm(t, w)", {"Gemm": 1}),
        ("t = Transpose<perm = [1, 0]>(x) z = Gemm<transA = 1>(t, v)", {"Gemm": 1}),
        (
            "t = Transpose<perm = [1, 0]>(y) z = Gemm<transA = 1, transB = 1, alpha = 0.5>(x, t)",
            {"Gemm": 1},
        ),
        ("t = Transpose(x) z = MatMul(t, w)", {"Transpose": 1, "MatMul": 1}),
    ],
)
def test_a_gemm_transposes_for_itself(text: str, expected: dict[str, int]) -> None:
    model = model_of(
        "float[4,3] x, float[4,4] y",
        "float[A,B]",
        text,
        w=floats(4, 2, seed=1),
        v=floats(3, 2, seed=2),
    )
    result, _ = simplify_with_report(copy_of(model))
    feeds = {"x": floats(4, 3), "y": floats(4, 4)}
    for one, other in zip(run(model, **feeds), run(result, **feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    assert ops(result) == expected
