"""A float model with the quantizers of its quantized form, each with a switch.

The quantizers are those that the library puts round the operators: their scales and zero points are
read in the fully quantized model. A value is quantized for all its readers as soon as one quantized
node gives or takes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.mixed.switches import MASK
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.transforms.quantization.mixed import QuantizedConversion

ERRORS = "onnx_harness_quantizer_errors"
_PREFIX = "onnx_harness_quantized"
# what the library calls a value that it has dequantized, after the value's own name
_OF = "_DequantizeLinear_Output"
# They move what is quantized as it is, and are quantized only where that is.
_FOLLOW = frozenset(
    {
        "Flatten",
        "Gather",
        "GatherElements",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
    }
    | {"Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True)
class Quantizers:
    """A float model with a switch at each quantizer.

    Attributes:
        model: takes ``MASK``, a boolean for each quantizer, beside its own inputs, and gives
            ``ERRORS`` as well.
        labels: the nodes that can stay float.
        claims: by quantizer, the places of the nodes of which one that isn't float has it quantize.
    """

    model: onnx.ModelProto
    labels: tuple[str, ...]
    claims: tuple[frozenset[int], ...]

    def mask(self, floats: Collection[int]) -> npt.NDArray[np.bool_]:
        """Return which quantizers quantize with those nodes in float."""
        return np.array([not claim <= set(floats) for claim in self.claims], bool)


def quantizers(
    model: onnx.ModelProto, quantized: onnx.ModelProto, conversion: QuantizedConversion
) -> Quantizers:
    """Put the quantizers of a quantized model into the one that it was made of, each with a switch.

    Args:
        model: the float model; it is changed.
        quantized: the same, as the library quantizes it.
        conversion: says which operators are quantized.
    """
    graph = model.graph
    outputs = {info.name for info in graph.output}
    nodes = []
    for node in graph.node:
        if (
            node.name
            and node.op_type in conversion.ops - _FOLLOW
            and node.name not in conversion.left_out
        ):
            nodes.append(node)
    places = {node.name: place for place, node in enumerate(nodes)}
    claiming: dict[str, set[int]] = {}
    for node in nodes:
        for name in (*node.input, *node.output):
            claiming.setdefault(name, set()).add(places[node.name])
    names = {name for node in graph.node for name in (*node.input, *node.output)} | outputs
    initializers = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    claims: list[frozenset[int]] = []
    mixed: dict[str, str] = {}
    after: dict[str, list[onnx.NodeProto]] = {}
    parts: list[str] = []
    for node in quantized.graph.node:
        name = node.output[0].removesuffix(_OF) if node.op_type == "DequantizeLinear" else ""
        if name not in names or name not in claiming or name in mixed:
            continue
        chain = [node] if node.input[0] in initializers else [makers[node.input[0]], node]
        nodes_here = _quantizer(chain, name, initializers, graph)
        switch = f"{_PREFIX}_switch_{len(claims)}"
        choice = f"{_PREFIX}_mixed_{len(claims)}"
        raw = f"{_PREFIX}_raw_{len(claims)}" if name in outputs else name
        if raw != name:
            for new_node in nodes_here:
                new_node.input[:] = [
                    raw if value == name else value for value in new_node.input
                ]
            choice = name
        nodes_here.append(
            helper.make_node("Where", [switch, nodes_here[-1].output[0], raw], [choice])
        )
        scale = initializers.get(node.input[1])
        half = scale is not None and scale.data_type == TensorProto.FLOAT16
        nodes_here += _error(raw, nodes_here[-2].output[0], len(claims), parts, half=half)
        mixed[name] = choice
        after[name] = nodes_here
        claims.append(frozenset(claiming[name]))
    _write(graph, outputs, mixed, after, len(claims), parts)
    model.ir_version = max(model.ir_version, FREE_INITIALIZERS)
    return Quantizers(model, tuple(places), tuple(claims))


def _quantizer(
    chain: Sequence[onnx.NodeProto],
    name: str,
    initializers: Mapping[str, onnx.TensorProto],
    graph: onnx.GraphProto,
) -> list[onnx.NodeProto]:
    """Return copies of a quantizer's nodes that read ``name``; their constants go to the graph."""
    names = {tensor.name for tensor in graph.initializer}
    copies = []
    for node in chain:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{_PREFIX}_{node.name}"
        for place, value in enumerate(node.input):
            if value in initializers:
                copied.input[place] = f"{_PREFIX}_{value}"
                if copied.input[place] not in names:
                    tensor = graph.initializer.add()
                    tensor.CopyFrom(initializers[value])
                    tensor.name = copied.input[place]
                    names.add(tensor.name)
            elif place == 0:
                copied.input[0] = (
                    name if node.op_type == "QuantizeLinear" else f"{_PREFIX}_{value}"
                )
        copied.output[0] = f"{_PREFIX}_{node.output[0]}"
        copies.append(copied)
    return copies


