"""A model that no inputs can help is at fault itself."""

from __future__ import annotations

import pytest

from onnx_harness.inputs.plan.constant_faults import constant_fault
from tests.models import model

AT_RANGE = RuntimeError(
    "Non-zero status code returned while running Range node. Name:'' Status Message: "
)
AT_RELU = RuntimeError(
    "Non-zero status code returned while running Relu node. Name:'' Status "
)
CONSTANTS = "<float a = {0}, float b = {1}, float d = {1e-30}>"
NO_STEP = "<float a = {0}, float d = {0}>"


@pytest.mark.parametrize(
    ("graph", "complaints", "words"),
    [
        (
            f"{CONSTANTS} {{ r = Range(a, b, d) y = Add(x, r) }}",
            [AT_RANGE],
            "constants alone",
        ),
        (
            f"{NO_STEP} {{ r = Range(a, x, d) y = Add(x, r) }}",
            [AT_RANGE] * 2,
            "step of a Range",
        ),
        (f"{CONSTANTS} {{ r = Range(a, x, d) y = Add(x, r) }}", [AT_RANGE], None),
        (f"{CONSTANTS} {{ r = Range(a, b, d) y = Add(x, r) }}", [AT_RANGE, AT_RELU], None),
        (f"{CONSTANTS} {{ r = Range(a, b, d) y = Add(x, r) }}", [ValueError("other")], None),
        (f"{CONSTANTS} {{ r = Range(a, b, d) y = Add(x, r) }}", [AT_RELU], None),
        (f"{CONSTANTS} {{ r = Range(a, b, d) y = Add(x, r) }}", [], None),
    ],
)
def test_only_what_constants_decide_is_the_models_fault(
    graph: str, complaints: list[Exception], words: str | None
) -> None:
    fault = constant_fault(model(f"(float x) => (float[n] y) {graph}"), complaints)
    assert (words is None and fault is None) or (fault is not None and str(words) in fault)
