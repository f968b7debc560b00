"""``fp16``, ``fp16.io32``, ``fp16.mixed``.

Weights and arithmetic in float16, by the schema of each operator.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.float16 import (
    MAX_FINITE_VAL,
    MIN_POSITIVE_VAL,
    check_limits,
    clamp,
)
from onnx_harness.transforms.parts import node_parts

if TYPE_CHECKING:
    import onnx

    from onnx_harness.transforms.half.mixed import Choose
    from onnx_harness.transforms.half.requests import Request
    from onnx_harness.transforms.half.weights import Rounder


def convert_float_to_float16(
    model: onnx.ModelProto,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool | Sequence[str] = False,
    disable_shape_infer: bool = False,  # noqa: ARG001  # part of the call that the documentation teaches
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    check_fp16_ready: bool = True,  # noqa: ARG001  # as above
    force_fp16_initializers: bool = False,
    force_fp16_inputs: Mapping[str, Sequence[int]] | None = None,
    use_bfloat16_as_blocked_nodes_dtype: bool = False,
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to float16.

    Takes the arguments that onnxmltools documents, and those that ONNX Runtime's own tool adds.
    What may be float16 is read in the schema of each operator at the model's opset, for ONNX
    Runtime's operators in its schemas. Calls of the model's own functions are replaced by what the
    functions hold. Operators of other domains stay float32. So do values computed from shapes and
    from integers, up to the operator that bounds them or brings them together with activations, and
    what computes angles, sizes and indices: see ``half.positions``. Norms, long sums, logarithms
    over a floor and exponentials whose logarithm or share is taken stay float32 for the range of
    their numbers: see ``half.ranges``, ``half.long_sums`` and ``half.exponentials``. Sequences and
    optionals stay float32 as well: nothing casts them, so that one reader of float32 anywhere along
    the way, or a caller, would bind all the others, and what works on them only stores what others
    compute. What is float16 already stays; a model without any float32 is given back as it is, with
    a remark.

    What the clamp did to weights is left as remarks (`onnx_harness.transforms.remarks`), and warned
    of as onnxconverter-common does.

    Args:
        model: the model; it isn't changed.
        min_positive_val: smaller magnitudes among the weights are raised to it.
        max_finite_val: larger finite magnitudes among the weights are lowered to it.
        keep_io_types: leave the inputs and outputs of the model float32: all, or those of these
            names.
        disable_shape_infer: accepted, and without effect: no shape is inferred.
        op_block_list: operators and functions that stay float32; when not given,
            ``schemas.DEFAULT_OP_BLOCK_LIST``, what is kept for its range, sums that are scaled to a
            mean at once, and what scales products of integers.
        node_block_list: names of nodes that stay float32.
        check_fp16_ready: accepted, and without effect: what is float16 already does no harm.
        force_fp16_initializers: constants that float32 operators read become float16 too, with a
            Cast for these.
        force_fp16_inputs: places of inputs, by operator, that become float16 where the schema
            allows it though they would stay float32, such as the region of a Resize.
        use_bfloat16_as_blocked_nodes_dtype: what ``op_block_list`` and ``node_block_list`` keep
            computes in bfloat16. Operators that stay float32 without being named do so still.
        allow_missing: names in the two lists and in ``force_fp16_inputs`` that the model doesn't
            have do no harm, for settings that models share.

    Returns:
        The converted model, its inputs and outputs named as before.

    Raises:
        ValueError: the limits can't hold in float16.
        NotApplicable: the model is of an opset before 6, when what a Cast gives wasn't inferred, or
            before 13 and bfloat16 is asked for.
        UsageError: a list names an operator, a node, an input or an output that the model doesn't
            have.

    Warns:
        UserWarning: a weight was raised to ``min_positive_val`` or lowered to ``max_finite_val``.
    """
    from onnx_harness.transforms.half.convert import converted_copy
    from onnx_harness.transforms.half.requests import Request

    rounder = _rounder(min_positive_val, max_finite_val)
    request = Request(
        keep_io_types,
        op_block_list,
        node_block_list,
        allow_missing,
        force_initializers=force_fp16_initializers,
        force_inputs=force_fp16_inputs or {},
    )
    converted = converted_copy(model, rounder, request)
    for magnitude, limit in rounder.clamped():
        warnings.warn(
            f"the float32 number {magnitude} will be truncated to {limit}", stacklevel=2
        )
    if use_bfloat16_as_blocked_nodes_dtype:
        return _with_bfloat16(converted, request)
    return converted


