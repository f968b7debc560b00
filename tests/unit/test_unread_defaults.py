"""Inputs with a default that no node reads: a caller may set them, so every transform keeps them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.errors import NotApplicable
from onnx_harness.model.unread_defaults import unread_defaults
from onnx_harness.transforms.optimize import optimize
from tests.unit.test_transforms_int8 import quantized
from tests.unit.transform_models import floats, run


def listed(ir_version: int = 4) -> onnx.ModelProto:
    """A network as PyTorch 1.2 wrote it: initializers are inputs, a counter of batches among them."""
    text = (
        "agraph (float[1,3,8,8] x, int64 batches, float[4,3,3,3] w) => (float[1,4,6,6] y) "
        "<int64 batches = {7}> { unused = Add(x, x) c = Conv(x, w) y = Relu(c) }"
    )
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : 11]> {text}'
    )
    model.graph.initializer.append(numpy_helper.from_array(floats(4, 3, 3, 3), "w"))
    onnx.checker.check_model(model, full_check=True)
    return model


def inputs(model: onnx.ModelProto) -> list[str]:
    return [info.name for info in model.graph.input]


def test_optimize_keeps_an_input_that_no_node_reads() -> None:
    model = listed()
    result = optimize(listed())
    assert len(result.graph.node) < len(model.graph.node)
    assert inputs(result) == inputs(model) == ["x", "batches", "w"]
    x = floats(1, 3, 8, 8)
    feeds = {"x": x, "batches": np.array(3), "w": np.zeros((4, 3, 3, 3), np.float32)}
    assert not run(result, **feeds)[0].any()
    assert run(result, x=x)[0].tolist() == run(model, x=x)[0].tolist()


def test_static_quantization_keeps_an_input_that_no_node_reads() -> None:
    samples = [{"x": floats(1, 3, 8, 8, seed=seed)} for seed in range(3)]
    assert inputs(quantized(listed(), "int8.static", samples)) == ["x", "batches", "w"]


def test_dynamic_quantization_leaves_a_convolution_whose_weight_a_caller_may_set() -> None:
    reason = r"2 of 2 initializers \('batches', \.\.\.\) are inputs too.*keep_initializers_as_inputs$"
    with pytest.raises(NotApplicable, match=reason):
        quantized(listed(), "int8.dynamic")


def test_below_ir_version_4_initializers_are_no_inputs() -> None:
    assert unread_defaults(listed(3)) is None
    assert unread_defaults(listed()) is not None
