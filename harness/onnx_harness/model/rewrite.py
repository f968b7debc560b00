"""Small operations on a GraphProto as it is, for libraries that take and give nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from graphlib import TopologicalSorter

import onnx

from onnx_harness.model.constants import constant_tensor
from onnx_harness.model.ops import is_standard
from onnx_harness.model.walk import graphs, reads, walk

_LIFTED = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})


def value_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all values of a graph and of the graphs inside it."""
    return value_names_of(graphs(graph))


def value_names_of(models_graphs: Iterable[onnx.GraphProto]) -> set[str]:
    """Return the names of all values of graphs, those inside them left out."""
    names: set[str] = set()
    for graph in models_graphs:
        names.update(info.name for info in (*graph.input, *graph.output))
        names.update(tensor.name for tensor in graph.initializer)
        names.update(sparse.values.name for sparse in graph.sparse_initializer)
        for node in graph.node:
            # A list of a repeated field takes half the time that going through the field does.
            names.update(node.input[:])
            names.update(node.output[:])
    return names


def fresh_name(stem: str, taken: set[str]) -> str:
    """Return ``stem``, or ``stem_1`` and so on: one that isn't taken, and is from now on.

    Where the numbers that are taken have no gap it's the next one. It's looked for by doubling and
    halving: going through all of them costs minutes in a graph of 20,000 nodes.
    """
    name = stem
    if stem in taken:
        last_taken, free = 0, 1
        while f"{stem}_{free}" in taken:
            last_taken, free = free, 2 * free
        while free - last_taken > 1:
            middle = (last_taken + free) // 2
            if f"{stem}_{middle}" in taken:
                last_taken = middle
            else:
                free = middle
        name = f"{stem}_{free}"
    taken.add(name)
    return name


def rename(
    graph: onnx.GraphProto, value: Callable[[str], str], node_name: Callable[[str], str]
) -> None:
    """Rename all values and nodes of a graph and of the graphs inside it; "" stays "".

    Args:
        graph: changed in place, its inputs and outputs included.
        value: returns the new name of a value, of whatever graph.
        node_name: returns the new name of a node.
    """
    for inner in graphs(graph):
        for info in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
            info.name = value(info.name)
        for sparse in inner.sparse_initializer:
            sparse.values.name = value(sparse.values.name)
        for annotation in inner.quantization_annotation:
            annotation.tensor_name = value(annotation.tensor_name)
            for entry in annotation.quant_parameter_tensor_names:
                entry.value = value(entry.value)
        for node in inner.node:
            node.input[:] = [value(name) if name else "" for name in node.input]
            node.output[:] = [value(name) if name else "" for name in node.output]
            node.name = node_name(node.name) if node.name else ""


def retype(kind: onnx.TypeProto, old: int, new: int) -> None:
    """Change a declared type's elements of type ``old`` to ``new``.

    Those of sequences, optionals and maps change too.
    """
    match kind.WhichOneof("value"):
        case "tensor_type":
            if kind.tensor_type.elem_type == old:
                kind.tensor_type.elem_type = new
        case "sequence_type":
            retype(kind.sequence_type.elem_type, old, new)
        case "optional_type":
            retype(kind.optional_type.elem_type, old, new)
        case "map_type":
            retype(kind.map_type.value_type, old, new)


def unlist_constants(graph: onnx.GraphProto) -> None:
    """Take the initializers out of the graph's inputs, where IR versions below 4 list them."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in constants]
    graph.ClearField("input")
    graph.input.extend(inputs)


def lift_constants(graph: onnx.GraphProto) -> None:
    """Make initializers of the graph's float Constant nodes, except of its outputs."""
    outputs = {info.name for info in graph.output}
    nodes = []
    for node in graph.node:
        tensor = constant_tensor(node) if is_standard(node, "Constant") else None
        if tensor is None or tensor.data_type not in _LIFTED or node.output[0] in outputs:
            nodes.append(node)
            continue
        lifted = graph.initializer.add()
        lifted.CopyFrom(tensor)
        lifted.name = node.output[0]
    replace_nodes(graph, nodes)


def bypass_identities(graph: onnx.GraphProto) -> None:
    """Read initializers themselves where an Identity hands them on, except to an output.

    Exporters share equal tensors so, and libraries look for a weight among initializers alone.
    """
    outputs = {info.name for info in graph.output}
    sources = {tensor.name: tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        constant = is_standard(node, "Identity") and node.input[0] in sources
        if not constant or node.output[0] in outputs:
            nodes.append(node)
            continue
        sources[node.output[0]] = sources[node.input[0]]
    if len(nodes) == len(graph.node):
        return
    replace_nodes(graph, nodes)
    for node in walk(graph):
        node.input[:] = [sources.get(name, name) for name in node.input]
    for body in graphs(graph):
        for info in body.output if body is not graph else ():
            info.name = sources.get(info.name, info.name)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node of the graph behind what it reads.

    What its bodies read from outside counts too.
    """
    made_by = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name:
                made_by[name] = index
    needs = {}
    for index, node in enumerate(graph.node):
        needs[index] = {made_by[name] for name in reads(node) if name in made_by} - {index}
    if any(need > index for index, needed in needs.items() for need in needed):
        replace_nodes(
            graph, [graph.node[index] for index in TopologicalSorter(needs).static_order()]
        )


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Let a graph have those nodes, in that order; they may be its own."""
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    graph.ClearField("node")
    graph.node.extend(copies)