def convert_float_to_float16_model_path(
    model_path: str | Path,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool | Sequence[str] = False,
    disable_shape_infer: bool = False,  # noqa: ARG001  # part of the call that the documentation teaches
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Convert a model from its file, as `convert_float_to_float16` does.

    Weights in external data are mapped into memory one at a time, so that memory holds little more
    than the result. The result holds all its weights itself: save it with ``save_as_external_data``
    where it is above 2 GB.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    from onnx_harness.transforms.half.convert import convert_to_half
    from onnx_harness.transforms.half.requests import Request

    folder = Path(model_path).absolute().parent
    model = onnx.load_model(str(model_path), load_external_data=False)
    rounder = _rounder(min_positive_val, max_finite_val, folder)
    converted = convert_to_half(
        model, rounder, Request(keep_io_types, op_block_list, node_block_list, allow_missing)
    )
    load_external_data_for_model(converted, str(folder))  # what stays as it is
    return converted


def convert_in_place(
    model: onnx.ModelProto,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool | Sequence[str] = False,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    allow_missing: bool = False,
    refuse_vain: bool = True,
) -> onnx.ModelProto:
    """Convert a model as `convert_float_to_float16` does, for a cell.

    A conversion of next to nothing doesn't apply.

    Args:
        model: the model; it may be changed.
        min_positive_val: as there, and so are the others.
        max_finite_val: as there.
        keep_io_types: as there.
        op_block_list: as there.
        node_block_list: as there.
        allow_missing: as there.
        refuse_vain: a conversion of next to nothing doesn't apply; a diagnosis asks for one.

    Raises:
        NotApplicable: as there, no node would compute in the half type, or less than a tenth
            of the float32 weights would be converted, those that only nodes of
            ``node_block_list`` read left out.
        UsageError: as there.
    """
    from onnx_harness.model.streaming import weights_folder
    from onnx_harness.transforms.half.convert import convert_to_half
    from onnx_harness.transforms.half.requests import Request

    request = Request(
        keep_io_types, op_block_list, node_block_list, allow_missing, refuse_vain=refuse_vain
    )
    rounder = _rounder(min_positive_val, max_finite_val, weights_folder())
    return convert_to_half(model, rounder, request)


def convert_mixed(
    model: onnx.ModelProto,
    choose: Choose,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Convert a model as ``fp16.io32`` does, but for some nodes.

    Those have to stay float32 for its outputs to be right.

    The result is, bit for bit, that of ``fp16.io32`` with those nodes in its ``node_block_list``.

    Args:
        model: the model; it may be changed.
        choose: chooses the nodes.
        min_positive_val: as `convert_float_to_float16`, and so are the others.
        max_finite_val: as there.
        op_block_list: as there.
        node_block_list: as there; what is chosen is added to it.
        allow_missing: as there.

    Raises:
        NotApplicable: as `convert_in_place`, or no choice makes it right.
        UsageError: as there.
    """
    from onnx_harness.transforms.half.mixed import MixedConversion
    from onnx_harness.transforms.half.requests import Request
    from onnx_harness.transforms.half.schemas import FLOAT16

    limits = min_positive_val, max_finite_val
    check_limits(*limits)
    request = Request(True, op_block_list, node_block_list, allow_missing, refuse_vain=True)
    return MixedConversion(
        model,
        request,
        limits,
        lambda array, places: clamp(array, *limits, places),
        FLOAT16,
        "fp16.io32",
    ).with_choice(choose)


def _rounder(
    min_positive_val: float, max_finite_val: float, folder: Path | None = None
) -> Rounder:
    """Return what rounds weights to float16 and clamps them; external data lie in ``folder``."""
    check_limits(min_positive_val, max_finite_val)

    from onnx_harness.transforms.half.weights import Rounder

    limits = min_positive_val, max_finite_val
    return Rounder(
        limits, lambda array, places: clamp(array, *limits, places), folder=folder
    )


def _with_bfloat16(converted: onnx.ModelProto, request: Request) -> onnx.ModelProto:
    """The converted model, what the caller blocked computing in bfloat16."""
    from onnx_harness.transforms.bf16 import convert_float_to_bfloat16
    from onnx_harness.transforms.half.schemas import DEFAULT_OP_BLOCK_LIST

    named = frozenset(request.op_block_list or ())
    stays = [name for name in DEFAULT_OP_BLOCK_LIST if name not in named]
    return convert_float_to_bfloat16(
        converted, keep_io_types=True, op_block_list=stays, allow_missing=True
    )


def _check(
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    **_: object,
) -> None:
    check_limits(min_positive_val, max_finite_val)


_OPTIONS: dict[str, type] = {
    "min_positive_val": float,
    "max_finite_val": float,
    "op_block_list": tuple,
    "node_block_list": tuple,
    "allow_missing": bool,
}

TRANSFORM = (
    Transform(
        summary="weights, arithmetic, inputs and outputs in float16",
        apply=convert_in_place,
        forms={"fp16": {}},
        options={**_OPTIONS, "keep_io_types": tuple},
        precision=Precision.FP16,
        float_io="float16",
        groups=("fp16",),
        check=_check,
        parts=node_parts("node_block_list", refuse_vain=False),
        streams=True,
    ),
    Transform(
        summary="weights and arithmetic in float16, inputs and outputs in float32",
        apply=convert_in_place,
        forms={"fp16.io32": {"keep_io_types": True}},
        options=_OPTIONS,
        precision=Precision.FP16,
        groups=("fp16",),
        check=_check,
        parts=node_parts("node_block_list", refuse_vain=False),
        streams=True,
    ),
    Transform(
        # In no group but `all`: what a search costs is asked for.
        summary="as fp16.io32, but for the nodes that have to stay float32, which are searched for",
        apply=convert_mixed,
        forms={"fp16.mixed": {}},
        options=_OPTIONS,
        precision=Precision.FP16,
        chosen=True,
        check=_check,
    ),
)
