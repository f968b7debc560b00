"""The rules of ``simplify``, each with a twin whose precondition fails, where nothing may be done."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_harness.model.types import Fact
from onnx_harness.transforms import parse_shape
from onnx_harness.transforms.simplification import no_ops
from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.transform_models import floats, model_of, ops, run, same_bits

NORMALIZATION = {
    "gamma": floats(6, seed=1),
    "beta": floats(6, seed=2),
    "mean": floats(6, seed=3),
    "variance": np.abs(floats(6, seed=4)) + 0.1,
}


def with_weights(text: str, opset: int = 17, **weights: Any) -> onnx.ModelProto:
    """A model whose body is ``text``, from x of rank 4 to z."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> agraph (float[N,4,H,W] x) => '
        f"(float[A,B,C,D] z) {{ {text} }}"
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def after(model: onnx.ModelProto, **feeds: Any) -> dict[str, int]:
    """What is left of the model, once its outputs are seen to be right: within 1e-6 of their scale."""
    result, _ = simplify_with_report(model)
    onnx.checker.check_model(result, full_check=True)
    for expected, got in zip(run(model, **feeds), run(result, **feeds), strict=True):
        np.testing.assert_allclose(
            got,
            expected,
            rtol=0,
            atol=1e-6 * max(1.0, float(np.abs(expected).max(initial=0))),
        )
    return ops(result)


def exactly_after(model: onnx.ModelProto, **feeds: Any) -> dict[str, int]:
    """What is left of the model, once its outputs are seen to be the same to the bit."""
    result, _ = simplify_with_report(model)
    onnx.checker.check_model(result, full_check=True)
    assert same_bits(run(model, **feeds), run(result, **feeds))
    return ops(result)


BN = "BatchNormalization(y, gamma, beta, mean, variance)"


@pytest.mark.parametrize(
    ("node", "weight"),
    [
        ("Conv<group = 2>(x, w)", (6, 2, 3, 3)),
        ("ConvTranspose<group = 2, strides = [2, 2]>(x, w)", (4, 3, 3, 3)),
        ("Conv(x, w, mean)", (6, 4, 1, 1)),
    ],
)
def test_a_normalization_goes_into_the_convolution_before_it(
    node: str, weight: tuple[int, ...]
) -> None:
    model = with_weights(f"y = {node} z = {BN}", w=floats(*weight), **NORMALIZATION)
    assert after(model, x=floats(2, 4, 5, 5)) == {node.split("<")[0].split("(")[0]: 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"y = Conv(x, w) n = {BN} z = Add(n, y)",
            {"Conv": 1, "BatchNormalization": 1, "Add": 1},
        ),
        ("y = Conv(x, w) z = Mul(y, row)", {"Conv": 1, "Mul": 1}),
        ("y = Conv(x, one) z = Add(y, wide)", {"Conv": 1, "Add": 1}),
        ("y = Conv(x, w) z = Mul(y, inf)", {"Conv": 1, "Mul": 1}),
        ("y = Conv(x, w) z = Mul(y, none)", {"Conv": 1, "Mul": 1}),
        ("y = Conv(x, w) z = Mul(y, minus)", {"Conv": 1, "Mul": 1}),
        ("y = Conv(x, w) z = Sub(negative_zero, y)", {"Conv": 1, "Sub": 1}),
        ("y = Conv(x, w) z = Add(y, y)", {"Conv": 1, "Add": 1}),
    ],
    ids=[
        "two readers",
        "along the width",
        "widens",
        "overflows",
        "0 times infinity",
        "-1 times 0",
        "-0 minus 0",
        "not constant",
    ],
)
def test_a_convolution_is_left_where_fusing_would_be_wrong(
    text: str, expected: dict[str, int]
) -> None:
    weights = {
        "w": floats(6, 4, 1, 1),
        "one": floats(1, 4, 1, 1),
        "row": floats(5),
        "wide": floats(6, 1, 1),
        "inf": np.array(np.inf, np.float32),
        "none": np.array(0, np.float32),
        "minus": np.array(-1, np.float32),
        "negative_zero": np.array(-0.0, np.float32),
        "two": np.array(2, np.float32),
        **NORMALIZATION,
    }
    x = floats(2, 4, 5, 5)
    x[1, :, 2, 2], x[1, 1, 3, 3] = 0, np.inf
    assert exactly_after(with_weights(text, **weights), x=x) == expected


def test_a_normalization_that_trains_is_left() -> None:
    text = f"y = Conv(x, w) z, m, v = {BN.replace('(y', '<training_mode = 1>(y')}"
    assert ops(
        simplify_with_report(with_weights(text, w=floats(6, 4, 1, 1), **NORMALIZATION))[0]
    ) == {
        "Conv": 1,
        "BatchNormalization": 1,
    }


