"""What draws at random has the same ranges each time that it is calibrated."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnx_harness.transforms.int8 import quantize_static
from tests.models import model

NOISY = """(float[n,8] x) => (float[n,8] y) {
    h = MatMul (x, w)
    drawn = RandomNormalLike (h)
    noisy = Add (h, drawn)
    y = MatMul (noisy, w)
}"""
SHOWN = """(float[n,8] x) => (float[n,8] y, float[n,8] drawn) {
    h = MatMul (x, w)
    drawn = RandomNormalLike (h)
    y = Add (h, drawn)
}"""
BRANCH = """(float[n,8] x, bool c) => (float[n,8] y) {
    h = MatMul (x, w)
    drawn = If (c) <then_branch = t () => (float[a,8] a) { a = RandomNormalLike (h) },
        else_branch = e () => (float[a,8] b) { b = RandomNormalLike <seed = 7.0> (h) }>
    y = Add (h, drawn)
}"""


def calibrated(text: str, seed: int) -> onnx.ModelProto:
    made = model(text)
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((8, 8)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    sample = {"x": draw.standard_normal((4, 8)).astype(np.float32), "c": np.array(True)}
    onnxruntime.set_seed(seed)  # as another process would have another one
    return quantize_static(made, [sample])


def seeds(made: onnx.ModelProto) -> list[float]:
    found = []
    for node in made.graph.node:
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for inner in (node, *(each for body in bodies for each in body.node)):
            for attribute in inner.attribute:
                if attribute.name == "seed":
                    found.append(attribute.f)
    return found


@pytest.mark.parametrize(("text", "own"), [(NOISY, []), (SHOWN, []), (BRANCH, [7.0])])
def test_a_model_that_draws_gets_the_same_scales_and_draws_as_it_did(
    text: str, own: list[float]
) -> None:
    first, second = calibrated(text, 1), calibrated(text, 2)
    assert first.SerializeToString() == second.SerializeToString()
    assert seeds(first) == own
