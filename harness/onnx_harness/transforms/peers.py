"""Libraries of others as their documentation calls them, nothing mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_harness.transforms import Apply, Transform

if TYPE_CHECKING:
    import onnx


def optimize_as_documented(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxoptimizer.optimize(model)``: every fusing and eliminating pass, once."""
    import onnxoptimizer

    optimized: onnx.ModelProto = onnxoptimizer.optimize(model)
    return optimized


def simplify_as_documented(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxsim.simplify(model)``.

    Raises:
        RuntimeError: the library says that its own result doesn't hold.
    """
    import onnxsim

    simplified: onnx.ModelProto
    simplified, valid = onnxsim.simplify(model)
    # The documentation follows the call with: assert check, "Simplified ONNX model could not be validated".
    if not valid:
        raise RuntimeError("onnxsim could not validate the simplified model")
    return simplified


def slim_as_documented(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxslim.slim(model)``."""
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model)
    return slimmed


def optimize_by_script(model: onnx.ModelProto) -> onnx.ModelProto:
    """``onnxscript.optimizer.optimize(model)``."""
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(model)


def _peer(distribution: str, summary: str, apply: Apply) -> Transform:
    return Transform(
        summary=summary,
        apply=apply,
        forms={distribution: {}},
        requires=(distribution,),
        groups=("peers",),
    )


TRANSFORM = (
    _peer("onnxoptimizer", "onnxoptimizer as released, with its default passes", optimize_as_documented),
    _peer("onnxsim", "onnx-simplifier as released", simplify_as_documented),
    _peer("onnxslim", "OnnxSlim as released", slim_as_documented),
    _peer("onnxscript", "ONNX Script's optimizer as released", optimize_by_script),
)
