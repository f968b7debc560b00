"""Where a float16 model would overflow, though a provider that computes in float32 doesn't show it.

ONNX Runtime's CPU provider puts Casts around float32 kernels, and leaves out those that undo one another: a product of
1e5 between two such kernels is 1e5. On hardware that computes in float16 it's infinite. So the model is brought to
float32 mechanically, every value that was float16 is watched while it runs, and its greatest magnitude is held against
what float16 can say. The same model with each such value rounded as it's made computes as float16 does on hardware.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.inference import infer_types
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import TYPE_ATTRIBUTES, is_standard
from onnx_harness.model.rewrite import replace_nodes, retype
from onnx_harness.model.walk import graphs, subgraphs, walk
from onnx_harness.model.watch import watch as watch_values
from onnx_harness.providers.profile import COMPUTES_NOTHING

LARGEST = 65504.0
OVERFLOWS = 65520.0
"""Half-way between the largest float16 and the power of two after it: from here on, rounding gives infinity."""

_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
PREFIX = "onnx_harness_range"
"""How names begin that are put into a model here."""
OUTPUT = f"{PREFIX}_found"
_BODIES = {"If", "Loop", "Scan"}

# What these give of float16 numbers are float16 numbers. A Cast isn't among them, nor a Scatter, which may add.
_EXACT = COMPUTES_NOTHING - {"Cast", "CastLike", "ScatterElements", "ScatterND"}

# What these give is no larger than what they take, or than 1, so what flows into them tells as much.
_NEVER_GROW = frozenset(
    {
        "Abs", "AveragePool", "Ceil", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape", "Cos",
        "DepthToSpace", "Dropout", "Erf", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
        "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "Max", "MaxPool", "Min", "Neg",
        "OneHot", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "Relu", "Reshape", "ReverseSequence", "Round",
        "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Tanh",
        "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
    }
)  # fmt: skip

# What these make of an infinity is what they make of the largest number.
_SATURATE = frozenset({"Erf", "HardSigmoid", "Sigmoid", "Tanh"})


@dataclass(frozen=True, slots=True)
class Place:
    """A float16 value that is watched.

    Attributes:
        value: its name.
        node: the name of the node that gives it; empty for an unnamed one.
        op: that node's op type.
        readers: the nodes that compute with it: name (empty for an unnamed one) and op type.
    """

    value: str
    node: str
    op: str
    readers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """``'scores' (Mul 'mul_3')``."""
        named = f" '{self.node}'" if self.node else ""
        return f"'{self.value}' ({self.op}{named})"


@dataclass(frozen=True, slots=True)
class Watched:
    """A model brought to float32, with one more output: the greatest magnitude of every value that was float16.

    Attributes:
        model: inputs and outputs that were float16 are float32.
        places: what the elements of that output, ``OUTPUT``, are about, in order. Empty: there is no such output.
    """

    model: onnx.ModelProto
    places: tuple[Place, ...]


def half_values(skeleton: onnx.ModelProto) -> frozenset[str]:
    """Names of the float16 values of a model, subgraphs included; its functions have to be inlined.

    Types come from ONNX's inference, so what lies behind an operator that it doesn't know isn't among them.
    """
    if not _mentions_half(skeleton.graph):
        return frozenset()
    inferred = infer_types(skeleton, required=True)
    return frozenset(_typed_half(inferred.graph))


def computes_in_half(skeleton: onnx.ModelProto) -> bool:
    """Whether a model asks for arithmetic in float16: weights kept in it and Casts alone are none."""
    return any(True for _ in nodes_in_half(skeleton))


def nodes_in_half(skeleton: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes that compute with float16 values, subgraphs and functions included; moves and Casts don't."""
    inlined = inline_functions(skeleton)
    half = half_values(inlined)
    if not half:
        return
    for node in walk(inlined.graph):
        if node.op_type not in COMPUTES_NOTHING and half.intersection((*node.input, *node.output)):
            yield node


