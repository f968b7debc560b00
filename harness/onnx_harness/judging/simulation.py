"""Simulate a narrow type: every float16 and bfloat16 value is rounded as it is made.

The model computes in float32.

Hardware that computes in such a type rounds what each operator gives. ONNX Runtime's CPU provider
doesn't: it leaves out the Casts round operators without a kernel, and has next to no kernels for
bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.narrow_types import NARROW, narrow_by_graph, typed, types_in
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import TYPE_ATTRIBUTES, is_standard
from onnx_harness.model.rewrite import replace_nodes, retype
from onnx_harness.model.walk import graphs, subgraphs
from onnx_harness.providers.profile import COMPUTES_NOTHING

_FLOAT = TensorProto.FLOAT
PREFIX = "onnx_harness_range"
# What these give of float16 numbers are float16 numbers. A Cast isn't among them, nor a Scatter,
# which may add.
_EXACT = COMPUTES_NOTHING - {"Cast", "CastLike", "ScatterElements", "ScatterND"}


def simulated(model: onnx.ModelProto, skeleton: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a model to float32, with every value rounded as it is made.

    Rounded is what was float16 or bfloat16, to its type.

    What a node gives is rounded once, to nearest, subnormal numbers kept and what is too large
    infinite. Within the node all is float32: the sums of MatMul, Gemm, Conv and the reductions, and
    the steps of Softmax or of a normalization, as with float32 accumulators on hardware. What was
    float32, as where nodes are blocked from the conversion, stays as it is. So does what an
    operator gives of which neither ONNX nor ONNX Runtime says the type, and what follows from that
    alone.

    The inputs that were narrow have to be given numbers of their type. The result has to run with
    ONNX Runtime's optimizations disabled.

    Args:
        model: with its weights; it's used up.
        skeleton: the same without the data of large tensors.
    """
    by_graph = narrow_by_graph(inline_functions(skeleton))
    model = inline_functions(model)
    promote(model.graph, NARROW)
    for graph, narrow in zip(graphs(model.graph), by_graph, strict=True):
        nodes: list[onnx.NodeProto] = []
        for node in list(graph.node):
            nodes += with_rounded(node, narrow if _rounds(node) else {})
        replace_nodes(graph, nodes)
    return model


def unknown_types(skeleton: onnx.ModelProto) -> list[str]:
    """Return the operators outside ONNX's own domain that take float16 or bfloat16.

    They give what nobody knows.

    Returns:
        ``domain:op``, in the order of their names.
    """
    unknown = set()
    for graph in graphs(typed(inline_functions(skeleton)).graph):
        types = types_in(graph)
        for node in graph.node:
            takes = any(types.get(name) in NARROW for name in node.input)
            if (
                not is_standard(node)
                and takes
                and not types.keys() >= set(filter(None, node.output))
            ):
                unknown.add(f"{node.domain}:{node.op_type}")
    return sorted(unknown)


def with_rounded(node: onnx.NodeProto, types: Mapping[str, int]) -> list[onnx.NodeProto]:
    """Return the node, and what rounds those of its outputs to their types and back."""
    nodes = [node]
    for index, name in enumerate(node.output):
        if name in types:
            raw = f"{PREFIX}_raw_{name}"
            narrow = f"{PREFIX}_half_{name}"
            node.output[index] = raw
            nodes.append(helper.make_node("Cast", [raw], [narrow], to=types[name]))
            nodes.append(helper.make_node("Cast", [narrow], [name], to=_FLOAT))
    return nodes


def promote(graph: onnx.GraphProto, kinds: frozenset[int], *, main: bool = True) -> None:
    """Make float32 of some types in everything that states one.

    Weights stay as they are, with a Cast behind each.

    Args:
        graph: it is changed, and so are those inside it.
        kinds: element types.
        main: it isn't inside another.
    """
    graph.ClearField("value_info")
    if main:  # below IR version 4 weights are listed as inputs; nobody feeds them here
        weights = {tensor.name for tensor in graph.initializer}
        fed = [info for info in graph.input if info.name not in weights]
        del graph.input[:]
        graph.input.extend(fed)
    for info in (*graph.input, *graph.output):
        _widen(info.type, kinds)
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type in kinds:
            name, tensor.name = tensor.name, f"{PREFIX}_weight_{tensor.name}"
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=_FLOAT))
    for sparse in graph.sparse_initializer:
        _single(sparse.values, kinds)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in kinds:
                attribute.i = _FLOAT
            for tensor in (attribute.t, *attribute.tensors, attribute.sparse_tensor.values):
                _single(tensor, kinds)
            _widen(attribute.tp, kinds)
        for body in subgraphs(node):
            promote(body, kinds, main=False)
    if casts:
        nodes = [*casts, *graph.node]
        replace_nodes(graph, nodes)


def _rounds(node: onnx.NodeProto) -> bool:
    """Decide whether a node may give no number of its type, though it takes nothing else."""
    if node.op_type == "Cast":
        return not node.input[0].startswith(PREFIX)  # a weight's is ours
    return not (is_standard(node) and node.op_type in _EXACT)


def _widen(kind: onnx.TypeProto, kinds: frozenset[int]) -> None:
    for kind_ in kinds:
        retype(kind, kind_, _FLOAT)


def _single(tensor: onnx.TensorProto, kinds: frozenset[int]) -> None:
    if tensor.data_type in kinds:
        tensor.CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(tensor).astype(np.float32), tensor.name
            )
        )
