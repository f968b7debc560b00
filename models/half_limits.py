"""Builders of small models that float16 is too coarse or too narrow for, each as real ones are.

Seeded.

The first four lose their digits in float16, the others leave its range (above 65504). In float32
all are well scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

Weights = Mapping[str, npt.NDArray[np.generic]]


def _normal(
    *shape: int, scale: float | None = None, seed: int = 0
) -> npt.NDArray[np.generic]:
    """A normal weight; without ``scale``, its variance keeps that of what it's multiplied with."""
    factor = shape[0] ** -0.5 if scale is None else scale
    return (factor * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _save(out: Path, text: str, weights: Weights, *, opset: int = 17) -> None:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    model = onnx.parser.parse_model(head + text)
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


def _scalars(**values: float) -> dict[str, npt.NDArray[np.generic]]:
    return {name: np.array(value, np.float32) for name, value in values.items()}


# Digits.


def map_points(out: Path) -> None:
    """A point set network on coordinates in metres of a city's grid, centred within the network."""
    text = """map_points (float[batch, points, 2] xy) => (float[batch, 8] y) {
        centre = ReduceMean <axes = [1], keepdims = 1> (xy)
        offset = Sub (xy, centre)
        scaled = Div (offset, metres)
        one = MatMul (scaled, first)
        biased = Add (one, bias)
        hidden = Relu (biased)
        pooled = ReduceMax <axes = [1], keepdims = 0> (hidden)
        y = MatMul (pooled, second)
    }"""
    weights = _scalars(metres=2.0)
    weights |= {
        "first": _normal(2, 32),
        "bias": _normal(32, scale=0.1, seed=1),
        "second": _normal(32, 8, seed=2),
    }
    _save(out, text, weights)


def pressure_variance(out: Path) -> None:
    """Mean and variance of a barometer's windows.

    The variance is a mean of squares less a squared mean.
    """
    text = """pressure_variance (float[batch, 128] x) => (float[batch, 8] y) {
        mean = ReduceMean <axes = [1], keepdims = 1> (x)
        squares = Mul (x, x)
        mean_square = ReduceMean <axes = [1], keepdims = 1> (squares)
        square_mean = Mul (mean, mean)
        variance = Sub (mean_square, square_mean)
        excess = Sub (mean, usual)
        features = Concat <axis = 1> (excess, variance)
        y = Gemm (features, weight, bias)
    }"""
    weights = _scalars(usual=101.3)
    _save(
        out, text, weights | {"weight": _normal(2, 8), "bias": _normal(8, scale=0.1, seed=1)}
    )


def quiet_log_mel(out: Path) -> None:
    """Log-mel features of a quiet recording.

    They take a windowed Fourier basis, power, 24 bands, a floor of 1e-10.
    """
    window, bands = 128, 24
    time = np.arange(window)
    taper = np.hanning(window)
    angle = 2 * np.pi * np.outer(np.arange(1, window // 2 + 1), time) / window
    centres = np.linspace(0, window // 2 - 1, bands)
    distance = np.abs(np.arange(window // 2)[:, None] - centres[None, :])
    mel = np.maximum(0, 1 - distance / (centres[1] - centres[0]))
    text = """quiet_log_mel (float[batch, 1, 1024] sound) => (float[batch, 24, frames] y) {
        re = Conv <strides = [64]> (sound, cosine)
        im = Conv <strides = [64]> (sound, sine)
        re2 = Mul (re, re)
        im2 = Mul (im, im)
        power = Add (re2, im2)
        by_band = MatMul (mel, power)
        floored = Max (by_band, floor)
        logs = Log (floored)
        y = Mul (logs, decibels)
    }"""
    weights = _scalars(floor=1e-10, decibels=10 / np.log(10))
    weights |= {
        "cosine": (taper * np.cos(angle))[:, None, :].astype(np.float32),
        "sine": (taper * np.sin(angle))[:, None, :].astype(np.float32),
        "mel": mel.T.astype(np.float32),
    }
    _save(out, text, weights)


def harmonic_source(out: Path) -> None:
    """The harmonic source of a vocoder.

    A pitch is summed up to a phase, of whose first four multiples sines are taken.
    """
    text = """harmonic_source (float[batch, 2000, 1] pitch) => (float[batch, 2000, 1] y) {
        cycles = Div (pitch, rate)
        phase = CumSum (cycles, axis)
        phases = Mul (phase, harmonics)
        angles = Mul (phases, turn)
        waves = Sin (angles)
        mixed = MatMul (waves, weight)
        y = Tanh (mixed)
    }"""
    weights = _scalars(rate=16000.0, turn=2 * np.pi)
    weights |= {
        "axis": np.array(1, np.int64),
        "harmonics": np.arange(1, 5, dtype=np.float32),
        "weight": _normal(4, 1),
    }
    _save(out, text, weights)


# Range.


def pcm_power(out: Path) -> None:
    """Loudness bands of 16-bit sound that nobody scaled to [-1, 1].

    Powers reach 1e9 before the logarithm.
    """
    text = """pcm_power (float[batch, 1, 1024] pcm) => (float[batch, 8, frames] y) {
        band = Conv <strides = [64]> (pcm, filters)
        power = Mul (band, band)
        mean = AveragePool <kernel_shape = [4], strides = [4]> (power)
        floored = Add (mean, floor)
        logs = Log (floored)
        y = Sub (logs, usual)
    }"""
    filters = _normal(8, 1, 64, scale=0.125)
    _save(out, text, _scalars(floor=1.0, usual=16.0) | {"filters": filters})


def massive_activations(out: Path) -> None:
    """A feed-forward layer behind RMS normalization.

    A few channels of its residual stream reach 600.
    """
    width = 64
    token = _normal(200, width, scale=1.0)
    token[:, 7], token[:, 31] = 600, -480
    text = """massive_activations (int64[batch, sequence] ids) => (float[batch, sequence, 64] y) {
        x = Gather (token, ids)
        squares = Pow (x, two)
        mean = ReduceMean <axes = [-1], keepdims = 1> (squares)
        safe = Add (mean, epsilon)
        root = Sqrt (safe)
        normed = Div (x, root)
        scaled = Mul (normed, gain)
        gate = MatMul (scaled, gate_weight)
        sigmoid = Sigmoid (gate)
        silu = Mul (gate, sigmoid)
        up = MatMul (scaled, up_weight)
        product = Mul (silu, up)
        y = MatMul (product, down_weight)
    }"""
    gain = np.full(width, 80.0, np.float32)
    gain[[7, 31]] = 0.05
    weights = _scalars(two=2.0, epsilon=1e-6)
    weights |= {
        "token": token,
        "gain": gain,
        "gate_weight": _normal(width, 128, seed=1),
        "up_weight": _normal(width, 128, seed=2),
        "down_weight": _normal(128, width, seed=3),
    }
    _save(out, text, weights)


def log_partition(out: Path) -> None:
    """Log-probabilities of a tagger.

    A sum of exponentials of scores up to 25 has no maximum taken off first.
    """
    text = """log_partition (float[batch, 32] x) => (float[batch, 10] y) {
        scores = Gemm (x, weight, bias)
        each = Exp (scores)
        total = ReduceSum <keepdims = 1> (each, axes)
        partition = Log (total)
        y = Sub (scores, partition)
    }"""
    weights = {"weight": _normal(32, 10, scale=0.7), "bias": np.full(10, 14, np.float32)}
    _save(out, text, weights | {"axes": np.array([1], np.int64)})


def unscaled_attention(out: Path) -> None:
    """Attention that divides its scores by their scale after the product: they reach 1e5 before."""
    text = """unscaled_attention (float[batch, sequence, 64] x) => (float[batch, sequence, 64] y) {
        query = MatMul (x, query_weight)
        key = MatMul (x, key_weight)
        value = MatMul (x, value_weight)
        turned = Transpose <perm = [0, 2, 1]> (key)
        scores = MatMul (query, turned)
        scaled = Div (scores, scale)
        attention = Softmax <axis = -1> (scaled)
        y = MatMul (attention, value)
    }"""
    weights = _scalars(scale=8.0 * 4900.0)
    weights |= {
        "query_weight": _normal(64, 64, scale=70 / 8),
        "key_weight": _normal(64, 64, scale=70 / 8, seed=1),
        "value_weight": _normal(64, 64, seed=2),
    }
    _save(out, text, weights)