def unknown_in_half(skeleton: onnx.ModelProto) -> list[str]:
    """Return the operators outside ONNX's own domain that take float16 and whose outputs have no known type.

    Returns:
        ``domain:op``, in the order of their names.
    """
    inlined = inline_functions(skeleton)
    inferred = infer_types(inlined, required=True)
    half = frozenset(_typed_half(inferred.graph))
    unknown = set()
    for graph in graphs(inferred.graph):
        typed = {info.name for info in (*graph.value_info, *graph.output)}
        for node in graph.node:
            foreign = not is_standard(node) and half.intersection(node.input)
            if foreign and not typed.issuperset(filter(None, node.output)):
                unknown.add(f"{node.domain}:{node.op_type}")
    return sorted(unknown)


def watch(model: onnx.ModelProto, skeleton: onnx.ModelProto, *, with_empty: bool = False) -> Watched:
    """Bring a model to float32 and watch what was float16 in it.

    Args:
        model: with its weights; it's used up.
        skeleton: the same without the data of large tensors.
        with_empty: tensors without elements are expected. They cost a copy of every value.
    """
    half = half_values(inline_functions(skeleton))
    model = inline_functions(model)
    _promote(model.graph)
    places = watch_values(model, _Choice(half, _readers(model.graph)), OUTPUT, with_empty=with_empty)
    return Watched(model, tuple(places))


