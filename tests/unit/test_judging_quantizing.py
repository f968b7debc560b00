"""The ideal conversion to 8 bits: levels of weights and of activations, and who reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.quantizing import (
    Scheme,
    _is_rounded,
    _levels,
    quantize_through,
    quantized,
    watch,
    watched,
)
from onnx_harness.judging.runs import open_cpu
from onnx_harness.providers.running import run
from tests.models import model

MATMUL = frozenset({"MatMul"})
SIGNED = Scheme(MATMUL, static=False)
UNSIGNED = replace(SIGNED, signed_weights=False)
Array = np.ndarray[Any, Any]


@pytest.mark.parametrize(
    ("scheme", "weight", "levels"),
    [
        (SIGNED, [2.54, -1.0, 0.013, 0.0], [2.54, -1.0, 0.02, 0.0]),
        (SIGNED, [-2.54, 0.031, 0.029], [-2.54, 0.04, 0.02]),
        (replace(SIGNED, narrow=True), [1.26, -0.031, 0.009], [1.26, -0.04, 0.0]),
        (SIGNED, [0.0, 0.0], [0.0, 0.0]),
        (UNSIGNED, [-1.0, 4.1, 0.013], [-1.0, 4.1, 0.02]),
        (UNSIGNED, [1.0, 5.1, 0.029], [1.0, 5.1, 0.02]),
        (UNSIGNED, [-1.0, -5.1, -0.029], [-1.0, -5.1, -0.02]),
        (UNSIGNED, [0.0, 0.0], [0.0, 0.0]),
        (replace(UNSIGNED, narrow=True), [-1.0, 1.54, 0.013], [-1.0, 1.54, 0.02]),
        # Both ends round away from 0: the upper one has no level more.
        (UNSIGNED, [-3.0, 507.0], [-4.0, 506.0]),
    ],
)
def test_the_levels_of_a_weight(
    scheme: Scheme, weight: list[float], levels: list[float]
) -> None:
    rounded = quantized(np.array(weight, np.float32), scheme, None)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, levels, rtol=1e-6, atol=1e-9)
    # With a scale for each channel, a column of ten times as much has ten times the levels.
    both = np.array([weight, [10 * value for value in weight]], np.float32)
    for array, axis in ((both, 0), (both.T, 1), (both.T, -1), (both[:, :, None], -3)):
        apart = np.moveaxis(quantized(array, scheme, axis), axis, 0).reshape(both.shape)
        np.testing.assert_allclose(apart[0], levels, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(apart[1], 10 * np.array(levels), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("op", "index", "shape", "scheme", "held"),
    [
        ("MatMul", 1, (2, 2), SIGNED, True),
        ("MatMul", 1, (2,), SIGNED, True),
        ("Gemm", 1, (2, 2), SIGNED, True),
        ("Gemm", 2, (2,), SIGNED, False),
        ("Gather", 0, (2,), SIGNED, True),
        ("Transpose", 0, (2,), SIGNED, True),
        ("Add", 1, (2,), SIGNED, False),
        ("Add", 1, (), SIGNED, False),
        ("Add", 1, (2, 1), SIGNED, True),
        ("MatMul", 1, (0, 2), SIGNED, False),
        ("Gemm", 1, (2,), replace(SIGNED, static=True), True),
        ("Gemm", 2, (2, 2), replace(SIGNED, static=True), False),
        ("Conv", 3, (2,), replace(SIGNED, static=True), False),
        ("Add", 2, (2,), replace(SIGNED, static=True), True),
        ("MatMul", 1, (2, 2), replace(SIGNED, block=2), True),
        ("MatMul", 0, (2, 2), replace(SIGNED, block=2), False),
        ("MatMul", 1, (2,), replace(SIGNED, block=2), False),
        ("MatMul", 1, (1, 2, 2), replace(SIGNED, block=2), False),
    ],
)
def test_which_constants_are_held_in_levels(
    op: str, index: int, shape: tuple[int, ...], scheme: Scheme, held: bool
) -> None:
    node = helper.make_node(op, ["a", "b"], ["y"])
    array = np.ones(shape, np.float32)
    assert _is_rounded(node, index, array, scheme) is held
    for odd in (np.inf, np.nan):
        if array.size:
            array.reshape(-1)[-1] = odd
            assert not _is_rounded(node, index, array, scheme)


def constants(made: onnx.ModelProto, **arrays: Any) -> onnx.ModelProto:
    for name, array in arrays.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array, "f4"), name))
    return made


def lines(made: onnx.ModelProto) -> list[str]:
    """Each node but constants, as it's written: ``y = Op(a, b)``."""
    return [
        f"{', '.join(node.output)} = {node.op_type}({', '.join(node.input)})"
        for node in made.graph.node
        if node.op_type != "Constant"
    ]


