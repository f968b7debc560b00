"""An editable graph of a ModelProto, and back.

What onnx-ir can't hold waits aside and returns unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from onnx_harness.errors import NotApplicable
from onnx_harness.model.constants import NUMBER_TYPES
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.messages import copy_fields
from onnx_harness.model.ops import STANDARD_DOMAINS, opset_of
from onnx_harness.model.rewrite import fresh_name
from onnx_harness.model.walk import graphs, walk

# Of a tensor beside its name and its data: dimensions, type, tags and lengths.
_TENSOR_BYTES = 32
_PLAIN = "holds no graphs"
_PLACEHOLDER = "sparse tensor kept aside"


@dataclass(slots=True)
class Editing:
    """A graph under the knife, and the rest of its model.

    Attributes:
        graph: the main graph.
        model: the model that it came from; all but its graph is still valid.
        opset: version of the standard operators.
        functions: domain and name of each function of the model.
        sparse: the sparse attributes taken out, by the name of the placeholder tensor.
        names: every value name in use, in any graph.
        skeleton: the graph without its weights, as shape inference last saw it.
        referring: nodes with an attribute that refers to one of a function, though they're in none.
        opaque: names of shapes that stay computed: known, they would show that the model declares a
            false one.
    """

    graph: ir.Graph
    model: onnx.ModelProto
    opset: int
    functions: frozenset[tuple[str, str]]
    sparse: dict[str, onnx.AttributeProto]
    names: set[str] = field(default_factory=set)
    skeleton: onnx.ModelProto | None = None
    referring: frozenset[ir.Node] = frozenset()
    opaque: frozenset[str] = frozenset()

    def is_standard(self, node: ir.Node, *op_types: str) -> bool:
        """Return whether the node is a standard operator.

        By domain and name, and not redefined by a function of the model.

        One with an attribute that nobody gives a value isn't: the checker lets it pass, and no rule
        can read it.
        """
        if node.domain not in STANDARD_DOMAINS or (
            op_types and node.op_type not in op_types
        ):
            return False
        if self.referring and node in self.referring:
            return False
        # Asked of every node by every rule: most models have no functions.
        return not (
            self.functions
            and any((domain, node.op_type) in self.functions for domain in STANDARD_DOMAINS)
        )

    def fresh_name(self, stem: str) -> str:
        """A value name that isn't in use, and now is."""
        return fresh_name(stem, self.names)


def open_model(model: onnx.ModelProto) -> Editing:
    """Take a model apart.

    Raises:
        NotApplicable: a graph inside a node has sparse initializers.
    """
    if any(
        inner.sparse_initializer for inner in graphs(model.graph) if inner is not model.graph
    ):
        raise NotApplicable(
            "onnx-ir can't hold the sparse initializers of a graph inside a node"
        )
    source = model.graph
    sparse: dict[str, onnx.AttributeProto] = {}
    if _holds_the_unholdable(source):
        source = onnx.GraphProto()
        source.CopyFrom(model.graph)
        _take_out(source, sparse)
    editing = Editing(
        graph=ir.serde.deserialize_graph(source),
        model=model,
        opset=opset_of(model),
        functions=frozenset(
            (function.domain, function.name) for function in model.functions
        ),
        sparse=sparse,
    )
    if model.ir_version < FREE_INITIALIZERS:
        # Constants are taken off the list: an initializer among the inputs always is a default that
        # may be overridden.
        true_inputs = []
        for value in editing.graph.inputs:
            if not value.is_initializer():
                true_inputs.append(value)
        editing.graph.inputs.clear()
        editing.graph.inputs.extend(true_inputs)
    editing.graph.meta[_PLAIN] = len(list(all_graphs(editing.graph))) == 1
    nodes = set()
    for graph in all_graphs(editing.graph):
        for node in graph:
            if any(attribute.is_ref() for attribute in node.attributes.values()):
                nodes.add(node)
    editing.referring = frozenset(nodes)
    _make_names_unique(editing)
    return editing


