"""``onnxscript``: ONNX Script's optimizer as its documentation calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_harness.transforms import Transform

if TYPE_CHECKING:
    import onnx


def optimize_as_documented(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxscript.optimizer.optimize(model)``."""
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(model)


TRANSFORM = Transform(
    summary="ONNX Script's optimizer as released",
    apply=optimize_as_documented,
    forms={"onnxscript": {}},
    requires=("onnxscript",),
    groups=("peers",),
)
