"""A float16 model computed in float32 with every value rounded as it's made: numbers are numpy's
float16 numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnx_harness.judging.half_range import half_values
from onnx_harness.judging.simulation import simulated, unknown_types
from onnx_harness.providers import get
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.models import model

Array = np.ndarray[Any, Any]
NUMBERS = np.random.default_rng(11).normal(size=4096).astype(np.float16)


def session_of(made: onnx.ModelProto) -> ort.InferenceSession:
    onnx.checker.check_model(made, full_check=True)
    return open_session(
        made.SerializeToString(), get("cpu"), purpose=Purpose.ACCURACY, level="disable"
    )


def computed(
    text: str, *, opset: int = 17, weights: dict[str, Any] | None = None, **values: Any
) -> Array:
    made = model(text, opset=opset)
    for name, value in (weights or {}).items():
        made.graph.initializer.append(
            numpy_helper.from_array(np.asarray(value, np.float16), name)
        )
    feeds = {
        name: v.astype(np.float32) if v.dtype == np.float16 else v
        for name, v in values.items()
    }
    y: Array = session_of(simulated(made, made)).run(["y"], feeds)[0]
    return y


def assert_same_bits(simulation: Array, expected: Array) -> None:
    """Float32 numbers that are exactly these float16 numbers, NaN and the sign of zero included."""
    assert (simulation.dtype, expected.dtype) == (np.float32, np.float16)
    np.testing.assert_array_equal(
        simulation.view(np.uint32), expected.astype(np.float32).view(np.uint32)
    )


def test_a_chain_of_elementwise_operators_has_the_bits_of_numpys_float16() -> None:
    text = (
        "(float16[n] x) => (float16[n] y) { a = Mul(x, w)  b = Add(a, x)  c = Mul(b, b)  d = "
        "Sub(c, w)  y = Div(d, w) }"
    )
    w = np.float16(2.7)
    a = NUMBERS * w
    b = a + NUMBERS
    assert_same_bits(computed(text, weights={"w": w}, x=NUMBERS), (b * b - w) / w)


def test_subnormal_numbers_are_kept() -> None:
    tiny = np.array([6e-8, -3e-6, 5.96e-8, 2.9e-8, 6.1e-5, -0.0], np.float16)
    expected = tiny * np.float16(0.75)
    assert 0 < np.abs(expected[1]) < np.finfo(np.float16).smallest_normal
    assert_same_bits(
        computed(
            "(float16[n] x) => (float16[n] y) { y = Mul(x, w) }", weights={"w": 0.75}, x=tiny
        ),
        expected,
    )


def test_what_is_too_large_is_infinite_and_ties_are_rounded_to_even() -> None:
    x = np.array([65504, 32768, -40000, 2049, 2051], np.float16)
    with np.errstate(over="ignore"):
        expected = x + x * np.float16(1.0005)
    y = computed(
        "(float16[n] x) => (float16[n] y) { a = Mul(x, w)  y = Add(x, a) }",
        weights={"w": 1.0005},
        x=x,
    )
    assert list(np.isinf(y)) == [True, True, True, False, False]
    assert_same_bits(y, expected)


def test_a_cast_from_float32_or_from_an_integer_rounds() -> None:
    wide = np.array([0.1, 70000.0, 1e-9, 1 / 3], np.float32)
    with np.errstate(over="ignore"):
        assert_same_bits(
            computed("(float[n] x) => (float16[n] y) { y = Cast<to = 10>(x) }", x=wide),
            wide.astype("e"),
        )
    whole = np.array([2049, 4099, 70000], np.int64)
    with np.errstate(over="ignore"):
        assert_same_bits(
            computed("(int64[n] x) => (float16[n] y) { y = Cast<to = 10>(x) }", x=whole),
            whole.astype("e"),
        )


def test_sums_inside_an_operator_are_those_of_float32_and_rounded_once() -> None:
    x = np.full((1, 4096), 1, np.float16)
    y = computed(
        "(float16[1,4096] x) => (float16[1,1] y) { y = MatMul(x, w) }",
        weights={"w": np.ones((4096, 1))},
        x=x,
    )
    assert y.item() == 4096  # in steps of float16 it would stay at 2048


def test_moves_of_rounded_values_are_not_rounded_again() -> None:
    text = "(float16[n,4] x) => (float16[4,n] y) { a = Exp(x)  b = Transpose(a)  y = Identity(b) }"
    made = model(text)
    ops = [node.op_type for node in simulated(made, made).graph.node]
    assert ops == ["Exp", "Cast", "Cast", "Transpose", "Identity"]


def test_a_scatter_that_adds_is_rounded() -> None:
    text = """(float16[n] x) => (float16[n] y) {
      at = Constant<value = int64[1] {0}>()  y = ScatterElements<reduction = "add">(x, at, w) }"""
    y = computed(text, opset=18, weights={"w": [1.0]}, x=np.array([2048, 3], np.float16))
    assert y.tolist() == [2048, 3]


def test_a_node_that_is_blocked_from_the_conversion_stays_in_float32() -> None:
    original = model(
        "(float[n] x) => (float[n] y) { a = Mul(x, c)  b = Mul(a, a)  y = Sqrt(b) }"
    )
    original.graph.initializer.append(
        numpy_helper.from_array(np.array([300], np.float32), "c")
    )
    for index, node in enumerate(original.graph.node):
        node.name = f"node_{index}"
    x = np.array([1.1, 2.2], np.float32)
    free = convert(original)
    (y,) = session_of(simulated(free, free)).run(["y"], {"x": x})
    assert np.isinf(y).all()  # the square is beyond float16
    blocked = convert(original, node_block_list=["node_1", "node_2"])
    names = {node.name: node.output[0] for node in blocked.graph.node}
    assert names["node_1"] not in half_values(blocked)
    (y,) = session_of(simulated(blocked, blocked)).run(["y"], {"x": x})
    a = x.astype(np.float16) * np.float16(300)
    wide = a.astype(np.float32)
    np.testing.assert_allclose(y, np.sqrt(wide * wide), rtol=1e-6)


def convert(original: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(original)
    return convert_float_to_float16(copy, keep_io_types=True, **options)


IF = """(float16[n] x, bool go) => (float16[n] y) {
  captured = Mul(x, w)
  y = If(go) <
    then_branch = then () => (float16[n] p) { s = Add(captured, x)  p = Mul(s, w) },
    else_branch = else () => (float16[n] q) { s = Cast<to = 1>(captured)  t = Mul(s, s)  q = Cast<to = 10>(t) }
  > }"""
LOOP = """(float16[n] x, int64 trips) => (float16[n] y) {
  yes = Constant<value = bool {1}>()  captured = Mul(x, w)
  y = Loop(trips, yes, x) <
    body = body (int64 i, bool before, float16[n] v) => (bool after, float16[n] u) {
      after = Identity(before)  a = Mul(v, w)  u = Add(a, captured) }
  > }"""
SCAN = """(float16[4] x) => (float16[4] y) {
  zero = Constant<value = float16[1] {0}>() start = Squeeze(zero)
  last, y = Scan<num_scan_inputs = 1, body = body (float16 s, float16 v) => (float16 t, float16 u)
    { p = Mul(v, w)  t = Add(s, p)  u = Mul(t, w) }>(start, x) }"""


def taken(x: Array, w: Any) -> Any:
    return (x * w + x) * w


def not_taken(x: Array, w: Any) -> Any:
    wide = (x * w).astype(np.float32)
    return (wide * wide).astype(np.float16)


@pytest.mark.parametrize(("go", "expected"), [(True, taken), (False, not_taken)])
def test_branches_are_rounded_and_one_name_may_be_float16_in_one_and_float32_in_the_other(
    go: bool, expected: Callable[[Array, Any], Any]
) -> None:
    w = np.float16(1.7)
    y = computed(IF, weights={"w": w}, x=NUMBERS, go=np.array(go))
    assert_same_bits(y, expected(NUMBERS, w))


def test_a_loop_is_rounded_in_every_iteration() -> None:
    w = np.float16(1.1)
    expected = NUMBERS
    for _ in range(5):
        expected = expected * w + NUMBERS * w
    assert_same_bits(
        computed(LOOP, weights={"w": w}, x=NUMBERS, trips=np.array(5)), expected
    )


def test_a_scan_is_rounded() -> None:
    w, total, expected = np.float16(1.3), np.float16(0), []
    for v in NUMBERS[:4]:
        total = total + v * w
        expected.append(total * w)
    assert_same_bits(
        computed(SCAN, weights={"w": w}, x=NUMBERS[:4]), np.array(expected, np.float16)
    )


def test_functions_are_looked_into() -> None:
    made = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
        g (float16[n] x) => (float16[n] y) { y = local.Cube(x) }
        <opset_import: ["" : 17], domain: "local"> Cube (v) => (r) { s = Mul(v, v)  r = Mul(s, v) }"""
    )
    (y,) = session_of(simulated(made, made)).run(["y"], {"x": NUMBERS.astype(np.float32)})
    assert_same_bits(y, NUMBERS * NUMBERS * NUMBERS)


