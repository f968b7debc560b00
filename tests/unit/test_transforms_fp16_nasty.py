"""Models on which float16 conversions break: each converts, is valid, keeps its interface and says
the same.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnx_harness.errors import NotApplicable
from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.half.steps import Step
from tests.unit.transform_models import copy_of, floats, model_of, ops, run

X = {"x": floats(3)}


def converts(
    model: onnx.ModelProto, feeds: dict[str, Any], **options: Any
) -> onnx.ModelProto:
    """The model with float32 inputs and outputs and the one without, valid and right.

    The first of them is given.
    """
    expected = run(model, **feeds)
    for keep in (True, False):
        result = convert_float_to_float16(copy_of(model), keep_io_types=keep, **options)
        onnx.checker.check_model(result, full_check=True)
        assert [info.name for info in result.graph.output] == [
            info.name for info in model.graph.output
        ]
        assert [info.name for info in result.graph.input] == [
            info.name for info in model.graph.input
        ]
        halved = {
            info.name
            for info in result.graph.input
            if info.type.tensor_type.elem_type == TensorProto.FLOAT16
        }
        given = {
            name: np.asarray(value).astype(np.float16) if name in halved else value
            for name, value in feeds.items()
        }
        for info, one, other in zip(
            model.graph.output, run(result, **given), expected, strict=True
        ):
            kinds = {np.asarray(one).dtype, np.asarray(other).dtype}
            assert len(kinds) == 1 or not keep, info.name
            np.testing.assert_allclose(one, other, rtol=1e-2, atol=5e-3, err_msg=info.name)
        if keep:
            kept = result
            assert list(result.graph.output) == list(model.graph.output)
    return kept


TEXTS = {
    "branches that hold a blocked operator and read floats from outside": """
        agraph (float[3] x, bool c) => (float[3] z) <int64 zero = {0}, float[3] w = {1, 2, 3}> {
          a = Mul(x, w)
          b = If (c) <
            then_branch = one () => (float[3] t) { u = CumSum(a, zero) t = Mul(u, w) },
            else_branch = two () => (float[3] t) { u = Neg(a) t = Add(u, x) }>
          z = CumSum(b, zero) }""",
    "branches that give what they read": """
        agraph (float[3] x, bool c) => (float[3] z) {
          a = Exp(x)
          b = If (c) <then_branch = one () => (float[3] t) { t = Identity(a) },
                      else_branch = two () => (float[3] s) { s = Constant<value_floats = [1.0, 2.0, 3.0]>() }>
          z = Neg(b) }""",
    "a name of a branch that is one of the outer graph's later values": """
        agraph (float[3] x, bool c) => (float[3] z) <int64 zero = {0}> {
          b = If (c) <then_branch = one () => (float[3] t) { k = Neg(x) t = CumSum(k, zero) },
                      else_branch = two () => (float[3] t) { k = Exp(x) t = Abs(k) }>
          k2 = Abs(b)
          k3 = CumSum(k2, zero)
          z = Add(k3, b) }""",
    "branches within branches": """
        agraph (float[3] x, bool c) => (float[3] z) <int64 zero = {0}> {
          a = Exp(x)
          z = If (c) <
            then_branch = one () => (float[3] t) {
              v = Neg(a)
              t = If (c) <then_branch = three () => (float[3] t3) { v3 = CumSum(v, zero)
              t3 = Add(v3, a) },
                          else_branch = four () => (float[3] t4) { t4 = Identity(v) }> },
            else_branch = two () => (float[3] s) { s = CumSum(a, zero) }> }""",
    "a loop whose state is read by what stays float32": """
        agraph (float[3] x, int64 n) => (float[3] z, float[M,3] all) <bool go = {1}, int64 zero = {0}> {
          z, all = Loop (n, go, x) <body = step (int64 i, bool k, float[3] v) => (bool l, float[3] w, float[3] s) {
            l = Identity(k) w = CumSum(v, zero) s = Neg(w) }> }""",
    "a loop whose state is handed on unchanged": """
        agraph (float[3] x, int64 n) => (float[3] z, float[3] y) <bool go = {1}> {
          z, y = Loop (n, go, x, x) <body = step (int64 i, bool k, float[3] v, float[3] u)
            => (bool l, float[3] w, float[3] u2) { l = Identity(k) w = Add(v, u)
              u2 = Identity(u) }> }""",
    "a loop that gives one value twice": """
        agraph (float[3] x, int64 n) => (float[3] z, float[M,3] all) <bool go = {1}, int64 zero = {0}> {
          z, all = Loop (n, go, x) <body = step (int64 i, bool k, float[3] v) => (bool l, float[3] w, float[3] w) {
            l = Identity(k) w = CumSum(v, zero) }> }""",
    "a loop over a sequence": """
        agraph (float[3] x, int64 n) => (float[M] z) <bool go = {1}> {
          e = SequenceEmpty<dtype = 1>()
          q = Loop (n, go, e) <body = step (int64 i, bool k, seq(float[3]) v) => (bool l, seq(float[3]) w) {
            l = Identity(k) y = Neg(x) w = SequenceInsert(v, y) }>
          c = ConcatFromSequence<axis = 0>(q)
          z = Exp(c) }""",
    "a sequence that is an output": """
        agraph (float[3] x) => (seq(float[3]) q, float[3] z) <int64 one = {1}> {
          a = Exp(x) b = Neg(x) q = SequenceConstruct(a, b) e = SequenceAt(q, one)
              z = Mul(e, a) }""",
    "a sequence taken apart and put together": """
        agraph (float[3] x) => (float[M] z) <int64 one = {1}, int64 zero = {0}> {
          a = Exp(x) q = SplitToSequence<axis = 0>(a, one) i = Identity(q)
              r = SequenceErase(i, zero)
          c = ConcatFromSequence<axis = 0>(r) z = Neg(c) }""",
    "an optional": """
        agraph (float[3] x) => (float[3] z, bool y) {
          a = Exp(x) o = Optional(a) e = OptionalGetElement(o) y = OptionalHasElement(o)
              z = Mul(e, a) }""",
    "branches that give a sequence": """
        agraph (float[3] x, bool c) => (float[M] z) {
          a = Exp(x)
          q = If (c) <then_branch = one () => (seq(float[3]) t) { t = SequenceConstruct(a, x) },
                      else_branch = two () => (seq(float[3]) u) { b = Neg(a)
              u = SequenceConstruct(b) }>
          s = ConcatFromSequence<axis = 0>(q) z = Abs(s) }""",
    "a scan": """
        agraph (float[2,3] x2, float[3] x) => (float[3] z, float[2,3] y) <int64 zero = {0}> {
          z, y = Scan<num_scan_inputs = 1, body = step (float[3] s, float[3] v) => (float[3] t, float[3] o) {
            t = Add(s, v) o = CumSum(t, zero) }>(x, x2) }""",
    "a function with constants of its own": """
        agraph (float[3] x) => (float[3] z) { a = local.F(x) z = local.F(a) }
        <opset_import: ["" : 17], domain: "local"> F (v) => (r) {
          c = Constant<value_float = 0.5>() k = Constant<value = float[3] {1, 2, 3}>()
              m = Mul(v, c) r = Add(m, k) }""",
    "an input that is an output, and one that is read as well": """
        agraph (float[3] x) => (float[3] x, float[3] z) <int64 zero = {0}> { z = CumSum(x, zero) }""",
    "a weight that is an output": """
        agraph (float[3] x) => (float[3] w, float[3] z) <float[3] w = {1, 2, 3}, int64 zero = {0}>
        { v = CumSum(w, zero) u = Mul(x, w) z = Add(u, v) }""",
    "an output that what stays float32 makes and what doesn't reads": """
        agraph (float[3] x) => (float[3] a, float[3] z) <int64 zero = {0}> { a = CumSum(x, zero)
              z = Mul(a, a) }""",
    "outputs of constants": """
        agraph (float[3] x) => (float c, float[M] s, float[3] z) <int64[1] n = {3}, int64 zero = {0}> {
          c = Constant<value_float = 2.5>() s = ConstantOfShape(n) t = CumSum(s, zero)
              m = Mul(x, c) z = Add(m, t) }""",
    "a constant shared on both sides of a block": """
        agraph (float[3] x) => (float[3] z) <int64 zero = {0}> {
          c = Constant<value_floats = [1.0, 2.0, 3.0]>() a = CumSum(c, zero) b = Mul(x, c)
              z = Add(a, b) }""",
    "a resize with scales and a region": """
        agraph (float[1,1,2,2] x4) => (float[N,C,H,W] z) <float[4] s = {1, 1, 2, 2}> {
          r = Constant<value_floats = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]>()
          y = Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize">(x4, r, s)
          z = Mul(y, y) }""",
    "casts of casts": """
        agraph (float[3] x) => (float[3] z, double[3] d) {
          h = Cast<to = 10>(x) f = Cast<to = 1>(h) g = Cast<to = 10>(f) e = Cast<to = 1>(g)
          d = Cast<to = 11>(e) i = Cast<to = 1>(d) k = Cast<to = 1>(i) z = Mul(k, e) }""",
    "casts that are outputs": """
        agraph (float[3] x) => (float16[3] h, float[3] f, float16[3] g, float[3] z) {
          a = Exp(x) h = Cast<to = 10>(a) f = Cast<to = 1>(h) g = Cast<to = 10>(f) z = Neg(f) }""",
    "two outputs of one cast value": """
        agraph (float16[3] h) => (float[3] f, float[3] g) { f = Cast<to = 1>(h)
              g = Cast<to = 1>(h) }""",
    "branches that give casts of a float16 from outside": """
        agraph (float16[3] h, bool c) => (float[3] z, float[3] y) {
          z, y = If (c) <
            then_branch = one () => (float[3] t, float[3] u) { t = Cast<to = 1>(h)
              u = Cast<to = 1>(h) },
            else_branch = two () => (float[3] s, float[3] v) { a = Cast<to = 1>(h) s = Neg(a)
              v = Exp(a) }> }""",
    "both float types": """
        agraph (float[3] x, float16[3] h) => (float[3] z) <float16[3] w = {1, 2, 3}, float[3] v = {3, 2, 1}> {
          a = Mul(h, w) b = Cast<to = 1>(a) c = Mul(x, v) z = Add(b, c) }""",
    "double": """
        agraph (double[3] x64) => (double[3] z) <double[3] w = {1, 2, 3}> {
          a = Mul(x64, w) f = Cast<to = 1>(a) g = Exp(f) b = Cast<to = 11>(g) z = Add(a, b) }""",
    "quantized": """
        agraph (float[3] x) => (float[3] z) <float s = {0.01}, uint8 p = {128}, int8[3] w = {10, 20, 30},
          float t = {0.1}, int8 q = {0}> {
          a = QuantizeLinear(x, s, p) b = DequantizeLinear(a, s, p)
              c = DequantizeLinear(w, t, q) d = Mul(b, c)
          e = QuantizeLinear(d, s, p) z = DequantizeLinear(e, s, p) }""",
    "inputs and outputs left out": """
        agraph (float[3,1] x31) => (float[3,1] z, int64[3,1] i) <float low = {-1}, float high = {1}, int64[1] k = {1}> {
          a = Clip(x31, low) b = Clip(a, , high) d, i = TopK(b, k) z = Dropout(d) }""",
    "a size that becomes a factor": """
        agraph (float[3] x) => (float[3] z) { s = Shape(x) f = Cast<to = 1>(s) r = Sqrt(f)
              z = Div(x, r) }""",
    "maxima and comparisons": """
        agraph (float[3] x) => (bool[3] z, float[3] y) <float w = {1.5}> {
          a = Max(x, w) m = Min(a, x, w) z = Greater(a, x) y = Where(z, a, m) }""",
}
FEEDS: dict[str, Any] = {
    "x": floats(3),
    "c": np.bool_(True),
    "n": np.int64(3),
    "x2": floats(2, 3),
    "x4": floats(1, 1, 2, 2),
    "h": floats(3).astype(np.float16),
    "x64": floats(3).astype(np.float64),
    "x31": floats(3, 1),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_converts(text: str) -> None:
    model = model_of(text)
    feeds = {info.name: FEEDS[info.name] for info in model.graph.input}
    converts(model, feeds)
    if "c" in feeds:
        converts(model, {**feeds, "c": np.bool_(False)})


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    "blocked",
    [["Mul", "Neg", "Exp"], ["If", "Loop", "Scan", "Add"], ["Identity", "Constant"]],
)
def test_it_converts_with_other_operators_kept(text: str, blocked: list[str]) -> None:
    model = model_of(text)
    feeds = {info.name: FEEDS[info.name] for info in model.graph.input}
    converts(model, feeds, op_block_list=blocked, allow_missing=True)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_large_model_is_moved_whole(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(text)
    in_place = convert_float_to_float16(copy_of(model), keep_io_types=True)
    monkeypatch.setattr("onnx_harness.transforms.half.convert._LARGE", 0)
    moved = convert_float_to_float16(model, keep_io_types=True)
    assert moved is not model
    assert moved == in_place


def test_values_that_a_random_operator_makes_are_cast() -> None:
    text = """agraph (float[3] x) => (float[3] z, float[3] u) {
        r = RandomNormalLike<scale = 0.00001>(x) q = RandomUniform<shape = [3], high = 0.00001>()
        e = Add(r, q) z = Add(x, e) u = Mul(x, x) }"""
    converts(model_of(text), X)


def test_a_sparse_weight_is_rounded_where_it_is() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] z) <int64 zero = {0}> { a = Mul(x, x) z = CumSum(a, "
        "zero) }"
    )
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [3.0])
    indices = helper.make_tensor("w_at", TensorProto.INT64, [1], [1])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    model.graph.node[0].input[1] = "w"
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    onnx.checker.check_model(
        result
    )  # the full check takes a sparse initializer for no operator at all
    np.testing.assert_allclose(run(result, **X)[0], run(model, **X)[0], rtol=1e-2, atol=5e-3)
    assert [tensor.values.data_type for tensor in result.graph.sparse_initializer] == [
        TensorProto.FLOAT16
    ]


@pytest.mark.parametrize(
    ("weight", "node", "size"),
    [
        ("float c = {0.1}", "", 3),
        ("float unread = {0}", "c = Constant<value_float = 0.1>()", 3),
        # More than is computed in float32 for its size.
        ("float c = {0.1}", "", (1 << 16) + 1),
    ],
)
def test_a_constant_that_goes_on_to_double_is_not_rounded(
    weight: str, node: str, size: int
) -> None:
    model = model_of(
        f"""agraph (float[N] x, double[N] x64) => (float[N] z, double[N] y) <{weight}>
        {{ {node} d = Cast<to = 11>(c) y = Mul(x64, d) z = Mul(x, c) }}"""
    )
    if size > 3:
        many = np.full(size, 0.1, np.float32)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(many, "c"))
    feeds = {name: np.resize(FEEDS[name], size) for name in ("x", "x64")}
    np.testing.assert_array_equal(
        run(converts(model, feeds), **feeds)[1], run(model, **feeds)[1]
    )


def test_no_two_nodes_get_one_name() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] x_float16_1) { a = Neg(x) b = Exp(x) x_float16_1 = "
        "Add(a, b) }"
    )
    model.graph.node[0].name = "x_float16"
    names = [node.name for node in converts(model, X).graph.node if node.name]
    assert sorted(names) == ["x_float16", "x_float16_1", "x_float16_2"]


def test_before_ir_version_4_a_weight_that_is_there_in_both_types_is_listed_twice() -> None:
    model = model_of(
        """agraph (float[3] x, float[3] w) => (float[3] z) <float[3] w = {1, 2, 3}>
        { a = Neg(w) b = Mul(x, w) z = Add(a, b) }""",
        ir_version=3,
    )
    result = convert_float_to_float16(
        copy_of(model), keep_io_types=True, op_block_list=["Neg"]
    )
    onnx.checker.check_model(result, full_check=True)
    assert {info.name: info.type.tensor_type.elem_type for info in result.graph.input} == {
        "x": TensorProto.FLOAT,
        "w": TensorProto.FLOAT,
        "w_float16": TensorProto.FLOAT16,
    }
    np.testing.assert_allclose(run(result, **X)[0], run(model, **X)[0], rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("blocked", [(), ("Neg",)])
def test_before_ir_version_4_a_weight_may_be_missing_on_the_list(
    blocked: tuple[str, ...],
) -> None:
    """ONNX Runtime takes such files, which onnx's checker rejects."""
    model = model_of(
        """agraph (float[3] x) => (float[3] z) <float[3] w = {1, 2, 3}>
        { a = Neg(w) b = Mul(x, w) z = Add(a, b) }"""
    )
    model.ir_version = 3
    result = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run(result, **X)[0], run(model, **X)[0], rtol=1e-2, atol=5e-3)


