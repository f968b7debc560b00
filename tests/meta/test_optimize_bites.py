"""What onnxoptimizer breaks is caught by ``optimize`` itself, and what was broken before isn't held
against it.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnxoptimizer
import pytest

from onnx_harness.transforms.optimize import optimize
from tests.models import model


def contradictory(source: onnx.ModelProto, *_: Any, **__: Any) -> onnx.ModelProto:
    """The model, its output declared with a type that its operator doesn't give."""
    broken = onnx.ModelProto()
    broken.CopyFrom(source)
    broken.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return broken


def test_types_that_contradict_each_other_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxoptimizer, "optimize", contradictory)
    with pytest.raises(onnx.shape_inference.InferenceError):
        optimize(model("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }"))


def test_a_model_that_contradicts_itself_is_no_fault_of_the_optimizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = contradictory(model("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }"))
    monkeypatch.setattr(onnxoptimizer, "optimize", lambda source, *_, **__: source)
    assert optimize(broken) is broken
