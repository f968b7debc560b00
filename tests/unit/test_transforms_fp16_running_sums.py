"""A sum that a Loop or a Scan carries stays float32 on its way; the rest of the body doesn't."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

from onnx_harness.judging.simulation import simulated
from onnx_harness.transforms.bf16 import convert_float_to_bfloat16
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.unit.transform_models import copy_of, run

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
STEPS = 3000


def scan(body: str) -> onnx.ModelProto:
    return parser.parse_model(f"""{HEADER}
        g (float[4] start, float[n, 4] x, float[4] w) => (float[4] total, float[n, 4] sums) {{
          total, sums = Scan<num_scan_inputs = 1,
            body = step (float[4] s, float[4] v) => (float[4] t, float[4] o) {{ {body} }}>(start, x) }}""")


def loop(body: str) -> onnx.ModelProto:
    return parser.parse_model(f"""{HEADER}
        g (int64 count, bool more, float[4] start, float[4] w) => (float[4] total) {{
          total = Loop<body = step (int64 i, bool c, float[4] s) => (bool d, float[4] t) {{
            d = Identity(c) {body} }}>(count, more, start) }}""")


def body_of(model: onnx.ModelProto) -> onnx.GraphProto:
    (node,) = [node for node in model.graph.node if node.op_type in ("Loop", "Scan")]
    (body,) = [each.g for each in node.attribute if each.name == "body"]
    assert isinstance(body, onnx.GraphProto)
    return body


def element_types(values: list[onnx.ValueInfoProto]) -> list[int]:
    return [info.type.tensor_type.elem_type for info in values]


SUMS = {
    "a Scan": scan("m = Mul(v, w) a = Add(s, m) t = Identity(a) o = Identity(a)"),
    "a Scan that subtracts": scan("m = Mul(v, w) t = Sub(s, m) o = Exp(m)"),
    "a Scan whose sum decays": scan(
        "m = Mul(v, w) b = Mul(s, w) t = Add(m, b) o = Identity(t)"
    ),
    "a Scan of a greatest sum": scan(
        "m = Mul(v, w) a = Add(m, s) t = Max(a, s) o = Identity(t)"
    ),
    "a Scan that adds twice": scan("m = Mul(v, w) a = Add(m, s) t = Add(a, v) o = Relu(a)"),
    "a Loop": loop("m = Tanh(w) t = Add(m, s)"),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_carried_sum_stays_float32_and_the_body_does_not(name: str) -> None:
    half = convert_float_to_float16(copy_of(SUMS[name]), keep_io_types=True)
    onnx.checker.check_model(half, full_check=True)
    body = body_of(half)
    place = 2 if name == "a Loop" else 0
    assert element_types(list(body.input))[place] == TensorProto.FLOAT
    assert TensorProto.FLOAT in element_types(list(body.output))
    inferred = onnx.shape_inference.infer_shapes(half)
    types = {
        info.name: info.type.tensor_type.elem_type for info in body_of(inferred).value_info
    }
    assert types["m"] == TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("body", "carried"),
    [
        ("m = Mul(v, w) t = Mul(s, m) o = Identity(t)", "a product"),
        ("m = Mul(v, w) t = Identity(s) o = Add(s, m)", "what stays as it is"),
        ("m = Mul(v, s) t = Add(m, w) o = Identity(t)", "a recurrence"),
    ],
)
def test_what_is_no_sum_becomes_float16(body: str, carried: str) -> None:
    half = convert_float_to_float16(scan(body), keep_io_types=True)
    kinds = {
        *element_types(list(body_of(half).input)),
        *element_types(list(body_of(half).output)),
    }
    assert kinds == {TensorProto.FLOAT16}, carried


def test_a_long_sum_is_as_right_as_its_terms() -> None:
    model = SUMS["a Scan"]
    half = convert_float_to_float16(copy_of(model), keep_io_types=True)
    x = np.random.default_rng(0).uniform(0.5, 1, (STEPS, 4)).astype(np.float32)
    feeds = {"start": np.zeros(4, np.float32), "x": x, "w": np.full(4, 0.3, np.float32)}
    expected = run(model, **feeds)
    for ours, right in zip(
        run(simulated(copy_of(half), copy_of(half)), **feeds), expected, strict=True
    ):
        assert np.abs(ours - right).max() <= 1e-3 * np.abs(right).max()


def test_sums_are_kept_as_cumulative_ones_are() -> None:
    everything = convert_float_to_float16(
        copy_of(SUMS["a Loop"]), keep_io_types=True, op_block_list=[]
    )
    assert element_types(list(body_of(everything).input))[2] == TensorProto.FLOAT16
    brain = convert_float_to_bfloat16(copy_of(SUMS["a Loop"]), keep_io_types=True)
    assert element_types(list(body_of(brain).input))[2] == TensorProto.FLOAT
