"""Calls of a model's own functions replaced by what the functions hold."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx.inliner

from onnx_harness.model.graph import copy_fields


def inline_functions(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """Inline the functions of a model, except those whose name is in ``kept``.

    A function that imports other versions of the operators than the model does stays a call too.

    Args:
        model: of any size: its weights don't pass through the inliner, which takes no more than 2 GB. They leave it.
        kept: names of functions.

    Returns:
        The model itself when it has no function to inline, or else a new one.
    """
    chosen = [(function.domain, function.name) for function in model.functions if function.name not in kept]
    if not chosen:
        return model
    weights = [(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer]
    source = onnx.GraphProto()
    source.initializer.extend(model.graph.initializer)
    model.graph.ClearField("initializer")
    listed = {info.name for info in model.graph.input}
    inputs = len(model.graph.input)
    for name, dtype, dims in weights:
        # As inputs, so that no name inside a function is taken for theirs.
        if name not in listed:
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, dims))
    inlined = onnx.inliner.inline_selected_functions(model, chosen)
    del inlined.graph.input[inputs:]
    inlined.graph.initializer.extend(source.initializer)
    return inlined


def inlined_beside(model: onnx.ModelProto) -> onnx.ModelProto:
    """As ``inline_functions``, and ``model`` stays as it was; a copy of its weights is the only one that is made."""
    light = onnx.ModelProto()
    copy_fields(model, light, but="graph")
    copy_fields(model.graph, light.graph, but="initializer")
    for tensor in model.graph.initializer:
        light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    inlined = inline_functions(light)
    inlined.graph.ClearField("initializer")
    inlined.graph.initializer.extend(model.graph.initializer)
    return inlined
