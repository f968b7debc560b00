"""A model that moves the last bits of its own float values.

Its constants, and what its step functions read.

A quantizer or a Round swallows the last bits of the inputs and turns those of a scale into a whole
step. So a model with such a function is measured with the bits behind it moved too. The moves are
drawn inside the model, with an input that says how far, so one session serves for any number of
draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.constants import named_constants
from onnx_harness.model.inference import infer_types
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import MOVES, opset_of
from onnx_harness.model.rewrite import replace_nodes
from onnx_harness.model.walk import graphs, subgraphs, walk

AMOUNT = "last_bits/amount"
"""The input that says how far values move: `ONE_UNIT`, or 0."""
EDGES = "last_bits/edges"
"""The same for what a step function reads: 0 on input sets whose values lie on an edge on purpose.
"""

# x + 0.75 * 2^-23 * x is always the next float32: between 0.75 and 1.5 units in the last place,
# rounded to one.
ONE_UNIT = np.array(0.75 * 2.0**-23, np.float32)
FOUR_UNITS = np.array(3.0 * 2.0**-23, np.float32)
NOTHING = np.array(0.0, np.float32)
# A float16 has 13 bits of fraction less.
_HALF_UNITS = 2.0**13

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_INTEGERS = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
    }
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
)
_SINCE = 9  # Where and Sign
# ONNX Runtime 1.32 has no kernel for RandomUniformLike from here on, and one for Dropout.
_WITHOUT_RANDOM = 22
_PRIME = 104_729

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_CHOICES = frozenset({"ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "TopK"})
_ROUNDINGS = frozenset({"Ceil", "Floor", "Round", "Sign"})
# Operators that round to integers by themselves, those of com.microsoft included.
_QUANTIZERS = frozenset(
    {
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "QuantizeLinear",
    }
    | {
        "QAttention",
        "QGemm",
        "QLinearAdd",
        "QLinearConv",
        "QLinearMatMul",
        "QLinearMul",
        "MatMulNBits",
    }
)
# What these give of a quantizer's levels are its levels, or 0.
_KEEP_LEVELS = MOVES | {"MaxPool", "Pad", "Relu"}
# What a level of ONNX Runtime sums in another order.
_SUMS = frozenset(
    {
        "AveragePool",
        "Conv",
        "ConvTranspose",
        "Einsum",
        "Gemm",
        "GlobalAveragePool",
        "MatMul",
        "ReduceMean",
    }
    | {"ReduceSum", "ReduceSumSquare", "ReduceL2"}
)


def has_steps(model: onnx.ModelProto) -> bool:
    """Return whether some float value of a model passes a step function, or is a float16.

    Arithmetic on shapes passes some too, but what it rounds are whole numbers, which are never
    moved.

    Args:
        model: its weights aren't needed.
    """
    types = _declared(model)
    return (
        any(
            _reads_step(node, slot, name, types)
            for node in walk(model.graph)
            for slot, name in enumerate(node.input)
        )
        or _HALF in types.values()
    )


def with_last_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with its last bits moved.

    Its float constants and its step functions' inputs move by one unit, up or down at random.

    Whole numbers stay. The model takes two more inputs, `AMOUNT` and `EDGES`: scalars of float32.

    Args:
        model: with its weights; it is left as it is.

    Raises:
        ValueError: the model's opset is too old.
        Exception: what onnx raises about a model that it can't infer the types of.
    """
    opset = opset_of(model)
    if opset < _SINCE:
        raise ValueError(
            f"moving last bits inside a model needs opset {_SINCE}, and it has {opset}"
        )
    inlined = inline_functions(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(infer_types(inlined, required=True))
    changed.graph.ClearField("initializer")
    changed.graph.initializer.extend(inlined.graph.initializer)
    _Mover(opset).move(changed.graph, {})
    for name in (AMOUNT, EDGES):
        changed.graph.input.append(helper.make_tensor_value_info(name, _FLOAT, []))
    return changed


def steps(model: onnx.ModelProto) -> dict[str, float]:
    """The distance of two neighbouring values of each output that is a step function of the rest.

    Args:
        model: with its weights.

    Returns:
        By output: the scale of its last quantizer, 1 after a rounding. Outputs with none are left
        out.
    """
    makers = {}
    for node in model.graph.node:
        for name in node.output:
            makers[name] = node
    constants = dict(named_constants(model.graph))
    sizes = {}
    for output in model.graph.output:
        size = _step_of(output.name, makers, constants)
        if size > 0:
            sizes[output.name] = size
    return sizes


def _step_of(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, TensorProto]
) -> float:
    node = makers.get(name)
    while node is not None and node.op_type in _KEEP_LEVELS:
        node = makers.get(node.input[0])
    if node is None:
        return 0.0
    if node.op_type in _ROUNDINGS or node.op_type in (
        "QuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
    ):
        return 1.0
    if node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return 0.0
    return float(np.abs(numpy_helper.to_array(constants[node.input[1]])).max(initial=0.0))