def pair(source: str, target: str) -> list[str]:
    names = [f"{target}/{part}" for part in ("step", "zero", "level")]
    return [
        f"{names[2]} = QuantizeLinear({source}, {names[0]}, {names[1]})",
        f"{target} = DequantizeLinear({names[2]}, {names[0]}, {names[1]})",
    ]


def dynamic(name: str) -> list[str]:
    parts = ", ".join(f"{name}/{part}" for part in ("level", "step", "zero"))
    return [
        f"{parts} = DynamicQuantizeLinear({name})",
        f"{name}/levels = DequantizeLinear({parts})",
    ]


PRODUCTS = (
    "(float[n,2] x, int64[n] i) => (float[n,2] y, float[n,2] z, float[n,2] g) "
    "{ a = MatMul(x, w) y = MatMul(x, w) h = Gather(x, i) g = Gemm(a, v, b) z = Exp(x) "
    "t = Gather(v, i) }"
)


def products() -> onnx.ModelProto:
    return constants(model(PRODUCTS), w=np.eye(2), v=np.eye(2), b=np.ones(2))


def test_dynamic_activations_have_one_pair_for_all_that_are_quantized() -> None:
    ops = frozenset({"MatMul", "Gather"})
    assert lines(quantize_through(products(), Scheme(ops, static=False), {})) == [
        *dynamic("x"),
        "a = MatMul(x/levels, w//levels)",
        "y = MatMul(x/levels, w//levels)",
        "h = Gather(x/levels, i)",
        *dynamic("a"),
        "g = Gemm(a/levels, v//levels, b)",
        "z = Exp(x)",
        "t = Gather(v//levels, i)",
    ]
    alone = lines(
        quantize_through(products(), Scheme(frozenset({"Gather"}), static=False), {})
    )
    assert alone[2:4] == ["h = Gather(x, i)", "g = Gemm(a, v, b)"]
    assert alone[5] == "t = Gather(v//levels, i)"
    by_channel = Scheme(ops, static=False, per_channel=True)
    last = lines(quantize_through(products(), by_channel, {}))
    assert last[2] == "a = MatMul(x/levels, w/MatMul/levels)"
    assert last[7] == "g = Gemm(a/levels, v/Gemm/levels, b)"
    assert last[-1] == "t = Gather(v/Gather/levels, i)"


def test_in_blocks_matrices_alone_are_rounded() -> None:
    changed = quantize_through(
        products(), Scheme(frozenset({"MatMul", "Gemm"}), False, block=2), {}
    )
    assert lines(changed) == [
        "a = MatMul(x, w//levels)",
        "y = MatMul(x, w//levels)",
        "h = Gather(x, i)",
        "g = Gemm(a, v//levels, b)",
        "z = Exp(x)",
        "t = Gather(v, i)",
    ]


def test_a_value_is_rounded_where_it_is_made_if_a_quantized_node_reads_it() -> None:
    ranges = {"x": (-1.0, 1.0), "a": (-2.0, 2.0), "y": (0.0, 1.0), "z": (0.0, 1.0)}
    scheme = Scheme(MATMUL | {"Gemm"}, static=True)
    assert lines(quantize_through(products(), scheme, ranges)) == [
        *pair("x", "x/levels"),
        "a/exact = MatMul(x/levels, w//levels)",
        *pair("a/exact", "a"),
        "y/exact = MatMul(x/levels, w//levels)",
        *pair("y/exact", "y"),
        "h = Gather(x/levels, i)",
        "g = Gemm(a, v//levels, b)",
        "z = Exp(x/levels)",
        "t = Gather(v, i)",
    ]
    scheme = replace(scheme, ops=frozenset({"Gemm"}))
    assert lines(quantize_through(products(), scheme, ranges))[:4] == [
        "a/exact = MatMul(x, w)",
        *pair("a/exact", "a"),
        "y = MatMul(x, w)",
    ]
    # Ranges mean nothing where they are found as the model runs.
    moving = Scheme(MATMUL, static=False)
    assert lines(quantize_through(products(), moving, ranges)) == lines(
        quantize_through(products(), moving, {})
    )


SCALED = (
    "(float[1,1,2,2] x, float[4] s) => (float y, float[4] m) "
    '{ y = Resize <mode = "nearest"> (x, , s) m = Mul(s, s) }'
)


def test_a_scale_stays_as_it_is_where_it_sizes_something() -> None:
    scheme = Scheme(frozenset({"Mul", "Resize"}), static=True)
    ranges = {"s": (0.0, 2.54), "x": (0.0, 1.0), "m": (0.0, 9.0)}
    assert lines(quantize_through(model(SCALED), scheme, ranges)) == [
        *pair("x", "x/levels"),
        *pair("s", "s/levels"),
        "y = Resize(x/levels, , s)",
        "m/exact = Mul(s/levels, s/levels)",
        *pair("m/exact", "m"),
    ]
    assert watched(model(SCALED), scheme) == ["x", "y", "s", "m"]
    assert watched(model(SCALED), replace(scheme, ops=frozenset({"Resize"}))) == ["x", "y"]
    moving = replace(scheme, static=False)
    assert (
        lines(quantize_through(model(SCALED), moving, {}))[2] == "y = Resize(x/levels, , s)"
    )


