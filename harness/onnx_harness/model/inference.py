"""Types and shapes of a model's values, as onnx infers them; weights of any size."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from onnx_harness.model.label_keys import with_key_types
from onnx_harness.model.messages import copy_fields

# Inference reads shapes, axes and index lists; of weights it wants the shape alone.
_MOST_READ = 1024
_DATA = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)


def infer_types(
    model: onnx.ModelProto, *, follow_sizes: bool = False, required: bool = False
) -> onnx.ModelProto:
    """Return a model with the types and shapes of its values.

    Those of the graphs inside it are included.

    The policy: what onnx can't infer stays unknown, and what the model states is believed. onnx
    isn't asked whether the two agree, since inference isn't defined for every valid model.
    `model.types.infer` asks that, and believes less.

    Args:
        model: it stays as it is. Its weights don't pass through onnx, which takes no more than 2
            GB.
        follow_sizes: compute sizes too, which shapes depend on.
        required: raise where onnx gives up on the whole model, instead of returning it as it is:
            for callers that would take a value without a type for one of another type.

    Returns:
        The model without the data of its large initializers, or the model itself.

    Raises:
        Exception: what onnx raises, if ``required``.
    """
    light = with_key_types(without_weights(model))
    try:
        inferred = onnx.shape_inference.infer_shapes(
            light, check_type=False, strict_mode=False, data_prop=follow_sizes
        )
    except Exception:  # what it raises varies
        if required:
            raise
        return model
    return inferred if light is model else _with_initializers(inferred, model)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose large initializers are inputs of their type and shape.

    The model itself if it has none.

    Large are those of more than 1,024 elements, and those whose data lies elsewhere.
    """
    if not any(_is_large(tensor) for tensor in model.graph.initializer):
        return model
    light = onnx.ModelProto()
    copy_fields(model, light, but="graph")
    copy_fields(model.graph, light.graph, but="initializer")
    listed = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if not _is_large(tensor):
            light.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            info = onnx.helper.make_tensor_value_info(
                tensor.name, tensor.data_type, list(tensor.dims)
            )
            light.graph.input.append(info)
    return light


def _with_initializers(inferred: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the initializers where they were: the large ones by name, type and dimensions."""
    del inferred.graph.input[len(model.graph.input) :]
    inferred.graph.ClearField("initializer")
    for tensor in model.graph.initializer:
        if _is_large(tensor):
            inferred.graph.initializer.add(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
            )
        else:
            inferred.graph.initializer.append(tensor)
    return inferred


def _is_large(tensor: TensorProto) -> bool:
    elements = math.prod(tensor.dims)
    if elements > _MOST_READ or tensor.data_location == TensorProto.EXTERNAL:
        return True
    return elements > 0 and not any(len(getattr(tensor, name)) for name in _DATA)
