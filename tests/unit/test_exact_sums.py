"""Sessions without integer kernels that saturate."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnx_harness.judging import exact_sums as room
from onnx_harness.judging.exact_sums import exact_sums

Array = np.ndarray[Any, Any]

_UNSIGNED = {"session.x64quantprecision", "session.qdq_matmulnbits_accuracy_level"}
_NO_KERNELS = {"session.disable_quant_qdq", "session.qdq_matmulnbits_accuracy_level"}
_AS_THEY_ARE = {"session.qdq_matmulnbits_accuracy_level"}


def products(first: str, second: str) -> onnx.ModelProto:
    """Two quantized products, of `u` and `v`."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[n,4] x) => (float[n,4] y) {{
            xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)
            {"wq = QuantizeLinear(f, step, zero) wq2 = QuantizeLinear(f2, step, zero)" * ("wq" in first)}
            u = {first}  v = {second}
            h = MatMul(xd, u)
            hq = QuantizeLinear(h, s, z)  hd = DequantizeLinear(hq, s, z)
            g = MatMul(hd, v)
            yq = QuantizeLinear(g, s, z)  y = DequantizeLinear(yq, s, z)
        }}""")
    random = np.random.default_rng(0)
    arrays = {
        "s": np.float32(0.02),
        "z": np.uint8(128),
        "zero": np.int8(0),
        "zero2": np.int8(0),
        "zeros": np.zeros(4, np.int8),
        "step": np.float32(0.01),
        "steps": np.full(4, 0.01, np.float32),
        "f": random.normal(size=(4, 4)).astype(np.float32),
        "f2": random.normal(size=(4, 4)).astype(np.float32),
        "w": random.integers(-127, 128, (4, 4)).astype(np.int8),
        "w2": random.integers(-127, 128, (4, 4)).astype(np.int8),
    }
    read = {name for node in model.graph.node for name in node.input}
    for name, array in arrays.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def _result(
    model: onnx.ModelProto, level: object, config: Mapping[str, str], x: Array
) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    for name, value in config.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x.astype(np.float32)})[0])


SHARED = {
    "zero point": ("DequantizeLinear(w, step, zero)", "DequantizeLinear(w2, step, zero)"),
    "weight": ("DequantizeLinear(w, step, zero)", "DequantizeLinear(w, step, zero2)"),
    "value": ("DequantizeLinear(w, step, zero)", "Identity(u)"),
    "zero point of quantized floats": (
        "DequantizeLinear(wq, step, zero)",
        "DequantizeLinear(wq2, step, zero)",
    ),
    "zero points": (
        "DequantizeLinear<axis = 1>(w, steps, zeros)",
        "DequantizeLinear<axis = 1>(w2, steps, zeros)",
    ),
}


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("saturates", [False, True])
def test_shared_weights_and_zero_points_stay_signed(
    shared: str, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime 1.32 can't make them unsigned: "Attempt to replace the existing tensor"."""
    monkeypatch.setattr(room, "_saturates", lambda: saturates)
    model = products(*SHARED[shared])
    config = exact_sums(model)
    assert set(config) == (_NO_KERNELS if saturates else _AS_THEY_ARE)
    options = onnxruntime.SessionOptions()
    for name, value in config.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"x": np.ones((2, 4), np.float32)})[0].shape == (2, 4)


def test_weights_of_their_own_become_unsigned() -> None:
    model = products("DequantizeLinear(w, step, zero)", "DequantizeLinear(w2, step, zero2)")
    assert set(exact_sums(model)) == _UNSIGNED