def opened(text: str, domain: str = "com.microsoft") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 17, "{domain}" : 1]> g {text}'
    )


def test_operators_that_nobody_knows_are_named_where_they_take_float16() -> None:
    text = (
        "(float16[n] x) => (float16[n] y) { a = of.nobody.Gelu(x)  b = of.nobody.Gelu(a)  y = "
        "Neg(b) }"
    )
    assert unknown_types(opened(text, "of.nobody")) == ["of.nobody:Gelu"]
    assert (
        unknown_types(
            opened("(float[n] x) => (float[n] y) { y = of.nobody.Gelu(x) }", "of.nobody")
        )
        == []
    )
    assert unknown_types(opened("(float16[n] x) => (float16[n] y) { y = Neg(x) }")) == []


def test_operators_of_onnx_runtime_have_the_types_of_its_schemas() -> None:
    text = """(float16[n] x) => (float16[n] y) {
      a = com.microsoft.Gelu(x)  b = com.microsoft.QuickGelu(a)  c = Neg(b)  y = com.microsoft.Gelu(c) }"""
    assert {"a", "b", "c"} <= half_values(opened(text))
    assert unknown_types(opened(text)) == []


def test_inside_a_body_they_have_the_types_of_the_values_around_it() -> None:
    text = """(float16[n] x, bool k) => (float16[n] y) {
      y = If (k) <then_branch = one () => (float16[n] t) { a = com.microsoft.Gelu(x)  t = Neg(a) },
                  else_branch = two () => (float16[n] s) { s = Abs(x) }> }"""
    assert "a" in half_values(opened(text))


def test_what_an_operator_of_onnx_runtime_gives_is_rounded() -> None:
    text = "(T[n] x) => (T[n] y) { a = com.microsoft.Gelu(x)  y = com.microsoft.Gelu(a) }"
    half, single = (opened(text.replace("T[", f"{kind}[")) for kind in ("float16", "float"))
    x = np.linspace(-2, 2, 99).astype(np.float16).astype(np.float32)
    (y,) = session_of(simulated(half, half)).run(None, {"x": x})
    (exact,) = session_of(single).run(None, {"x": x})
    assert np.array_equal(y, y.astype(np.float16))
    # Rounded between the two as well: the last rounding alone would give something else.
    assert not np.array_equal(y, exact.astype(np.float16))
