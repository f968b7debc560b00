"""Constants of one element and one axis as the scalars that a Range takes.

ONNX Runtime runs a Range whose limits are computed with an axis of one, as a Slice of a shape is,
and refuses the same limits as constants.
"""

from __future__ import annotations

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import constant_array, new_constant


def make_limits_scalars(editing: Editing) -> int:
    """Give a Range scalars where its limits are constants of one element."""
    made = 0
    for graph in all_graphs(editing.graph):
        for node in graph:
            if not editing.is_standard(node, "Range"):
                continue
            for place, value in enumerate(node.inputs):
                array = constant_array(value)
                if value is None or array is None or array.size != 1 or not array.ndim:
                    continue
                scalar = new_constant(editing, f"{value.name}_scalar", array.reshape(()))
                node.replace_input_with(place, scalar)
                made += 1
    return made
