"""Build small quantized models, seeded.

They're QDQ, weights alone in 8 and 4 bits, a dynamically quantized LSTM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


def _normal(*shape: int, scale: float, seed: int) -> Floats:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _save(
    out: Path, text: str, weights: Mapping[str, Array], *, opsets: str = '"" : 17'
) -> None:
    model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{opsets}]>\n{text}")
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


def _int8(weight: Floats, axis: int, most: int = 127) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric weights of magnitudes up to ``most``, with a scale for each index of ``axis``."""
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.abs(weight).max(axis=others) / most
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    return np.rint(weight / scale.reshape(shape)).astype(np.int8), scale.astype(np.float32)


def qdq_cnn(out: Path) -> None:
    """Three Conv layers between QuantizeLinear and DequantizeLinear.

    Quantization tools write them so.
    """
    weights: dict[str, Array] = {
        "zero_u8": np.array(128, np.uint8),
        "zero_after_relu": np.array(0, np.uint8),
    }
    # Scales that hold the activations of noise to about four standard deviations.
    weights |= {"image_scale": np.array(4 / 127, np.float32)}
    lines = ["image_q = QuantizeLinear (image, image_scale, zero_u8)",
             "x0 = DequantizeLinear (image_q, image_scale, zero_u8)"]  # fmt: skip
    before_scale = np.float32(4 / 127)
    for layer, (before, after) in enumerate([(3, 16), (16, 24), (24, 32)]):
        gain = (1 if layer == 0 else 2) ** 0.5
        values = _normal(after, before, 3, 3, scale=gain * (before * 9) ** -0.5, seed=layer)
        # Of 7 bits: 8 saturate in the kernels of processors without VNNI, and the answer would be
        # the processor's.
        filters, scale = _int8(values, 0, most=63)
        bias_scale = scale * before_scale
        bias = _normal(after, scale=0.2, seed=10 + layer)
        before_scale = np.float32(4 / 255)
        weights |= {
            f"w{layer}": filters,
            f"w{layer}_scale": scale,
            f"w{layer}_zero": np.zeros(after, np.int8),
        }
        weights |= {
            f"b{layer}": np.rint(bias / bias_scale).astype(np.int32),
            f"b{layer}_scale": bias_scale,
        }
        weights |= {
            f"b{layer}_zero": np.zeros(after, np.int32),
            f"y{layer}_scale": np.array(before_scale),
        }
        stride = 1 if layer == 0 else 2
        lines += [
            f"w{layer}_f = DequantizeLinear <axis = 0> (w{layer}, w{layer}_scale, w{layer}_zero)",
            f"b{layer}_f = DequantizeLinear <axis = 0> (b{layer}, b{layer}_scale, b{layer}_zero)",
            (
                f"c{layer} = Conv <pads = [1, 1, 1, 1], strides = [{stride}, {stride}]> (x{layer}, "
                f"w{layer}_f, b{layer}_f)"
            ),
            f"r{layer} = Relu (c{layer})",
            f"r{layer}_q = QuantizeLinear (r{layer}, y{layer}_scale, zero_after_relu)",
            f"x{layer + 1} = DequantizeLinear (r{layer}_q, y{layer}_scale, zero_after_relu)",
        ]
    weights |= {
        "head": _normal(32, 10, scale=0.5, seed=20),
        "head_bias": _normal(10, scale=0.1, seed=21),
    }
    lines += [
        "pooled = GlobalAveragePool (x3)",
        "flat = Flatten (pooled)",
        "logits = Gemm (flat, head, head_bias)",
    ]
    body = "\n".join(lines)
    _save(
        out,
        f"qdq_cnn (float[batch, 3, 32, 32] image) => (float[batch, 10] logits) {{ {body} }}",
        weights,
    )


