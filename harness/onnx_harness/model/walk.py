"""Ways through a graph and the graphs inside its nodes: bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that attributes of a node hold, those inside them left out."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and every graph inside it.

    Outer ones first, each with what is inside it before the next.
    """
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from graphs(body)


def walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a graph and of the graphs inside it.

    A node comes before those in its bodies.
    """
    for node in graph.node:
        yield from walk_node(node)


def walk_node(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield a node and every node of its bodies."""
    yield node
    for body in subgraphs(node):
        yield from walk(body)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those that its bodies read and give included.

    Some twice, some empty.
    """
    yield from node.input
    yield from body_reads(node)


def body_reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that the bodies of a node read and give.

    They're of the bodies' own values and of those around them.
    """
    for body in subgraphs(node):
        yield from (info.name for info in body.output)
        for inner in body.node:
            yield from reads(inner)
