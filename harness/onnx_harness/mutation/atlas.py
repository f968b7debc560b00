"""A model as a map of the places where a fault can be planted: its nodes, the constants they read, types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnx_harness.model.constants import constant_tensor
from onnx_harness.model.ops import is_standard, opset_of

Array = NDArray[Any]

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8})

GraphPath = tuple[tuple[int, int, int], ...]
"""The way from the main graph to one inside it: (node, attribute, position in ``graphs`` or -1 for ``g``) each time."""


@dataclass(frozen=True, slots=True)
class Site:
    """A node, by the way to its graph and its position there."""

    graph: GraphPath
    node: int


@dataclass(frozen=True, slots=True)
class ValueType:
    """What shape inference or the model itself says of a value; a dimension that isn't static is None."""

    dtype: int
    dims: tuple[int | None, ...] | None


@dataclass(slots=True)
class _Scope:
    """What the names in one graph mean, the graphs around it included."""

    constants: dict[str, TensorProto] = field(default_factory=dict)
    types: dict[str, ValueType] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)


class Atlas:
    """A model with its nodes and constants at hand. External data is read when it's asked for."""

    def __init__(self, model: onnx.ModelProto, folder: Path, inferred: onnx.ModelProto | None = None) -> None:
        """Walk the model.

        Args:
            model: with its tensors, or with references to external data in ``folder``.
            folder: where external data lies.
            inferred: the same nodes after shape inference; None: only what the model itself declares is known.
        """
        self.model = model
        self.folder = folder
        self.opset = opset_of(model)
        self.nodes: list[tuple[Site, onnx.NodeProto]] = []
        self._scopes: dict[GraphPath, _Scope] = {}
        self._walk((), model.graph, _Scope(), inferred.graph if inferred is not None else model.graph)

    def node(self, site: Site) -> onnx.NodeProto:
        """The node at ``site``."""
        node: onnx.NodeProto = graph_at(self.model, site.graph).node[site.node]
        return node

    def tensor(self, site: Site, name: str) -> TensorProto | None:
        """The constant that ``name`` means at ``site``: an initializer or what a Constant node holds."""
        return self._scopes[site.graph].constants.get(name)

    def constant(self, site: Site, slot: int) -> TensorProto | None:
        """The constant that the node at ``site`` reads as input ``slot``; None where it reads none there."""
        names = self.node(site).input
        return self.tensor(site, names[slot]) if slot < len(names) and names[slot] else None

    def array(self, tensor: TensorProto) -> Array:
        """The values of a constant, from wherever they are stored. A copy."""
        return np.array(numpy_helper.to_array(tensor, str(self.folder)))

    def value_type(self, site: Site, name: str) -> ValueType | None:
        """The type of the value that ``name`` means at ``site``, as far as it's known."""
        tensor = self.tensor(site, name)
        if tensor is not None:
            return ValueType(tensor.data_type, tuple(tensor.dims))
        return self._scopes[site.graph].types.get(name)

    def is_float(self, site: Site, name: str) -> bool:
        """Whether that value is known to be a tensor of floating-point numbers."""
        known = self.value_type(site, name)
        return known is not None and known.dtype in FLOATS

    def readers(self, site: Site, name: str) -> Sequence[onnx.NodeProto]:
        """The nodes of the same graph that read ``name``."""
        return self._scopes[site.graph].readers.get(name, ())

    def _walk(self, path: GraphPath, graph: onnx.GraphProto, outer: _Scope, inferred: onnx.GraphProto) -> None:
        scope = _Scope(dict(outer.constants), dict(outer.types))
        for info in (*inferred.value_info, *inferred.input, *inferred.output):
            if info.type.WhichOneof("value") == "tensor_type":
                scope.types[info.name] = _value_type(info.type.tensor_type)
                scope.constants.pop(info.name, None)
        for node in graph.node:
            for name in node.output:
                scope.constants.pop(name, None)  # an outer constant of that name is hidden
            tensor = constant_tensor(node) if is_standard(node, "Constant") else None
            if tensor is not None:
                scope.constants[node.output[0]] = tensor
            for name in node.input:
                scope.readers.setdefault(name, []).append(node)
        scope.constants.update({tensor.name: tensor for tensor in graph.initializer})
        self._scopes[path] = scope
        for index, node in enumerate(graph.node):
            self.nodes.append((Site(path, index), node))
            other = inferred.node[index] if index < len(inferred.node) else node
            for number, attribute in enumerate(node.attribute):
                twin = other.attribute[number] if number < len(other.attribute) else attribute
                for which, inner in _graphs(attribute):
                    twin_graph = twin.g if which < 0 else twin.graphs[which]
                    self._walk((*path, (index, number, which)), inner, scope, twin_graph)


def graph_at(model: onnx.ModelProto, path: GraphPath) -> onnx.GraphProto:
    """The graph at the end of ``path``."""
    graph = model.graph
    for node, attribute, which in path:
        held = graph.node[node].attribute[attribute]
        graph = held.g if which < 0 else held.graphs[which]
    return graph


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """The attributes of a node by name, as Python values."""
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _graphs(attribute: onnx.AttributeProto) -> Iterator[tuple[int, onnx.GraphProto]]:
    if attribute.HasField("g"):
        yield -1, attribute.g
    yield from enumerate(attribute.graphs)


def _value_type(tensor: onnx.TypeProto.Tensor) -> ValueType:
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim]
    return ValueType(tensor.elem_type, tuple(dims))
