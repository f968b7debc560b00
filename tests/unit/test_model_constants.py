"""What Constant nodes hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_harness.model.constants import constant_tensor, named_constants, set_constant
from onnx_harness.model.graph import ir_constant
from onnx_harness.model.rewrite import lift_constants
from tests.models import model

HELD: dict[str, tuple[Any, Any]] = {
    "value": (
        numpy_helper.from_array(np.eye(2, dtype=np.float16)),
        np.eye(2, dtype=np.float16),
    ),
    "value_float": (1.5, np.array(1.5, np.float32)),
    "value_floats": ([1.5, 2.0], np.array([1.5, 2.0], np.float32)),
    "value_int": (3, np.array(3, np.int64)),
    "value_ints": ([3, 4], np.array([3, 4], np.int64)),
}


@pytest.mark.parametrize("name", HELD)
def test_every_number_that_a_constant_can_hold_is_read(name: str) -> None:
    value, expected = HELD[name]
    node = helper.make_node("Constant", [], ["c"], **{name: value})
    tensor, same = constant_tensor(node), ir_constant(ir.serde.deserialize_node(node))
    assert tensor is not None
    assert same is not None
    for array in (numpy_helper.to_array(tensor), same.numpy()):
        np.testing.assert_array_equal(array, expected, strict=True)


def test_texts_and_what_comes_with_a_call_are_no_tensor_of_numbers() -> None:
    assert (
        constant_tensor(helper.make_node("Constant", [], ["c"], value_string="text")) is None
    )
    called = helper.make_node("Constant", [], ["c"])
    called.attribute.add(
        name="value_int", ref_attr_name="size", type=onnx.AttributeProto.INT
    )
    assert constant_tensor(called) is None


def test_a_constant_holds_what_it_is_given() -> None:
    node = helper.make_node("Constant", [], ["c"], value_float=1.5)
    set_constant(node, np.arange(3))
    tensor = constant_tensor(node)
    assert tensor is not None
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.arange(3))


def test_the_constants_of_a_graph_are_its_initializers_and_its_constant_nodes() -> None:
    small = model(
        "(float[2] x) => (float[2] y) { c = Constant <value_floats = [1.0, 2.0]> ()  z = Mul(x, "
        "w)  y = Add(z, c) }"
    )
    small.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    assert {name: list(tensor.dims) for name, tensor in named_constants(small.graph)} == {
        "w": [2],
        "c": [2],
    }
    lift_constants(small.graph)
    assert [tensor.name for tensor in small.graph.initializer] == ["w", "c"]
