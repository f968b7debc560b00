"""A candidate's graph as it is watched: its values matched with the reference's, exposed as outputs,
and severed, so that each node is fed with the reference's values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from onnx_harness.model.inference import infer_types
from onnx_harness.model.walk import reads

MADE = "onnx_harness_made_"
"""Begins the names of the outputs that nodes of a severed graph make."""
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
        By name, in the order of ``model``; of types that can be fed.
    """
    types_before, types_after = _element_types(original), _element_types(model)
    names = {name for node in original.graph.node for name in node.output if name}
    matched: dict[str, int] = {}
    for node in model.graph.node:
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
    return {
        info.name: info.type.tensor_type.elem_type
        for info in (*inferred.value_info, *inferred.output, *declared)
        if info.type.HasField("tensor_type")
    }


def exposed(model: onnx.ModelProto, values: Mapping[str, int]) -> onnx.ModelProto:
    """Return the model, changed, with values as further outputs.

    Args:
        model: it is changed.
        values: element types by name; those that the main graph doesn't make are left out.
    """
    present = {name for node in model.graph.node for name in node.output}
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
    outputs += [helper.make_tensor_value_info(MADE + name, values[name], None) for name in names]
    graph.ClearField("output")
    graph.output.extend(outputs)
    graph.input.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in values.items()
    )
    return model


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
