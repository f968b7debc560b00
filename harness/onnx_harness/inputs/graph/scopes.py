"""A graph with its subgraphs and functions, seen from its values.

Who consumes them, which constants, which shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.model.constants import constant_tensor
from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import is_standard, opset_of
from onnx_harness.model.walk import subgraphs

KnownDims = tuple[int | str | None, ...]

_MOST_DEPTH = 12  # nested subgraphs and functions; deeper nesting is left unexplored
_FORWARDING = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten"})


@dataclass(eq=False)
class Scope:
    """The names of one graph, subgraph or function body.

    Attributes:
        nodes: of this body.
        outputs: names of its outputs, in order.
        inputs: names of its inputs, in order.
        parent: the scope around it, whose names it sees; None for a function, which sees none.
        owner: the scope and the node whose body this is.
    """

    nodes: list[onnx.NodeProto]
    inputs: list[str]
    outputs: list[str]
    parent: Scope | None = None
    owner: tuple[Scope, onnx.NodeProto] | None = None
    depth: int = 0
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dims: dict[str, KnownDims] = field(default_factory=dict)
    children: list[Scope] = field(default_factory=list)
    uses: dict[str, list[tuple[onnx.NodeProto, int]]] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.nodes:
            for slot, name in enumerate(node.input):
                if name:
                    self.uses.setdefault(name, []).append((node, slot))
            self.producers.update(dict.fromkeys(filter(None, node.output), node))

    def consumers(self, name: str) -> Iterator[tuple[Scope, onnx.NodeProto, int]]:
        """Every node that takes ``name``, with the slot it takes it in.

        Nodes of nested bodies too.
        """
        for node, slot in self.uses.get(name, ()):
            yield self, node, slot
        for child in self.children:
            if child.parent is self and not child.defines(name):
                yield from child.consumers(name)

    def defines(self, name: str) -> bool:
        """Return whether the name is this body's own."""
        return name in self.producers or name in self.inputs or name in self.initializers

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """The value of a constant, seen through Cast, Reshape and their like.

        None when it isn't one or isn't here.

        Reshaping is not followed to the letter: only the values and their order are meant.
        """
        for _ in range(_MOST_DEPTH):
            scope = self._home(name)
            if scope is None:
                return None
            if name in scope.initializers:
                return _array(scope.initializers[name])
            node = scope.producers.get(name)
            if node is None:
                return None
            if is_standard(node, "Constant"):
                tensor = constant_tensor(node)
                return None if tensor is None else _array(tensor)
            if node.op_type not in _FORWARDING:
                return None
            name = node.input[0]
        return None

    def counted(self, name: str) -> int | str | None:
        """Return how many steps a value counts off, 0, 1, 2 …: a number, a dimension, or ``?``.

        None where it doesn't.
        """
        constant = self.constant(name)
        if constant is not None:
            row = constant.reshape(-1)
            return (
                row.size
                if row.size > 1 and np.array_equal(row, np.arange(row.size))
                else None
            )
        for _ in range(_MOST_DEPTH):
            scope = self._home(name)
            node = None if scope is None else scope.producers.get(name)
            if scope is None or node is None:
                return None
            if node.op_type == "Range":
                start = scope.constant(node.input[0])
                (size,) = scope.shape(name) or (None,)
                return None if start is None or start.any() else size or "?"
            if node.op_type not in (*_FORWARDING, "Expand"):
                return None
            name = node.input[0]
        return None

    def shape(self, name: str) -> KnownDims | None:
        """Return what is known of a value's shape.

        Sizes, names of dimensions, None for an unknown one.
        """
        scope = self._home(name)
        if scope is None:
            return None
        if name in scope.initializers:
            return tuple(scope.initializers[name].dims)
        node = scope.producers.get(name)
        tensor = (
            constant_tensor(node)
            if node is not None and is_standard(node, "Constant")
            else None
        )
        if tensor is not None:
            return tuple(tensor.dims)
        return scope.dims.get(name)

    def learn(self, dims_by_name: Mapping[str, Sequence[object]]) -> None:
        """Take over sizes and names of dimensions for values of this body."""
        for name, dims in dims_by_name.items():
            earlier = self.dims.get(name, (None,) * len(dims))
            if len(earlier) == len(dims):
                pairs = zip(dims, earlier, strict=True)
                joined = []
                for new, old in pairs:
                    joined.append(new if isinstance(new, int | str) else old)
                self.dims[name] = tuple(joined)

    def is_constant(self, name: str) -> bool:
        """Return whether it is an initializer or a Constant's output, its value here or not."""
        scope = self._home(name)
        if scope is None:
            return False
        node = scope.producers.get(name)
        return name in scope.initializers or (
            node is not None and is_standard(node, "Constant")
        )

    def _home(self, name: str) -> Scope | None:
        scope: Scope | None = self
        while scope is not None and not scope.defines(name):
            scope = scope.parent
        return scope


@dataclass(eq=False)
class GraphView:
    """The whole model: its main scope, and its functions by domain and name."""

    main: Scope
    functions: dict[tuple[str, str], onnx.FunctionProto]
    opset: int

    def called(self, scope: Scope, node: onnx.NodeProto) -> Scope | None:
        """A fresh scope for the body of the function that ``node`` calls.

        None when it calls none.
        """
        function = self.functions.get((node.domain, node.op_type))
        if function is None or scope.depth >= _MOST_DEPTH:
            return None
        body = Scope(
            list(function.node),
            list(function.input),
            list(function.output),
            owner=(scope, node),
            depth=scope.depth + 1,
        )
        _add_children(body)
        # What is constant for the caller is constant in the body.
        for formal, actual in zip(function.input, node.input, strict=False):
            if (dims := scope.shape(actual)) is not None:
                body.dims[formal] = dims
        return body


def view(model: onnx.ModelProto) -> GraphView:
    """Read ``model``, whose large initializers may have lost their values.

    Shapes are inferred where ONNX can.
    """
    inferred = infer_types(model)
    graph = (
        inferred.graph if len(inferred.graph.node) == len(model.graph.node) else model.graph
    )
    opset = opset_of(model)
    functions = {(function.domain, function.name): function for function in model.functions}
    return GraphView(_graph_scope(graph), functions, opset)


def _graph_scope(
    graph: onnx.GraphProto,
    parent: Scope | None = None,
    owner: tuple[Scope, onnx.NodeProto] | None = None,
) -> Scope:
    scope = Scope(
        list(graph.node),
        [info.name for info in graph.input],
        [info.name for info in graph.output],
        parent,
        owner,
        0 if parent is None else parent.depth + 1,
        {tensor.name: tensor for tensor in graph.initializer},
    )
    for info in (*graph.value_info, *graph.output, *graph.input):
        if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"):
            scope.dims[info.name] = tuple(
                _known(dim) for dim in info.type.tensor_type.shape.dim
            )
    _add_children(scope)
    return scope


def _add_children(scope: Scope) -> None:
    if scope.depth >= _MOST_DEPTH:
        return
    for node in scope.nodes:
        scope.children.extend(
            _graph_scope(body, scope, (scope, node)) for body in subgraphs(node)
        )


def _known(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.WhichOneof("value") == "dim_value":
        return int(dim.dim_value)
    return dim.dim_param or None


def _array(tensor: onnx.TensorProto) -> NDArray[np.generic] | None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception:
        # Its data was stripped.
        return None
