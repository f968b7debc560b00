"""``bf16``, ``bf16.io32``, ``bf16.mixed``.

Weights and arithmetic in bfloat16, by the schema of each operator.

bfloat16 has the exponents of float32 and 8 bits of precision. So no weight is clamped to a range,
as for float16: only what rounds to infinity, above 3.39e38, becomes the largest finite value. Below
4.6e-41, which is subnormal in float32 already, a weight rounds to zero. The operators that float16
spares are spared here too: their reasons, counts, coordinates and ties, weigh more with fewer bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable
from onnx_harness.model.ops import opset_of
from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.float16 import Clamped
from onnx_harness.transforms.parts import node_parts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from onnx_harness.transforms.half.mixed import Choose
    from onnx_harness.transforms.half.weights import Rounder

MAX_FINITE_VAL = (2 - 2.0**-7) * 2.0**127

# Add, MatMul and nearly all others take bfloat16 since then.
_OPSET = 13


def convert_float_to_bfloat16(
    model: onnx.ModelProto,
    keep_io_types: bool | Sequence[str] = False,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to bfloat16.

    What holds for `onnx_harness.transforms.fp16.convert_float_to_float16` holds here; float16 in
    the model stays as it is.

    Args:
        model: the model; it isn't changed.
        keep_io_types: leave the inputs and outputs of the model float32: all, or those of these
            names.
        op_block_list: standard operators and functions that stay float32;
            ``casting.DEFAULT_OP_BLOCK_LIST`` when not given.
        node_block_list: names of nodes that stay float32.
        allow_missing: names in the two lists that the model doesn't have do no harm.

    Returns:
        The converted model, its inputs and outputs named as before.

    Raises:
        NotApplicable: the model's opset has no operators on bfloat16.
        UsageError: a list names what the model doesn't have.
    """
    from onnx_harness.transforms.half.convert import converted_copy
    from onnx_harness.transforms.half.requests import Request

    request = Request(keep_io_types, op_block_list, node_block_list, allow_missing)
    return converted_copy(model, _rounder(model), request)


def convert_in_place(
    model: onnx.ModelProto,
    keep_io_types: bool | Sequence[str] = False,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    allow_missing: bool = False,
    refuse_vain: bool = True,
) -> onnx.ModelProto:
    """Convert a model as `convert_float_to_bfloat16` does, for a cell.

    A conversion of next to nothing doesn't apply.

    Args:
        model: the model; it may be changed.
        keep_io_types: as there, and so are the others.
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
    from onnx_harness.transforms.half.convert import convert_to_half
    from onnx_harness.transforms.half.requests import Request

    request = Request(
        keep_io_types, op_block_list, node_block_list, allow_missing, refuse_vain=refuse_vain
    )
    return convert_to_half(model, _rounder(model), request)


def convert_mixed(
    model: onnx.ModelProto,
    choose: Choose,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Convert a model as ``bf16.io32`` does, but for some nodes.

    Those have to stay float32 for its outputs to be right.

    The result is, bit for bit, that of ``bf16.io32`` with those nodes in its ``node_block_list``.

    Args:
        model: the model; it may be changed.
        choose: chooses the nodes.
        op_block_list: as `convert_float_to_bfloat16`, and so are the others.
        node_block_list: as there; what is chosen is added to it.
        allow_missing: as there.

    Raises:
        NotApplicable: as `convert_in_place`, or no choice makes it right.
        UsageError: as there.
    """
    from onnx_harness.transforms.half.mixed import MixedConversion
    from onnx_harness.transforms.half.requests import Request
    from onnx_harness.transforms.half.schemas import BFLOAT16

    _rounder(model)  # refuses an opset that has no bfloat16
    request = Request(True, op_block_list, node_block_list, allow_missing, refuse_vain=True)
    limits = 0.0, MAX_FINITE_VAL
    return MixedConversion(
        model, request, limits, round_to_bfloat16, BFLOAT16, "bf16.io32"
    ).with_choice(choose)


def _rounder(model: onnx.ModelProto) -> Rounder:
    """Return what rounds weights to bfloat16, if the model's operators take it."""
    from onnx_harness.transforms.half.schemas import BFLOAT16
    from onnx_harness.transforms.half.weights import Rounder

    opset = opset_of(model)
    if opset < _OPSET:
        raise NotApplicable(
            f"operators take bfloat16 since opset {_OPSET}, and the model is of opset {opset}"
        )
    return Rounder((0.0, MAX_FINITE_VAL), round_to_bfloat16, BFLOAT16)


def round_to_bfloat16(
    array: npt.NDArray[np.float32], places: list[npt.NDArray[np.intp]] | None = None
) -> Clamped:
    """Round to bfloat16, to the nearest, ties to even; finite values stay finite, with their sign.

    Args:
        array: float32, one-dimensional.
        places: if given, gets an array of the places of what was lowered.

    Returns:
        A new array of ``ml_dtypes.bfloat16``, and the account of values above ``MAX_FINITE_VAL``.
    """
    import ml_dtypes
    import numpy as np

    with np.errstate(all="ignore"):
        halves = array.astype(ml_dtypes.bfloat16)
    # Rounding is monotone: what is above the largest value becomes that or infinite.
    largest = np.array(MAX_FINITE_VAL, ml_dtypes.bfloat16)
    suspects = np.flatnonzero((halves.view(np.uint16) & 0x7FFF) >= largest.view(np.uint16))
    magnitudes = np.abs(array[suspects])
    lowered = suspects[(magnitudes > MAX_FINITE_VAL) & (magnitudes < np.inf)]
    if not lowered.size:
        return Clamped(halves)
    halves[lowered] = np.copysign(np.float32(MAX_FINITE_VAL), array[lowered])
    if places is not None:
        places.append(lowered)
    return Clamped(
        halves, lowered=int(lowered.size), largest=float(np.abs(array[lowered]).max())
    )


_OPTIONS: dict[str, type] = {
    "op_block_list": tuple,
    "node_block_list": tuple,
    "allow_missing": bool,
}


def _transform(summary: str, form: str, **rest: Any) -> Transform:
    # In no group but `all`: ONNX Runtime's CPU provider has next to no kernels for it.
    return Transform(
        summary=summary,
        apply=convert_in_place,
        forms={form: {"keep_io_types": True} if form.endswith("io32") else {}},
        options=_OPTIONS if form.endswith("io32") else {**_OPTIONS, "keep_io_types": tuple},
        precision=Precision.BF16,
        parts=node_parts("node_block_list", refuse_vain=False),
        **rest,
    )


TRANSFORM = (
    _transform(
        "weights, arithmetic, inputs and outputs in bfloat16", "bf16", float_io="bfloat16"
    ),
    _transform(
        "weights and arithmetic in bfloat16, inputs and outputs in float32", "bf16.io32"
    ),
    Transform(
        summary="as bf16.io32, but for the nodes that have to stay float32, which are searched for",
        apply=convert_mixed,
        forms={"bf16.mixed": {}},
        options=_OPTIONS,
        precision=Precision.BF16,
        chosen=True,
    ),
)