def test_a_size_alone_is_rounded_by_nobody() -> None:
    scheme = Scheme(frozenset({"Resize"}), static=True)
    changed = quantize_through(model(SCALED), scheme, {"s": (0.0, 2.54)})
    assert lines(changed) == ["y = Resize(x, , s)", "m = Mul(s, s)"]


# The library never quantizes a Relu whose input is given out too, where ranges are fixed.
GIVEN_OUT = "(float[n,2] x) => (float[n,2] y, float[n,2] z) { y = Add(x, x) z = Relu(y) }"


def test_what_is_never_quantized_is_left_and_makes_others_round_nothing() -> None:
    ranges = {"x": (0.0, 1.0), "y": (0.0, 1.0), "z": (0.0, 1.0)}
    relu, both = (Scheme(frozenset(ops), static=True) for ops in (["Relu"], ["Relu", "Add"]))
    assert watched(model(GIVEN_OUT), relu) == []
    assert watched(model(GIVEN_OUT), both) == ["x", "y"]
    assert lines(quantize_through(model(GIVEN_OUT), relu, ranges)) == lines(model(GIVEN_OUT))
    changed = lines(quantize_through(model(GIVEN_OUT), both, ranges))
    assert changed[2:] == [
        "y/exact = Add(x/levels, x/levels)",
        *pair("y/exact", "y"),
        "z = Relu(y)",
    ]
    moving = lines(quantize_through(model(GIVEN_OUT), replace(relu, static=False), {}))
    assert moving[-1] == "z = Relu(y/levels)"


@pytest.mark.parametrize("signed", [True, False])
def test_all_activations_have_zero_points_of_one_type(signed: bool) -> None:
    scheme = Scheme(frozenset({"Add"}), static=True, signed_activations=signed)
    ranges = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
    changed = quantize_through(model(GIVEN_OUT), scheme, ranges)
    kinds = [
        node.attribute[0].t.data_type
        for node in changed.graph.node
        if node.op_type == "Constant" and node.output[0].endswith("/zero")
    ]
    assert kinds == [TensorProto.INT8 if signed else TensorProto.UINT8] * 2


@pytest.mark.parametrize(
    ("op", "static", "activation"),
    [
        ("MatMul", True, False),
        ("Mul", True, True),
        ("Mul", False, False),
        ("Transpose", True, True),
        ("Transpose", False, False),
        ("Gather", True, True),
        ("Gather", False, True),
    ],
)
def test_a_constant_is_an_activation_where_the_library_takes_it_for_one(
    op: str, static: bool, activation: bool
) -> None:
    weight = np.array([[-1.0, 4.1], [0.013, 2.0]], np.float32)
    scheme = Scheme(frozenset({op}), static, signed_weights=True, signed_activations=False)
    plain = replace(SIGNED, signed_weights=not activation)
    expected = quantized(weight, plain, None)
    np.testing.assert_array_equal(
        _levels(helper.make_node(op, ["x", "w"], ["y"]), weight, scheme), expected
    )


def test_a_weight_of_one_axis_has_one_scale() -> None:
    weight = np.array([0.013, 2.54], np.float32)
    scheme = Scheme(MATMUL, static=False, per_channel=True)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    np.testing.assert_array_equal(
        _levels(node, weight, scheme), quantized(weight, SIGNED, None)
    )
    both = np.array([weight, weight], np.float32)
    np.testing.assert_array_equal(_levels(node, both, scheme), quantized(both, SIGNED, -1))


def test_a_model_that_onnx_cannot_infer_is_refused() -> None:
    made = model("(float[n,2] x) => (float[n,2] y) { y = of.nobody.Neg(x) }")
    for call in (
        lambda: watched(made, Scheme(MATMUL, static=True)),
        lambda: quantize_through(made, Scheme(MATMUL, static=False), {}),
    ):
        with pytest.raises(Exception, match=r"No opset import for domain of\.nobody"):
            call()


def test_what_is_no_float_or_constant_has_no_range() -> None:
    text = "(float[2] x, float16[2] h) => (float[2] y) { a = Add(x, w) b = Add(h, h) y = Neg(a) }"
    made = constants(model(text), w=np.ones(2))
    assert watched(made, Scheme(frozenset({"Add"}), static=True)) == ["x", "a"]
    assert watched(made, Scheme(frozenset({"Add"}), static=True, never=frozenset())) == [
        "x",
        "a",
    ]
    assert watched(made, Scheme(frozenset({"Neg"}), static=True)) == ["a", "y"]


