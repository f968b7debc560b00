"""Nodes that ``simplify`` removes for what their other inputs are, beside twins that do something."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.transform_models import copy_of, floats, model_of, ops, run, same_bits

CONSTANTS = """int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {9223372036854775807}, int64[1] far = {-2},
    int64[1] two = {2}, int64[1] less = {-1}, bool yes = {1}, bool no = {0}, bool[4,3] all = {1,1,1,1,1,1,1,1,1,1,1,1},
    bool[2,1,1] tall = {1, 1}, float unit = {1}, float[2,1,1] units = {1, 1}, int64[2] fills = {-1, 3},
    int64[2] other = {-1, 1}, int64[3] order = {0, 1, 2}, int64[3] turned = {2, 1, 0}"""


def left(text: str, inputs: str = "float[n,3] x", opset: int = 18) -> dict[str, int]:
    """What is left of ``text``, which gives ``z`` of ``x``, once its outputs are seen to be the
    same to the bit.
    """
    x, flags = floats(4, 3), np.array([[True, False, True]] * 4)
    feeds = {"x": flags if inputs.startswith("bool") else x}
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> agraph ({inputs}) => (float[a,b] z) '
        f"<{CONSTANTS}> {{ {text} }}"
    )
    onnx.checker.check_model(model, full_check=True)
    result, _ = simplify_with_report(copy_of(model))
    onnx.checker.check_model(result, full_check=True)
    assert same_bits(run(model, **feeds), run(result, **feeds))
    return ops(result)


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("a = Slice(x, zero, end) z = Relu(a)", True),
        ("a = Slice(x, zero, end, less, one) z = Relu(a)", True),
        ("a = Slice(x, zero, end, zero, two) z = Relu(a)", False),
        ("a = Slice(x, one, end) z = Relu(a)", False),
        ("a = Slice(x, zero, two, zero) z = Relu(a)", False),
        ("a = Slice(x, far, end, zero) z = Relu(a)", False),
        ("a = Reshape(x, fills) z = Relu(a)", True),
        ("a = Reshape(x, other) z = Relu(a)", False),
        ("a = Pow(x, unit) z = Relu(a)", True),
        ("a = Mean(x) z = Relu(a)", True),
        ("a = Gather<axis = 1>(x, order) z = Relu(a)", True),
        ("a = Gather<axis = 1>(x, turned) z = Relu(a)", False),
        ("a = Gather(x, order) z = Relu(a)", False),
        ("a = ReduceSum<noop_with_empty_axes = 1>(x) z = Relu(a)", True),
        ("a = ReduceSum<keepdims = 1>(x) z = Relu(a)", False),
        ("o = Optional(x) a = OptionalGetElement(o) z = Relu(a)", True),
        ("n = Neg(x) a = Neg(n) z = Relu(a)", True),
    ],
)
def test_a_node_that_hands_on_its_input_goes(text: str, idle: bool) -> None:
    assert (left(text) == {"Relu": 1}) == idle


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("e = Exp(x) a = Where(all, e, x) z = Relu(a)", True),
        ("e = Exp(x) a = Where(no, x, e) z = Relu(a)", True),
        ("e = Exp(x) a = Where(yes, e, unit) z = Relu(a)", True),
        ("e = Exp(x) a = Where(yes, unit, e) z = Relu(a)", False),
        ("e = Exp(x) c = Less(e, x) a = Where(c, e, e) z = Relu(a)", True),
    ],
)
def test_a_where_that_always_chooses_one_side_goes(text: str, idle: bool) -> None:
    assert (left(text, "float[4,3] x") == {"Exp": 1, "Relu": 1}) == idle


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("a = And(x, yes) z = Cast<to = 1>(a)", True),
        ("a = And(all, x) z = Cast<to = 1>(a)", True),
        ("a = And(x, no) z = Cast<to = 1>(a)", False),
        ("a = Or(no, x) z = Cast<to = 1>(a)", True),
        ("a = Xor(x, no) z = Cast<to = 1>(a)", True),
        ("a = Xor(x, yes) z = Cast<to = 1>(a)", False),
        ("n = Not(x) a = Not(n) z = Cast<to = 1>(a)", True),
    ],
)
def test_a_condition_that_a_constant_does_not_change_goes(text: str, idle: bool) -> None:
    assert (left(text, "bool[4,3] x") == {"Cast": 1}) == idle


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("a = DepthToSpace<blocksize = 1>(x) z = Relu(a)", True),
        ("a = SpaceToDepth<blocksize = 1>(x) z = Relu(a)", True),
        ("a = ReduceMax<keepdims = 1>(x, one) z = Relu(a)", True),
        ("a = ReduceMin<keepdims = 1>(x, one) z = Relu(a)", True),
        ("a = ReduceSum<keepdims = 1>(x, one) z = Relu(a)", False),
        ("a = ReduceMax<keepdims = 1>(x, two) z = Relu(a)", False),
    ],
)
def test_blocks_and_maxima_of_single_elements_go(text: str, idle: bool) -> None:
    x = floats(1, 1, 4, 3)
    header = f"agraph (float[1,1,4,3] x) => (float[a,b,c,d] z) <{CONSTANTS}>"
    model = model_of(f"{header} {{ {text} }}", opset=18)
    result, _ = simplify_with_report(copy_of(model))
    assert same_bits(run(model, x=x), run(result, x=x))
    assert (ops(result) == {"Relu": 1}) == idle


@pytest.mark.parametrize("text", ["a = Pow(x, units) z = ReduceMax<keepdims = 0>(a, zero)"])
def test_what_a_constant_makes_larger_stays(text: str) -> None:
    assert "Pow" in left(text, "float[4,3] x")


def test_a_negative_scale_goes_into_a_convolution_with_the_shift_after_it() -> None:
    """As a normalization with frozen statistics is spelt: alone the scale might change the sign of
    a zero.
    """
    numbers = ",".join(map(str, range(1, 9)))
    model = model_of(
        f"""agraph (float[1,2,4,4] x) => (float[1,2,3,3] z)
        <float[2,1,2,2] w = {{{numbers}}}, float[2,1,1] s = {{-2, 3}}, float[2,1,1] b = {{5, 7}}> {{
        c = Conv<group = 2>(x, w) m = Mul(c, s) z = Add(m, b) }}"""
    )
    result, _ = simplify_with_report(copy_of(model))
    assert ops(result) == {"Conv": 1}
    x = floats(1, 2, 4, 4)
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], rtol=1e-5, atol=1e-5)
