"""Rules of the conversion are passed over where no operator that they're about is in the model.

Looked for everywhere, they change nothing.
"""

from __future__ import annotations

from random import Random
from typing import Any

import onnx
import pytest

from onnx_harness.fuzz.models import random_model
from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.half.graph import Reading
from tests.structures import SIZES, STRUCTURES

OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas()}


def look_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reading.__init__

    def read_as_if_all_were_there(reading: Reading, *arguments: Any) -> None:
        read(reading, *arguments)
        reading.op_types |= OPERATORS

    monkeypatch.setattr(Reading, "__init__", read_as_if_all_were_there)


def converted(model: onnx.ModelProto) -> bytes:
    return bytes(convert_float_to_float16(model).SerializeToString(deterministic=True))


@pytest.mark.filterwarnings("ignore:the float32 number:UserWarning")
def test_what_is_passed_over_would_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [structure.model(SIZES[0]) for structure in STRUCTURES.values()]
    models += [random_model(Random(seed), 1 + seed % 25) for seed in range(60)]
    passed_over = [converted(model) for model in models]
    look_everywhere(monkeypatch)
    for model, result in zip(models, passed_over, strict=True):
        assert converted(model) == result, model.graph.name


def test_operators_inside_of_branches_count() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (bool c, float[4] x) => (float[4] y) {
          y = If (c) <then_branch = one () => (float[4] t) { t = Exp(x) },
                      else_branch = two () => (float[4] s) { s = Neg(x) }> }"""
    )
    reading = Reading(model, 17, int(onnx.TensorProto.FLOAT16))
    assert reading.op_types == {"If", "Exp", "Neg"}
    assert [step.op for step in reading.floating_of({"Exp", "Log"})] == ["Exp"]
    assert not reading.has({"Log"})