def test_without_a_zero_point_they_stay_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime 1.32 gives such a node a zero point of the wrong shape."""
    monkeypatch.setattr(room, "_saturates", lambda: False)
    model = products("DequantizeLinear(w, step)", "DequantizeLinear(w2, step)")
    assert set(exact_sums(model)) == _AS_THEY_ARE


def test_what_is_to_run_decides_and_not_what_it_was_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_saturates", lambda: False)
    apart = products("DequantizeLinear(w, step, zero)", "DequantizeLinear(w2, step, zero2)")
    merged = products(*SHARED["zero point"])
    assert set(exact_sums(apart, merged)) == _AS_THEY_ARE
    assert set(exact_sums(merged, apart)) == _UNSIGNED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h = Softmax(xd)", True),
        ("t = Transpose(xd) p = Softmax(t) h = Transpose(p)", True),
        ("p = Softmax(x) h = Mul(p, xd)", False),  # what it reads isn't quantized
        ("p = Softmax(xd) h = Mul(p, p)", False),  # what it gives isn't
        ("h = Sigmoid(xd)", False),
    ],
)
def test_a_softmax_between_quantizers_keeps_its_digits(text: str, expected: bool) -> None:
    """ONNX Runtime's QLinearSoftmax puts 3% of the values on another level."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[64,64] x) => (float[64,64] y) <float s = {{0.02}}, uint8 z = {{128}},
            float t4 = {{0.0005}}, uint8 z4 = {{0}}> {{
            xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)  {text}
            hq = QuantizeLinear(h, t4, z4)  y = DequantizeLinear(hq, t4, z4)
        }}""")
    config = exact_sums(model)
    assert ("session.disable_quant_qdq" in config) is expected
    levels = onnxruntime.GraphOptimizationLevel
    results = []
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        x = np.random.default_rng(0).normal(size=(64, 64))
        results.append(_result(model, level, config, x))
    assert np.mean(results[0] != results[1]) < 1e-3


@pytest.mark.parametrize("node", ["Conv(xd, w)", "ConvTranspose(xd, w)", "Gemm(xm, wm)"])
@pytest.mark.parametrize("then", ["h = Identity(c)", "h = Relu(c)"])
@pytest.mark.parametrize("folded", [True, False])
def test_float_weights_between_quantizers_stay_float(
    node: str, then: str, folded: bool
) -> None:
    """ONNX Runtime quantizes them; not if the model holds them in levels."""
    weights = "w = DequantizeLinear(wq, k, e) wm = DequantizeLinear(wmq, k, e)"
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[4,8,6,6] x) => (float y) <float s = {{0.02}}, uint8 z = {{128}}, int8 e = {{0}},
            float k = {{0.004}}, float t = {{0.03}}, int64[2] m = {{4, -1}}> {{
            xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)  xm = Reshape(xd, m)
            {"" if folded else weights}  c = {node}  {then}
            hq = QuantizeLinear(h, t, z)  y = DequantizeLinear(hq, t, z)
        }}""")
    random = np.random.default_rng(0)
    for name, shape in {"w": (8, 8, 3, 3), "wm": (288, 4)}.items():
        array = random.normal(scale=0.1, size=shape).astype(np.float32)
        if not folded:
            name, array = f"{name}q", np.rint(array * 250).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    config = exact_sums(model)
    assert ("session.disable_quant_qdq" in config) is folded
    levels = onnxruntime.GraphOptimizationLevel
    x = random.normal(size=(4, 8, 6, 6))
    results = []
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        results.append(_result(model, level, config, x))
    assert np.mean(results[0] != results[1]) < 1e-3


def test_what_folds_weights_in_levels_to_floats_answers_for_it() -> None:
    """Not the untouched model: ONNX Runtime quantizes them anew, and otherwise."""
    text = """<ir_version: 8, opset_import: ["" : 13]>
        g (float[4,16] x) => (float[4,8] y) <float s = {0.02}, uint8 z = {128}, int8 e = {0}> {
            xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)  WEIGHT  h = Gemm(xd, w)
            hq = QuantizeLinear(h, s, z)  y = DequantizeLinear(hq, s, z)
        }"""
    held = onnx.parser.parse_model(text.replace("WEIGHT", "w = DequantizeLinear(wq, s, e)"))
    held.graph.initializer.append(numpy_helper.from_array(np.ones((16, 8), np.int8), "wq"))
    folded = onnx.parser.parse_model(text.replace("WEIGHT", ""))
    folded.graph.initializer.append(
        numpy_helper.from_array(np.ones((16, 8), np.float32), "w")
    )
    assert "session.disable_quant_qdq" not in exact_sums(held, folded)
    assert "session.disable_quant_qdq" in exact_sums(folded, folded)


def test_integer_kernels_of_a_model_stay_and_those_beside_them_do_not_come() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[4,16] x) => (float[4,16] y) <float s = {0.02}, uint8 z = {128}> {
            xq = QuantizeLinear(x, s, z)  pq = QLinearMatMul(xq, s, z, wq, s, z, s, z)
            xd = DequantizeLinear(pq, s, z)  h = OP(xd)
            hq = QuantizeLinear(h, s, z)  y = DequantizeLinear(hq, s, z)
        }""".replace("OP", "Softmax")
    )
    assert exact_sums(model) == {"session.disable_quant_qdq": "1"}
    model.graph.node[3].op_type = "Sigmoid"
    assert not exact_sums(model)


def test_a_model_without_quantizers_needs_none() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[2] x) => (float[2] y) { y = Round(x) }'
    )
    assert not exact_sums(model)


def test_saturation_is_found_out_by_a_product() -> None:
    """64 products of 255 and 127 saturate on x86-64 without VNNI, and nowhere else."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64"):
        assert not room._saturates()
    elif cpuinfo.is_file():
        flags = set(cpuinfo.read_text("utf-8").split())
        assert room._saturates() is flags.isdisjoint({"avx512_vnni", "avx_vnni"})
    else:
        pytest.skip("whether an x86-64 processor has VNNI is only written down on Linux")
