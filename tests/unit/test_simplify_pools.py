"""Pools that round up: onnx's inference counts windows that begin behind the data."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_harness.transforms.simplify import simplify_with_report

TEXT = """<ir_version: 8, opset_import: ["" : %(opset)d]>
agraph (float[1,1,%(size)d,5] x) => (int64[a] y) {
    pool = %(op)s <kernel_shape = [%(kernel)d,2], strides = [%(stride)d,2], %(padding)s,
        ceil_mode = 1> (x)
    again = MaxPool <kernel_shape = [1,1], strides = [2,2], ceil_mode = 1> (pool)
    y = Shape (again)
}"""
PADDINGS = ('auto_pad = "VALID"', "pads = [0,0,0,0]", "pads = [0,1,1,0]", "pads = [1,0,0,1]")


def run(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    (result,) = session.run(None, {"x": np.zeros(shape, np.float32)})
    return np.asarray(result)


@pytest.mark.parametrize(
    ("opset", "op"),
    [(10, "MaxPool"), (12, "AveragePool"), (18, "LpPool"), (21, "MaxPool"), (22, "MaxPool")],
)
def test_their_folded_size_is_that_of_the_runtime(opset: int, op: str) -> None:
    wrong = []
    for padding, kernel, stride, size in itertools.product(PADDINGS, (2, 3), (2, 3), (3, 4, 5, 6)):
        words = {"opset": opset, "op": op, "padding": padding}
        model = onnx.parser.parse_model(
            TEXT % {**words, "kernel": kernel, "stride": stride, "size": size}
        )
        simplified, _ = simplify_with_report(model)
        assert not any(node.op_type == "Shape" for node in simplified.graph.node)
        if not np.array_equal(run(model), run(simplified)):
            wrong.append((padding, kernel, stride, size))
    assert not wrong


def test_one_window_a_stride_where_the_padding_is_the_runtimes() -> None:
    padding = 'auto_pad = "SAME_UPPER"'
    words = {"opset": 21, "op": "AveragePool", "padding": padding}
    model = onnx.parser.parse_model(TEXT % {**words, "kernel": 1, "stride": 2, "size": 4})
    simplified, _ = simplify_with_report(model)
    np.testing.assert_array_equal(run(model), run(simplified))
