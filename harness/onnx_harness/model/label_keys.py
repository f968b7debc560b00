"""State the types of what a LabelEncoder looks up, where onnx doesn't infer them.

Onnx 1.23.2 infers nothing of what Scaler, Imputer and other operators of ai.onnx.ml give. Its
inference of a LabelEncoder behind one reads a type that isn't there, and the process dies.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import onnx
from onnx import TensorProto

from onnx_harness.model.walk import graphs

_OPERATOR = "LabelEncoder"
_DOMAIN = "ai.onnx.ml"
# The attributes of keys that aren't tensors, in any version of the operator.
_TYPES = {
    "keys_floats": TensorProto.FLOAT,
    "keys_int64s": TensorProto.INT64,
    "keys_strings": TensorProto.STRING,
}


def with_key_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in which what a LabelEncoder reads has the type of its keys.

    Args:
        model: it stays as it is.

    Returns:
        The model itself where each of them has a type; else a copy with more `value_info`.
    """
    lacking = [_lacking(graph) for graph in graphs(model.graph)]
    if not any(lacking):
        return model
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for graph, types in zip(graphs(copied.graph), lacking, strict=True):
        for name, kind in types.items():
            graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return copied


def may_lack_key_types(file: Path) -> bool:
    """Return whether a model's file holds the operator's name, read without parsing it."""
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(_OPERATOR.encode()) >= 0


def _lacking(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the types of values that the graph makes, and states no type of."""
    types: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == _OPERATOR and node.domain == _DOMAIN and node.input:
            kind = _key_type(node)
            if kind is not None:
                types[node.input[0]] = kind
    if not types:
        return {}
    stated = {info.name for info in (*graph.value_info, *graph.input, *graph.output)}
    outputs = {name for node in graph.node for name in node.output}
    return {name: kind for name, kind in types.items() if name in outputs - stated}


def _key_type(node: onnx.NodeProto) -> int | None:
    """Return the element type of a LabelEncoder's keys."""
    for attribute in node.attribute:
        if attribute.name == "keys_tensor":
            return int(attribute.t.data_type)
        if attribute.name in _TYPES:
            return _TYPES[attribute.name]
    return None
