"""Where a float16 model would overflow, though a provider that computes in float32 doesn't show it.

ONNX Runtime's CPU provider puts Casts around float32 kernels, and leaves out those that undo one another: a product of
1e5 between two such kernels is 1e5. On hardware that computes in float16 it's infinite. So the model is brought to
float32 mechanically, every value that was float16 is watched while it runs, and its greatest magnitude is held against
what float16 can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.narrow_types import NARROW, graphs, narrow_by_graph
from onnx_harness.judging.simulation import DTYPES, PREFIX, promote, with_rounded
from onnx_harness.model.file import subgraphs
from onnx_harness.model.inlining import inline_functions
from onnx_harness.providers.profile import MOVES

LARGEST = 65504.0
OVERFLOWS = 65520.0
"""Half-way between the largest float16 and the power of two after it: from here on, rounding gives infinity."""

_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
OUTPUT = f"{PREFIX}_found"
_BODIES = {"If", "Loop", "Scan"}

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

    What lies behind an operator that neither ONNX nor ONNX Runtime knows isn't among them.
    """
    return frozenset(_narrow_values(skeleton, frozenset({_HALF})))


def computes_in_half(skeleton: onnx.ModelProto) -> bool:
    """Whether a model asks for arithmetic in float16: weights kept in it and Casts alone are none."""
    return any(True for _ in nodes_in_half(skeleton))


def computes_in_narrow(skeleton: onnx.ModelProto) -> bool:
    """Whether a model asks for arithmetic in float16 or bfloat16."""
    return any(True for _ in _nodes_in(skeleton, NARROW))


