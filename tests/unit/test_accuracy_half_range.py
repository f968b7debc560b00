"""A float16 model brought to float32, and the greatest magnitude of each of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from onnx_harness.judging.half_range import (
    OUTPUT,
    Watched,
    computes_in_half,
    half_values,
    rounded,
    watch,
)
from onnx_harness.judging.simulation import simulated
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.models import model

FLOATS = np.random.default_rng(3)


def running(made: onnx.ModelProto, **values: Any) -> dict[str, Any]:
    onnx.checker.check_model(made, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, values), strict=True))


def watched(
    text: str, *, opset: int = 17, with_empty: bool = False, **weights: Any
) -> Watched:
    made = model(text, opset=opset)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(w, np.float16), n) for n, w in weights.items()
    )
    return watch(made, made, with_empty=with_empty)


def magnitudes(found: Watched, **values: Any) -> dict[str, float]:
    names = [place.value for place in found.places]
    return dict(zip(names, running(found.model, **values)[OUTPUT].tolist(), strict=True))


def test_every_value_that_computing_makes_is_watched_with_its_node_and_readers() -> None:
    found = watched(
        (
            "(float16[n] x) => (float16[n] y) { a = Mul(x, w)  b = Add(a, w)  c = Identity(b)  y = "
            "Sub(c, a) }"
        ),
        w=[100.0],
    )
    x = FLOATS.normal(size=9).astype(np.float32) * 1e4
    told = magnitudes(found, x=x)
    a = x * np.float32(100)
    expected = {"a": a, "b": a + 100, "y": (a + 100) - a}
    assert told == pytest.approx(
        {name: np.abs(value).max() for name, value in expected.items()}, rel=1e-5
    )
    assert str(found.places[0]) == "'a' (Mul)"
    assert found.places[0].readers == (("", "Add"), ("", "Sub"))


def test_the_model_computes_in_float32_what_it_computed_in_float16() -> None:
    made = model(
        "(float[n,8] x) => (float[n,8] y) { a = Mul(x, c)  b = Mul(a, a)  y = Sqrt(b) }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array([1000], np.float32), "c"))
    half = convert_float_to_float16(made, keep_io_types=True)
    x = FLOATS.normal(size=(2, 8)).astype(np.float32)
    found = watch(half, half)
    np.testing.assert_allclose(running(found.model, x=x)["y"], np.abs(x) * 1000, rtol=1e-5)


def test_what_a_relu_or_a_saturation_swallows_is_not_looked_at_and_a_relu_shows_what_it_passes_on() -> (
    None
):
    found = watched(
        "(float16[n] x) => (float16[n] y, float16[n] z) "
        "{ a = Mul(x, w)  r = Relu(a)  y = Neg(r)  b = Add(x, w)  z = Tanh(b) }",
        w=[-1000.0],
    )
    assert [place.value for place in found.places] == ["r"]
    assert magnitudes(found, x=np.array([-5, 7], np.float32)) == {"r": 5000.0}


def test_values_within_control_flow_are_told_whichever_branch_is_taken_and_in_every_iteration() -> (
    None
):
    text = """(float16[2] x, bool go, int64 trips) => (float16[2] y) {
      yes = Constant<value = bool {1}>()
      y = Loop(trips, yes, x) <
        body = body (int64 i, bool before, float16[2] v) => (bool after, float16[2] w) {
          after = Identity(before)
          w = If(go) <
            then_branch = then () => (float16[2] p) { p = Mul(v, three) },
            else_branch = else () => (float16[2] q) { t = Mul(v, ten)  q = Add(t, t) }
          >
        }
      > }"""
    for opset in (13, 18):
        found = watched(text, opset=opset, three=[3.0], ten=[10.0])
        assert [place.value for place in found.places] == ["p", "t", "q"]
        x = np.array([1, -2], np.float32)
        for go, trips, expected in (
            (True, 3, [54.0, 0.0, 0.0]),
            (False, 2, [0.0, 400.0, 800.0]),
            (True, 0, [0.0, 0.0, 0.0]),
        ):
            told = magnitudes(found, x=x, go=np.array(go), trips=np.array(trips))
            assert list(told.values()) == expected


def test_values_within_a_scan_are_told() -> None:
    found = watched(
        """(float16[2] state, float16[3,2] x) => (float16[2] last, float16[3,2] ys) {
          last, ys = Scan<num_scan_inputs = 1, body = body (float16[2] s, float16[2] v)
            => (float16[2] t, float16[2] u) { t = Add(s, v)  u = Mul(t, t) }>(state, x) }"""
    )
    x = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    assert magnitudes(found, state=np.zeros(2, np.float32), x=x) == {"t": 12.0, "u": 144.0}


def test_functions_are_looked_into() -> None:
    made = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
        g (float16[2] x) => (float16[2] y) { y = local.Twice(x) }
        <opset_import: ["" : 17], domain: "local"> Twice (v) => (r) { r = Add(v, v) }"""
    )
    found = watch(made, made)
    assert [place.op for place in found.places] == ["Add"]
    assert magnitudes(found, x=np.array([1, 2], np.float32)) == {"y": 4.0}