def test_nodes_out_of_order_are_put_in_order() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] z) { a = Exp(x) b = Neg(a) z = Mul(b, a) }"
    )
    result = copy_of(model)
    result.graph.node.insert(0, model.graph.node[2])
    del result.graph.node[3]
    result = convert_float_to_float16(result, keep_io_types=True)
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run(result, **X)[0], run(model, **X)[0], rtol=1e-2, atol=5e-3)


def test_a_branch_that_uses_the_name_of_a_later_value_keeps_to_its_own() -> None:
    model = model_of(
        """agraph (float[3] x, bool c) => (float[3] z) {
        b = If (c) <then_branch = one () => (float[3] t) { k = Neg(x) t = Exp(k) },
                    else_branch = two () => (float[3] t) { q = Exp(x) t = Abs(q) }>
        a = Abs(b) z = Mul(a, b) }"""
    )
    for node in model.graph.node[1:]:
        for field in (node.input, node.output):
            field[:] = ["k" if name == "a" else name for name in field]
    converts(model, {"x": X["x"], "c": np.bool_(True)})


def test_an_operator_of_another_domain_stays_float32() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] z) { a = Exp(x) y = Neg(a) z = Mul(y, a) }"
    )
    model.opset_import.append(helper.make_opsetid("com.somebody", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.somebody"
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [3]))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [3]))
    result = convert_float_to_float16(model, keep_io_types=True)
    assert ops(result) == {"Cast": 4, "Exp": 1, "Gelu": 1, "Mul": 1}


