"""``onnxoptimizer``: the library as its documentation calls it, with its own list of passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_harness.transforms import Transform

if TYPE_CHECKING:
    import onnx


def optimize_as_documented(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxoptimizer.optimize(model)``: every fusing and eliminating pass, once."""
    import onnxoptimizer

    optimized: onnx.ModelProto = onnxoptimizer.optimize(model)
    return optimized


TRANSFORM = Transform(
    summary="onnxoptimizer as released, with its default passes",
    apply=optimize_as_documented,
    forms={"onnxoptimizer": {}},
    requires=("onnxoptimizer",),
    groups=("peers",),
)