def test_empty_tensors_have_no_greatest_value_and_are_told_as_zero_when_expected() -> None:
    text = "(float16[n] x) => (float16[n] y) { y = Mul(x, w) }"
    nothing, something = np.zeros(0, np.float32), np.array([-3], np.float32)
    found = watched(text, with_empty=True, w=[2.0])
    assert magnitudes(found, x=nothing) == {"y": 0.0}
    assert magnitudes(found, x=something) == {"y": 6.0}


def test_what_overflows_is_infinite_once_it_is_rounded() -> None:
    found = watched(
        "(float16[n] x) => (float16[n] y) { a = Mul(x, w)  y = Div(a, w) }", w=[1000.0]
    )
    x = np.array([1, 65, 66], np.float32)
    np.testing.assert_allclose(
        running(rounded(found.model, ["a"]), x=x)["y"], [1, 64.992, np.inf]
    )


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("(float[2] x) => (float[2] y) { y = Neg(x) }", False),
        ("(float16[2] x) => (float16[2] y) { y = Neg(x) }", True),
        ("(float16[2] x) => (float[2] y) { a = Cast<to = 1>(x)  y = Neg(a) }", False),
        (
            (
                "(float[2] x) => (float[2] y) { a = Cast<to = 10>(x)  b = Neg(a)  y = Cast<to = "
                "1>(b) "
                "}"
            ),
            True,
        ),
        (
            (
                "(float16[2] x) => (float16[1,2] y) { at = Constant<value = int64[1] {0}>()  y = "
                "Unsqueeze(x, at) }"
            ),
            False,
        ),
    ],
)
def test_arithmetic_in_float16_is_told_from_float16_that_is_only_kept(
    text: str, asks: bool
) -> None:
    assert computes_in_half(model(text)) is asks


def test_types_are_found_without_the_weights() -> None:
    made = model("(float[n,8] x) => (float[n,4] y) { y = MatMul(x, w) }")
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 4), np.float32), "w"))
    half = convert_float_to_float16(made, keep_io_types=True)
    for tensor in half.graph.initializer:
        tensor.ClearField("raw_data")
    assert half_values(half) >= {tensor.name for tensor in half.graph.initializer} | {
        "x_float16"
    }
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_what_names_its_type_by_an_attribute_is_brought_to_float32_too() -> None:
    windowed = "n = Constant <value_int = 8> ()  w = HannWindow <output_datatype = 10> (n)  y = Mul(x, w)"
    text = f"(float16[8] x) => (float16[8] y) {{ {windowed} }}"
    x = FLOATS.normal(size=8).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(8) / 8)
    np.testing.assert_allclose(
        running(watched(text).model, x=x)["y"], x * window, rtol=1e-5, atol=1e-6
    )
    made = model(text)
    simulation = running(simulated(made, made), x=x.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(simulation["y"], x * window, rtol=3e-3, atol=1e-3)
