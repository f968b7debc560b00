"""A candidate's graph as it is watched.

Its values matched with the reference's, exposed as outputs, and severed, so that each node is fed
with the reference's values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from onnx_harness.diagnose.smaller_case import copied, info_of
from onnx_harness.model.cut import cut
from onnx_harness.model.inference import infer_types, without_weights
from onnx_harness.model.walk import reads

MADE = "onnx_harness_made_"
"""Begins the names of the outputs that nodes of a severed graph make."""
_MOST_ITEM_BYTES = 8
_TENSORS = frozenset(
    {
        *(onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16),
        *(onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL),
        *(onnx.TensorProto.INT8, onnx.TensorProto.UINT8),
    }
)


def matching_values(original: onnx.ModelProto, model: onnx.ModelProto) -> dict[str, int]:
    """Return the values that nodes of both main graphs make, with their element types.

    Returns:
        By name, in the order of ``model``; of types that can be fed. Constants aren't among them.
    """
    types_before, types_after = _element_types(original), _element_types(model)
    names = set()
    for node in original.graph.node:
        for name in node.output:
            if name:
                names.add(name)
    matched: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Constant":  # a weight of the nodes that read it
            continue
        for name in node.output:
            kind = types_after.get(name) or types_before.get(name, 0)
            same_type = types_before.get(name, kind) == kind
            if name in names and kind in _TENSORS and same_type:
                matched[name] = kind
    return matched


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types of the main graph's tensors, as far as they can be inferred."""
    inferred = infer_types(model).graph
    declared = (*model.graph.value_info, *model.graph.output)
    elem_types: dict[str, int] = {}
    for info in (*inferred.value_info, *inferred.output, *declared):
        if info.type.HasField("tensor_type"):
            elem_types[info.name] = info.type.tensor_type.elem_type
    return elem_types


def exposed(model: onnx.ModelProto, values: Mapping[str, int]) -> onnx.ModelProto:
    """Return the model, changed, with values as further outputs.

    Args:
        model: it is changed.
        values: element types by name; those that the main graph doesn't make are left out.
    """
    present = set()
    for node in model.graph.node:
        for name in node.output:
            present.add(name)
    outputs = {info.name for info in model.graph.output}
    for name, kind in values.items():
        if name in present and name not in outputs:
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return model


def severed(
    model: onnx.ModelProto, values: Mapping[str, int], *, with_values: bool = True
) -> onnx.ModelProto:
    """Return the model, changed, with values read from inputs and given under another name.

    Args:
        model: it is changed.
        values: element types by name.
        with_values: give what is made in their place as outputs; graph outputs among them are
            given anyhow.
    """
    graph = model.graph
    graph.ClearField("value_info")
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in values:
                node.output[place] = MADE + name
    outputs = [info for info in graph.output if info.name not in values]
    own = [info.name for info in graph.output if info.name in values]
    names = list(values) if with_values else own
    outputs += [
        helper.make_tensor_value_info(MADE + name, values[name], None) for name in names
    ]
    graph.ClearField("output")
    graph.output.extend(outputs)
    severed = []
    for name, kind in values.items():
        severed.append(helper.make_tensor_value_info(name, kind, None))
    graph.input.extend(severed)
    return model


def part_of_severed(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """Return the part of a severed model that makes some values: ONNX Runtime runs all there is.

    Args:
        model: as `severed` gives it.
        values: names of values that it was severed at.
    """
    types = {info.name: info for info in (*model.graph.input, *model.graph.output)}
    return cut(model, (), [MADE + name for name in values], types)


def byte_sizes(model: onnx.ModelProto, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of values for inputs of some shapes, as far as they can be inferred.

    A dimension that isn't known counts as 64.

    Args:
        model: it stays as it is.
        inputs: an array by name.
    """
    light = copied(without_weights(model))
    for info in light.graph.input:
        if info.name in inputs and hasattr(inputs[info.name], "shape"):
            info.CopyFrom(info_of(info.name, inputs[info.name]))
    light.graph.ClearField("value_info")
    for info in light.graph.output:
        info.type.tensor_type.ClearField("shape")
    inferred = infer_types(light, follow_sizes=True).graph
    sizes: dict[str, int] = {}
    for info in (*inferred.value_info, *inferred.output):
        if not info.type.HasField("tensor_type"):
            continue
        dims = info.type.tensor_type.shape.dim
        lengths = [dim.dim_value if dim.HasField("dim_value") else 64 for dim in dims]
        sizes[info.name] = _MOST_ITEM_BYTES * math.prod(lengths)
    return sizes


def sources(graph: onnx.GraphProto, values: Mapping[str, int]) -> dict[str, Sequence[str]]:
    """Return, for each value, the values that the nodes before it read, up to the next ones."""
    makers = {name: node for node in graph.node for name in node.output if name}
    before: dict[str, list[str]] = {}

    def sources_of(name: str) -> list[str]:
        node = makers.get(name)
        if node is None:
            return []
        if name not in before:
            before[name] = []  # graphs have no cycles; a broken one mustn't end in one here
            names: dict[str, None] = {}
            for read in filter(None, reads(node)):
                names.update(dict.fromkeys([read] if read in values else sources_of(read)))
            before[name] = list(names)
        return before[name]

    for node in graph.node:  # in order, so that no recursion is deep
        for name in node.output:
            sources_of(name)
    return {name: before.get(name, []) for name in values}
