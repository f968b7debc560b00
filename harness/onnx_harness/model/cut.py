"""A part of a graph as a model of its own: from given values to given values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx

from onnx_harness.model.inference import infer_types
from onnx_harness.model.messages import copy_fields
from onnx_harness.model.walk import reads


def cut(
    model: onnx.ModelProto,
    inputs: Collection[str],
    outputs: Sequence[str],
    types: Mapping[str, onnx.ValueInfoProto] | None = None,
) -> onnx.ModelProto:
    """Return the nodes of the main graph that lead to some values, as a model.

    Args:
        model: it stays as it is; its nodes are in the order of their dependence.
        inputs: values where the part begins: nodes before them are left out. Whatever else it needs
            comes along: nodes, weights, and those of the model's own inputs.
        outputs: values where it ends, in the order of the new model's outputs.
        types: of values, by name; None: what is declared or inferred.

    Returns:
        A model with the needed inputs of the model first, then ``inputs`` in the order in which
        they are made; with the weights that it reads, and with the declared or inferred types of
        its inputs and outputs. Types of outputs that aren't known are left out, as ONNX Runtime
        permits and the checker doesn't.

    Raises:
        ValueError: a value isn't one of the main graph, or an input's type isn't known.
    """
    starts = set(inputs)
    unknown = (starts | set(outputs)) - _values(model.graph)
    if unknown:
        raise ValueError(f"the model has no value '{min(unknown)}' outside bodies")
    nodes, read = _needed(model.graph, starts, outputs)
    if types is None:
        types = _types(model)
    part = onnx.ModelProto()
    copy_fields(model, part, but="graph")
    part.graph.name = model.graph.name or "part"
    part.graph.node.extend(nodes)
    _add_weights(part.graph, model.graph, read, starts)
    infos = []
    for info in model.graph.input:
        if info.name in read | starts:
            infos.append(info)
    part.graph.input.extend(infos)
    listed = {info.name for info in part.graph.input}
    for name in _in_order(model.graph, starts - listed):
        if name not in types:
            raise ValueError(
                f"the type of '{name}', where a part of the model begins, isn't known"
            )
        part.graph.input.append(types[name])
    part.graph.output.extend(
        types.get(name) or onnx.ValueInfoProto(name=name) for name in outputs
    )
    return part


def _add_weights(
    part: onnx.GraphProto, graph: onnx.GraphProto, read: set[str], starts: set[str]
) -> None:
    """Add those of a graph's initializers that a part of it reads and doesn't begin with."""
    for tensor in graph.initializer:
        if tensor.name in read and tensor.name not in starts:
            part.initializer.append(tensor)
    for sparse in graph.sparse_initializer:
        if sparse.values.name in read:
            part.sparse_initializer.append(sparse)


def _values(graph: onnx.GraphProto) -> set[str]:
    names = {info.name for info in graph.input} | {
        tensor.name for tensor in graph.initializer
    }
    names |= {sparse.values.name for sparse in graph.sparse_initializer}
    return names.union(*(node.output for node in graph.node)) - {""}


def _needed(
    graph: onnx.GraphProto, starts: Collection[str], outputs: Iterable[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """Return the nodes that outputs depend on, up to the starts, and every name that these read."""
    needed, read = set(outputs), set(outputs)
    nodes = []
    for node in reversed(graph.node):
        # What a start is made by is needed only for another of its outputs.
        if needed.difference(starts).isdisjoint(node.output):
            continue
        nodes.append(node)
        names = set(reads(node)) - {""}
        needed |= names
        read |= names
    return nodes[::-1], read


def _types(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return what is declared or inferred of each value of the main graph that has a type."""
    graph = infer_types(model, follow_sizes=True).graph
    infos = {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}
    types: dict[str, onnx.ValueInfoProto] = {}
    for name, info in infos.items():
        if info.type.WhichOneof("value"):
            types[name] = info
    return types


def _in_order(graph: onnx.GraphProto, names: Collection[str]) -> list[str]:
    """Return the names in the order in which their values are made; those of initializers first."""
    weights = [tensor.name for tensor in graph.initializer if tensor.name in names]
    return weights + [name for node in graph.node for name in node.output if name in names]
