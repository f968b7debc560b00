"""``fp16.onnxmltools``: the float16 conversion that onnxmltools documents, nothing mended.

onnxmltools 1.16 has only a stub left in its own place, which points at onnxconverter-common, a dependency of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx_harness.transforms import Precision, Transform

if TYPE_CHECKING:
    import onnx


def convert_as_documented(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """``convert_float_to_float16(model)``, with ``keep_io_types=True`` for the form ``io32``."""
    from onnxconverter_common.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model, **options)
    return converted


_SUMMARY = "onnxconverter-common's float16 conversion as released"

TRANSFORM = (
    Transform(
        summary=_SUMMARY,
        apply=convert_as_documented,
        forms={"fp16.onnxmltools": {}},
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        float_io="float16",
        groups=("fp16", "peers"),
    ),
    Transform(
        summary=f"{_SUMMARY}, float32 inputs and outputs kept",
        apply=convert_as_documented,
        forms={"fp16.onnxmltools.io32": {"keep_io_types": True}},
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        groups=("fp16", "peers"),
    ),
)