def test_a_normalization_whose_statistics_are_outputs_is_left() -> None:
    model = with_weights(
        f"y = Conv(x, w) z, m, v, sm, sv = {BN}", 9, w=floats(6, 4, 1, 1), **NORMALIZATION
    )
    model.graph.output.append(
        helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [6])
    )
    assert ops(simplify_with_report(model)[0]) == {"Conv": 1, "BatchNormalization": 1}


def test_weights_that_a_caller_may_override_are_left() -> None:
    model = model_of(
        """agraph (float[N,2,3,3] x, float[2,2,1,1] w) => (float[N,2,3,3] z)
        <float[2,2,1,1] w = {1,2,3,4}, float[2,1,1] c = {5,6}> { y = Conv(x, w) z = Mul(y, c) }"""
    )
    assert exactly_after(model, x=floats(1, 2, 3, 3), w=floats(2, 2, 1, 1)) == {
        "Conv": 1,
        "Mul": 1,
    }


@pytest.mark.parametrize(
    ("signature", "shape", "expected"),
    [
        ("float[N,2] x) => (float[N,3] z", (4, 2), {"Gemm": 1}),
        ("float[M,N,2] x) => (float[M,N,3] z", (5, 4, 2), {"MatMul": 1, "Add": 1}),
    ],
)
def test_a_matmul_and_its_bias_are_a_gemm_of_matrices_alone(
    signature: str, shape: tuple[int, ...], expected: dict[str, int]
) -> None:
    model = model_of(
        f"agraph ({signature}) <float[2,3] w = {{1,2,3,4,5,6}}, float[3] b = {{1,2,3}}> "
        "{ y = MatMul(x, w) z = Add(b, y) }"
    )
    assert after(model, x=floats(*shape)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Transpose<perm=[1,2,0]>(x) z = Transpose<perm=[0,2,1]>(a)", {"Transpose": 1}),
        ("a = Transpose(x) z = Transpose<perm=[0,2,1]>(a)", {"Transpose": 1}),
        ("a = Transpose(x) b = Transpose(a) z = Neg(b)", {"Neg": 1}),
        ("a = Reshape(x, flat) z = Reshape(a, two)", {"Reshape": 1}),
        ("a = Reshape(x, flat) z = Reshape(a, copy)", {"Reshape": 1}),
        ("a = Unsqueeze(x, last) z = Unsqueeze(a, first)", {"Unsqueeze": 1}),
        ("a = Slice(x, i1, i2, i1) z = Slice(a, i0, i2, last)", {"Slice": 1}),
        ("a = Slice(x, i0, i2, i1) z = Slice(a, i1, i2, i1)", {"Slice": 1}),
        ("a = Sub(x, zero) b = Mul(a, unit) z = Div(b, unit)", {"Identity": 1}),
        ("a = Add(x, zero) z = Neg(a)", {"Add": 1, "Neg": 1}),
        ("a = Sub(zero, x) z = Neg(a)", {"Sub": 1, "Neg": 1}),
        ("a = Sub(x, zeros) z = Neg(a)", {"Sub": 1, "Neg": 1}),
        ("a, m = Dropout(x) z = Neg(a)", {"Neg": 1}),
        ("a, m = Dropout(x, half, yes) z = Neg(a)", {"Dropout": 1, "Neg": 1}),
    ],
)
def test_chains_and_nodes_that_do_nothing(text: str, expected: dict[str, int]) -> None:
    shape = {"Reshape": "A,B", "Unsqueeze": "A,B,C,D,E"}.get(
        next(iter(expected)), "A,B,C,D" if "zeros" in text else "A,B,C"
    )
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,4] x) => (float[{shape}] z) <
        int64[1] flat = {{-1}},
        int64[2] two = {{4,-1}}, int64[2] copy = {{0,1}}, int64[1] first = {{0}}, int64[1] last = {{-1}},
        int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[1] i2 = {{2}}, float zero = {{0}}, float unit = {{1}},
        float[1,1,1,1] zeros = {{0}}, float half = {{0.5}}, bool yes = {{1}}> {{ {text} }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    if "half" in text:
        assert ops(simplify_with_report(model)[0]) == expected
    else:
        x = floats(2, 3, 4)
        x[0, 0, :2] = [0.0, -0.0]
        assert exactly_after(model, x=x) == expected


@pytest.mark.parametrize(
    "text",
    ["a = Sub(x, zeros)", "a = Add(x, minus_zeros)", "a = Mul(x, ones)", "a = Div(x, ones)"],
)
def test_a_neutral_constant_that_gives_an_axis_more_stays(text: str) -> None:
    model = model_of(f"""agraph (float[N,3] x) => (int64[R] z)
        <float[1,1,1] zeros = {{0}}, float[1,1,1] minus_zeros = {{-0.0}}, float[1,1,1] ones = {{1}}>
        {{ {text} z = Shape(a) }}""")
    exactly_after(model, x=floats(2, 3))


@pytest.mark.parametrize(
    ("before", "after_it", "keeps"),
    [
        (Fact(1, (2, None), (None, "N")), Fact(1, (2, None), (None, "N")), True),
        (Fact(1, (2, None), (None, "N")), Fact(1, (2, None), (None, "M")), False),
        # Nothing is known of the second size.
        (Fact(1, (2, None)), Fact(1, (2, None)), False),
        (Fact(1, None), Fact(1, None), False),
        (None, None, False),
    ],
)
def test_sizes_of_which_nothing_is_known_are_not_taken_for_equal(
    before: Fact | None, after_it: Fact | None, keeps: bool
) -> None:
    node = ir.Node("", "Slice", [ir.Value(name="x")], outputs=[ir.Value(name="z")])
    facts = {
        name: fact for name, fact in (("x", before), ("z", after_it)) if fact is not None
    }
    assert no_ops._keeps_shape(node, facts) is keeps


def test_equal_nodes_are_merged_and_those_that_only_look_equal_are_not() -> None:
    model = model_of("""agraph (float[2] x) => (float[2] z)
        { a = Softmax<axis = 0>(x) b = Softmax<axis = 0>(x) c = Softmax<axis = -1>(x) d = LeakyRelu<alpha = 0.0>(x)
          e = LeakyRelu<alpha = -0.0>(x) f = local.Neg(x) g = Sum(a, b, c, d, e, f) z = Add(g, f) }
        <opset_import: ["" : 17], domain: "local"> Neg (v) => (r) { r = Exp(v) }""")
    assert exactly_after(model, x=floats(2)) == {
        "Softmax": 2,
        "LeakyRelu": 2,
        "Exp": 1,
        "Sum": 1,
        "Add": 1,
    }


def test_random_nodes_are_never_merged() -> None:
    model = model_of("""agraph (float[2] x) => (float[2] z)
        { a = RandomNormalLike(x) b = RandomNormalLike(x) z = Sub(a, b) }""")
    assert ops(simplify_with_report(model)[0]) == {"RandomNormalLike": 2, "Sub": 1}


def test_initializers_are_merged_by_type_and_bits() -> None:
    model = model_of("""agraph (float[1] x) => (float[1] z)
        <float[1] p = {0.0}, float[1] q = {0.0}, float[1] n = {-0.0}, int32[1] i = {0}>
        { a = Max(x, p) b = Max(x, q) c = Add(a, n) d = Cast<to = 6>(c) e = Max(d, i) f = Cast<to = 1>(e)
          z = Sum(a, b, f) }""")
    result, _ = simplify_with_report(model)
    assert same_bits(run(model, x=floats(1)), run(result, x=floats(1)))
    assert sorted(tensor.name for tensor in result.graph.initializer) == ["i", "p"]


def test_a_branch_that_is_always_taken_replaces_its_node_with_all_that_it_captures() -> None:
    model = model_of("""agraph (float[2] x, bool u) => (float[2] z, float[2] k) <bool c = {1}>
        { d = Neg(x)
          z, k = If (c) <then_branch = one () => (float[2] t, float[2] w) <float[2] w = {5, 6}>
              { e = Exp(x) t = If (u) <then_branch = two () => (float[2] s) { s = Neg(e) },
                                       else_branch = three () => (float[2] q) { q = Abs(e) }> },
            else_branch = other () => (float[2] r, float[2] v) { r = Abs(d) v = Neg(d) }> }""")
    for chosen in (True, False):
        assert exactly_after(model, x=floats(2), u=chosen) == {"Exp": 1, "If": 1}


def test_a_condition_that_a_caller_may_override_decides_at_run_time() -> None:
    model = model_of("""agraph (float[2] x, bool c) => (float[2] z) <bool c = {1}>
        { z = If (c) <then_branch = one () => (float[2] t) { t = Exp(x) },
                      else_branch = two () => (float[2] t) { t = Abs(x) }> }""")
    assert exactly_after(model, x=floats(2), c=False) == {"If": 1}


def test_constants_in_a_body_are_folded_there_too() -> None:
    model = model_of("""agraph (float[2] x, bool c) => (float[2] z)
        { z = If (c) <then_branch = one () => (float[2] t)
              { k = Constant<value = float[2] {1, 2}>() n = Neg(k) m = Exp(n) t = Mul(x, m) },
            else_branch = two () => (float[2] t) { k = Constant<value = float[2] {1, 2}>() t = Identity(k) }> }""")
    result, report = simplify_with_report(model)
    then = next(a.g for a in result.graph.node[0].attribute if a.name == "then_branch")
    assert [node.op_type for node in then.node] == ["Mul"]
    assert report["fold constants"] == 2
    for chosen in (True, False):
        assert same_bits(
            run(model, x=floats(2), c=chosen), run(result, x=floats(2), c=chosen)
        )


@pytest.mark.parametrize(
    ("order", "batch"),
    [
        ("first, rest", 0),
        ("first, rest", 1),
        ("first, rest", 3),
        ("rest, first", 1),
        ("rest, first", 3),
    ],
)
def test_a_reshape_that_keeps_a_dimension_in_its_place_has_a_constant_shape(
    batch: int, order: str
) -> None:
    model = model_of(f"""agraph (float[N,2,3] x) => (float[A,B] z)
        <int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[1] rest = {{6}}>
        {{ s = Shape(x) narrow = Cast<to = 6>(s) part = Slice(narrow, i0, i1) first = Cast<to = 7>(part)
           t = Concat<axis = 0>({order}) z = Reshape(x, t) }}""")
    result, _ = simplify_with_report(model)
    assert ops(result) == {"Reshape": 1}
    assert same_bits(run(model, x=floats(batch, 2, 3)), run(result, x=floats(batch, 2, 3)))


def test_two_inputs_that_share_a_dimension_by_name_may_differ() -> None:
    model = model_of("""agraph (float[N,6] x, float[N] y) => (float[A,B] z) <int64[1] rest = {-1}>
        { s = Shape(y) t = Concat<axis = 0>(s, rest) z = Reshape(x, t) }""")
    assert exactly_after(model, x=floats(2, 6), y=floats(4)) == {
        "Shape": 1,
        "Concat": 1,
        "Reshape": 1,
    }


def test_an_input_shape_can_be_overwritten() -> None:
    model = model_of("""agraph (float[N,C] x) => (int64[2] z) { z = Shape(x) }""")
    result, report = simplify_with_report(model, overwrite_input_shapes=("x:3,5",))
    assert [dim.dim_value for dim in result.graph.input[0].type.tensor_type.shape.dim] == [
        3,
        5,
    ]
    assert ops(result) == {}
    assert report == {"fold dimensions": 1}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y:1,2", "no input of the model.*Known: x"),
        ("x:1", "1 dimensions; the model says 2"),
        ("x", "is written"),
    ],
)
def test_a_shape_that_cannot_be_honoured_is_refused(text: str, message: str) -> None:
    model = model_of("agraph (float[N,C] x) => (float[N,C] z) { z = Neg(x) }")
    with pytest.raises(ValueError, match=message):
        simplify_with_report(model, overwrite_input_shapes=(text,))