def nodes_in_half(skeleton: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes that compute with float16 values, subgraphs and functions included; moves and Casts don't."""
    return _nodes_in(skeleton, frozenset({_HALF}))


def _narrow_values(skeleton: onnx.ModelProto, kinds: frozenset[int]) -> Iterator[str]:
    if _mentions(skeleton.graph, kinds):
        for narrow in narrow_by_graph(skeleton):
            yield from (name for name, kind in narrow.items() if kind in kinds)


def _nodes_in(skeleton: onnx.ModelProto, kinds: frozenset[int]) -> Iterator[onnx.NodeProto]:
    inlined = inline_functions(skeleton)
    half = frozenset(_narrow_values(inlined, kinds))
    if not half:
        return
    for graph in graphs(inlined.graph):
        for node in graph.node:
            if node.op_type not in MOVES and half.intersection((*node.input, *node.output)):
                yield node


def watch(model: onnx.ModelProto, skeleton: onnx.ModelProto, *, with_empty: bool = False) -> Watched:
    """Bring a model to float32 and watch what was float16 in it.

    Args:
        model: with its weights; it's used up.
        skeleton: the same without the data of large tensors.
        with_empty: tensors without elements are expected. They cost a copy of every value.
    """
    half = half_values(inline_functions(skeleton))
    model = inline_functions(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    promote(model.graph, frozenset({_HALF}))
    watcher = _Watcher(half, opset, with_empty, _readers(model.graph))
    vector, places = watcher.watch(model.graph)
    if vector is not None:
        model.graph.initializer.extend(watcher.constants())
        model.graph.node.append(helper.make_node("Identity", [vector], [OUTPUT]))
        model.graph.output.append(helper.make_tensor_value_info(OUTPUT, _FLOAT, [len(places)]))
    return Watched(model, tuple(places))


def rounded(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """The model with those float32 values rounded to float16 and back as they are made: what overflows is infinite."""
    wanted = dict.fromkeys(values, int(_HALF))
    for graph in graphs(model.graph):
        nodes: list[onnx.NodeProto] = []
        for node in list(graph.node):
            nodes += with_rounded(node, wanted)
        del graph.node[:]
        graph.node.extend(nodes)
    return model


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


def _mentions(graph: onnx.GraphProto, kinds: frozenset[int]) -> bool:
    for each in graphs(graph):
        if any(tensor.data_type in kinds for tensor in each.initializer):
            return True
        if any(info.type.tensor_type.elem_type in kinds for info in each.input):
            return True
        for node in each.node:
            for attribute in node.attribute:
                if attribute.t.data_type in kinds or (attribute.name in DTYPES and attribute.i in kinds):
                    return True
    return False


@dataclass(slots=True)
class _Watcher:
    """Adds, to a graph and those inside it, what gives the magnitudes as one vector a graph."""

    half: frozenset[str]
    opset: int
    with_empty: bool
    readers: dict[str, list[tuple[str, str]]]
    _made: int = 0
    _flat: str = f"{PREFIX}_flat"
    _zero: str = f"{PREFIX}_zero"

    def constants(self) -> list[onnx.TensorProto]:
        """What the added nodes read, from any graph: they belong to the main one."""
        return [
            numpy_helper.from_array(np.array([-1], np.int64), self._flat),
            numpy_helper.from_array(np.zeros(1, np.float32), self._zero),
        ]

    def watch(self, graph: onnx.GraphProto) -> tuple[str | None, list[Place]]:
        """Add to ``graph`` what gives one vector; its name, None when there's nothing to watch, and what it tells."""
        nodes: list[onnx.NodeProto] = []
        parts: list[str] = []
        places: list[Place] = []
        for node in list(graph.node):
            inner: list[onnx.NodeProto] = []
            if node.op_type in _BODIES and node.domain in ("", "ai.onnx"):
                vector, found = self._inside(node, inner)
                if vector is not None:
                    parts.append(vector)
                    places += found
            nodes += [node, *inner]
            if self._can_grow(node):
                for name in node.output:
                    if name in self.half and not self._passes(name):
                        parts.append(self._magnitude(name, nodes))
                        places.append(Place(name, node.name, node.op_type, tuple(self._computing(name))))
        if not parts:
            return None, []
        vector = self._name()
        nodes.append(helper.make_node("Concat", parts, [vector], axis=0))
        del graph.node[:]
        graph.node.extend(nodes)
        return vector, places

    def _passes(self, name: str) -> bool:
        """Whether nothing comes of an overflow, or what does shows behind the only reader: such pairs stay fused."""
        ops = [op for _, op in self.readers.get(name, ())]
        return ops == ["Relu"] or (bool(ops) and _SATURATE.issuperset(ops))

    def _computing(self, name: str) -> Iterator[tuple[str, str]]:
        return (reader for reader in self.readers.get(name, ()) if reader[1] and reader[1] not in MOVES)

    def _can_grow(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Cast":  # from a float32 that float16 may not hold; a weight's is ours
            return node.input[0] not in self.half and not node.input[0].startswith(PREFIX)
        if node.op_type == "Relu":
            return self._passes(node.input[0])
        return node.op_type not in _NEVER_GROW and node.op_type not in _BODIES

    def _magnitude(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """The greatest |x| of a value, as a vector of one element."""
        flat, absolute, greatest = self._name(), self._name(), self._name()
        nodes.append(helper.make_node("Reshape", [name, self._flat], [flat]))
        if self.with_empty:
            flat, short = self._name(), flat
            nodes.append(helper.make_node("Concat", [short, self._zero], [flat], axis=0))
        nodes.append(helper.make_node("Abs", [flat], [absolute]))
        nodes.append(helper.make_node("ReduceMax", [absolute], [greatest], keepdims=1))
        return greatest

    def _inside(self, node: onnx.NodeProto, after: list[onnx.NodeProto]) -> tuple[str | None, list[Place]]:
        """The vector of the graphs inside ``node``, brought outside as one more output of it."""
        bodies = list(subgraphs(node))
        found = [self.watch(body) for body in bodies]
        places = [place for _, inside in found for place in inside]
        if not places:
            return None, []
        before = 0
        for body, (vector, inside) in zip(bodies, found, strict=True):
            # Branches give vectors of one length: zeros stand for what another branch tells.
            padding = [(before, True), (len(places) - before - len(inside), False)]
            parts = [vector] if vector is not None else []
            for count, first in padding:
                if count:
                    zeros = self._name()
                    tensor = numpy_helper.from_array(np.zeros(count, np.float32), zeros)
                    body.node.append(helper.make_node("Constant", [], [zeros], value=tensor))
                    parts.insert(0, zeros) if first else parts.append(zeros)
            told = self._name()
            body.node.append(helper.make_node("Concat", parts, [told], axis=0))
            carried = len(body.output) - (node.op_type == "Loop")  # a Loop's condition isn't among its outputs
            body.output.append(helper.make_tensor_value_info(told, _FLOAT, [len(places)]))
            before += len(inside)
        while len(node.output) < carried:
            node.output.append("")
        outside = self._name()
        node.output.append(outside)
        if node.op_type == "If":
            return outside, places
        for attribute in node.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.append(0)
        return self._over_iterations(outside, len(places), after), places

    def _over_iterations(self, stacked: str, count: int, after: list[onnx.NodeProto]) -> str:
        """The greatest of every element over the iterations; zeros where there was none."""
        zeros, rows, table, all_rows, greatest = (self._name() for _ in range(5))
        tensor = numpy_helper.from_array(np.zeros((1, count), np.float32), zeros)
        after.append(helper.make_node("Constant", [], [zeros], value=tensor))
        shape = numpy_helper.from_array(np.array([-1, count], np.int64), rows)
        after.append(helper.make_node("Constant", [], [rows], value=shape))
        after.append(helper.make_node("Reshape", [stacked, rows], [table]))
        after.append(helper.make_node("Concat", [table, zeros], [all_rows], axis=0))
        if self.opset < 18:
            after.append(helper.make_node("ReduceMax", [all_rows], [greatest], axes=[0], keepdims=0))
        else:
            axes = self._name()
            value = numpy_helper.from_array(np.zeros(1, np.int64), axes)
            after.append(helper.make_node("Constant", [], [axes], value=value))
            after.append(helper.make_node("ReduceMax", [all_rows, axes], [greatest], keepdims=0))
        return greatest

    def _name(self) -> str:
        self._made += 1
        return f"{PREFIX}_{self._made}"
