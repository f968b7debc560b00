"""The ideal conversion to float16 or bfloat16.

A graph whose every float is rounded through the type.

Nothing is rewritten. Weights are rounded where they are; behind every float32 output of a node
stands a pair of Casts to the type and back; all arithmetic stays in float32. It shares no code with
the conversions that it judges.

Float16 loses two things, digits and range, and where they are told apart values beyond the range
are left as they are: a layer normalization whose sum of squares overflows gives zeros, and zeros
would explain any fault.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.narrow_types import typed
from onnx_harness.model.constants import constant_tensor, set_constant
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import is_standard, opset_of
from onnx_harness.model.rewrite import fresh_name, replace_nodes, value_names
from onnx_harness.model.walk import subgraphs
from onnx_harness.transforms.quantization.nodes import size_values

_FLOAT = TensorProto.FLOAT
# Cast took bfloat16 in with this version of the operators.
_BFLOAT16_SINCE = 13
_ANONYMOUS_SHAPES = frozenset({"Shape", "Size"})

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Clamp:
    """The clamp of weights that a conversion documents, before it rounds them.

    Attributes:
        least: magnitudes above 0 and below it become it.
        most: finite magnitudes above it become it.
    """

    least: float
    most: float

    def __call__(self, weights: Array) -> Array:
        """Return the weights with their magnitudes brought into the limits.

        Magnitudes that are 0 or infinite stay.
        """
        size = np.abs(weights)
        inside = np.clip(size, np.float32(self.least), np.float32(self.most))
        return np.where(
            (size > 0) & np.isfinite(size), np.copysign(inside, weights), weights
        ).astype(np.float32)


def rounded(
    array: Array, kind: int, clamp: Clamp | None = None, most: float | None = None
) -> Array:
    """A float32 array rounded through the type ``kind`` (a ``TensorProto.DataType``), as float32.

    Magnitudes above ``most``, where that is given, stay as they are.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow: Array = (array if clamp is None else clamp(array)).astype(dtype)
        wide = narrow.astype(np.float32)
    return wide if most is None else np.where(np.abs(array) > most, array, wide)


def round_through(
    model: onnx.ModelProto,
    kind: int,
    clamp: Clamp | None,
    *,
    all_inputs: bool,
    ranged: bool = True,
) -> onnx.ModelProto:
    """The ideal conversion of a model.

    What ONNX doesn't let be of a narrower type (the scales of a Resize, the thresholds of a tree)
    isn't rounded, nor what is computed from shapes, nor what sizes and scales are computed from: a
    size above 2048 isn't exact in float16, and a rounded one is another shape.

    Args:
        model: it is changed.
        kind: ``TensorProto.FLOAT16`` or ``BFLOAT16``.
        clamp: what happens to weights before they're rounded.
        all_inputs: the model's float32 inputs are of the narrower type, whatever takes them.
        ranged: the type's range holds: what is beyond it becomes infinite. Otherwise it stays as it
            is.

    Raises:
        Exception: what onnx raises about a model that it can't infer the types of, or convert.
    """
    model = inline_functions(model)
    opset = opset_of(model)
    if kind == TensorProto.BFLOAT16 and opset < _BFLOAT16_SINCE:
        model = onnx.version_converter.convert_version(model, _BFLOAT16_SINCE)
        opset = _BFLOAT16_SINCE
    opsets = {entry.domain: entry.version for entry in model.opset_import} | {"": opset}
    types = _Types.of(typed(model).graph)
    rewriter = _Rewriter(kind, clamp, opsets, None if ranged else float(_largest(kind)))
    rewriter.graph(model.graph, types, frozenset(), all_inputs=all_inputs, top=True)
    return model


def _largest(kind: int) -> float:
    return 65504.0 if kind == TensorProto.FLOAT16 else 3.3895313892515355e38


@dataclass(slots=True)
class _Types:
    """The float32 tensors among a graph's values; its weights aren't asked for.

    Those of its bodies are in the order of the nodes.
    """

    floats: set[str] = field(default_factory=set)
    bodies: list[_Types] = field(default_factory=list)

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Types:
        infos = [*graph.value_info, *graph.input, *graph.output]
        floats = set()
        for info in infos:
            if info.type.tensor_type.elem_type == _FLOAT:
                floats.add(info.name)
        bodies = []
        for node in graph.node:
            for body in subgraphs(node):
                bodies.append(cls.of(body))
        return cls(floats, bodies)


