"""The ideal conversion to 8 bits.

A graph whose quantized operators read and write values of 256 levels.

Nothing is fused and no kernel works on integers. Weights are rounded to their levels where they
are; in front of the activations stands a pair of QuantizeLinear and DequantizeLinear, with ranges
from what the untouched model computes (static) or from the tensor itself as it runs (dynamic); all
arithmetic stays in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.constants import named_constants
from onnx_harness.model.inference import infer_types
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import opset_of
from onnx_harness.model.rewrite import replace_nodes
from onnx_harness.model.walk import subgraphs
from onnx_harness.transforms.quantization.nodes import is_size, never_quantized

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# DynamicQuantizeLinear came with this version of the operators, QuantizeLinear one before.
_SINCE = 11
# In dynamic quantization these hold weights of 8 bits and compute nothing with them.
_WEIGHTS_ONLY = frozenset(
    {
        "EmbedLayerNormalization",
        "Gather",
        "Transpose",
    }
)
# Where the output channels of a weight lie.
_CHANNELS = {"Conv": 0, "MatMul": -1, "Gemm": -1}
# Their third input is a bias, which is added in 32 bits, and so is what follows it.
_BIASED = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "InstanceNormalization",
        "LayerNormalization",
    }
)
# Static quantization takes any other operator's constants for activations; dynamic, a Gather's.
_WEIGHTED = _BIASED | {"MatMul"}

Array = np.ndarray[Any, Any]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scheme:
    """The scheme by which a variant quantizes.

    Attributes:
        ops: the operators.
        static: ranges of activations are fixed beforehand.
        per_channel: each output channel of a weight has its own scale.
        signed_weights: int8, symmetric; otherwise uint8.
        signed_activations: int8, symmetric; otherwise uint8.
        narrow: weights of 7 bits.
        only: names of the nodes, all where empty.
        never: names of nodes that are left out.
        block: how many weights of a column share 4 bits' scale, activations staying as they are; 0:
            8 bits.
    """

    ops: frozenset[str]
    static: bool
    per_channel: bool = False
    signed_weights: bool = True
    signed_activations: bool = False
    narrow: bool = False
    only: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    block: int = 0

    def takes(
        self, node: onnx.NodeProto, spared_names: frozenset[str] = frozenset()
    ) -> bool:
        """Return whether a node of the main graph is quantized.

        ``left`` are the outputs of those that never are.
        """
        if spared_names.intersection(node.output):
            return False
        is_product = node.op_type == "Gemm" and not self.static and not self.block
        kind = "MatMul" if is_product else node.op_type
        named = (not self.only or node.name in self.only) and node.name not in self.never
        return kind in self.ops and named and not any(subgraphs(node))


def watched(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """The activations whose ranges `quantize_through` needs.

    None where they are found as the model runs.
    """
    if not scheme.static:
        return []
    floats, constants = _floats(model, scheme), _constants(model.graph, scheme)
    spared_names = never_quantized(model, static=scheme.static)
    names: dict[str, None] = {}
    for node in model.graph.node:
        if scheme.takes(node, spared_names):
            read = []
            for index, name in enumerate(node.input):
                if not is_size(node, index):
                    read.append(name)
            watched_values = []
            for name in read:
                if name in floats and name not in constants:
                    watched_values.append(name)
            names.update(dict.fromkeys(watched_values))
            floats_read = []
            for name in node.output:
                if name in floats:
                    floats_read.append(name)
            names.update(dict.fromkeys(floats_read))
    return list(names)


def watch(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Give a model two more outputs for each of ``names``: its least and its greatest element.

    Their names. They're float32, whatever the value is.
    """
    ranges = {}
    halves = _halves(model) if names else frozenset()
    for index, name in enumerate(names):
        least, most = f"least/{index}", f"most/{index}"
        value = name
        if name in halves:
            value = f"wide/{index}"
            model.graph.node.append(helper.make_node("Cast", [name], [value], to=_FLOAT))
        for op, output in (("ReduceMin", least), ("ReduceMax", most)):
            model.graph.node.append(helper.make_node(op, [value], [output], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(output, _FLOAT, []))
        ranges[name] = (least, most)
    return ranges


def quantize_through(
    model: onnx.ModelProto, scheme: Scheme, ranges: Mapping[str, Range]
) -> onnx.ModelProto:
    """The ideal conversion of a model.

    Args:
        model: it is changed. What its functions hold is quantized too, as the conversion does.
        scheme: what is quantized, and how.
        ranges: of the activations that `watched` names; those without one stay as they are.

    Raises:
        Exception: what onnx raises about a model that it can't infer the types of, or convert.
    """
    model = inline_functions(model)
    if model.opset_import and opset_of(model) < _SINCE:
        model = onnx.version_converter.convert_version(model, _SINCE)
    floats, constants = _floats(model, scheme), _constants(model.graph, scheme)
    halves, signed = _halves(model), scheme.signed_activations
    nodes: list[onnx.NodeProto] = []
    quantized_names: dict[str, str] = {}
    spared_names = never_quantized(model, static=scheme.static)
    # The library rounds an activation where it is made, for all that read it, an output of the
    # graph among them.
    shared = _shared(model.graph, scheme, ranges, spared_names)
    for name in (info.name for info in model.graph.input if info.name in shared):
        nodes += _fixed_pair(
            name, f"{name}/levels", ranges[name], signed, half=name in halves
        )
        quantized_names[name] = f"{name}/levels"
    for node in model.graph.node:
        is_quantized = scheme.takes(node, spared_names)
        for index, name in enumerate(node.input):
            if name in shared and not is_size(node, index):
                node.input[index] = quantized_names.get(name, name)
        if is_quantized:
            _quantize_inputs(
                node, scheme, constants, floats - shared, nodes, quantized_names
            )
        nodes.append(node)
        for index, name in enumerate(node.output):
            is_rounded = name in shared or (
                is_quantized and scheme.static and name in ranges
            )
            if is_rounded:
                node.output[index] = f"{name}/exact"
                nodes += _fixed_pair(
                    f"{name}/exact", name, ranges[name], signed, half=name in halves
                )
    replace_nodes(model.graph, nodes)
    if scheme.block:
        for node in model.graph.node:
            for body in subgraphs(node):
                _round_in_body(body, scheme, constants)
    return model


def _round_in_body(
    graph: onnx.GraphProto, scheme: Scheme, outer: Mapping[str, TensorProto]
) -> None:
    """Round the matrices of MatMuls in a body: MatMulNBits takes their place there too.

    Args:
        graph: it is changed, and the bodies inside it.
        scheme: of weights in blocks.
        outer: the constants of the graphs around it.
    """
    constants = {**outer, **_constants(graph, scheme)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for body in subgraphs(node):
            _round_in_body(body, scheme, constants)
        weight = constants.get(node.input[1]) if scheme.takes(node) else None
        array = np.zeros(0) if weight is None else numpy_helper.to_array(weight)
        if array.ndim == 2 and np.isfinite(array).all():
            node.input[1] = f"{node.output[0]}/levels"
            levels = quantized(array, scheme, None).astype(array.dtype)
            tensor = numpy_helper.from_array(levels)
            nodes.append(helper.make_node("Constant", [], [node.input[1]], value=tensor))
        nodes.append(node)
    replace_nodes(graph, nodes)


def _shared(
    graph: onnx.GraphProto,
    scheme: Scheme,
    ranges: Mapping[str, Range],
    spared_names: frozenset[str],
) -> set[str]:
    """Return the activations that some quantized node reads, where their ranges are fixed."""
    names: set[str] = set()
    for node in graph.node if scheme.static else ():
        if scheme.takes(node, spared_names):
            names.update(
                name for index, name in enumerate(node.input) if not is_size(node, index)
            )
    return names & ranges.keys()


def quantized(weight: Array, scheme: Scheme, axis: int | None) -> Array:
    """A float32 weight rounded to the levels of 8 bits.

    Per tensor, or for each index of ``axis``.
    """
    if scheme.block:
        return _in_blocks(weight, scheme)
    over = None
    if axis is not None:
        over = tuple(place for place in range(weight.ndim) if place != axis % weight.ndim)
    most = 127 if scheme.narrow else 255
    low, high = (-(most // 2), most // 2) if scheme.signed_weights else (0, most)
    return _rounded(weight.astype(np.float64), over, low, high).astype(np.float32)


def _in_blocks(weight: Array, scheme: Scheme) -> Array:
    """A float32 matrix rounded to 4 bits, in blocks of each column, as MatMulNBits holds it."""
    rows, columns = weight.shape
    blocks = -(-rows // scheme.block)
    wide = np.zeros((blocks * scheme.block, columns))
    wide[:rows] = weight
    wide = wide.reshape(blocks, scheme.block, columns)
    low, high = (-8, 7) if scheme.signed_weights else (0, 15)
    levels = _rounded(wide, 1, low, high).reshape(-1, columns)
    return levels[:rows].astype(np.float32)


def _rounded(wide: Array, over: int | tuple[int, ...] | None, low: int, high: int) -> Array:
    """Float64 values rounded to the levels from ``low`` to ``high``, one scale along ``over``.

    They are symmetric where ``low`` is below 0; otherwise they reach from the least to the
    greatest.
    """
    offset: Any = 0.0
    if low < 0:
        step = np.max(np.abs(wide), axis=over, keepdims=True) / -low
    else:
        least = np.minimum(np.min(wide, axis=over, keepdims=True), 0)
        greatest = np.maximum(np.max(wide, axis=over, keepdims=True), 0)
        step = (greatest - least) / high
        offset = np.rint(-least / np.where(step == 0, 1, step))
    step = np.where(step == 0, 1.0, step)
    level = np.clip(np.rint(wide / step) + offset, low, high)
    return np.asarray((level - offset) * step)


def _quantize_inputs(
    node: onnx.NodeProto,
    scheme: Scheme,
    constants: Mapping[str, TensorProto],
    floats: set[str],
    nodes: list[onnx.NodeProto],
    quantized_names: dict[str, str],
) -> None:
    """Make a node read rounded weights, and activations through a pair.

    Each value's pair is made once.
    """
    for index, name in enumerate(node.input):
        if name not in floats or is_size(node, index):
            continue
        weight = constants.get(name)
        operator = node.op_type if scheme.per_channel else ""
        key = name if weight is None else f"{name}/{operator}"
        if key not in quantized_names:
            if weight is not None:
                array = numpy_helper.to_array(weight)
                if not _is_rounded(node, index, array, scheme):
                    continue
                levels = _levels(node, array, scheme).astype(array.dtype)
                tensor = numpy_helper.from_array(levels)
                nodes.append(
                    helper.make_node("Constant", [], [f"{key}/levels"], value=tensor)
                )
            elif (
                not scheme.static and not scheme.block and node.op_type not in _WEIGHTS_ONLY
            ):
                parts = [f"{key}/{part}" for part in ("level", "step", "zero")]
                nodes.append(helper.make_node("DynamicQuantizeLinear", [name], parts))
                nodes.append(helper.make_node("DequantizeLinear", parts, [f"{key}/levels"]))
            else:
                continue
            quantized_names[key] = f"{key}/levels"
        node.input[index] = quantized_names[key]


def _is_rounded(node: onnx.NodeProto, index: int, array: Array, scheme: Scheme) -> bool:
    """Return whether a constant that a quantized node reads is held in levels."""
    if not array.size or not np.isfinite(array).all():
        return False
    if scheme.block:
        return array.ndim == 2 and index == 1
    if scheme.static:
        return node.op_type not in _BIASED or index < 2
    return array.ndim > 1 or node.op_type in _WEIGHTS_ONLY or node.op_type == "MatMul"


def _levels(node: onnx.NodeProto, array: Array, scheme: Scheme) -> Array:
    """A constant as a quantized node reads it."""
    is_activation = (
        node.op_type not in _WEIGHTED if scheme.static else node.op_type == "Gather"
    )
    if is_activation:
        scheme = replace(scheme, signed_weights=scheme.signed_activations, narrow=False)
        return quantized(array, scheme, None)
    per_channel = scheme.per_channel and array.ndim > 1
    return quantized(array, scheme, _channel_axis(node) if per_channel else None)


def _fixed_pair(
    source: str, target: str, bounds: Range, signed: bool, *, half: bool = False
) -> list[onnx.NodeProto]:
    """Return nodes that round a value to levels within fixed bounds.

    A float16 value is float32 in between: operators before opset 19 take no other.
    """
    least, most = min(bounds[0], 0.0), max(bounds[1], 0.0)
    if signed:
        step, zero = max(-least, most) / 127, np.array(0, np.int8)
    else:
        step = (most - least) / 255
        zero = np.array(round(-least / step) if step else 0, np.uint8)
    names = [f"{target}/{part}" for part in ("step", "zero", "level")]
    before, after = (f"{target}/wide", f"{target}/wide/levels") if half else (source, target)
    nodes = [
        helper.make_node(
            "Constant",
            [],
            names[:1],
            value=numpy_helper.from_array(np.array(step or 1.0, np.float32)),
        ),
        helper.make_node("Constant", [], names[1:2], value=numpy_helper.from_array(zero)),
        helper.make_node("QuantizeLinear", [before, *names[:2]], names[2:]),
        helper.make_node("DequantizeLinear", [names[2], *names[:2]], [after]),
    ]
    if half:
        nodes.insert(2, helper.make_node("Cast", [source], [before], to=_FLOAT))
        nodes.append(helper.make_node("Cast", [after], [target], to=_HALF))
    return nodes


def _channel_axis(node: onnx.NodeProto) -> int:
    transposed = any(
        attribute.name == "transB" and attribute.i for attribute in node.attribute
    )
    return 0 if transposed else _CHANNELS.get(node.op_type, 0)


def _constants(graph: onnx.GraphProto, scheme: Scheme) -> dict[str, TensorProto]:
    constants: dict[str, TensorProto] = {}
    for name, tensor in named_constants(graph):
        if tensor.data_type in _types(scheme):
            constants[name] = tensor
    return constants


def _types(scheme: Scheme) -> tuple[int, ...]:
    """Return the types that are quantized: float16 but where the library refuses it."""
    return (_FLOAT, _HALF) if scheme.static or scheme.block else (_FLOAT,)


def _floats(model: onnx.ModelProto, scheme: Scheme) -> set[str]:
    return _of_types(model, _types(scheme)) | set(_constants(model.graph, scheme))


def _halves(model: onnx.ModelProto) -> frozenset[str]:
    return frozenset(_of_types(model, (_HALF,)))


def _of_types(model: onnx.ModelProto, types: Collection[int]) -> set[str]:
    """Return the names of the values of those types that are no constants."""
    graph = infer_types(model, required=True).graph
    infos = [*graph.value_info, *graph.input, *graph.output]
    return {info.name for info in infos if info.type.tensor_type.elem_type in types}
