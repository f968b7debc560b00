"""Outputs that a model picks out of a table and doesn't compute.

There is no sum in them that could be ordered anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_harness.inputs.decisions.ensembles import read

# Which inputs of an operator hold the values that its output is a choice of.
_FIRST = (0,)
_PICKS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("Gather", "GatherElements", "GatherND", "Slice", "ArrayFeatureExtractor"), _FIRST
    ),
    **dict.fromkeys(
        (
            "Identity",
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Transpose",
            "Expand",
            "Tile",
        ),
        _FIRST,
    ),
    "Where": (1, 2),
}
# Their values stand in their own attributes.
_TABLES = frozenset({"LabelEncoder", "CategoryMapper"})


def picked_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the float outputs that are picked.

    Of a constant, an input, a label's value or a single tree.

    Args:
        model: its weights aren't needed.
    """
    makers = {}
    for node in model.graph.node:
        for name in node.output:
            makers[name] = node
    sources = {tensor.name for tensor in model.graph.initializer} | {
        info.name for info in model.graph.input
    }
    names = []
    for output in model.graph.output:
        if _is_picked(output.name, makers, sources):
            names.append(output.name)
    return tuple(names)


def _is_picked(name: str, makers: Mapping[str, onnx.NodeProto], sources: set[str]) -> bool:
    pending, seen = [name], {name}
    while pending:
        current = pending.pop()
        node = makers.get(current)
        if current in sources or (node is not None and _is_table(node)):
            continue
        if node is None or node.op_type not in _PICKS:
            return False
        fresh = []
        for slot in _PICKS[node.op_type]:
            if node.input[slot] not in seen:
                fresh.append(node.input[slot])
        seen.update(fresh)
        pending += fresh
    return name in makers


def _is_table(node: onnx.NodeProto) -> bool:
    if node.op_type in _TABLES or node.op_type == "Constant":
        return True
    ensemble = read(node)
    if ensemble is None or ensemble.saturating or ensemble.base.any():
        return False
    return len(ensemble.roots) == 1 and node.op_type != "TreeEnsembleClassifier"