def close_model(editing: Editing, in_place: bool = False) -> onnx.ModelProto:
    """Put the model together again.

    The edited graph, and all else, its inputs and outputs included, as it was.

    Args:
        editing: the graph; it is spent.
        in_place: into the model that was opened, whose weights stay where they are instead of being
            copied.
    """
    original = editing.model.graph
    initializers = frozenset(editing.graph.initializers)
    listed = [tensor.name for tensor in original.initializer]
    if in_place and not editing.sparse:
        model = editing.model
        _close_around_weights(editing)
    else:
        model = onnx.ModelProto()
        copy_fields(editing.model, model, but="graph")
        ir.serde.serialize_graph_into(model.graph, editing.graph)
        for name in ("input", "output", "sparse_initializer"):
            model.graph.ClearField(name)
            getattr(model.graph, name).extend(getattr(original, name))
    if model.ir_version < FREE_INITIALIZERS:
        _list_initializers(model.graph, listed)
    # onnx-ir writes the type and shape of every initializer a second time.
    described = []
    for info in model.graph.value_info:
        if info.name not in initializers:
            described.append(info)
    model.graph.ClearField("value_info")
    model.graph.value_info.extend(described)
    for node in walk(model.graph) if editing.sparse else ():
        for attribute in node.attribute:
            if attribute.t.doc_string == _PLACEHOLDER:
                attribute.CopyFrom(editing.sparse[attribute.t.name])
    return model


def _close_around_weights(editing: Editing) -> None:
    """Bring the edit into the model that was opened.

    Tensors that are still used are neither copied nor moved.
    """
    graph = editing.model.graph
    places = {id(tensor): index for index, tensor in enumerate(graph.initializer)}
    group: set[int] = set()
    for name, value in list(editing.graph.initializers.items()):
        place = (
            places.get(id(value.const_value.raw))
            if isinstance(value.const_value, ir.serde.TensorProtoTensor)
            else None
        )
        if place is not None and place not in group:
            group.add(place)
            graph.initializer[place].name = name
            del editing.graph.initializers[name]
    for index in reversed(range(len(graph.initializer))):
        if index not in group:
            del graph.initializer[index]
    # One after the other, each forgotten once it is written.
    for name, value in list(editing.graph.initializers.items()):
        if value.const_value is not None:
            ir.serde.serialize_tensor_into(graph.initializer.add(), value.const_value)
            graph.initializer[-1].name = name
            value.const_value = None
            del editing.graph.initializers[name]
    edited = onnx.GraphProto()
    ir.serde.serialize_graph_into(edited, editing.graph)
    for name in ("node", "value_info"):
        graph.ClearField(name)
        getattr(graph, name).extend(getattr(edited, name))


