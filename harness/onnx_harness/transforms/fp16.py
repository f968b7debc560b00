"""``fp16``, ``fp16.io32``: weights and arithmetic in float16, by the schema of each operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL, check_limits, clamp

if TYPE_CHECKING:
    import onnx


def convert_float_to_float16(
    model: onnx.ModelProto,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool | Sequence[str] = False,
    disable_shape_infer: bool = False,  # noqa: ARG001  # part of the call that the documentation teaches
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    check_fp16_ready: bool = True,  # noqa: ARG001  # as above
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to float16.

    Takes the arguments that onnxmltools documents. What may be float16 is read in the schema of each operator at the
    model's opset. Calls of the model's own functions are replaced by what the functions hold. Operators of other
    domains stay float32, and so do values computed from shapes: sizes above 2048 aren't exact in float16. Sequences and
    optionals stay float32 as well: nothing casts them, so that one reader of float32 anywhere along the way, or a
    caller, would bind all the others, and what works on them only stores what others compute. What is float16 already
    stays; a model without any float32 is given back as it is, with a remark.

    What the clamp did to weights is left as remarks (`onnx_harness.transforms.remarks`).

    Args:
        model: the model; it may be changed.
        min_positive_val: smaller magnitudes among the weights are raised to it.
        max_finite_val: larger finite magnitudes among the weights are lowered to it.
        keep_io_types: leave the inputs and outputs of the model float32: all, or those of these names.
        disable_shape_infer: accepted, and without effect: no shape is inferred.
        op_block_list: standard operators and functions that stay float32; when not given,
            ``casting.DEFAULT_OP_BLOCK_LIST``, sums that are scaled to a mean at once, and what scales products of
            integers.
        node_block_list: names of nodes that stay float32.
        check_fp16_ready: accepted, and without effect: what is float16 already does no harm.

    Returns:
        The converted model, its inputs and outputs named as before.

    Raises:
        ValueError: the limits can't hold in float16.
        NotApplicable: the model is of an opset before 6, when what a Cast gives wasn't inferred.
    """
    return _converted(model, None, min_positive_val, max_finite_val, keep_io_types, op_block_list, node_block_list)


def convert_float_to_float16_model_path(
    model_path: str | Path,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool | Sequence[str] = False,
    disable_shape_infer: bool = False,  # noqa: ARG001  # part of the call that the documentation teaches
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Convert a model from its file, as `convert_float_to_float16` does.

    Weights in external data are mapped into memory one at a time, so that memory holds little more than the result.
    The result holds all its weights itself: save it with ``save_as_external_data`` where it is above 2 GB.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    folder = Path(model_path).absolute().parent
    model = onnx.load_model(str(model_path), load_external_data=False)
    converted = _converted(
        model, folder, min_positive_val, max_finite_val, keep_io_types, op_block_list, node_block_list
    )
    load_external_data_for_model(converted, str(folder))  # what stays as it is
    return converted


def _converted(
    model: onnx.ModelProto,
    folder: Path | None,
    min_positive_val: float,
    max_finite_val: float,
    keep_io_types: bool | Sequence[str],
    op_block_list: Sequence[str] | None,
    node_block_list: Sequence[str] | None,
) -> onnx.ModelProto:
    """Convert a model, whose external data lie in ``folder``."""
    check_limits(min_positive_val, max_finite_val)

    from onnx_harness.transforms.half.convert import convert_to_half
    from onnx_harness.transforms.half.weights import Rounder

    limits = min_positive_val, max_finite_val
    rounder = Rounder(limits, lambda array, places: clamp(array, *limits, places), folder=folder)
    return convert_to_half(model, rounder, keep_io_types, op_block_list, node_block_list)


def _check(min_positive_val: float = MIN_POSITIVE_VAL, max_finite_val: float = MAX_FINITE_VAL, **_: object) -> None:
    check_limits(min_positive_val, max_finite_val)


_OPTIONS: dict[str, type] = {
    "min_positive_val": float,
    "max_finite_val": float,
    "op_block_list": tuple,
    "node_block_list": tuple,
}

TRANSFORM = (
    Transform(
        summary="weights, arithmetic, inputs and outputs in float16",
        apply=convert_float_to_float16,
        forms={"fp16": {}},
        options=_OPTIONS,
        precision=Precision.FP16,
        float_io="float16",
        groups=("fp16",),
        check=_check,
    ),
    Transform(
        summary="weights and arithmetic in float16, inputs and outputs in float32",
        apply=convert_float_to_float16,
        forms={"fp16.io32": {"keep_io_types": True}},
        options=_OPTIONS,
        precision=Precision.FP16,
        groups=("fp16",),
        check=_check,
    ),
)
