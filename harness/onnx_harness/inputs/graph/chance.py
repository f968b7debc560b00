"""The nodes of a model that draw at random: why two runs of it differ."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.seeding import DRAWING
from onnx_harness.model.walk import reads, walk_node


def random_nodes(model: onnx.ModelProto, outputs: Collection[str]) -> list[str]:
    """The random nodes that some of ``outputs`` depend on.

    ``RandomNormalLike 'sampler/noise'``, in their order.

    A Dropout draws in training mode alone, so it's named only where nothing else is.
    """
    needed = set(outputs)
    labels: list[str] = []
    for node in reversed(inline_functions(model).graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(reads(node))
        drawing_nodes = []
        for inner in walk_node(node):
            if inner.op_type in DRAWING:
                drawing_nodes.append(_named(inner))
        labels[:0] = drawing_nodes
    certain = [name for name in labels if not name.startswith("Dropout")]
    return certain or labels


def _named(node: onnx.NodeProto) -> str:
    return (
        f"{node.op_type} '{node.name}'"
        if node.name
        else f"{node.op_type} (which gives '{node.output[0]}')"
    )
