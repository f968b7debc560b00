"""Rules of ``simplify`` about two nodes of different operators, each with a twin where nothing may
be done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.transform_models import floats, model_of, ops, run, same_bits

SPECIAL = np.array(
    [np.nan, -0.0, 0.0, 1, -1, np.inf, -np.inf, 7, 0.5, -7, 2, 6], np.float32
).reshape(2, 2, 3)


def left(text: str, opset: int = 17, **constants: Any) -> dict[str, int]:
    """Operators left of ``text``, from x[2,2,3], c and s[N,2] to z, once its outputs are seen to be
    the same bits.
    """
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> agraph '
        f"(float[2,2,3] x, bool[2,2,3] c, float[N,2] s) => (float z) {{ {text} }}"
    )
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    feeds = {"x": SPECIAL, "c": SPECIAL > 0, "s": floats(3, 2)}
    model.graph.output[0].type.tensor_type.ClearField("shape")
    expected = run(model, **feeds)
    for axis in range(expected[0].ndim):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_param=f"d{axis}")
    model.graph.output[0].type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model, full_check=True)
    result, _ = simplify_with_report(model)
    onnx.checker.check_model(result, full_check=True)
    assert same_bits(expected, run(result, **feeds))
    return ops(result)


@pytest.mark.parametrize(
    ("text", "opset", "expected"),
    [
        (
            "r = ReduceMax<axes = [1], keepdims = 0>(x) z = Unsqueeze(r, one)",
            17,
            {"ReduceMax": 1},
        ),
        (
            "r = ReduceSum<keepdims = 0>(x, ends) z = Unsqueeze(r, ends)",
            17,
            {"ReduceSum": 1},
        ),
        ("r = ReduceMean<keepdims = 0>(x) z = Unsqueeze(r, all)", 17, {"ReduceMean": 1}),
        (
            "r = ReduceMean<axes = [-2], keepdims = 0>(x) z = Unsqueeze<axes = [1]>(r)",
            11,
            {"ReduceMean": 1},
        ),
        ("r = ReduceMax<axes = [1]>(x) z = Squeeze(r, one)", 17, {"ReduceMax": 1}),
        (
            "r = ArgMax<axis = 1, keepdims = 0>(x) f = Unsqueeze(r, one) z = Cast<to = 1>(f)",
            17,
            {"ArgMax": 1, "Cast": 1},
        ),
        (
            "r = ReduceMax<axes = [1], keepdims = 0>(x) z = Unsqueeze(r, last)",
            17,
            {"ReduceMax": 1, "Unsqueeze": 1},
        ),
        (
            "r = ReduceMax<axes = [1]>(x) z = Unsqueeze(r, one)",
            17,
            {"ReduceMax": 1, "Unsqueeze": 1},
        ),
        (
            (
                "r = ReduceMax<axes = [1], keepdims = 0>(x) u = Unsqueeze(r, one) n = "
                "ReduceMax(r) z "
                "= Add(u, n)"
            ),
            17,
            {"ReduceMax": 2, "Unsqueeze": 1, "Add": 1},
        ),
        (
            "r = ReduceSum<keepdims = 0, noop_with_empty_axes = 1>(x) z = Unsqueeze(r, all)",
            17,
            {"Unsqueeze": 1},
        ),
    ],
)
def test_a_reduction_keeps_the_axes_that_are_put_back(
    text: str, opset: int, expected: dict[str, int]
) -> None:
    axes = {"one": [1], "last": [2], "ends": [2, 0], "all": [0, 1, 2]}
    assert (
        left(text, opset, **{name: np.array(axis, np.int64) for name, axis in axes.items()})
        == expected
    )


def test_a_negated_condition_swaps_what_a_where_chooses_from() -> None:
    # ONNX Runtime's own Where makes +0 of a -0 that true chooses, and none that false does.
    assert left("n = Not(c) y = Exp(x) a = Abs(x) z = Where(n, a, y)") == {
        "Exp": 1,
        "Abs": 1,
        "Where": 1,
    }
    text = "n = Not(c) y = Exp(x) a = Abs(x) w = Where(n, a, y) f = Cast<to = 1>(n) z = Add(w, f)"
    assert left(text)["Not"] == 1


def test_a_cast_like_is_the_cast_that_it_is() -> None:
    assert left("y = CastLike(number, x) z = Add(x, y)", number=np.int64(3)) == {"Add": 1}
    assert left("y = CastLike(c, x) z = Add(x, y)") == {"Cast": 1, "Add": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "d = Shape(s) f = ConstantOfShape(d) b = Cast<to = 7>(f) z = Cast<to = 1>(b)",
            {"Shape": 1, "ConstantOfShape": 1},
        ),
        (
            (
                "d = Shape(s) f = ConstantOfShape<value = float[1] {300}>(d) b = Cast<to = 2>(f) "
                "z = "
                "Cast<to = 1>(b)"
            ),
            {"Shape": 1, "ConstantOfShape": 1, "Cast": 2},
        ),
        (
            (
                "d = Shape(s) f = ConstantOfShape(d) b = Cast<to = 10>(f) a = Cast<to = 1>(b) z = "
                "Concat<axis = 0>(a, f)"
            ),
            {"Shape": 1, "ConstantOfShape": 1, "Cast": 2, "Concat": 1},
        ),
    ],
    ids=["folded", "out of range", "another reader"],
)
def test_what_is_filled_has_the_type_that_it_is_cast_to(
    text: str, expected: dict[str, int]
) -> None:
    assert left(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Clip(x, zero, six) z = Clip(a, one, )", {"Clip": 1}),
        ("a = Relu(x) z = Clip(a, minus, six)", {"Clip": 1}),
        ("a = Clip(x, minus, ) z = Relu(a)", {"Clip": 1}),
        ("a = Relu(x) z = Min(a, six)", {"Clip": 1}),
        ("a = Min(six, x) z = Relu(a)", {"Clip": 1}),
        ("a = Max(x, one) z = Min(a, six)", {"Clip": 1}),
        ("a = Min(x, six) z = Max(a, one)", {"Clip": 1}),
        ("a = Relu(x) z = Max(a, minus)", {"Relu": 1}),
        ("a = Relu(x) z = Max(a, one)", {"Max": 1}),
        ("a = Max(x, one) z = Relu(a)", {"Max": 1}),
        ("a = Max(x, minus) z = Max(a, one)", {"Max": 1}),
        ("a = Min(x, six) z = Min(one, a)", {"Min": 1}),
        ("a = Max(x, zero) z = Max(a, less)", {"Max": 2}),
        ("a = Max(x, zero) z = Min(a, six)", {"Max": 1, "Min": 1}),
        ("a = Relu(x) z = Max(a, zero)", {"Relu": 1, "Max": 1}),
        ("a = Clip(x, zero, one) z = Clip(a, six, )", {"Clip": 2}),
        ("a = Clip(x, one, zero) z = Relu(a)", {"Clip": 1, "Relu": 1}),
        ("a = Max(x, none) z = Max(a, one)", {"Max": 2}),
        ("a = Max(x, row) z = Max(a, one)", {"Max": 2}),
    ],
)
def test_clamps_in_a_row_are_one(text: str, expected: dict[str, int]) -> None:
    numbers = {
        "zero": 0,
        "less": -0.0,
        "one": 1,
        "minus": -1,
        "six": 6,
        "none": np.nan,
        "row": [1, 2, 3],
    }
    used = {name: np.array(value, np.float32) for name, value in numbers.items()}
    assert left(text, 17, **used) == expected


@pytest.mark.parametrize("opset", [6, 7, 8, 10])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a = Clip<min = -1.0, max = 6.0>(x) z = Clip<min = 0.0, max = 7.0>(a)",
            {"Clip": 1},
        ),
        ("a = Relu(x) z = Clip<max = 6.0>(a)", {"Clip": 1}),
        ("a = Clip<max = 6.0>(x) z = Relu(a)", {"Clip": 1}),
        ("a = Clip(x) z = Relu(a)", {"Clip": 1}),
        ("a = Clip<min = -1.0>(x) b = Relu(a) z = Clip<min = 0.5>(b)", {"Clip": 1}),
        ("a = Relu(x) z = Relu(a)", {"Relu": 1}),
        ("a = Clip<min = 0.0, max = 1.0>(x) z = Clip<min = 6.0>(a)", {"Clip": 2}),
        ("a = Clip<min = -0.0>(x) z = Relu(a)", {"Clip": 1}),
        ("a = Relu(x) z = Clip<min = -0.0>(a)", {"Clip": 1}),
    ],
)
def test_clamps_whose_bounds_are_attributes_are_one(
    text: str, opset: int, expected: dict[str, int]
) -> None:
    assert left(text, opset) == expected


@pytest.mark.parametrize(
    ("text", "opset", "expected"),
    [
        ("a = Relu(x) z = Min(a, six)", 8, {"Clip": 1}),
        ("a = Min(x, six) z = Clip<min = 1.0>(a)", 10, {"Clip": 1}),
        ("a = Relu(x) z = Max(a, six)", 8, {"Max": 1}),
        ("a = Relu(x) z = Min(a, sixes)", 7, {"Relu": 1, "Min": 1}),
    ],
)
def test_clamps_by_min_and_max_are_one_since_they_broadcast(
    text: str, opset: int, expected: dict[str, int]
) -> None:
    numbers = {"six": np.float32(6), "sixes": np.full((2, 2, 3), 6, np.float32)}
    used = {name: value for name, value in numbers.items() if f" {name})" in text}
    assert left(text, opset, **used) == expected


def test_clamps_of_integers_have_no_signed_zero() -> None:
    model = model_of(
        "agraph (int64[N] x) => (int64[N] z) <int64 zero = {0}, int64 six = {6}> { a = Max(x, "
        "zero) z = Min(a, six) }"
    )
    result, _ = simplify_with_report(model)
    x = np.array([-3, 0, 3, 6, 9])
    assert same_bits(run(model, x=x), run(result, x=x))
    assert ops(result) == {"Clip": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z = Concat<axis = 0>(none, x)", {"Identity": 1}),
        ("a = Concat<axis = -3>(x, none, x) z = Neg(a)", {"Concat": 1, "Neg": 1}),
        ("e = Slice(x, first, first) a = Concat<axis = 0>(e, x) z = Neg(a)", {"Neg": 1}),
        (
            "e = Slice(s, first, first, side) a = Concat<axis = 1>(e, s) z = Neg(a)",
            {"Neg": 1},
        ),
        ("a = Concat<axis = 1>(none, none) z = Neg(a)", {}),
    ],
)
def test_a_concat_leaves_out_what_is_empty(text: str, expected: dict[str, int]) -> None:
    constants = {
        "none": np.zeros((0, 2, 3), np.float32),
        "first": np.array([0]),
        "side": np.array([1]),
    }
    assert left(text, 17, **constants) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Mul(x, ones) z = Neg(a)", {"Neg": 1}),
        ("a = Mul(ones, x) z = Neg(a)", {"Neg": 1}),
        ("a = Div(x, block) z = Neg(a)", {"Neg": 1}),
        ("a = Sub(x, zeros) z = Neg(a)", {"Neg": 1}),
        (
            "i = Cast<to = 7>(s) a = Add(whole, i) n = Neg(a) z = Cast<to = 1>(n)",
            {"Cast": 2, "Neg": 1},
        ),
        ("a = Add(x, zeros) z = Neg(a)", {"Add": 1, "Neg": 1}),
        ("a = Mul(x, almost) z = Neg(a)", {"Mul": 1, "Neg": 1}),
        ("a = Mul(x, wide) z = Neg(a)", {"Mul": 1, "Neg": 1}),
        ("a = Mul(s, tall) z = Neg(a)", {"Mul": 1, "Neg": 1}),
        ("a = Sub(zeros, x) z = Neg(a)", {"Sub": 1, "Neg": 1}),
    ],
)
def test_neutral_vectors(text: str, expected: dict[str, int]) -> None:
    constants = {
        "ones": np.ones(3, np.float32),
        "block": np.ones((2, 1, 3), np.float32),
        "zeros": np.zeros((2, 3), np.float32),
        "whole": np.zeros(2, np.int64),
        "almost": np.array([1, 1, 2], np.float32),
        "wide": np.ones((1, 2, 2, 3), np.float32),
        "tall": np.ones((3, 1), np.float32),
    }
    assert left(text, 17, **constants) == expected


def test_what_does_nothing_between_an_input_and_an_output_drops_its_operands() -> None:
    text = (
        "d = Shape(x) a = Slice(d, first, two) b = Slice(d, two, end) e = Concat<axis = 0>(a, "
        "b) z = Reshape(x, e)"
    )
    constants = {"first": [0], "two": [2], "end": [3]}
    assert left(
        text, 17, **{name: np.array(value) for name, value in constants.items()}
    ) == {"Identity": 1}


@pytest.mark.parametrize(
    ("text", "opset", "expected"),
    [
        ("q = SequenceConstruct(x, y) z = SequenceAt(q, last)", 17, {"Neg": 1}),
        (
            "q = SequenceConstruct(x, y) z = ConcatFromSequence<axis = 1>(q)",
            17,
            {"Neg": 1, "Concat": 1},
        ),
        (
            "q = SplitToSequence<axis = 2>(y, parts) a = SequenceAt(q, i0) z = Neg(a)",
            17,
            {"Neg": 2, "Split": 1},
        ),
        (
            "q = SplitToSequence<axis = 2>(y, two) a = SequenceAt(q, last) z = Neg(a)",
            11,
            {"Neg": 2, "Split": 1},
        ),
        (
            (
                "q = SplitToSequence<axis = 2>(y) a = SequenceAt(q, i0) b = SequenceAt(q, last) z "
                "= "
                "Add(a, b)"
            ),
            17,
            {"Neg": 1, "Split": 1, "Add": 1},
        ),
        (
            "q = SplitToSequence<axis = -1, keepdims = 0>(y) z = SequenceAt(q, last)",
            17,
            {"Neg": 1, "Gather": 1},
        ),
        (
            "q = SequenceConstruct(x, y, x) n = SequenceLength(q) f = Cast<to = 1>(n) z = Add(y, f)",
            17,
            {"Neg": 1, "Add": 1},
        ),
        (
            "q = SplitToSequence<axis = 2, keepdims = 0>(y) n = SequenceLength(q) "
            "f = Cast<to = 1>(n) z = Add(y, f)",
            17,
            {"Neg": 1, "Add": 1},
        ),
        (
            "q = SplitToSequence<axis = 2>(y, two) n = SequenceLength(q) a = SequenceAt(q, i0) "
            "f = Cast<to = 1>(n) z = Add(a, f)",
            17,
            {"Neg": 1, "Split": 1, "Add": 1},
        ),
        (
            "q = SequenceConstruct(y, c2) e = SequenceAt(q, last) f = Exp(e) z = Add(y, f)",
            17,
            {"Neg": 1, "Add": 1},
        ),
        (
            "t = Neg(s) q = SplitToSequence(t) n = SequenceLength(q) z = Cast<to = 1>(n)",
            17,
            {"Neg": 1, "SplitToSequence": 1, "SequenceLength": 1, "Cast": 1},
        ),
        (
            "q = SplitToSequence<axis = 1>(y) z = ConcatFromSequence<axis = -2>(q)",
            17,
            {"Neg": 1},
        ),
        (
            "q = SplitToSequence<axis = 1, keepdims = 0>(y) "
            "z = ConcatFromSequence<axis = 1, new_axis = 1>(q)",
            17,
            {"Neg": 1},
        ),
        (
            "t = Neg(s) q = SplitToSequence(t, two) z = ConcatFromSequence<axis = 0>(q)",
            11,
            {"Neg": 1},
        ),
        (
            "q = SplitToSequence<axis = 2>(y, parts) z = ConcatFromSequence<axis = 2>(q)",
            17,
            {"Neg": 1},
        ),
        (
            "q = SplitToSequence<axis = 1>(y) z = ConcatFromSequence<axis = 2>(q)",
            17,
            {"Neg": 1, "SplitToSequence": 1, "ConcatFromSequence": 1},
        ),
        (
            "q = SplitToSequence<axis = 1, keepdims = 0>(y) z = ConcatFromSequence<axis = 1>(q)",
            17,
            {"Neg": 1, "SplitToSequence": 1, "ConcatFromSequence": 1},
        ),
        (
            "q = SplitToSequence<axis = 1>(y) z = ConcatFromSequence<axis = 1, new_axis = 1>(q)",
            17,
            {"Neg": 1, "SplitToSequence": 1, "ConcatFromSequence": 1},
        ),
        (
            "q = SequenceConstruct(x, y) z = ConcatFromSequence<axis = 1, new_axis = 1>(q)",
            17,
            {"Neg": 1, "SequenceConstruct": 1, "ConcatFromSequence": 1},
        ),
        (
            "q = SplitToSequence<axis = 1>(s) a = SequenceAt(q, i0) t = SplitToSequence(s) b = "
            "SequenceAt(t, i0) "
            "z = Add(a, b)",
            17,
            {"Split": 1, "SplitToSequence": 1, "SequenceAt": 1, "Add": 1},
        ),
    ],
)
def test_a_sequence_that_is_taken_apart_is_not_put_together(
    text: str, opset: int, expected: dict[str, int]
) -> None:
    numbers = {"i0": 0, "last": -1, "parts": [2, 1], "two": 2}
    constants = {
        name: np.array(value, np.int64) for name, value in numbers.items() if name in text
    }
    constants |= {"c2": np.array([0.5, 2, 3], np.float32)} if "c2" in text else {}
    assert left(f"y = Neg(x) {text}", opset, **constants) == expected


@pytest.mark.parametrize(
    ("number", "casts"), [(0.5, 2), (-0.0, 2), (0.1, 3), (np.nan, 3), (1e6, 3)]
)
def test_a_constant_is_cast_to_float16_where_that_rounds_nothing(
    number: float, casts: int
) -> None:
    text = "h = Cast<to = 10>(x) k = Cast<to = 10>(c1) m = Mul(h, k) z = Cast<to = 1>(m)"
    assert left(text, 17, c1=np.array(number, np.float32))["Cast"] == casts
