"""Find what works on float16, from which operators before opset 19 quantize nothing.

The library quantizes it all the same, and onnx's checker rejects the file.
"""

from __future__ import annotations

import onnx

from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import imports_standard, opset_of
from onnx_harness.transforms.quantization.operators import FLOAT16_SINCE

_HALF = onnx.TensorProto.FLOAT16


def half_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the outputs of nodes of the main graph that read or give float16.

    None where the model's opset quantizes from float16, or a type can't be inferred.

    Args:
        model: it stays as it is.
    """
    graph = model.graph
    if not imports_standard(model) or opset_of(model) >= FLOAT16_SINCE:
        return frozenset()
    if not _may_hold_halves(graph):
        return frozenset()
    inferred = infer_types(model).graph
    halves = set()
    for info in (*inferred.value_info, *inferred.input, *inferred.output):
        if info.type.tensor_type.elem_type == _HALF:
            halves.add(info.name)
    names: set[str] = set()
    for node in graph.node:
        if not halves.isdisjoint((*node.input, *node.output)):
            names.update(node.output)
    return frozenset(names - {""})


def _may_hold_halves(graph: onnx.GraphProto) -> bool:
    """Return whether a graph takes float16 or makes it: types are inferred for no other."""
    if any(info.type.tensor_type.elem_type == _HALF for info in graph.input):
        return True
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    return any(_HALF in (attribute.i, attribute.t.data_type) for attribute in attributes)
