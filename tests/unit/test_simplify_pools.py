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
    for padding, kernel, stride, size in itertools.product(
        PADDINGS, (2, 3), (2, 3), (3, 4, 5, 6)
    ):
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


def test_a_size_that_onnx_would_infer_wrongly_stays_unknown_to_it() -> None:
    # Behind an If the checker knows no sizes. Without it, it would know one too many.
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[2,3,5,4] x) => (float[a,b,c,d] y) <bool no = {0}, int64[1] zero = {0},
        int64[1] one = {1}, int64[1] six = {6}, int64[1] four = {4}, int64 two = {2},
        float[2] w = {1, 2}> {
        chosen = If (no) <then_branch = t () => (float[p,q,r,s] a) { a = Identity (x) },
                          else_branch = e () => (float[p,q,r,s] b) { b = Abs (x) }>
        sizes = Shape (chosen)
        row = Gather (sizes, two)
        rows = Unsqueeze (row, zero)
        shape = Concat <axis = 0> (one, six, rows, four)
        data = Reshape (chosen, shape)
        pool = AveragePool <ceil_mode = 1, kernel_shape = [3,1], strides = [1,2]> (data)
        y = Mul (pool, w)
    }"""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    simplified, _ = simplify_with_report(model)
    onnx.checker.check_model(simplified, full_check=True)
