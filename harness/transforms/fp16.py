"""``fp16``, ``fp16.io32``: weights and arithmetic in float16, by the schema of each operator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from harness.errors import NotApplicable
from harness.transforms import Precision, Transform
from harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL, check_limits, convert_np_to_float16

if TYPE_CHECKING:
    import onnx
    import onnx_ir


def convert_float_to_float16(
    model: onnx.ModelProto,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool = False,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to float16.

    Takes the arguments that onnxmltools documents. What may be float16 is read in the schema of each operator at the
    model's opset. Sequences, functions and operators of other domains stay float32, and so do values computed from
    shapes: sizes above 2048 aren't exact in float16.

    Args:
        model: the model; it may be changed.
        min_positive_val: smaller magnitudes among the weights are raised to it.
        max_finite_val: larger finite magnitudes among the weights are lowered to it.
        keep_io_types: leave the inputs and outputs of the model float32.
        op_block_list: standard operators that stay float32; ``casting.DEFAULT_OP_BLOCK_LIST`` when not given.
        node_block_list: names of nodes that stay float32.

    Returns:
        The converted model, its inputs and outputs named as before.

    Raises:
        NotApplicable: the model holds float16 already, or what onnx-ir can't hold.
        ValueError: the limits can't hold in float16.
    """
    check_limits(min_positive_val, max_finite_val)

    from harness.transforms.surgery.casting import DEFAULT_OP_BLOCK_LIST, FLOAT16
    from harness.transforms.surgery.editing import close_model, open_model
    from harness.transforms.surgery.halving import Halver

    blocked_ops = frozenset(DEFAULT_OP_BLOCK_LIST if op_block_list is None else op_block_list)
    blocked_nodes = frozenset(node_block_list or ())

    def blocks(node: onnx_ir.Node) -> bool:
        return node.op_type in blocked_ops or (bool(node.name) and node.name in blocked_nodes)

    editing = open_model(model)
    clamp = partial(convert_np_to_float16, min_positive_val=min_positive_val, max_finite_val=max_finite_val)
    halver = Halver(editing, clamp, keep_io_types, blocks)
    if halver.has_float16:
        raise NotApplicable("the model holds float16 tensors already")
    changed = halver.convert()
    converted = close_model(editing)
    for info in (*converted.graph.input, *converted.graph.output):
        if info.name in changed:
            info.type.tensor_type.elem_type = FLOAT16
    return converted


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
        requires=("onnx-ir",),
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
        requires=("onnx-ir",),
        precision=Precision.FP16,
        groups=("fp16",),
        check=_check,
    ),
)
