"""Positions that a graph counts from its sizes, and the numbers that those are compared with.

A window of attention ends where the difference of two positions passes its width.
"""

from __future__ import annotations

import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.shapes import Shapes
from onnx_harness.inputs.graph.terms import Term
from onnx_harness.model.ops import is_standard

CUTTING = ("Min", "Max", "Clip")
"""Operators that cut a number off."""
MEETING = (*CUTTING, "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
"""Operators that compare numbers, or cut them off."""
# The positions in their output are those in their first input.
_HANDING_ON = frozenset(
    [
        "Cast",
        "Identity",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Transpose",
        "Expand",
        "Tile",
        "Abs",
        "Neg",
        "Flatten",
        "CastLike",
    ]
)
_MANY = 2  # numbers: a constant of more is a table


def note_positions(shapes: Shapes, node: onnx.NodeProto) -> None:
    """Note where the positions in a node's output end, and what its own positions meet."""
    if not is_standard(node):
        if (width := attribute(node, "local_window_size", 0)) > 0:
            _meet_length(shapes, node, int(width))
        return
    if node.op_type == "Trilu" and len(node.input) > 1:
        for diagonal in shapes.integers(node, 1, "") or ():
            _meet_length(shapes, node, abs(diagonal))
    if node.op_type in MEETING:
        _meet(shapes, node)
    last = _last(shapes, node)
    if last is not None:
        shapes.last[node.output[0]] = last


def _meet_length(shapes: Shapes, node: onnx.NodeProto, number: int) -> None:
    """Note that each of the first input's last two axes meets a number."""
    dims = shapes.shape(node.input[0]) or ()
    for dim in dims[-2:]:
        shapes.meet(dim, number, compared=True)


def _meet(shapes: Shapes, node: onnx.NodeProto) -> None:
    """Note what positions are compared with, or cut off at."""
    for name in node.input:
        last = shapes.last.get(name)
        for bound in node.input if last is not None else ():
            constant = shapes.scope.constant(bound) if bound else None
            if constant is not None and constant.size < _MANY:
                shapes.meet(last, abs(int(constant.reshape(-1)[0])), compared=True)


def _last(shapes: Shapes, node: onnx.NodeProto) -> Term | None:
    """Return the greatest position in a node's output, sign aside; None where it holds none."""
    if node.op_type == "Range":
        limit = shapes.contents(node.input[1])
        last = terms.subtract(limit[0], 1) if limit else None
        return None if isinstance(last, int) else last
    ends = [shapes.last[name] for name in node.input if name in shapes.last]
    if not ends:
        return None
    if node.op_type in ("Add", "Sub"):
        return ends[0]
    return ends[0] if node.op_type in _HANDING_ON and node.input[0] in shapes.last else None
