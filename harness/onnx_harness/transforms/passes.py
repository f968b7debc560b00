"""``pass.NAME``: a single pass of onnxoptimizer, run once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_harness.transforms import Parts, Transform
from onnx_harness.transforms.optimize import (
    LARGER,
    MAX_BYTES,
    refuse_unread,
    refused_types,
)

if TYPE_CHECKING:
    import onnx

# Written down because collection must not import onnxoptimizer; a test compares it with the
# library.
NAMES = (
    "adjust_add",
    "adjust_slice_and_matmul",
    "eliminate_common_subexpression",
    "eliminate_consecutive_idempotent_ops",
    "eliminate_deadend",
    "eliminate_duplicate_initializer",
    "eliminate_identity",
    "eliminate_if_with_const_cond",
    "eliminate_nop_cast",
    "eliminate_nop_concat",
    "eliminate_nop_dropout",
    "eliminate_nop_expand",
    "eliminate_nop_flatten",
    "eliminate_nop_monotone_argmax",
    "eliminate_nop_pad",
    "eliminate_nop_reshape",
    "eliminate_nop_split",
    "eliminate_nop_transpose",
    "eliminate_nop_with_unit",
    "eliminate_shape_gather",
    "eliminate_shape_op",
    "eliminate_slice_after_shape",
    "eliminate_unused_initializer",
    "extract_constant_to_initializer",
    "fuse_add_bias_into_conv",
    "fuse_bn_into_conv",
    "fuse_concat_into_reshape",
    "fuse_consecutive_concats",
    "fuse_consecutive_log_softmax",
    "fuse_consecutive_reduce_unsqueeze",
    "fuse_consecutive_slices",
    "fuse_consecutive_squeezes",
    "fuse_consecutive_transposes",
    "fuse_consecutive_unsqueezes",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_pad_into_conv",
    "fuse_pad_into_pool",
    "fuse_qkv",
    "fuse_transpose_into_gemm",
    "lift_lexical_references",
    "nop",
    "rename_input_output",
    "replace_einsum_with_matmul",
    "rewrite_input_dtype",
    "rewrite_where",
    "set_unique_name_for_nodes",
    "split_init",
    "split_predict",
)


def run_pass(
    model: onnx.ModelProto, name: str, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """Run the pass ``name`` once, as onnxoptimizer's documentation does, unless it is ``skipped``.

    Raises:
        NotApplicable: the model is over 2 GB, more than onnxoptimizer takes.
        RuntimeError: the model has tensors of a type that onnxoptimizer lacks.
    """
    refuse_unread(model)

    import onnxoptimizer

    with refused_types():
        optimized: onnx.ModelProto = onnxoptimizer.optimize(
            model, [] if name in skipped else [name]
        )
    return optimized


def _parts(_: onnx.ModelProto, options: Mapping[str, Any]) -> Sequence[str]:
    return (options["name"],)


def _without(options: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(names)}


TRANSFORM = Transform(
    summary="a single pass of onnxoptimizer, run once",
    apply=run_pass,
    forms={f"pass.{name}": {"name": name} for name in NAMES},
    requires=("onnxoptimizer",),
    groups=("passes",),
    parts=Parts("pass", _parts, _without),
    most_bytes=MAX_BYTES,
    larger=LARGER,
)