def _error(
    exact: str, rounded: str, place: int, parts: list[str], *, half: bool
) -> list[onnx.NodeProto]:
    """Return nodes that measure a value against its quantized form.

    The squares of their distance, and its own: in float32, where float16 would overflow.
    """
    stem = f"{_PREFIX}_error_{place}"
    flat = f"{_PREFIX}_flat"
    parts += [f"{stem}_moved", f"{stem}_whole"]
    casts = []
    if half:
        wide = [f"{stem}_wide_exact", f"{stem}_wide_rounded"]
        for narrow, name in zip((exact, rounded), wide, strict=True):
            casts.append(helper.make_node("Cast", [narrow], [name], to=TensorProto.FLOAT))
        exact, rounded = wide
    return [
        *casts,
        helper.make_node("Sub", [exact, rounded], [f"{stem}_apart"]),
        helper.make_node("Reshape", [f"{stem}_apart", flat], [f"{stem}_flat"]),
        helper.make_node("Reshape", [exact, flat], [f"{stem}_exact"]),
        helper.make_node("ReduceSumSquare", [f"{stem}_flat"], [f"{stem}_moved"]),
        helper.make_node("ReduceSumSquare", [f"{stem}_exact"], [f"{stem}_whole"]),
    ]


def _write(
    graph: onnx.GraphProto,
    outputs: Collection[str],
    mixed: Mapping[str, str],
    after: Mapping[str, Sequence[onnx.NodeProto]],
    count: int,
    parts: Sequence[str],
) -> None:
    written: list[onnx.NodeProto] = []
    for place in range(count):
        index = f"{_PREFIX}_index_{place}"
        graph.initializer.append(numpy_helper.from_array(np.array(place, np.int64), index))
        written.append(
            helper.make_node("Gather", [MASK, index], [f"{_PREFIX}_switch_{place}"])
        )
    made = set()
    for node in graph.node:
        for name in node.output:
            made.add(name)
    for name, nodes in after.items():
        if name not in made:
            written += nodes
    for node in graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        for place, name in enumerate(node.input):
            copied.input[place] = mixed.get(name, name)
        new = []
        for name in node.output:
            for quantizer in after.get(name, ()):
                new.append(quantizer)
        for place, name in enumerate(node.output):
            if name in outputs and name in after:
                copied.output[place] = after[name][0].input[0]
        written += [copied, *new]
    graph.initializer.append(
        numpy_helper.from_array(np.array([-1], np.int64), f"{_PREFIX}_flat")
    )
    if parts:
        written.append(helper.make_node("Concat", parts, [ERRORS], axis=0))
        graph.output.append(
            helper.make_tensor_value_info(ERRORS, TensorProto.FLOAT, [len(parts)])
        )
    graph.input.append(helper.make_tensor_value_info(MASK, TensorProto.BOOL, [count]))
    graph.ClearField("node")
    graph.node.extend(written)
    graph.ClearField("value_info")