def test_a_kept_function_gives_float32() -> None:
    model = model_of(
        """agraph (float[3] x) => (float[3] z) { a = Exp(x) b = local.F(a) z = Mul(b, a) }
        <opset_import: ["" : 17], domain: "local"> F (v) => (r) { c = Constant<value_float = 0.5>() r = Mul(v, c) }"""
    )
    result = converts(model, X, op_block_list=["F"])
    assert ops(result) == {"Cast": 4, "Exp": 1, "F": 1, "Mul": 1}


def test_statements_about_values_follow_them() -> None:
    model = onnx.shape_inference.infer_shapes(
        model_of(
            "agraph (float[3] x) => (float[3] z) { a = Exp(x) b = Neg(a) z = Mul(b, a) }"
        )
    )
    result = converts(model, X)
    assert {info.type.tensor_type.elem_type for info in result.graph.value_info} == {
        TensorProto.FLOAT16
    }


def test_an_output_that_is_a_cast_of_a_later_output_leaves_that_one_its_name() -> None:
    text = (
        "agraph (float[3] x, int64 axis) => (float[3] z, float[3] y) { y = CumSum(x, axis) z = "
        "Cast<to = 1>(y) }"
    )
    converts(model_of(text), X | {"axis": np.int64(0)})
    assert ops(convert_float_to_float16(model_of(text))) == {
        "Cast": 2,
        "CumSum": 1,
        "Identity": 1,
    }


