"""A map of the places in a model where a fault can be planted: nodes, constants and types."""

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

FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
)
BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8})

GraphPath = tuple[tuple[int, int, int], ...]
"""The way from the main graph to one inside it.

(node, attribute, position in ``graphs`` or -1 for ``g``) each time.
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A node, by the way to its graph and its position there."""

    graph: GraphPath
    node: int


@dataclass(frozen=True, slots=True)
class ValueType:
    """A value's type, from shape inference or the model; a dimension that isn't static is None."""

    dtype: int
    dims: tuple[int | None, ...] | None


@dataclass(slots=True)
class _Scope:
    """The values that the names in a graph refer to, the graphs around it included."""

    constants: dict[str, TensorProto] = field(default_factory=dict)
    types: dict[str, ValueType] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)


class Atlas:
    """A model with its nodes and constants. External data is read when it's needed."""

    def __init__(
        self, model: onnx.ModelProto, folder: Path, inferred: onnx.ModelProto | None = None
    ) -> None:
        """Walk the model.

        Args:
            model: with its tensors, or with references to external data in ``folder``.
            folder: where external data lies.
            inferred: the same nodes after shape inference; None: only what the model itself
                declares is known.
        """
        self.model = model
        self.folder = folder
        self.opset = opset_of(model)
        self.nodes: list[tuple[Site, onnx.NodeProto]] = []
        self._scopes: dict[GraphPath, _Scope] = {}
        typed = model if inferred is None else inferred
        self._walk((), model.graph, _Scope(), typed.graph)

    def node(self, site: Site) -> onnx.NodeProto:
        """Return the node at ``site``."""
        node: onnx.NodeProto = graph_at(self.model, site.graph).node[site.node]
        return node

    def tensor(self, site: Site, name: str) -> TensorProto | None:
        """Return the constant ``name`` at ``site``: an initializer or a Constant node's value."""
        return self._scopes[site.graph].constants.get(name)

    def constant(self, site: Site, slot: int) -> TensorProto | None:
        """Return the constant that the node at ``site`` reads as input ``slot``, or None."""
        names = self.node(site).input
        if slot >= len(names) or not names[slot]:
            return None
        return self.tensor(site, names[slot])

    def array(self, tensor: TensorProto) -> Array:
        """Return a copy of a constant's values, from wherever they are stored."""
        values = numpy_helper.to_array(tensor, str(self.folder))
        return np.array(values)

    def value_type(self, site: Site, name: str) -> ValueType | None:
        """Return the type of the value ``name`` at ``site``, as far as it's known."""
        tensor = self.tensor(site, name)
        if tensor is not None:
            return ValueType(tensor.data_type, tuple(tensor.dims))
        return self._scopes[site.graph].types.get(name)

    def is_float(self, site: Site, name: str) -> bool:
        """True where that value is known to be a tensor of floating-point numbers."""
        value_type = self.value_type(site, name)
        return value_type is not None and value_type.dtype in FLOATS

    def readers(self, site: Site, name: str) -> Sequence[onnx.NodeProto]:
        """Return the nodes of the same graph that read ``name``."""
        return self._scopes[site.graph].readers.get(name, ())

    def _walk(
        self,
        path: GraphPath,
        graph: onnx.GraphProto,
        outer: _Scope,
        inferred: onnx.GraphProto,
    ) -> None:
        scope = _scope(graph, outer, inferred)
        self._scopes[path] = scope
        for index, node in enumerate(graph.node):
            self.nodes.append((Site(path, index), node))
            twin = inferred.node[index] if index < len(inferred.node) else node
            for number, attribute in enumerate(node.attribute):
                typed = twin.attribute[number] if number < len(twin.attribute) else attribute
                for position, inner in _graphs(attribute):
                    step = (index, number, position)
                    self._walk((*path, step), inner, scope, _graph_of(typed, position))


def _scope(graph: onnx.GraphProto, outer: _Scope, inferred: onnx.GraphProto) -> _Scope:
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
    return scope


def graph_at(model: onnx.ModelProto, path: GraphPath) -> onnx.GraphProto:
    """Return the graph at the end of ``path``."""
    graph = model.graph
    for node, attribute, position in path:
        graph = _graph_of(graph.node[node].attribute[attribute], position)
    return graph


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """Return the attributes of a node by name, as Python values."""
    value_of = onnx.helper.get_attribute_value
    return {attribute.name: value_of(attribute) for attribute in node.attribute}


def _graph_of(attribute: onnx.AttributeProto, position: int) -> onnx.GraphProto:
    return attribute.g if position < 0 else attribute.graphs[position]


def _graphs(attribute: onnx.AttributeProto) -> Iterator[tuple[int, onnx.GraphProto]]:
    if attribute.HasField("g"):
        yield -1, attribute.g
    yield from enumerate(attribute.graphs)


def _value_type(tensor: onnx.TypeProto.Tensor) -> ValueType:
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    dims = tuple(_static(dim) for dim in tensor.shape.dim)
    return ValueType(tensor.elem_type, dims)


def _static(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    if not dim.HasField("dim_value") or dim.dim_value < 0:
        return None
    return dim.dim_value
