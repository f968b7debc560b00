"""Scores that a mask makes huge before a softmax: a level of their range is as wide as all others.

Masks add -10000, the lowest float32 or minus infinity to scores of a few units. Quantized, the
scores that aren't masked become one number; with an infinity the scale is infinite too.
"""

from __future__ import annotations

import math
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
    "CastLike",
    "ConstantOfShape",
    "Mul",
    "Sub",
    "Trilu",
    "Where",
}
# What a constant is that stands for "none": alone, or in a table, where 10000 may be a position.
_HUGE_NUMBER, _HUGE_ELEMENT = 1e4, 1e9
# A huge bound bounds nothing.
_BOUNDS_BY = ("Clip", "Max", "Min")
# What gives huge numbers where it takes some; anything else brings them back to size.
_HANDS_ON = MOVES | {
    "Add",
    "Cast",
    "CastLike",
    "Mul",
    "Neg",
    "Pad",
    "Sub",
    "TopK",
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


def huge_values(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the outputs of nodes that read or give numbers as great as a mask's, in any place.

    A padding by the lowest float32 before a maximum, what isn't allowed before a TopK: a level of
    their range is wider than all that is computed.

    Args:
        graph: the main graph, its nodes in order; its constants are initializers.
    """
    constants = {tensor.name for tensor in graph.initializer if _is_no_activation(tensor)}
    values = set(constants)
    spared: set[str] = set()
    for node in graph.node:
        reads = values.intersection(_handed_on(node))
        if not reads or is_standard(node, *_BOUNDS_BY):
            continue
        spared.update(node.output)
        if is_standard(node, *_HANDS_ON):
            values.update(node.output)
    return frozenset(spared - {""})


def _is_no_activation(tensor: onnx.TensorProto) -> bool:
    """Return whether a constant is a number, or holds one, that only stands for none."""
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        return False
    least = _HUGE_NUMBER if math.prod(tensor.dims) == 1 else _HUGE_ELEMENT
    values = numpy_helper.to_array(tensor)
    return bool(values.size) and float(np.abs(values).max()) >= least


def _steps_before(
    name: str, producers: Mapping[str, onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """The nodes that lead to a value by steps of masking alone."""
    steps: dict[str, onnx.NodeProto] = {}
    waiting = [name]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or not is_standard(node, *_STEPS) or node.output[0] in steps:
            continue
        steps[node.output[0]] = node
        waiting += [source for source in _handed_on(node) if source]
    return list(steps.values())


def _handed_on(node: onnx.NodeProto) -> list[str]:
    """Return the inputs of a node whose values matter: a CastLike asks for a type alone."""
    return list(node.input[:1] if is_standard(node, "CastLike") else node.input)


def _fills_with_huge(node: onnx.NodeProto) -> bool:
    values = (entry.t for entry in node.attribute if entry.name == "value")
    return is_standard(node, "ConstantOfShape") and any(_is_huge(value) for value in values)


def _is_huge(tensor: onnx.TensorProto) -> bool:
    """Return whether a constant of floats holds a number that no score is as great as."""
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        return False
    values = numpy_helper.to_array(tensor)
    return bool(values.size) and float(np.abs(values).max()) >= _HUGE
