"""FusedConv and FusedGemm as the operators that they were fused from.

Only those have float16 kernels on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnx_harness.model.rewrite import fresh_name, value_names
from onnx_harness.model.walk import subgraphs
from onnx_harness.transforms.half.contrib import DOMAIN

# The parameters of each activation, in the order of FusedConv's ``activation_params``.
_ACTIVATIONS = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
_CLIP_TAKES_INPUTS = 11


def unfuse(graph: onnx.GraphProto, opset: int, root: onnx.GraphProto | None = None) -> None:
    """Replace FusedConv and FusedGemm of ONNX Runtime by Conv or Gemm, the sum and the activation.

    ONNX Runtime fuses them again where it has kernels. An activation that isn't known stays as it
    is.

    Args:
        graph: changed, with the graphs inside it.
        opset: version of the standard operators.
        root: the graph of the model that it lies in; None where it's that.
    """
    root = root or graph
    if any(_is_fused(node) for node in graph.node):
        names = value_names(root)
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            graph.node.extend(_parts(node, opset, names) if _is_fused(node) else [node])
    for node in graph.node:
        for body in subgraphs(node):
            unfuse(body, opset, root)


def _is_fused(node: onnx.NodeProto) -> bool:
    if node.domain != DOMAIN or node.op_type not in _FUSED:
        return False
    activation = _text(node, "activation")
    return not activation or activation in _ACTIVATIONS


def _text(node: onnx.NodeProto, name: str) -> str:
    return next(
        (attribute.s.decode() for attribute in node.attribute if attribute.name == name), ""
    )


def _parts(node: onnx.NodeProto, opset: int, names: set[str]) -> Iterator[onnx.NodeProto]:
    activation, (result,) = _text(node, "activation"), node.output
    addend = node.input[3] if node.op_type == "FusedConv" and len(node.input) > 3 else ""
    attributes = []
    for attribute in node.attribute:
        if not attribute.name.startswith("activation"):
            attributes.append(attribute)
    product = onnx.NodeProto(
        op_type=_FUSED[node.op_type], name=node.name, doc_string=node.doc_string
    )
    product.input.extend(node.input[:3])
    product.attribute.extend(attributes)
    current = (
        result if not addend and not activation else fresh_name(f"{result}_product", names)
    )
    product.output.append(current)
    yield product
    if addend:
        total = fresh_name(f"{result}_sum", names) if activation else result
        yield onnx.NodeProto(op_type="Add", input=[current, addend], output=[total])
        current = total
    if activation:
        yield from _activation(node, activation, current, opset, names)


def _activation(
    node: onnx.NodeProto, activation: str, source: str, opset: int, taken: set[str]
) -> Iterator[onnx.NodeProto]:
    numbers = next(
        (
            list(attribute.floats)
            for attribute in node.attribute
            if attribute.name == "activation_params"
        ),
        [],
    )
    names = _ACTIVATIONS[activation]
    # FusedGemm has an attribute for each.
    parameters = dict(zip(names, numbers, strict=False)) or {
        name: attribute.f
        for name in names
        for attribute in node.attribute
        if attribute.name == f"activation_{name}"
    }
    if activation == "Clip" and opset >= _CLIP_TAKES_INPUTS:
        inputs = [source]
        for name in names:
            inputs.append(fresh_name(f"{node.output[0]}_{name}", taken))
            yield onnx.helper.make_node(
                "Constant", [], inputs[-1:], value_float=parameters[name]
            )
        yield onnx.helper.make_node("Clip", inputs, list(node.output))
        return
    yield onnx.helper.make_node(activation, [source], list(node.output), **parameters)