@dataclass(slots=True)
class _Mover:
    """Rewrites graphs so that their values move."""

    opset: int
    count: int = 0

    def move(self, graph: onnx.GraphProto, outer: Mapping[str, int]) -> None:
        """Change a graph and its bodies, in place.

        Args:
            graph: with the inferred types of its values.
            outer: the types of the values around it.
        """
        types = {**outer, **_types(graph)}
        # Exporters, and IR versions below 4, list constants as inputs.
        inputs = {info.name for info in graph.input} - {
            tensor.name for tensor in graph.initializer
        }
        movable = set()
        for name, tensor in named_constants(graph):
            if _moves(tensor):
                movable.add(name)
        compared = set()
        for node in graph.node:
            if node.op_type in _COMPARISONS:
                for name in node.input:
                    compared.add(name)
        coarse = _dequantized(graph)
        moved: dict[str, str] = {}
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            for slot, name in enumerate(node.input):
                constant = name in movable
                summed = name in coarse and node.op_type in _SUMS
                reads = _reads_step(node, slot, name, types) or types.get(name) == _HALF
                if name in inputs or not (constant or reads or summed):
                    continue
                if types.get(name) not in (_FLOAT, _HALF):
                    continue
                if name not in moved:
                    amount = (
                        AMOUNT if (constant or summed) and name not in compared else EDGES
                    )
                    added, moved[name] = self._moved(name, amount, half=types[name] == _HALF)
                    nodes += added
                node.input[slot] = moved[name]
            for body in subgraphs(node):
                self.move(body, types)
            nodes.append(node)
        replace_nodes(graph, nodes)

    def _moved(
        self, name: str, amount: str, *, half: bool
    ) -> tuple[list[onnx.NodeProto], str]:
        """The nodes that move a value, and the name of what they make of it."""
        self.count += 1
        stem = f"last_bits/{self.count}"
        source = f"{stem}/wide" if half else name
        nodes = [helper.make_node("Cast", [name], [source], to=_FLOAT)] if half else []
        if half:
            unit = numpy_helper.from_array(np.array(_HALF_UNITS, np.float32))
            nodes.append(helper.make_node("Constant", [], [f"{stem}/units"], value=unit))
            nodes.append(
                helper.make_node("Mul", [amount, f"{stem}/units"], [f"{stem}/amount"])
            )
            amount = f"{stem}/amount"

        def add(op_type: str, *read: str, **attributes: Any) -> str:
            result = f"{stem}/{len(nodes)}"
            nodes.append(helper.make_node(op_type, list(read), [result], **attributes))
            return result

        # The seed makes one session's draws the same in every run of the harness.
        if self.opset < _WITHOUT_RANDOM:
            drawn = add(
                "RandomUniformLike", source, low=-1.0, high=1.0, seed=float(self.count)
            )
            sign = add("Sign", drawn)
        else:
            one = numpy_helper.from_array(np.ones(1, np.float32))
            ones = add("ConstantOfShape", add("Shape", source), value=one)
            half_of_them = add(
                "Constant", value=numpy_helper.from_array(np.array(0.5, np.float32))
            )
            training = add("Constant", value=numpy_helper.from_array(np.array(True)))
            # 0 or 2. A small seed's first draws are alike.
            drawn = add("Dropout", ones, half_of_them, training, seed=self.count * _PRIME)
            sign = add("Sub", drawn, ones)
        part = add("Mul", sign, amount)
        shifted = add("Add", source, add("Mul", source, part))
        result = add("Where", add("Less", add("Floor", source), source), shifted, source)
        if half:
            nodes.append(helper.make_node("Cast", [result], [f"{stem}/narrow"], to=_HALF))
            result = f"{stem}/narrow"
        return nodes, result


def _reads_step(
    node: onnx.NodeProto, slot: int, name: str, types: Mapping[str, int]
) -> bool:
    """Return whether a node reads a float in ``slot`` of which it gives a step function."""
    if not name or types.get(name) not in (_FLOAT, _HALF):
        return False
    if node.op_type in _COMPARISONS:
        return True
    if node.op_type == "Cast":
        targets = []
        for attribute in node.attribute:
            if attribute.name == "to":
                targets.append(attribute.i)
        return any(target in _INTEGERS for target in targets)
    if node.op_type == "NonMaxSuppression":
        return slot < 2
    return slot == 0 and node.op_type in _ROUNDINGS | _CHOICES | _QUANTIZERS


def _dequantized(graph: onnx.GraphProto) -> set[str]:
    """Return the values that come out of a quantizer.

    It has swallowed the last bits of what came before.

    A sum of them is off by the last bits of its terms all the same, which one common scale doesn't
    show. Dequantized weights are left out: the other factor of each term moves.
    """
    constants = {name for name, _ in named_constants(graph)}
    coarse: set[str] = set()
    for node in graph.node:
        source = node.input[0] if node.input else ""
        makes = node.op_type == "DequantizeLinear" and source not in constants
        if makes or (node.op_type in _KEEP_LEVELS and source in coarse):
            coarse.update(node.output)
    return coarse


def _moves(tensor: TensorProto) -> bool:
    if tensor.data_type not in (_FLOAT, _HALF):
        return False
    array = numpy_helper.to_array(tensor)
    return bool(np.any(np.isfinite(array) & (array != np.floor(array))))


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    types = {info.name: info.type.tensor_type.elem_type for info in graph.value_info}
    types |= {
        info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)
    }
    types |= {name: tensor.data_type for name, tensor in named_constants(graph)}
    return types


def _declared(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of the values of every graph of a model, by name."""
    return dict(_all_types(infer_types(model).graph))


def _all_types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for inner in graphs(graph):
        yield from _types(inner).items()
