"""What is said of a model that ONNX Runtime doesn't open."""

from __future__ import annotations

import onnx
import pytest

from onnx_harness.errors import HarnessError, MachineError, ModelError
from onnx_harness.judging.refusal import refusal
from tests.models import model

RELU = "(float[n] x) => (float[n] y) { y = Relu(x) }"


def told(words: str, source: onnx.ModelProto | None = None) -> HarnessError:
    return refusal(RuntimeError(words), source or model(RELU), "9.8.7")


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("it is broken", ": it is broken"),
        (
            "OPSET 99",
            "OPSET 99 Mend: a newer ONNX Runtime, or the model in an older opset "
            "(onnx.version_converter)",
        ),
        (
            "Fancy is not a registered function/op",
            "export the model with standard operators",
        ),
        (
            "Could not find an implementation for Relu(6)",
            "no kernel of that operator for these types. Mend: export it in float32, and judge "
            "that",
        ),
    ],
)
def test_a_refusal_ends_in_what_the_runtime_said_and_a_mend(words: str, end: str) -> None:
    error = told(words)
    assert type(error) is ModelError
    assert str(error).startswith("ONNX Runtime 9.8.7 can't open the untouched model")
    assert str(error).endswith(end)


def test_a_locale_is_what_the_machine_lacks() -> None:
    error = told("Failed to construct locale with name:en_US.UTF-8")
    assert type(error) is MachineError
    assert str(error).endswith("on this machine, and the model isn't at fault")


def test_an_opset_before_the_runtime_s_first_is_named() -> None:
    words = "Could not find an implementation for Add(1)"
    assert str(told(words, model(RELU, opset=6))).endswith(
        "Add(1). It promises kernels from opset 7 on, and the model imports 6. Mend: export it "
        "in a newer opset, or convert it (onnx.version_converter)"
    )
    assert "Add(1). Each model" in str(told(words, model(RELU, opset=7)))
    without = model(RELU)
    del without.opset_import[:]
    assert "Add(1). Each model" in str(told(words, without))
