"""The nodes of a model that draw at random: why two runs of it differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx

from onnx_harness.model.file import with_functions_inlined
from onnx_harness.model.walk import subgraphs

_DRAW = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)


def random_nodes(model: onnx.ModelProto, outputs: Collection[str]) -> list[str]:
    """The random nodes that some of ``outputs`` depend on: ``RandomNormalLike 'sampler/noise'``, in their order.

    A Dropout draws in training mode alone, so it's named only where nothing else is.
    """
    needed = set(outputs)
    found: list[str] = []
    for node in reversed(with_functions_inlined(model).graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(_reads(node))
        found[:0] = [_named(each) for each in _with_bodies(node) if each.op_type in _DRAW]
    certain = [name for name in found if not name.startswith("Dropout")]
    return certain or found


def _with_bodies(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for body in subgraphs(node):
        for inner in body.node:
            yield from _with_bodies(inner)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    for each in _with_bodies(node):
        yield from each.input
        for body in subgraphs(each):
            yield from (info.name for info in body.output)


def _named(node: onnx.NodeProto) -> str:
    return f"{node.op_type} '{node.name}'" if node.name else f"{node.op_type} (which gives '{node.output[0]}')"
