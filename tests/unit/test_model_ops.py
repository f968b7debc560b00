"""The vocabulary of standard operators."""

from __future__ import annotations

import re

import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from onnx_harness.model.ops import (
    MOVES,
    TYPE_ATTRIBUTES,
    imports_standard,
    is_standard,
    opset_of,
)
from tests.models import model


def with_imports(*versions: tuple[str, int]) -> onnx.ModelProto:
    """A Squeeze by an attribute, which opset 11 has and opset 13 hasn't."""
    squeezed = model(
        "(float[1,2] x) => (float[2] y) { y = Squeeze <axes = [0]> (x) }", opset=11
    )
    del squeezed.opset_import[:]
    squeezed.opset_import.extend(
        helper.make_opsetid(domain, version) for domain, version in versions
    )
    return squeezed


def test_attributes_that_name_the_type_of_an_output_are_those_of_the_schemas() -> None:
    named = {
        name
        for schema in onnx.defs.get_all_schemas_with_history()
        for name, attribute in schema.attributes.items()
        if attribute.type == onnx.defs.OpSchema.AttrType.INT
        and re.fullmatch(r"to|(.*_)?(data|d)type", name)
    }
    assert named == TYPE_ATTRIBUTES


@pytest.mark.parametrize(
    "versions", [[("", 13), ("ai.onnx", 11)], [("ai.onnx", 11), ("", 13)]]
)
def test_of_two_imports_the_one_that_onnx_runtime_takes_holds(
    versions: list[tuple[str, int]],
) -> None:
    squeezed = with_imports(*versions)
    try:
        ort.InferenceSession(
            squeezed.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        understood = 11
    except Exception:  # the attribute isn't known any more
        understood = 13
    assert opset_of(squeezed) == understood


def test_a_model_without_imports_is_of_version_1() -> None:
    assert opset_of(with_imports(("mine", 3))) == 1
    assert not imports_standard(with_imports(("mine", 3)))


def test_a_standard_operator_is_one_by_its_domain_and_its_type() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")
    assert is_standard(node)
    assert is_standard(node, "Relu", "Abs")
    assert not is_standard(node, "Abs")
    assert not is_standard(helper.make_node("Relu", ["x"], ["y"], domain="mine"))


def test_what_moves_values_gives_the_type_that_it_takes() -> None:
    for op_type in MOVES:
        schema = onnx.defs.get_schema(op_type)
        assert schema.inputs[0].type_str == schema.outputs[0].type_str
