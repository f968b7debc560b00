"""``onnxsim``: onnx-simplifier as its documentation calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_harness.transforms import Transform

if TYPE_CHECKING:
    import onnx


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


TRANSFORM = Transform(
    summary="onnx-simplifier as released",
    apply=simplify_as_documented,
    forms={"onnxsim": {}},
    requires=("onnxsim",),
    groups=("peers",),
)