def weight_only_int8(out: Path) -> None:
    """A gated feed-forward layer whose weights are int8, dequantized before use.

    Each column has a scale.
    """
    weights: dict[str, Array] = {}
    lines = []
    for seed, (name, rows, columns) in enumerate(
        [("gate", 96, 192), ("up", 96, 192), ("down", 192, 96)]
    ):
        values = _normal(rows, columns, scale=rows**-0.5, seed=seed)
        weights[name], weights[f"{name}_scale"] = _int8(values, 1)
        lines.append(f"{name}_f = DequantizeLinear <axis = 1> ({name}, {name}_scale)")
    lines += [
        "gated = MatMul (x, gate_f)",
        "sigmoid = Sigmoid (gated)",
        "silu = Mul (gated, sigmoid)",
        "raised = MatMul (x, up_f)",
        "product = Mul (silu, raised)",
        "lowered = MatMul (product, down_f)",
        "y = Add (x, lowered)",
    ]
    body = "\n".join(lines)
    _save(
        out,
        f"weight_only (float[batch, tokens, 96] x) => (float[batch, tokens, 96] y) {{ {body} }}",
        weights,
    )


def weight_only_int4(out: Path) -> None:
    """Two layers of ONNX Runtime's MatMulNBits.

    They have 4-bit weights in blocks of 32, with scales and zero points.
    """
    weights: dict[str, Array] = {}
    for seed, (name, rows, columns) in enumerate([("first", 64, 128), ("second", 128, 48)]):
        packed, scale, zero = _int4(_normal(rows, columns, scale=rows**-0.5, seed=seed))
        weights |= {name: packed, f"{name}_scale": scale, f"{name}_zero": zero}
    text = """weight_only_int4 (float[batch, tokens, 64] x) => (float[batch, tokens, 48] y) {
        hidden = com.microsoft.MatMulNBits <K = 64, N = 128, bits = 4, block_size = 32>
            (x, first, first_scale, first_zero)
        rectified = Relu (hidden)
        y = com.microsoft.MatMulNBits <K = 128, N = 48, bits = 4, block_size = 32>
            (rectified, second, second_scale, second_zero)
    }"""
    _save(out, text, weights, opsets='"" : 17, "com.microsoft" : 1')


def _int4(weight: Floats) -> tuple[npt.NDArray[np.uint8], Floats, npt.NDArray[np.uint8]]:
    """Pack a (K, N) weight as MatMulNBits takes it.

    Returns:
        Two weights a byte, (N, K / 32, 16); scales, (N * K / 32,); two zero points a byte, (N *
        ceil(K / 64),).
    """
    rows, columns = weight.shape
    blocks = weight.T.reshape(columns, rows // 32, 32)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    scale = (high - low) / 15
    zero = np.rint(-low / scale).astype(np.uint8)
    values = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, 15).astype(
        np.uint8
    )
    packed = values[..., ::2] | values[..., 1::2] << 4
    return (
        packed,
        scale.astype(np.float32).ravel(),
        (zero[:, ::2] | zero[:, 1::2] << 4).ravel(),
    )


def lstm_dynamic(out: Path) -> None:
    """A speech tagger's LSTM and head, quantized dynamically.

    It has DynamicQuantizeLSTM and MatMulInteger.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    width, features = 32, 24
    text = """lstm_dynamic (float[frames, batch, 24] x) => (float[frames, batch, 12] y) {
        steps, last, cell = LSTM <hidden_size = 32> (x, w, r, b)
        flat = Squeeze (steps, direction)
        product = MatMul (flat, head)
        y = Add (product, head_bias)
    }"""
    weights: dict[str, Array] = {
        "w": _normal(1, 4 * width, features, scale=features**-0.5, seed=0),
        "r": _normal(1, 4 * width, width, scale=width**-0.5, seed=1),
        "b": _normal(1, 8 * width, scale=0.1, seed=2),
        "head": _normal(width, 12, scale=0.4, seed=3),
        "head_bias": _normal(12, scale=0.1, seed=4),
        "direction": np.array([1], np.int64),
    }
    _save(out, text, weights)
    quantize_dynamic(
        str(out),
        str(out),
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["LSTM", "MatMul"],
    )
