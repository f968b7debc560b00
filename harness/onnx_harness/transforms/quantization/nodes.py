"""Nodes that aren't to be quantized, whatever the library would do.

It goes by their operator's name alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence, Set

import onnx

from onnx_harness.errors import did_you_mean
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.ops import MOVES, STANDARD_DOMAINS, is_standard
from onnx_harness.model.rewrite import fresh_name
from onnx_harness.model.walk import body_reads, subgraphs
from onnx_harness.transforms import remark
from onnx_harness.transforms.quantization.exact import exact_outputs
from onnx_harness.transforms.quantization.halves import half_outputs
from onnx_harness.transforms.quantization.masks import huge_values, masked_scores
from onnx_harness.transforms.quantization.operators import STATIC_OPS

_CONTRIB = frozenset({"com.microsoft"})
_ML = "ai.onnx.ml"
# Operators of ONNX Runtime that the library quantizes. Since opset 23 there is a standard Attention
# with other inputs.
_OF_CONTRIB = frozenset({"Attention", "EmbedLayerNormalization"})
# Inputs that are sizes, scales, places or counts: a level's width off, the result has another
# shape.
_SIZES = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Loop": (0,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
# What ONNX Runtime moves a QuantizeLinear across (qdq_propagation.cc, onnxruntime 1.32).
_PASSED_BY_QUANTIZERS = (
    "MaxPool",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# What sizes are computed with. A size that comes of anything else, of a score or a mask, is
# followed no further.
_ARITHMETIC = frozenset(
    (
        "Abs",
        "Add",
        "Cast",
        "CastLike",
        "Ceil",
        "Clip",
        "Concat",
        "Div",
        "Equal",
        "Floor",
        "Gather",
        "Identity",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "Round",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
    )
)


def is_quantized(node: onnx.NodeProto) -> bool:
    """Return whether an operator takes or gives quantized values.

    QLinearConv, MatMulInteger, DequantizeLinear and more.
    """
    if node.domain not in STANDARD_DOMAINS | _CONTRIB:
        return False
    op_type = node.op_type
    return (
        "quantize" in op_type.lower()
        or op_type.startswith(
            ("QLinear", "QAttention", "QEmbed", "QGemm", "QMoE", "QOrdered")
        )
        or op_type.endswith(("Integer", "IntegerToFloat", "NBits", "Bnb4"))
    )


def is_of_its_domain(node: onnx.NodeProto) -> bool:
    """Return whether the node is the operator that the library takes it for by its name."""
    return node.domain in (_CONTRIB if node.op_type in _OF_CONTRIB else STANDARD_DOMAINS)


def spared(graph: onnx.GraphProto) -> frozenset[str]:
    """The outputs of nodes of the main graph that are never quantized.

    They're operators of another domain than the library takes them for, and what computes sizes,
    scales and places.
    """
    names = {
        name for node in graph.node if not is_of_its_domain(node) for name in node.output
    }
    sizes = size_values(graph)
    for node in graph.node:
        if _computes_sizes(node) and not sizes.isdisjoint(node.output):
            names.update(node.output)
    return frozenset(names - {""})


def size_values(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the values that sizes, scales, places and counts are and are computed from.

    Those of the graph itself, and those that operators in its bodies read from it.
    """
    producers = {name: node for node in graph.node for name in node.output if name}
    waiting: list[str] = []
    for node in graph.node:
        waiting += _size_inputs(node)
        for body in subgraphs(node):
            waiting += size_values(body)
    values: set[str] = set()
    while waiting:
        name = waiting.pop()
        if not name or name in values:
            continue
        values.add(name)
        producer = producers.get(name)
        if producer is not None and _computes_sizes(producer):
            # Of what a CastLike reads second only the type matters.
            like = producer.op_type == "CastLike"
            waiting += producer.input[:1] if like else producer.input
    return frozenset(values)


def _computes_sizes(node: onnx.NodeProto) -> bool:
    return node.op_type in _ARITHMETIC and node.domain in STANDARD_DOMAINS


def _size_inputs(node: onnx.NodeProto) -> Iterator[str]:
    if node.domain in STANDARD_DOMAINS:
        yield from (
            node.input[index]
            for index in _SIZES.get(node.op_type, ())
            if index < len(node.input)
        )


def is_size(node: onnx.NodeProto, index: int) -> bool:
    """Return whether an input of the node is a size, a scale, a place or a count."""
    return node.domain in STANDARD_DOMAINS and index in _SIZES.get(node.op_type, ())


def never_quantized(model: onnx.ModelProto, *, static: bool) -> frozenset[str]:
    """Return the outputs of nodes of the main graph that are never quantized."""
    graph = model.graph
    if not static:
        return spared(graph) | _reading_defaults(model)
    masked = masked_scores(graph) | huge_values(graph)
    whole = spared(graph) | masked | exact_outputs(model) | _features(graph)
    whole |= half_outputs(model)
    whole |= _activations_of_shared_values(graph)
    return whole | _reading_defaults(model) | _reading_moved_outputs(graph, whole)


def _features(graph: onnx.GraphProto) -> frozenset[str]:
    """The outputs of nodes that only move what operators of ai.onnx.ml read.

    Those split at thresholds and look categories up: a level's width off, a row is sent down
    another branch. None of them has a kernel that works on 8 bits, so nothing would be gained.

    Args:
        graph: its nodes in order.
    """
    features: set[str] = set()
    for node in reversed(graph.node):
        moves = is_standard(node, *MOVES) and not features.isdisjoint(node.output)
        if moves or node.domain == _ML:
            features.update(node.input)
    names = set()
    for node in graph.node:
        if is_standard(node, *MOVES) and not features.isdisjoint(node.output):
            names.update(node.output)
    return frozenset(names - {""})


