"""Constants of a graph: what a Constant node holds, and the constants of a graph by name.

Without onnx-ir, which imports sympy: every process of a run would wait a second for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from onnx_harness.model.ops import is_standard

NUMBER_TYPES: dict[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
"""The element type of a Constant node's numbers, by attribute."""


def constant_tensor(node: onnx.NodeProto) -> TensorProto | None:
    """Return what a Constant node holds, or the filling of a ConstantOfShape.

    Returns:
        The tensor of the node itself, or a new one for a number or a list of numbers. None for
        texts, for what is sparse, and in a function for what comes with the call.
    """
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            return None
        if attribute.name == "value":
            tensor: TensorProto = attribute.t
            return tensor
        if attribute.name in NUMBER_TYPES:
            numbers = np.array(
                onnx.helper.get_attribute_value(attribute), NUMBER_TYPES[attribute.name]
            )
            return numpy_helper.from_array(numbers)
    return None


def set_constant(node: onnx.NodeProto, array: npt.NDArray[Any]) -> None:
    """Let a Constant node hold an array instead of what it holds."""
    del node.attribute[:]
    node.attribute.append(
        onnx.helper.make_attribute("value", numpy_helper.from_array(array))
    )


def named_constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield the initializers of a graph and what its Constant nodes hold, with their names.

    Graphs inside left out.
    """
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if is_standard(node, "Constant"):
            constant = constant_tensor(node)
            if constant is not None:
                yield node.output[0], constant
