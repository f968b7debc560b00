"""Scores that a mask makes huge before a softmax: a level of their range is as wide as all others.

Masks add -10000, the lowest float32 or minus infinity to scores of a few units. Quantized, the
scores that aren't masked become one number; with an infinity the scale is infinite too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_harness.model.ops import MOVES, is_standard

_HUGE = 1e3
# What masks are put together and added with. Scores come of anything else.
_STEPS = (MOVES - {"Gather", "GatherElements", "GatherND"}) | {
    "Add",
    "Cast",
    "ConstantOfShape",
    "Mul",
    "Sub",
    "Trilu",
    "Where",
}
_SOFTMAXES = ("LogSoftmax", "Softmax")


def masked_scores(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the outputs of nodes that add a mask of huge numbers to what a softmax takes.

    Those of the softmax are among them.

    Args:
        graph: the main graph; its constants are initializers.
    """
    producers = {name: node for node in graph.node for name in node.output if name}
    huge = {tensor.name for tensor in graph.initializer if _is_huge(tensor)}
    spared: set[str] = set()
    for node in graph.node:
        if is_standard(node, *_SOFTMAXES):
            steps = _steps_before(node.input[0], producers)
            reads = {name for step in steps for name in step.input}
            if reads & huge or any(_fills_with_huge(step) for step in steps):
                spared.update(name for step in (*steps, node) for name in step.output)
    return frozenset(spared - {""})


def _steps_before(name: str, producers: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that lead to a value by steps of masking alone."""
    steps: dict[str, onnx.NodeProto] = {}
    waiting = [name]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or not is_standard(node, *_STEPS) or node.output[0] in steps:
            continue
        steps[node.output[0]] = node
        waiting += [source for source in node.input if source]
    return list(steps.values())


def _fills_with_huge(node: onnx.NodeProto) -> bool:
    values = (entry.t for entry in node.attribute if entry.name == "value")
    return is_standard(node, "ConstantOfShape") and any(_is_huge(value) for value in values)


def _is_huge(tensor: onnx.TensorProto) -> bool:
    """Return whether a constant of floats holds a number that no score is as great as."""
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        return False
    values = numpy_helper.to_array(tensor)
    return bool(values.size) and float(np.abs(values).max()) >= _HUGE