def _activations_of_shared_values(graph: onnx.GraphProto) -> frozenset[str]:
    """The outputs of Relus and Clips whose input is wanted elsewhere too.

    The library gives what they read the range of what they make, where they are its only consumer
    among the nodes of the main graph: an output of the graph, or what a body reads, would be
    clipped.
    """
    shared = {info.name for info in graph.output} | captured(graph)
    names: set[str] = set()
    for node in graph.node:
        if is_standard(node, "Clip", "Relu") and node.input[0] in shared:
            names.update(node.output)
    return frozenset(names)


def _reading_moved_outputs(graph: onnx.GraphProto, whole: frozenset[str]) -> frozenset[str]:
    """The outputs of nodes that read a float output of the graph through nodes that move it.

    ONNX Runtime moves the QuantizeLinear in front of them up to the output itself, from its basic
    level on: a cache of keys that is handed out would be rounded to 256 levels.

    Args:
        graph: its nodes in order.
        whole: outputs of nodes that aren't quantized in any case.
    """
    makers = {name: node for node in graph.node for name in node.output}
    handed_out = set()
    for info in graph.output:
        maker = makers.get(info.name)
        if maker is not None and (maker.op_type not in STATIC_OPS or info.name in whole):
            handed_out.add(info.name)
    moved: set[str] = set()
    names: set[str] = set()
    for node in graph.node:
        if is_standard(node, *_PASSED_BY_QUANTIZERS):
            if not handed_out.isdisjoint(node.input) or not moved.isdisjoint(node.input):
                moved.update(node.output)
        elif not moved.isdisjoint(node.input):
            names.update(node.output)
    return frozenset((names | moved) - {""})


def _reading_defaults(model: onnx.ModelProto) -> frozenset[str]:
    """The outputs of nodes that read an input with a default, which a caller may set.

    Below IR version 4 every initializer is listed as an input, and is a constant.
    """
    graph = model.graph
    if model.ir_version < FREE_INITIALIZERS:
        return frozenset()
    defaults = {info.name for info in graph.input} & {
        tensor.name for tensor in graph.initializer
    }
    outputs = set()
    for node in graph.node:
        if not defaults.isdisjoint(node.input):
            outputs.update(node.output)
    return frozenset(outputs - {""})


def captured(graph: onnx.GraphProto) -> frozenset[str]:
    """The values of the main graph that bodies of If, Loop and Scan read."""
    names = set()
    for node in graph.node:
        for name in body_reads(node):
            names.add(name)
    return frozenset(names)


def name_nodes(graph: onnx.GraphProto, outputs: Set[str]) -> list[str]:
    """Give the nodes with these outputs names of their own, and return them.

    Nodes that have a name keep it.
    """
    counts = Counter(node.name for node in graph.node)
    taken = set(counts)
    names = []
    for node in graph.node:
        if outputs.isdisjoint(node.output):
            continue
        if not node.name or counts[node.name] > 1:
            node.name = fresh_name(f"{node.op_type}_left", taken)
        names.append(node.name)
    return names


def name_by_output(graph: onnx.GraphProto) -> None:
    """Name nodes without a name by their first output, so that options can name them."""
    taken = {node.name for node in graph.node}
    for node in graph.node:
        name = next(filter(None, node.output), "")
        if not node.name and name not in taken:
            node.name = name
            taken.add(name)


def nodes_that_exist(
    graph: onnx.GraphProto, option: str, names: Sequence[str], allow_missing: bool
) -> list[str]:
    """Return the names that nodes of the main graph have.

    Args:
        graph: the main graph.
        option: it lists the names.
        names: of nodes.
        allow_missing: a name that no node has is left out, with a remark.

    Raises:
        ValueError: no node has a name, and none may be missing.
    """
    existing = [node.name for node in graph.node if node.name]
    present = []
    for name in names:
        if name in existing:
            present.append(name)
        elif allow_missing:
            remark(f"{option} names '{name}', and the model has no such node")
        else:
            hint = (
                did_you_mean(name, existing) if existing else "None of its nodes has a name."
            )
            raise ValueError(
                f"{option}: the model has no node '{name}' outside bodies. {hint} "
                f"allow_missing=True lets names be that a model doesn't have."
            )
    return present


def tied_tables(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Return the tables of Gathers that are factors of products too.

    Each comes with the operators of those products.
    """
    constants = {tensor.name for tensor in graph.initializer}
    tables = set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in constants:
            tables.add(node.input[0])
    turned = {}
    for node in graph.node:
        if node.op_type == "Transpose":
            turned[node.output[0]] = node.input[0]
    tied: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            for name in node.input[:2]:
                source = turned.get(name, name)
                if source in tables:
                    tied[source].append(node.op_type)
    return dict(tied)


def untie(graph: onnx.GraphProto, tables: Collection[str]) -> None:
    """Give the Gathers of these tables one of their own.

    With a scale for each channel of a product they can't work.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name in tables:
        copy = graph.initializer.add()
        copy.CopyFrom(tensors[name])
        copy.name = f"{name}_table"
        for node in graph.node:
            if node.op_type == "Gather" and node.input[0] == name:
                node.input[0] = copy.name