def test_before_casts_could_be_inferred_there_is_no_valid_result() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] z) { z = Neg(x) }", opset=5, ir_version=3
    )
    with pytest.raises(NotApplicable, match="inferred since opset 6, and the model is of 5"):
        convert_float_to_float16(model)


def test_a_model_of_other_operators_alone_is_converted_around_them() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["ai.onnx.ml" : 3]>
        agraph (float[3,1] x) => (float[3,1] z) { z = ai.onnx.ml.Binarizer<threshold = 0.5>(x) }"""
    )
    result = converts(model, {"x": FEEDS["x31"]})
    assert [node.op_type for node in result.graph.node] == ["Binarizer"]


def test_before_casts_could_be_inferred_a_model_without_floats_is_left_alone() -> None:
    model = model_of(
        "agraph (bool[3] x) => (bool[3] z) { z = Not(x) }", opset=5, ir_version=3
    )
    assert convert_float_to_float16(copy_of(model)) == model


def test_a_normalization_that_trains_stays_float32() -> None:
    # Of float16 statistics ONNX Runtime's optimizer would also make one tensor where two are equal,
    # and write over it.
    model = model_of(
        """agraph (float[3,1] x) => (float[3,1] z, float[1] m, float[1] v)
        <float[1] one = {1}, float[1] null = {0}, float[1] m0 = {0}, float[1] v0 = {1}> {
        a = Exp(x) z, m, v = BatchNormalization<training_mode = 1>(a, one, null, m0, v0) }"""
    )
    result = converts(model, {"x": FEEDS["x31"]})
    assert {tensor.data_type for tensor in result.graph.initializer} == {TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(
        result.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = run(model, x=FEEDS["x31"])
    for one, other in zip(session.run(None, {"x": FEEDS["x31"]}), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=5e-3)


def test_a_constant_under_the_long_name_of_the_standard_domain_is_made_in_float16() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] z) { w = Constant<value = float[3] {1, 2, 3}>() z = "
        "Mul(x, w) }"
    )
    # Which ONNX Runtime takes, and onnx's checker doesn't.
    model.graph.node[0].domain = "ai.onnx"
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    (constant,) = (node for node in result.graph.node if node.op_type == "Constant")
    assert constant.attribute[0].t.data_type == TensorProto.FLOAT16
    np.testing.assert_allclose(run(result, **X), run(model, **X), rtol=1e-2)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_and_has_nothing_to_free(enabled: bool) -> None:
    model = model_of(TEXTS["branches that give what they read"])
    nothing_to_do = model_of("agraph (int64[3] x) => (int64[3] z) { z = Neg(x) }")
    gc.collect()
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        convert_float_to_float16(model)
        convert_float_to_float16(nothing_to_do)
        assert gc.isenabled() is enabled
        with pytest.raises(AttributeError):
            convert_float_to_float16(None)  # type: ignore[arg-type]
        assert gc.isenabled() is enabled
        assert not [found for found in gc.get_objects() if isinstance(found, Step)]
    finally:
        (gc.enable if was else gc.disable)()


def test_an_input_that_is_cast_to_double_and_back_is_read_as_it_is() -> None:
    """ONNX Runtime loses the last Cast's value where a branch reads it: "Missing Input: v"."""
    result = converts(
        model_of("""
            agraph (float[3] x, bool c) => (float[3] z, int64[a] r) {
                h = Cast<to = 10>(x) w = Cast<to = 11>(h) v = Cast<to = 1>(w) z = Neg(v)
                r = If(c) <else_branch = e () => (int64[a] p) { p = ArgMax<axis = 0>(v) },
                           then_branch = t () => (int64[a] q) { q = ArgMin<axis = 0>(v) }>
            }"""),
        X | {"c": np.array(True)},
    )
    assert ops(result)["Cast"] == 2