def _list_initializers(graph: onnx.GraphProto, before: Sequence[str]) -> None:
    """List every initializer as an input, and none that is gone: no caller sees these."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    gone = set(before) - initializers.keys()
    listed = [info for info in graph.input if info.name not in gone]
    new = initializers.keys() - {info.name for info in listed}
    graph.ClearField("input")
    graph.input.extend(listed)
    for name, tensor in initializers.items():
        if name in new:
            graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            )


def tensor_names(model: onnx.ModelProto) -> list[tuple[onnx.TensorProto, str | None]]:
    """Each tensor of the model, with its name, None without any.

    An edit that renames a value renames its tensor.
    """
    tensors = []
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            tensors.append(tensor)
    for node in walk(model.graph):
        attributes = []
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attributes.append(attribute.t)
        tensors += attributes
    return [(tensor, tensor.name if tensor.HasField("name") else None) for tensor in tensors]


def give_names(names: Sequence[tuple[onnx.TensorProto, str | None]]) -> None:
    """Let each tensor have that name again, or none."""
    for tensor, name in names:
        if name is None:
            tensor.ClearField("name")  # an empty one would be another byte in the file
        elif tensor.name != name:
            tensor.name = name


def footprint(editing: Editing, nodes: Iterable[onnx.NodeProto]) -> int:
    """About the bytes of the model as a file, its weights included.

    Comparable before and after an edit.

    Args:
        editing: the main graph's initializers and the functions are its own.
        nodes: of the main graph, as protos.
    """
    weights = 0
    for name, value in editing.graph.initializers.items():
        if value.const_value is not None:
            weights += value.const_value.nbytes + len(name) + _TENSOR_BYTES
    parts = (*nodes, *editing.model.functions)
    return int(weights + sum(part.ByteSize() for part in parts))


def ir_constant(node: ir.Node) -> ir.TensorProtocol | None:
    """Return what a Constant node of onnx-ir holds.

    The same as ``constant_tensor`` for a NodeProto; these tensors need no copy either.
    """
    (name, attribute), *others = node.attributes.items()
    if others or attribute.is_ref():
        return None
    if name == "value":
        # Not by `as_tensor`, which looks for each method of a tensor before it gives it out.
        return attribute.value if attribute.type == ir.AttributeType.TENSOR else None
    return (
        ir.tensor(np.array(attribute.value, NUMBER_TYPES[name]))
        if name in NUMBER_TYPES
        else None
    )


def inner_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a node holds as attributes, those inside them not included."""
    for attribute in node.attributes.values():
        # Asked of every node many times: types are compared by identity, and first.
        kind = attribute.type
        if kind is ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif kind is ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def all_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The graph and every graph inside it, outer ones first."""
    yield graph
    # No rule makes graphs, and looking for them is what takes most time.
    if graph.meta.get(_PLAIN):
        return
    for node in graph:
        for inner in inner_graphs(node):
            yield from all_graphs(inner)


def all_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """The node and every node inside it."""
    yield node
    for inner in inner_graphs(node):
        for body in inner:
            yield from all_nodes(body)


def _make_names_unique(editing: Editing) -> None:
    # A branch may call a value as another graph does. Moving a use from one graph into another
    # would then change what it refers to, so that every value gets a name of its own. Names inside
    # inner graphs are nobody's interface.
    for graph in all_graphs(editing.graph):
        initializers = list(graph.initializers.values())
        produced = []
        for node in graph:
            for value in node.outputs:
                produced.append(value)
        for value in dict.fromkeys((*graph.inputs, *initializers, *produced)):
            if value.name and value.name in editing.names:
                value.name = editing.fresh_name(value.name)
            elif value.name:
                editing.names.add(value.name)
    editing.names.update(
        tensor.values.name for tensor in editing.model.graph.sparse_initializer
    )


def _typed(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for inner in graphs(graph):
        yield from (*inner.input, *inner.output, *inner.value_info)


def _holds_map(kind: onnx.TypeProto) -> bool:
    match kind.WhichOneof("value"):
        case "map_type":
            return True
        case "sequence_type":
            return _holds_map(kind.sequence_type.elem_type)
        case "optional_type":
            return _holds_map(kind.optional_type.elem_type)
    return False


def _is_sparse(attribute: onnx.AttributeProto) -> bool:
    return attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors) > 0


def _holds_the_unholdable(graph: onnx.GraphProto) -> bool:
    return any(_holds_map(info.type) for info in _typed(graph)) or any(
        _is_sparse(attribute) for node in walk(graph) for attribute in node.attribute
    )


def _take_out(graph: onnx.GraphProto, sparse: dict[str, onnx.AttributeProto]) -> None:
    for info in _typed(graph):
        if _holds_map(info.type):
            info.ClearField("type")
    for node in walk(graph):
        for attribute in node.attribute:
            if _is_sparse(attribute):
                key = f"sparse_{len(sparse)}"
                sparse[key] = onnx.AttributeProto()
                sparse[key].CopyFrom(attribute)
                tensor = onnx.helper.make_tensor(
                    key, onnx.TensorProto.UINT8, [0], b"", raw=True
                )
                tensor.doc_string = _PLACEHOLDER
                attribute.CopyFrom(onnx.helper.make_attribute(sparse[key].name, tensor))
