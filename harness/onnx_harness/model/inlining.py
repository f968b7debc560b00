"""Calls of a model's own functions replaced by what the functions hold."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx.inliner

from onnx_harness.model.messages import copy_fields


def inline_functions(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """Inline the functions of a model, except those whose name is in ``kept``.

    A function that imports other versions of the operators than the model does stays a call too.

    Args:
        model: of any size, and it stays as it is. Its weights don't pass through the inliner, which
            takes no more than 2 GB; they are copied once.
        kept: names of functions.

    Returns:
        The model itself when it has no function to inline, or else a new one.
    """
    chosen = []
    for function in model.functions:
        if function.name not in kept:
            chosen.append((function.domain, function.name))
    if not chosen:
        return model
    light = onnx.ModelProto()
    copy_fields(model, light, but="graph")
    copy_fields(model.graph, light.graph, but="initializer")
    listed = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        # As inputs, so that no name inside a function is taken for theirs.
        if tensor.name not in listed:
            info = onnx.helper.make_tensor_value_info(
                tensor.name, tensor.data_type, tensor.dims
            )
            light.graph.input.append(info)
    inlined = onnx.inliner.inline_selected_functions(light, chosen)
    del inlined.graph.input[len(model.graph.input) :]
    inlined.graph.initializer.extend(model.graph.initializer)
    return inlined
