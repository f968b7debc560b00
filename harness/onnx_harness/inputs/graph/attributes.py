"""A node's attributes, and what messages call it."""

from __future__ import annotations

from typing import Any

import onnx


def label(node: onnx.NodeProto) -> str:
    """``Gather 'lookup'``, or by the output's name where the node has none."""
    return f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    for entry in node.attribute:
        # Within a function's body an attribute may stand for one of the call's: its value isn't
        # here.
        if entry.name == name and not entry.ref_attr_name:
            return onnx.helper.get_attribute_value(entry)
    return default
