"""``fp16.onnxmltools``: the float16 conversion that onnxmltools documents, nothing mended.

onnxmltools 1.16 has only a stub left in its own place, which points at onnxconverter-common, a
dependency of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable
from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.parts import node_parts

if TYPE_CHECKING:
    import onnx

# How the library begins what it says of a model that it takes for one in float16.
_REFUSES = "already converted to float16"
_FLOAT, _FLOAT16 = 1, 10  # of TensorProto


def convert_as_documented(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """Call ``convert_float_to_float16(model)``, with ``keep_io_types=True`` for the form ``io32``.

    Raises:
        NotApplicable: the model is one in float16, which the library refuses. A model that holds a
            Cast to float16 it refuses as well: that's a fault of its own.
    """
    from onnxconverter_common.float16 import convert_float_to_float16

    try:
        converted: onnx.ModelProto = convert_float_to_float16(model, **options)
    except ValueError as error:
        if _REFUSES in str(error) and _is_float16(model):
            raise NotApplicable(
                "the model is float16 already, and the library refuses to convert it again"
            ) from error
        raise
    return converted


def _is_float16(model: onnx.ModelProto) -> bool:
    """Return whether a model has weights, or else inputs, in float16 and none in float32."""
    weights = {tensor.data_type for tensor in model.graph.initializer}
    inputs = {info.type.tensor_type.elem_type for info in model.graph.input}
    types = weights if weights & {_FLOAT, _FLOAT16} else inputs
    return _FLOAT16 in types and _FLOAT not in types


_SUMMARY = "onnxconverter-common's float16 conversion as released"

TRANSFORM = (
    Transform(
        summary=_SUMMARY,
        apply=convert_as_documented,
        forms={"fp16.onnxmltools": {}},
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        parts=node_parts("node_block_list"),
        float_io="float16",
        groups=("fp16", "peers"),
    ),
    Transform(
        summary=f"{_SUMMARY}, float32 inputs and outputs kept",
        apply=convert_as_documented,
        forms={"fp16.onnxmltools.io32": {"keep_io_types": True}},
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        parts=node_parts("node_block_list"),
        groups=("fp16", "peers"),
    ),
)
