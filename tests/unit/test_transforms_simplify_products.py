"""``simplify`` and products of one value with several constant matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.transforms.simplify import simplify
from tests.unit.transform_models import floats, ops, run, same_bits

THREE = "q = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, c) "


def model(text: str, opset: int = 17, **constants: Any) -> onnx.ModelProto:
    """A model of ``text`` from x to q, k and v, with the matrices a, b and c."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> agraph '
        f"(float[N,2,4] x, float[4,3] w) => (float[N,2,3] q, float[N,2,5] k, float[N,2,3] v) "
        f"{{ {text} }}"
    )
    matrices = {"a": floats(4, 3), "b": floats(4, 5), "c": 2 * floats(4, 3)}
    for name, value in (matrices | constants).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return proto


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (THREE, {"MatMul": 1, "Split": 1}),
        (
            "i = MatMul(x, a) j = MatMul(x, b) l = MatMul(x, c) "
            "q = Add(i, d) k = Add(e, j) v = Add(l, f)",
            {"MatMul": 1, "Add": 1, "Split": 1},
        ),
        (
            "i = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, c) q = Add(i, d)",
            {"MatMul": 1, "Split": 1, "Add": 1},
        ),
        ("q = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, w)", {"MatMul": 3}),
        ("q = MatMul(x, a) k = MatMul(x, b) v = Add(q, d)", {"MatMul": 2, "Add": 1}),
        (
            "y = Neg(x) q = MatMul(x, a) k = MatMul(x, b) v = MatMul(y, c)",
            {"Neg": 1, "MatMul": 3},
        ),
    ],
    ids=["queries", "with rows", "a row of one", "computed", "two", "of another value"],
)
def test_one_product_is_split(text: str, expected: dict[str, int], opset: int) -> None:
    source = model(text, opset, d=floats(3), e=floats(5), f=floats(3))
    result = simplify(source)

    assert ops(result) == expected
    onnx.checker.check_model(result, full_check=True)
    feeds = {"x": floats(3, 2, 4), "w": floats(4, 3)}
    assert same_bits(run(source, **feeds), run(result, **feeds))


def test_matrices_that_others_read_are_copied_within_the_budget() -> None:
    text = "i = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, c) n = Mul(w, a) q = Add(i, m) "
    source = model(text + "m = ReduceSum<keepdims = 0>(n)")

    assert ops(simplify(source))["MatMul"] == 1
    assert ops(simplify(source, max_growth_bytes=0))["MatMul"] == 3


def test_a_transpose_that_moves_dimensions_of_one_joins_the_reshapes_around_it() -> None:
    source = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[1,1,8] x) => (float[1,8] z) '
        "<int64[4] s = {0, 0, 2, 4}, int64[2] t = {1, 8}> "
        "{ a = Reshape(x, s) b = Transpose<perm = [0, 2, 1, 3]>(a) c = Relu(b) "
        "d = Transpose<perm = [0, 2, 1, 3]>(c) z = Reshape(d, t) }"
    )
    result = simplify(source)

    assert ops(result) == {"Reshape": 2, "Relu": 1}
    assert same_bits(run(source, x=floats(1, 1, 8)), run(result, x=floats(1, 1, 8)))


def test_a_transpose_of_longer_dimensions_stays() -> None:
    source = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[1,3,8] x) => (float[3,8] z) '
        "<int64[4] s = {0, 0, 2, 4}, int64[2] t = {3, 8}> "
        "{ a = Reshape(x, s) b = Transpose<perm = [0, 2, 1, 3]>(a) z = Reshape(b, t) }"
    )
    result = simplify(source)

    assert ops(result)["Transpose"] == 1
    assert same_bits(run(source, x=floats(1, 3, 8)), run(result, x=floats(1, 3, 8)))