def test_names_with_colons_and_scalars_are_read() -> None:
    assert parse_shape("serving:0:1,2") == ("serving:0", (1, 2))
    assert parse_shape("x:") == ("x", ())


@pytest.mark.parametrize(("asked", "expected"), [(False, {"Twice": 1}), (True, {"Add": 1})])
def test_functions_are_inlined_when_asked(asked: bool, expected: dict[str, int]) -> None:
    model = model_of("""agraph (float[2] x) => (float[2] z) { z = local.Twice(x) }
        <opset_import: ["" : 17], domain: "local"> Twice (v) => (r) { r = Add(v, v) }""")
    result, _ = simplify_with_report(model, inline_functions=asked)
    assert ops(result) == expected
    assert same_bits(run(model, x=floats(2)), run(result, x=floats(2)))


def test_the_report_is_empty_where_nothing_is_to_do() -> None:
    model = helper.make_model(
        model_of("agraph (float[2] x) => (float[2] z) { z = Neg(x) }").graph
    )
    assert simplify_with_report(model)[1] == {}


@pytest.mark.parametrize(
    ("domain", "expected"), [("", {"Identity": 1, "Neg": 1}), ("ours", {"Neg": 1})]
)
def test_what_a_function_puts_in_the_place_of_a_standard_operator_is_left_alone(
    domain: str, expected: dict[str, int]
) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ours", 1)]
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[3] x) => (float[3] z) { y = '
        "Identity(x) z = Neg(y) }"
    )
    model.functions.append(
        helper.make_function(
            domain,
            "Identity",
            ["a"],
            ["b"],
            [helper.make_node("Abs", ["a"], ["b"])],
            opsets[:1],
        )
    )
    model.opset_import.extend(opsets[1:])
    result, _ = simplify_with_report(model)
    assert ops(result) == expected