class _Rewriter:
    def __init__(
        self, kind: int, clamp: Clamp | None, opsets: dict[str, int], most: float | None
    ) -> None:
        self._kind, self._clamp, self._opsets, self._most = kind, clamp, opsets, most
        self._names: set[str] = set()

    def graph(
        self,
        graph: onnx.GraphProto,
        types: _Types,
        shaped: frozenset[str],
        *,
        all_inputs: bool,
        top: bool,
    ) -> None:
        """Insert the Casts of one graph and its bodies.

        ``shaped``: outer values that come from shapes alone, or that sizes come from.
        """
        shaped = shaped | self._shaped(graph, shaped) | size_values(graph)
        names_rounded = {info.name for info in graph.output} | self._wanted(graph, shaped)
        bodies = iter(types.bodies)
        nodes: list[onnx.NodeProto] = []
        if top:
            self._names = value_names(graph)
            constants = {tensor.name for tensor in graph.initializer}
            for info in graph.input:
                inside = (
                    info.name not in constants and info.type.tensor_type.elem_type == _FLOAT
                )
                if inside and (all_inputs or info.name in names_rounded):
                    fresh = self._fresh(info.name)
                    _rename_uses(graph, info.name, fresh)
                    nodes += self._pair(info.name, fresh)
        for tensor in graph.initializer:
            if tensor.data_type == _FLOAT and tensor.name in names_rounded:
                self._round(tensor)
        for node in graph.node:
            for body in subgraphs(node):
                self.graph(body, next(bodies), shaped, all_inputs=False, top=False)
            nodes.append(node)
            if is_standard(node, "Constant"):
                if node.output[0] in names_rounded:
                    self._round_constant(node)
                continue
            for index, name in enumerate(node.output):
                if name in types.floats and name in names_rounded and name not in shaped:
                    exact = self._fresh(name)
                    node.output[index] = exact
                    nodes += self._pair(exact, name)
        replace_nodes(graph, nodes)

    def _shaped(self, graph: onnx.GraphProto, outer: frozenset[str]) -> set[str]:
        """Values that follow from shapes, and from constants beside them, and from no data."""
        constant = {tensor.name for tensor in graph.initializer}
        shaped: set[str] = set()
        for node in graph.node:
            reads = [name for name in node.input if name]
            if node.op_type in _ANONYMOUS_SHAPES:
                shaped.update(node.output)
            elif node.op_type == "Constant" or (
                not any(subgraphs(node)) and all(name in constant for name in reads)
            ):
                constant.update(node.output)
            elif not any(subgraphs(node)) and all(
                name in constant or name in shaped or name in outer for name in reads
            ):
                shaped.update(node.output)
        return shaped

    def _wanted(self, graph: onnx.GraphProto, shaped: frozenset[str]) -> set[str]:
        """Return what is used where the narrower type is allowed, here or in a body.

        What reckons shapes doesn't count.
        """
        wanted: set[str] = set()
        for node in graph.node:
            bodies = list(subgraphs(node))
            for body in bodies:
                wanted |= {info.name for info in body.output} | self._wanted(body, shaped)
            if (
                not bodies
                and node.output
                and all(name in shaped for name in node.output if name)
            ):
                continue
            names = []
            for index, name in enumerate(node.input):
                if name and self._takes(node, index):
                    names.append(name)
            wanted.update(names)
        return wanted

    def _takes(self, node: onnx.NodeProto, index: int) -> bool:
        """Return whether the operator's own schema lets this input be float16."""
        domain = "" if is_standard(node) else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
        except onnx.defs.SchemaError:
            return True
        formal = schema.inputs[min(index, len(schema.inputs) - 1)] if schema.inputs else None
        if formal is None:
            return False
        return "tensor(float16)" in formal.types

    def _round(self, tensor: TensorProto) -> None:
        array = self._rounded(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def _round_constant(self, node: onnx.NodeProto) -> None:
        tensor = constant_tensor(node)
        if tensor is not None and tensor.data_type == _FLOAT:
            set_constant(node, self._rounded(numpy_helper.to_array(tensor)))

    def _rounded(self, array: Array) -> Array:
        return rounded(array, self._kind, self._clamp, self._most)

    def _pair(self, source: str, target: str) -> list[onnx.NodeProto]:
        if self._most is None:
            narrow = self._fresh(target)
            return [
                helper.make_node("Cast", [source], [narrow], to=self._kind),
                helper.make_node("Cast", [narrow], [target], to=_FLOAT),
            ]
        # What is beyond the range is left as it is: a choice between the value and its rounding.
        size, beyond, most, narrow, wide = (self._fresh(target) for _ in range(5))
        return [
            helper.make_node(
                "Constant",
                [],
                [most],
                value=helper.make_tensor("", _FLOAT, [], [self._most]),
            ),
            helper.make_node("Abs", [source], [size]),
            helper.make_node("Greater", [size, most], [beyond]),
            helper.make_node("Cast", [source], [narrow], to=self._kind),
            helper.make_node("Cast", [narrow], [wide], to=_FLOAT),
            helper.make_node("Where", [beyond, source, wide], [target]),
        ]

    def _fresh(self, name: str) -> str:
        return fresh_name(f"{name}/rounded", self._names)


def _rename_uses(graph: onnx.GraphProto, name: str, to: str) -> None:
    for node in graph.node:
        for index, used in enumerate(node.input):
            if used == name:
                node.input[index] = to
        for body in subgraphs(node):
            if name not in {info.name for info in body.input}:
                _rename_uses(body, name, to)
