"""Own tests of a model: no command line but `pytest`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

MODEL = Path(__file__).with_name("net.onnx")


@pytest.fixture(scope="module", autouse=True)
def _model() -> None:
    """Stand in for an export: `y = Relu(x @ w)`."""
    made = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> net (float[n,2] x) => (float[n,2] y)'
        " <float[2,2] w = {1, 2, 3, 4}> { product = MatMul(x, w)  y = Relu(product) }"
    )
    onnx.save(made, MODEL)


@pytest.mark.onnx(variant=["simplify", "fp16.io32"])
def test_conversions_are_right(onnx_verify):
    """Judge each conversion on inputs that are generated for the model."""
    onnx_verify(MODEL)


def test_on_inputs_of_ones_own(onnx_verify):
    """Judge on given inputs, by a tolerance of one's own."""
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    verdict = onnx_verify(MODEL, variant="simplify", inputs={"x": x}, rtol=1e-4, atol=1e-6)
    assert verdict.outputs["y"].max_abs < 1e-5


def test_outputs_are_those_of_last_time(onnx_snapshot):
    """Compare with golden outputs; `pytest --onnx-update` writes them."""
    onnx_snapshot(MODEL)
