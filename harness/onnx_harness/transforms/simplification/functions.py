"""Constants inside the functions of a model.

What a body computes of constants alone, computed once.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import STANDARD_DOMAINS, is_standard, opset_of
from onnx_harness.model.walk import reads
from onnx_harness.transforms.simplification.folding import is_deterministic, keeps_integers

Simplify = Callable[[onnx.ModelProto, int], onnx.ModelProto]


def fold_functions(model: onnx.ModelProto, budget: int, simplify: Simplify) -> int:
    """Fold the constants of every function.

    Precondition: standard operators that no function of the model redefines, that are
    deterministic, hold no graphs and refer to no attribute of the function.

    Args:
        model: it is changed.
        budget: bytes by which it may grow.
        simplify: folds a model that has no inputs, within so many bytes of growth.

    Returns:
        The number of nodes that the bodies have less.
    """
    redefined = set()
    for function in model.functions:
        if function.domain in STANDARD_DOMAINS:
            redefined.add(function.name)
    folded = 0
    for function in model.functions:
        part = _constant_part(function, redefined)
        if all(node.op_type == "Constant" for node in part):
            continue
        nodes = _folded(function, part, budget, simplify)
        if nodes is None:
            continue
        size = function.ByteSize()
        gone = set()
        for node in part:
            for name in node.output:
                gone.add(name)
        functions = []
        for node in function.node:
            if not gone.intersection(node.output):
                functions.append(node)
        nodes += functions
        folded += len(function.node) - len(nodes)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        function.ClearField("node")
        function.node.extend(copies)
        budget -= function.ByteSize() - size
    return folded


def _constant_part(
    function: onnx.FunctionProto, redefined: set[str]
) -> list[onnx.NodeProto]:
    """The nodes that depend on constants alone, in order."""
    opset = opset_of(function)
    constants: set[str] = set()
    part: list[onnx.NodeProto] = []
    for node in function.node:
        if (
            not is_standard(node)
            or node.op_type in redefined
            or keeps_integers(node.op_type)
        ):
            continue
        if not is_deterministic(node.op_type, opset) or any(map(_is_open, node.attribute)):
            continue
        if constants.issuperset(name for name in node.input if name):
            constants.update(node.output)
            part.append(node)
    return part


def _is_open(attribute: onnx.AttributeProto) -> bool:
    return bool(attribute.ref_attr_name or attribute.HasField("g") or attribute.graphs)


def _folded(
    function: onnx.FunctionProto, part: list[onnx.NodeProto], budget: int, simplify: Simplify
) -> list[onnx.NodeProto] | None:
    """The nodes that give the same values as the constant part does.

    None where there would be no fewer.
    """
    constants_made = set()
    for node in part:
        for name in node.output:
            if name:
                constants_made.add(name)
    others = []
    for node in function.node:
        if not constants_made.intersection(node.output):
            others.append(node)
    read = {name for node in others for name in reads(node)} | set(function.output)
    graph = onnx.GraphProto(name=function.name)
    graph.node.extend(part)
    graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in sorted(constants_made & read)
    )
    model = onnx.ModelProto(ir_version=10, graph=graph, opset_import=function.opset_import)
    inferred = infer_types(model)
    if not all(info.type.tensor_type.elem_type for info in inferred.graph.output):
        return None
    result = simplify(inferred, budget).graph
    nodes = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in result.initializer
    ] + list(result.node)
    names = {
        name for node in others for name in (*node.output, *reads(node))
    } - constants_made | set(function.input)
    if len(nodes) >= len(part) or any(names.intersection(node.output) for node in nodes):
        return None
    return nodes
