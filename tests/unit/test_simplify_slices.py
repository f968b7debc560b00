"""A Slice whose axes or steps may be anything: onnx's inference takes them for absent."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_harness.transforms.simplify import simplify

TEXT = """<ir_version: 8, opset_import: ["" : 13]>
agraph (float[2,3,5,4] x%(inputs)s) => (int64[a,b,c,d] y%(outputs)s)
    <int64[2] starts = {1, 0}, int64[2] ends = {9, 9}%(constants)s> {
    %(nodes)s
    part = Slice (x, starts, ends, axes%(steps)s)
    size = Shape (part)
    y = ConstantOfShape <value: tensor = int64[1] {7}> (size)
}"""
CASES = {
    "an input of any rank": {"inputs": ", int64 axes"},
    "a default": {"inputs": ", int64[2] axes", "constants": ", int64[2] axes = {-2, -3}"},
    "an output too": {
        "outputs": ", int64[2] axes",
        "constants": ", int64[2] axes = {-2, -3}",
    },
    "computed": {"inputs": ", int64[2] q, int64[k] k", "nodes": "axes = Reshape (q, k)"},
    "steps": {
        "inputs": ", int64[2] q, int64[k] k",
        "nodes": "s = Reshape (q, k) two = Abs (s)",
        "constants": ", int64[2] axes = {2, 1}",
        "steps": ", two",
    },
}
FEEDS = {
    "x": np.zeros((2, 3, 5, 4), np.float32),
    "axes": np.array([-2, -3]),
    "q": np.array([-2, -3]),
    "k": np.array([2]),
}


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {info.name: FEEDS[info.name] for info in session.get_inputs()}
    results: list[np.ndarray] = session.run(None, feeds)
    return results


@pytest.mark.parametrize("case", CASES)
def test_its_shape_is_not_folded(case: str) -> None:
    parts = dict.fromkeys(("inputs", "outputs", "constants", "nodes", "steps"), "")
    model = onnx.parser.parse_model(TEXT % {**parts, **CASES[case]})
    if case == "an input of any rank":
        model.graph.input[1].type.tensor_type.ClearField("shape")
    expected = run(model)
    for one, other in zip(expected, run(simplify(model)), strict=True):
        np.testing.assert_array_equal(one, other)
