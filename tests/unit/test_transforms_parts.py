"""The parts of a transform: what can be left out by name, and what is then left out."""

from __future__ import annotations

import onnx
import pytest

from onnx_harness.names import parse_variant
from onnx_harness.transforms import BoundStep, Parts
from onnx_harness.transforms.variant import bind_variant
from tests.models import linear, model

CANCELLING = (
    "(float[4] x) => (float[4] y) { a = Identity(x)  b = Neg(a)  c = Neg(b)  y = Relu(c) }"
)
LISTED = (
    "optimize",
    "pass.eliminate_identity",
    "simplify",
    "onnxoptimizer",
    "onnxsim",
    "onnxslim",
)


def step_and_parts(variant: str) -> tuple[BoundStep, Parts]:
    step = bind_variant(parse_variant(variant)).steps[0]
    assert step.transform.parts is not None
    return step, step.transform.parts


@pytest.mark.parametrize("variant", LISTED)
def test_without_any_of_its_parts_a_transform_keeps_every_operator(variant: str) -> None:
    step, parts = step_and_parts(variant)
    before = model(CANCELLING)
    options = parts.without(step.options, parts.names(before, step.options))

    after = step.transform.apply(model(CANCELLING), **options)

    assert [node.op_type for node in after.graph.node] == [
        node.op_type for node in before.graph.node
    ]


@pytest.mark.parametrize("variant", ["optimize", "onnxoptimizer", "onnxsim"])
def test_a_part_by_itself_still_does_its_work(variant: str) -> None:
    step, parts = step_and_parts(variant)
    others = [
        name
        for name in parts.names(model(CANCELLING), step.options)
        if name != "eliminate_identity"
    ]

    after = step.transform.apply(model(CANCELLING), **parts.without(step.options, others))

    assert "Identity" not in [node.op_type for node in after.graph.node]


def named_linear() -> onnx.ModelProto:
    made = linear()
    for node in made.graph.node:
        node.name = f"{node.op_type}_0"
    return made


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("fp16", ("MatMul_0", "Add_0")),
        ("fp16.io32", ("MatMul_0", "Add_0")),
        ("bf16.io32", ("MatMul_0", "Add_0")),
        # The library changes the type of an output whose node is left out.
        ("fp16.onnxmltools.io32", ("MatMul_0",)),
    ],
)
def test_a_node_that_is_left_out_of_a_conversion_stays_float32(
    variant: str, expected: tuple[str, ...]
) -> None:
    step, parts = step_and_parts(variant)
    names = parts.names(named_linear(), step.options)
    assert names == expected

    after = step.transform.apply(named_linear(), **parts.without(step.options, names))

    weights = {tensor.name: tensor.data_type for tensor in after.graph.initializer}
    assert onnx.TensorProto.FLOAT in weights.values()
    assert step.transform.apply(named_linear(), **step.options) != after


def test_an_output_keeps_its_type_whatever_is_left_out_of_a_library_s_conversion() -> None:
    step, parts = step_and_parts("fp16.onnxmltools.io32")
    names = parts.names(named_linear(), step.options)

    for left in ((), names):
        after = step.transform.apply(named_linear(), **parts.without(step.options, left))
        assert after.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_names_that_two_nodes_share_are_no_parts() -> None:
    made = named_linear()
    for node in made.graph.node:
        node.name = "same"
    step, parts = step_and_parts("fp16.io32")

    assert parts.names(made, step.options) == ()


def test_a_rule_of_onnxscript_can_be_left_out() -> None:
    doubled = (
        "(float[4] x) => (float[2,2] y) { s = Constant<value_ints=[2,2]>()  t = "
        "Constant<value_ints=[4]>()"
    )
    doubled += "  a = Reshape(x, s)  b = Reshape(a, t)  y = Reshape(b, s) }"
    step, parts = step_and_parts("onnxscript")
    names = parts.names(model(doubled), step.options)
    assert "ReshapeReshape" in names

    def reshapes(left_out: list[str]) -> int:
        after = step.transform.apply(model(doubled), **parts.without(step.options, left_out))
        return sum(node.op_type == "Reshape" for node in after.graph.node)

    assert reshapes(["CastCast"]) < reshapes(["ReshapeReshape"])
    assert reshapes(list(names)) == 3
