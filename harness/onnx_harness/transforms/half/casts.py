"""Casts between types, as nodes."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array

# As many elements as a mask's number for each head has.
_FEW = 64


def cast(source: str, result: str, dtype: int) -> onnx.NodeProto:
    """Return a Cast of one value to a type."""
    # A copy takes a sixth of the time that a node takes whose fields are all named.
    node = onnx.NodeProto()
    node.CopyFrom(_cast_to(dtype))
    node.input.append(source)
    node.output.append(result)
    return node


def name_target(node: onnx.NodeProto, dtype: int) -> None:
    """Turn a CastLike into a Cast to the type of its second input."""
    node.op_type = "Cast"
    node.attribute.append(_to(dtype))
    del node.input[1:]


def fold_cast(node: onnx.NodeProto, tensor: onnx.TensorProto) -> bool:
    """Turn a Cast of a constant to float32 into a Constant.

    Args:
        node: the Cast; it is changed.
        tensor: what it casts. Of more than 64 elements, or outside of the model, it stays.

    Returns:
        Whether the node was changed.
    """
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if external or math.prod(tensor.dims) > _FEW:
        return False
    with np.errstate(over="ignore"):  # as a Cast does
        numbers = to_array(tensor).astype(np.float32)
    del node.input[:], node.attribute[:]
    node.op_type = "Constant"
    tensor_type = onnx.AttributeProto.TENSOR
    node.attribute.add(name="value", type=tensor_type, t=from_array(numbers))
    return True


@cache
def _cast_to(dtype: int) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Cast", attribute=[_to(dtype)])


def _to(dtype: int) -> onnx.AttributeProto:
    return onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, i=dtype)