def rounded(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """The model with those float32 values rounded to float16 and back as they are made: what overflows is infinite."""
    wanted = frozenset(values)
    for graph in graphs(model.graph):
        nodes: list[onnx.NodeProto] = []
        for node in list(graph.node):
            nodes += _with_rounded(node, wanted)
        replace_nodes(graph, nodes)
    return model


def simulated(model: onnx.ModelProto, skeleton: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a model to float32 and round through float16, as it is made, every value that was float16.

    What a node gives is rounded once, to nearest, subnormal numbers kept and what is too large infinite. Within the
    node all is float32: the sums of MatMul, Gemm, Conv and the reductions, and the steps of Softmax or of a
    normalization, as with float32 accumulators on hardware. What was float32, as where nodes are blocked from the
    conversion, stays as it is. So does what an operator that ONNX doesn't know gives, and what follows from that alone.

    The inputs that were float16 have to be given float16 numbers. The result has to run with ONNX Runtime's
    optimizations disabled.

    Args:
        model: with its weights; it's used up.
        skeleton: the same without the data of large tensors.
    """
    typed = _half_by_graph(inline_functions(skeleton))
    model = inline_functions(model)
    _promote(model.graph)
    for graph, half in zip(graphs(model.graph), typed, strict=True):
        nodes: list[onnx.NodeProto] = []
        for node in list(graph.node):
            nodes += _with_rounded(node, half if _rounds(node) else ())
        replace_nodes(graph, nodes)
    return model


def _half_by_graph(skeleton: onnx.ModelProto) -> list[frozenset[str]]:
    """The float16 values of each graph, in the order of ``_graphs``: branches may use one name for different types."""
    inferred = infer_types(skeleton, required=True)
    return [frozenset(_typed_half_in(graph)) for graph in graphs(inferred.graph)]


def _rounds(node: onnx.NodeProto) -> bool:
    """Whether a node may give what isn't a float16 number, though it takes nothing else."""
    if node.op_type == "Cast":
        return not node.input[0].startswith(PREFIX)  # a weight's is ours
    return not (is_standard(node) and node.op_type in _EXACT)


def _with_rounded(node: onnx.NodeProto, values: Collection[str]) -> list[onnx.NodeProto]:
    """The node, and what rounds those of its outputs to float16 and back."""
    nodes = [node]
    for index, name in enumerate(node.output):
        if name in values:
            raw, half = f"{PREFIX}_raw_{name}", f"{PREFIX}_half_{name}"
            node.output[index] = raw
            nodes.append(helper.make_node("Cast", [raw], [half], to=_HALF))
            nodes.append(helper.make_node("Cast", [half], [name], to=_FLOAT))
    return nodes


def _readers(graph: onnx.GraphProto) -> dict[str, list[tuple[str, str]]]:
    """Who reads each value: node names and op types; an output of a graph is read by nobody that is named."""
    readers: dict[str, list[tuple[str, str]]] = {}
    for each in graphs(graph):
        for node in each.node:
            for name in node.input:
                readers.setdefault(name, []).append((node.name, node.op_type))
        for info in each.output:
            readers.setdefault(info.name, []).append(("", ""))
    return readers


def _mentions_half(graph: onnx.GraphProto) -> bool:
    for each in graphs(graph):
        if any(tensor.data_type == _HALF for tensor in each.initializer):
            return True
        if any(info.type.tensor_type.elem_type == _HALF for info in each.input):
            return True
        for node in each.node:
            for attribute in node.attribute:
                if attribute.t.data_type == _HALF or (attribute.name in TYPE_ATTRIBUTES and attribute.i == _HALF):
                    return True
    return False


def _typed_half(graph: onnx.GraphProto) -> Iterator[str]:
    for each in graphs(graph):
        yield from _typed_half_in(each)


def _typed_half_in(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer if tensor.data_type == _HALF)
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == _HALF:
            yield info.name


def _promote(graph: onnx.GraphProto, *, main: bool = True) -> None:
    """Float16 becomes float32, in everything that states a type. Weights stay as they are, with a Cast behind each."""
    graph.ClearField("value_info")
    if main:  # below IR version 4 weights are listed as inputs; nobody feeds them here
        weights = {tensor.name for tensor in graph.initializer}
        fed = [info for info in graph.input if info.name not in weights]
        del graph.input[:]
        graph.input.extend(fed)
    for info in (*graph.input, *graph.output):
        retype(info.type, _HALF, _FLOAT)
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == _HALF:
            name, tensor.name = tensor.name, f"{PREFIX}_weight_{tensor.name}"
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=_FLOAT))
    for sparse in graph.sparse_initializer:
        _single(sparse.values)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == _HALF:
                attribute.i = _FLOAT
            for tensor in (attribute.t, *attribute.tensors, attribute.sparse_tensor.values):
                _single(tensor)
            retype(attribute.tp, _HALF, _FLOAT)
        for body in subgraphs(node):
            _promote(body, main=False)
    if casts:
        nodes = [*casts, *graph.node]
        replace_nodes(graph, nodes)


def _single(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


@dataclass(frozen=True, slots=True)
class _Choice:
    """The float16 values that are watched: those that computing makes, and that may grow."""

    half: frozenset[str]
    readers: dict[str, list[tuple[str, str]]]

    def __call__(self, node: onnx.NodeProto) -> Iterator[tuple[str, Place]]:
        """Yield the outputs of a node that are watched."""
        if self._can_grow(node):
            for name in node.output:
                if name in self.half and not self._passes(name):
                    yield name, Place(name, node.name, node.op_type, tuple(self._computing(name)))

    def _passes(self, name: str) -> bool:
        """Whether nothing comes of an overflow, or what does shows behind the only reader: such pairs stay fused."""
        ops = [op for _, op in self.readers.get(name, ())]
        return ops == ["Relu"] or (bool(ops) and _SATURATE.issuperset(ops))

    def _computing(self, name: str) -> Iterator[tuple[str, str]]:
        return (reader for reader in self.readers.get(name, ()) if reader[1] and reader[1] not in COMPUTES_NOTHING)

    def _can_grow(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Cast":  # from a float32 that float16 may not hold; a weight's is ours
            return node.input[0] not in self.half and not node.input[0].startswith(PREFIX)
        if node.op_type == "Relu":
            return self._passes(node.input[0])
        return node.op_type not in _NEVER_GROW and node.op_type not in _BODIES
