"""``onnxslim``: OnnxSlim as its documentation calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_harness.transforms import Transform

if TYPE_CHECKING:
    import onnx


def slim_as_documented(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxslim.slim(model)``."""
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model)
    return slimmed


TRANSFORM = Transform(
    summary="OnnxSlim as released",
    apply=slim_as_documented,
    forms={"onnxslim": {}},
    requires=("onnxslim",),
    groups=("peers",),
)
