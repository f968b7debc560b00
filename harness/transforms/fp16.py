"""``fp16``, ``fp16.io32``: weights and arithmetic in float16, by the schema of each operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.transforms import Precision, Transform, remark
from harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL, check_limits

if TYPE_CHECKING:
    import onnx
    import onnx_ir

# Shape inference reads the values of small tensors, so that they are loaded before it.
_LOADED_ELEMENTS = 1 << 14


def convert_float_to_float16(
    model: onnx.ModelProto,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool | Sequence[str] = False,
    disable_shape_infer: bool = False,  # noqa: ARG001  # part of the call that the documentation teaches
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to float16.

    Takes the arguments that onnxmltools documents. What may be float16 is read in the schema of each operator at the
    model's opset. Calls of the model's own functions are replaced by what the functions hold. Sequences and operators
    of other domains stay float32, and so do values computed from shapes: sizes above 2048 aren't exact in float16.
    What is float16 already stays; a model without any float32 is given back as it is, with a remark.

    What the clamp did to weights is left as remarks (`harness.transforms.remarks`).

    Args:
        model: the model; it may be changed.
        min_positive_val: smaller magnitudes among the weights are raised to it.
        max_finite_val: larger finite magnitudes among the weights are lowered to it.
        keep_io_types: leave the inputs and outputs of the model float32: all, or those of these names.
        disable_shape_infer: accepted, and without effect: the conversion rests on the types that inference finds. It
            is one run without the weights, which is what the option was there to avoid.
        op_block_list: standard operators and functions that stay float32; when not given,
            ``casting.DEFAULT_OP_BLOCK_LIST`` and sums that are scaled to a mean at once.
        node_block_list: names of nodes that stay float32.

    Returns:
        The converted model, its inputs and outputs named as before.

    Raises:
        NotApplicable: the model holds what onnx-ir can't hold.
        ValueError: the limits can't hold in float16.
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
    from onnx.external_data_helper import (
        load_external_data_for_model,
        load_external_data_for_tensor,
        uses_external_data,
    )

    folder = Path(model_path).absolute().parent
    model = onnx.load_model(str(model_path), load_external_data=False)
    for tensor in model.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size <= _LOADED_ELEMENTS and uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.ClearField("external_data")
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

    from onnx_ir.external_data import set_base_dir

    from harness.transforms.surgery.casting import DEFAULT_OP_BLOCK_LIST, FLOAT16
    from harness.transforms.surgery.clamping import Rounder
    from harness.transforms.surgery.editing import close_model, open_model
    from harness.transforms.surgery.halving import Halver
    from harness.transforms.surgery.inlining import inline_functions

    blocked_ops = frozenset(DEFAULT_OP_BLOCK_LIST if op_block_list is None else op_block_list)
    blocked_nodes = frozenset(node_block_list or ())

    def blocks(node: onnx_ir.Node) -> bool:
        named = bool(node.name) and node.name in blocked_nodes
        return named or node.op_type in blocked_ops or (op_block_list is None and _is_mean(node))

    # A function is kept whole by its name in the list, or where a node that calls it is; not by a standard operator's.
    called = {node.op_type for node in model.graph.node if node.name in blocked_nodes}
    editing = open_model(inline_functions(model, kept=called.union(op_block_list or ())))
    if folder is not None:
        set_base_dir(editing.graph, folder)
    rounder = Rounder(min_positive_val, max_finite_val)
    keeps = keep_io_types if isinstance(keep_io_types, bool) else frozenset(keep_io_types)
    halver = Halver(editing, rounder, keeps, blocks)
    if not halver.has_float32:
        remark("nothing was converted: the model has no float32 tensor")
        return model
    changed = halver.convert()
    converted = close_model(editing)
    for text in rounder.remarks():
        remark(text)
    for info in (*converted.graph.input, *converted.graph.output):
        if info.name in changed:
            info.type.tensor_type.elem_type = FLOAT16
    return converted


def _is_mean(node: onnx_ir.Node) -> bool:
    """Whether a node is part of a mean that is spelt out: the sum overflows in float16, what it's scaled to doesn't."""
    if node.op_type == "ReduceSum":
        uses = list(node.outputs[0].uses())
        return len(uses) == 1 and _scales(uses[0].node, uses[0].idx)
    producers = [value.producer() if value is not None else None for value in node.inputs]
    return any(
        producer is not None and producer.op_type == "ReduceSum" and _scales(node, index) and _is_mean(producer)
        for index, producer in enumerate(producers)
    )


def _scales(node: onnx_ir.Node, index: int) -> bool:
    """Whether ``node`` divides its input at ``index``, or multiplies it by a constant."""
    if node.op_type == "Div":
        return index == 0
    other = node.inputs[1 - index] if node.op_type == "Mul" else None
    return other is not None and (other.is_initializer() or other.const_value is not None)


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
