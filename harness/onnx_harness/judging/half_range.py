"""Where a float16 model would overflow, though a provider that computes in float32 doesn't show it.

ONNX Runtime's CPU provider puts Casts around float32 kernels, and leaves out those that undo one
another: a product of 1e5 between two such kernels is 1e5. On hardware that computes in float16 it's
infinite. So the model is brought to float32 mechanically, every value that was float16 is watched
while it runs, and its greatest magnitude is held against what float16 can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from onnx_harness.judging.narrow_types import NARROW, narrow_by_graph
from onnx_harness.judging.simulation import PREFIX, promote, with_rounded
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import TYPE_ATTRIBUTES
from onnx_harness.model.rewrite import replace_nodes
from onnx_harness.model.walk import graphs, walk
from onnx_harness.model.watch import watch as watch_values
from onnx_harness.providers.profile import COMPUTES_NOTHING

LARGEST = 65504.0
OVERFLOWS = 65520.0
"""Half-way between the largest float16 and the power of two after it.

From here on, rounding gives infinity.
"""

_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
OUTPUT = f"{PREFIX}_found"
_BODIES = {"If", "Loop", "Scan"}

# What these give is no larger than what they take, or than 1, so what flows into them tells as
# much.
_NEVER_GROW = frozenset(
    {
        "Abs",
        "AveragePool",
        "Ceil",
        "Clip",
        "Compress",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Cos",
        "DepthToSpace",
        "Dropout",
        "Erf",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "OneHot",
        "Pad",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "Relu",
        "Reshape",
        "ReverseSequence",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Slice",
        "Softmax",
        "Softsign",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Tanh",
        "Tile",
        "TopK",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    }
)

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
    """A model brought to float32, with one more output.

    The greatest magnitude of every value that was float16.

    Attributes:
        model: inputs and outputs that were float16 are float32.
        places: what the elements of that output, ``OUTPUT``, are about, in order. Empty: there is
            no such output.
    """

    model: onnx.ModelProto
    places: tuple[Place, ...]


def half_values(skeleton: onnx.ModelProto) -> frozenset[str]:
    """Names of the float16 values of a model, subgraphs included; its functions have to be inlined.

    What lies behind an operator that neither ONNX nor ONNX Runtime knows isn't among them.
    """
    return frozenset(_narrow_values(skeleton, frozenset({_HALF})))


def computes_in_half(skeleton: onnx.ModelProto) -> bool:
    """Return whether a model asks for arithmetic in float16.

    Weights kept in it and Casts alone are none.
    """
    return any(True for _ in nodes_in_half(skeleton))


def computes_in_narrow(skeleton: onnx.ModelProto) -> bool:
    """Return whether a model asks for arithmetic in float16 or bfloat16."""
    return any(True for _ in _nodes_in(skeleton, NARROW))


def nodes_in_half(skeleton: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes that compute with float16 values, subgraphs and functions included.

    Moves and Casts don't.
    """
    return _nodes_in(skeleton, frozenset({_HALF}))


def _narrow_values(skeleton: onnx.ModelProto, kinds: frozenset[int]) -> Iterator[str]:
    if _mentions(skeleton.graph, kinds):
        for narrow in narrow_by_graph(skeleton):
            yield from (name for name, kind in narrow.items() if kind in kinds)


def _nodes_in(skeleton: onnx.ModelProto, kinds: frozenset[int]) -> Iterator[onnx.NodeProto]:
    inlined = inline_functions(skeleton)
    narrow = frozenset(_narrow_values(inlined, kinds))
    if not narrow:
        return
    for node in walk(inlined.graph):
        if node.op_type not in COMPUTES_NOTHING and narrow.intersection(
            (*node.input, *node.output)
        ):
            yield node


def watch(
    model: onnx.ModelProto, skeleton: onnx.ModelProto, *, with_empty: bool = False
) -> Watched:
    """Bring a model to float32 and watch what was float16 in it.

    Args:
        model: with its weights; it's used up.
        skeleton: the same without the data of large tensors.
        with_empty: tensors without elements are expected. They cost a copy of every value.
    """
    half = half_values(inline_functions(skeleton))
    model = inline_functions(model)
    promote(model.graph, frozenset({_HALF}))
    places = watch_values(
        model, _Choice(half, _readers(model.graph)), OUTPUT, with_empty=with_empty
    )
    return Watched(model, tuple(places))


def rounded(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """The model with those float32 values rounded to float16 and back as they are made.

    What overflows is infinite.
    """
    kinds = dict.fromkeys(values, int(_HALF))
    for graph in graphs(model.graph):
        nodes: list[onnx.NodeProto] = []
        for node in list(graph.node):
            nodes += with_rounded(node, kinds)
        replace_nodes(graph, nodes)
    return model


def _readers(graph: onnx.GraphProto) -> dict[str, list[tuple[str, str]]]:
    """Who reads each value: node names and op types.

    An output of a graph is read by nobody that is named.
    """
    readers: dict[str, list[tuple[str, str]]] = {}
    for inner in graphs(graph):
        for node in inner.node:
            for name in node.input:
                readers.setdefault(name, []).append((node.name, node.op_type))
        for info in inner.output:
            readers.setdefault(info.name, []).append(("", ""))
    return readers


def _mentions(graph: onnx.GraphProto, kinds: frozenset[int]) -> bool:
    for inner in graphs(graph):
        if any(tensor.data_type in kinds for tensor in inner.initializer):
            return True
        if any(info.type.tensor_type.elem_type in kinds for info in inner.input):
            return True
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.t.data_type in kinds or (
                    attribute.name in TYPE_ATTRIBUTES and attribute.i in kinds
                ):
                    return True
    return False


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
                    yield (
                        name,
                        Place(name, node.name, node.op_type, tuple(self._computing(name))),
                    )

    def _passes(self, name: str) -> bool:
        """Return whether nothing comes of an overflow, or what does shows behind the only reader.

        Such pairs stay fused.
        """
        ops = [op for _, op in self.readers.get(name, ())]
        return ops == ["Relu"] or (bool(ops) and _SATURATE.issuperset(ops))

    def _computing(self, name: str) -> Iterator[tuple[str, str]]:
        for reader in self.readers.get(name, ()):
            if reader[1] and reader[1] not in COMPUTES_NOTHING:
                yield reader

    def _can_grow(self, node: onnx.NodeProto) -> bool:
        # From a float32 that float16 may not hold; a weight's is ours.
        if node.op_type == "Cast":
            return node.input[0] not in self.half and not node.input[0].startswith(PREFIX)
        if node.op_type == "Relu":
            return self._passes(node.input[0])
        return node.op_type not in _NEVER_GROW and node.op_type not in _BODIES