def test_the_ends_of_a_range_are_two_outputs_each() -> None:
    made = model("(float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    names = watch(made, ["y", "x"])
    assert names == {"y": ("least/0", "most/0"), "x": ("least/1", "most/1")}
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = run(open_cpu(made), {"x": x})
    ends = {name: tuple(got[end].tolist() for end in pair) for name, pair in names.items()}
    assert ends == {"y": (-5.0, 0.0), "x": (0.0, 5.0)}
    assert list(made.graph.output[1:]) == [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
        for name in ("least/0", "most/0", "least/1", "most/1")
    ]


@pytest.mark.parametrize(("opset", "converted"), [(10, 11), (11, 11), (12, 12)])
def test_a_model_older_than_the_quantizers_is_brought_to_their_version(
    opset: int, converted: int
) -> None:
    made = constants(
        model("(float[n,2] x) => (float[n,2] y) { y = MatMul(x, w) }", opset=opset),
        w=np.eye(2),
    )
    changed = quantize_through(made, Scheme(MATMUL, static=False), {})
    assert changed.opset_import[0].version == converted
    x = np.array([[2.55, 0.0]], np.float32)
    np.testing.assert_allclose(run(open_cpu(changed), {"x": x})["y"], x, rtol=1e-6)


def test_tables_of_a_gather_are_levels_of_an_activation_and_never_narrow() -> None:
    table = np.array([[-1.0, 4.1], [0.013, 2.0]], np.float32)
    text = "(int64[n] i) => (float[n,2] y) { y = Gather(t, i) }"
    for signed in (False, True):
        scheme = Scheme(frozenset({"Gather"}), False, narrow=True, signed_activations=signed)
        changed = quantize_through(constants(model(text), t=table), scheme, {})
        got = run(open_cpu(changed), {"i": np.array([0, 1])})["y"]
        plain = replace(SIGNED, signed_weights=signed)
        np.testing.assert_array_equal(got, quantized(table, plain, None))


def test_a_bias_is_left_and_what_follows_it_in_the_node_is_not() -> None:
    text = "(float[n,2] x) => (float[n,2] y) { y = of.ours.Gemm(x, b, w) }"
    made = constants(model(text, domains=', "of.ours" : 1'), w=np.eye(2), b=np.ones(2))
    made.graph.node[0].domain = ""
    made.graph.node[0].op_type = "Sum"
    changed = quantize_through(made, Scheme(frozenset({"Sum"}), static=False), {})
    assert lines(changed)[-1] == "y = Sum(x/levels, b, w//levels)"


def test_in_a_body_matrices_of_two_axes_are_rounded() -> None:
    text = (
        "(float[n,2] x, bool c) => (float y) { y = If (c) <then_branch = t () => (float p) "
        "{ a = MatMul(x, w) b = MatMul(x, cube) d = MatMul(w, a) e = Add(a, w) "
        "p = MatMul(x, own) }, "
        "else_branch = o () => (float q) { q = MatMul(x, w) }> }"
    )
    made = constants(
        model(text), w=np.array([[1.0, 8.0], [0.3, 0.1]]), cube=np.full((1, 2, 2), 0.3)
    )
    body = made.graph.node[0].attribute[0].g
    body.initializer.append(
        numpy_helper.from_array(np.array([[0.3, 1], [1, 1]], "f4"), "own")
    )
    scheme = Scheme(MATMUL | {"Add"}, static=False, block=2)
    changed = quantize_through(made, replace(scheme, ops=MATMUL), {})
    bodies = [attribute.g for attribute in changed.graph.node[0].attribute]
    written = [
        [f"{node.output[0]} {','.join(node.input)}" for node in body.node] for body in bodies
    ]
    assert written[0] == [
        "a/levels ",
        "a x,a/levels",
        "b x,cube",
        "d w,a",
        "e a,w",
        "p/levels ",
        "p x,p/levels",
    ]
    assert written[1] == ["q/levels ", "q x,q/levels"]
    weights = {
        name: numpy_helper.to_array(bodies[at].node[place].attribute[0].t)
        for name, at, place in (("w", 0, 0), ("own", 0, 5), ("same", 1, 0))
    }
    w = numpy_helper.to_array(made.graph.initializer[0])
    np.testing.assert_array_equal(weights["w"], quantized(w, scheme, None))
    np.testing.assert_array_equal(weights["same"], weights["w"])
    assert not np.array_equal(weights["w"], w)
    spared = quantize_through(
        constants(model(text), w=np.eye(2), cube=np.ones((1, 2, 2))),
        replace(SIGNED, static=False),
        {},
    )
    assert [len(attribute.g.node) for attribute in spared.graph.node[0].attribute] == [5, 1]
