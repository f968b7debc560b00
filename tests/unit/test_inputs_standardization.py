"""Inputs lie where a model that standardizes its features expects them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_harness import inputs

MEANS = np.array([[13.0, 700.0, 0.3]], np.float32)
DEVIATIONS = np.array([[0.8, 300.0, 0.1]], np.float32)
RIDGES = np.array([[13.0, 700.0, 0.3], [15.0, 100.0, 0.5]], np.float32)[None]


def model(text: str, domains: str = "", **constants: Any) -> onnx.ModelProto:
    graph = f"g (float[n,3] x) => (float[n,k] y) {{ {text} }}"
    made = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 17{domains}]> {graph}'
    )
    for name, value in constants.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return made


def values(made: onnx.ModelProto) -> Any:
    sets = inputs.generate(made, {}, count=4, seed=0)
    return np.concatenate([each.values["x"] for each in sets])


SCALER = (
    "y = ai.onnx.ml.Scaler <offset: floats = [13.0, 700.0, 0.3], "
    "scale: floats = [1.25, 0.0033333, 10.0]> (x)"
)
STANDARDIZED = [
    model("d = Sub(x, m) y = Div(d, s)", m=MEANS, s=DEVIATIONS),
    model("d = Sub(x, m) y = Mul(d, s)", m=MEANS[0], s=1 / DEVIATIONS[0]),
    model("d = Add(x, m) y = Div(d, s)", m=-MEANS, s=DEVIATIONS),
    model("i = Identity(x) d = Sub(i, m) y = Div(d, s)", m=MEANS, s=DEVIATIONS),
    model(SCALER, ', "ai.onnx.ml" : 3'),
]


@pytest.mark.parametrize("made", STANDARDIZED)
def test_values_lie_around_what_is_subtracted(made: onnx.ModelProto) -> None:
    distances = np.abs(values(made) - MEANS) / DEVIATIONS
    assert distances.max() < 6
    assert distances.max(axis=0).min() > 0.5


def test_values_lie_around_several_centres() -> None:
    made = model("r = Reshape(x, to) y = Sub(r, m)", m=RIDGES, to=np.array([-1, 1, 3]))
    seen = values(made)[:, 0]
    nearest = np.abs(seen[:, None] - RIDGES[0, :, 0]).argmin(axis=1)
    assert set(nearest.tolist()) == {0, 1}


@pytest.mark.parametrize(
    "made",
    [
        model("y = Sub(x, m)", m=np.full((1, 3), 0.5, np.float32)),
        model("y = Add(x, m)", m=MEANS),
        model("y = Mul(x, m)", m=MEANS),
    ],
)
def test_noise_around_zero_stays_where_nothing_far_is_standardized(
    made: onnx.ModelProto,
) -> None:
    assert np.abs(values(made)).max() < 6
