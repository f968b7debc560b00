"""Find the node that fails whatever the inputs are: one that constants alone decide."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx

from onnx_harness.model.ops import is_standard

# "Non-zero status code returned while running Range node. Name:'r' Status Message: …"
_NODE = re.compile(r"while running (\w+) node\. Name:'(.*?)' Status", re.DOTALL)
_STEP = 2  # Range's input `delta`


def constant_fault(model: onnx.ModelProto, complaints: Sequence[Exception]) -> str | None:
    """Return why no inputs can help; None where others might.

    Args:
        model: as the inputs are made for it.
        complaints: what each feed ended with.
    """
    named = {_NODE.search(str(complaint)) for complaint in complaints}
    blamed = {match.groups() if match else None for match in named}
    if len(blamed) != 1 or (words := blamed.pop()) is None:
        return None
    op, name = words
    nodes = []
    for node in model.graph.node:
        if node.op_type == op and name in ("", node.name):
            nodes.append(node)
    if not nodes:
        return None
    if all(_has_no_step(model.graph, node) for node in nodes):
        return "the step of a Range is 0 or no number: it fails whatever the inputs are"
    hanging = _hanging_on_inputs(model.graph)
    if any(hanging.intersection(node.output) for node in nodes):
        return None
    return f"a {op} that constants alone decide fails, whatever the inputs are"


def _hanging_on_inputs(graph: onnx.GraphProto) -> set[str]:
    """The names of values that an input may change. Nodes with subgraphs count as such."""
    constants = {tensor.name for tensor in graph.initializer}
    hanging = {info.name for info in graph.input} - constants
    for node in graph.node:
        has_graph = any(attribute.HasField("g") for attribute in node.attribute)
        if has_graph or hanging.intersection(node.input):
            hanging.update(node.output)
    return hanging


def _has_no_step(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    if not is_standard(node, "Range") or len(node.input) <= _STEP:
        return False
    name = node.input[_STEP]
    for tensor in graph.initializer:
        if tensor.name == name:
            return _is_zero_or_nan(tensor)
    for source in graph.node:
        if source.op_type != "Constant" or name not in source.output:
            continue
        for attribute in source.attribute:
            if attribute.name == "value":
                return _is_zero_or_nan(attribute.t)
    return False


def _is_zero_or_nan(tensor: onnx.TensorProto) -> bool:
    try:
        step = onnx.numpy_helper.to_array(tensor).reshape(-1)
    except Exception:  # its data was stripped, or doesn't fit its dimensions
        return False
    return step.size == 1 and bool(step[0] == 0 or np.isnan(step[0]))
