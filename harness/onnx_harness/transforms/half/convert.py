"""A model to float16 or bfloat16: read, decided, written, its weights last."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

import onnx

from onnx_harness.errors import NotApplicable
from onnx_harness.model.collector import collector_paused
from onnx_harness.model.graph import copy_fields
from onnx_harness.model.inlining import inline_functions
from onnx_harness.transforms import remark
from onnx_harness.transforms.half import contrib
from onnx_harness.transforms.half.decide import Halving
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.integer_products import multiply_before_moving
from onnx_harness.transforms.half.rewrite import Rewiring
from onnx_harness.transforms.half.schemas import DEFAULT_OP_BLOCK_LIST, FLOAT16
from onnx_harness.transforms.half.unfuse import unfuse
from onnx_harness.transforms.half.weights import Rounder

# From this many weights on, the result is a new model. A message never gives memory back while it lives, so that one
# changed in place would hold its float32 weights as well.
_LARGE = 1 << 24
_BLOCKED_OPS = frozenset(DEFAULT_OP_BLOCK_LIST)
# Before, a Cast says its type in words, from which neither onnx nor ONNX Runtime infers it.
_CASTS_INFER = 6


def convert_to_half(
    model: onnx.ModelProto,
    rounder: Rounder,
    keep_io_types: bool | Collection[str] = False,
    op_block_list: Collection[str] | None = None,
    node_block_list: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to the half type that ``rounder`` rounds to.

    Args:
        model: the model; it is changed.
        rounder: for its weights.
        keep_io_types: leave the inputs and outputs of the model float32: all, or those of these names.
        op_block_list: standard operators and functions that stay float32; when not given, ``DEFAULT_OP_BLOCK_LIST``
            and, for float16, sums that are scaled to a mean at once, and what scales products of integers.
        node_block_list: names of nodes that stay float32.

    Returns:
        The model, or a new one if it is large.

    Raises:
        NotApplicable: the model's opset has no Cast to a type that can be inferred.
    """
    with collector_paused():
        return _converted(model, rounder, keep_io_types, op_block_list, node_block_list)


def _converted(
    model: onnx.ModelProto,
    rounder: Rounder,
    keep_io_types: bool | Collection[str],
    op_block_list: Collection[str] | None,
    node_block_list: Collection[str] | None,
) -> onnx.ModelProto:
    blocked_ops = _BLOCKED_OPS if op_block_list is None else frozenset(op_block_list)
    blocked_nodes = frozenset(node_block_list or ()) - {""}

    # A function is kept whole by its name in the list, or where a node that calls it is; not by a standard operator's.
    called = {node.op_type for node in model.graph.node if node.name in blocked_nodes} if blocked_nodes else set()
    model = inline_functions(model, kept=called.union(op_block_list or ()))
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    # Of a model that imports none of the standard operators any will do.
    opset = opsets.get("", opsets.get("ai.onnx", _CASTS_INFER))
    if contrib.DOMAIN in opsets:
        unfuse(model.graph, opset)
    keep_sums = op_block_list is None and rounder.half == FLOAT16
    with contextlib.closing(Reading(model, opset, rounder.half)) as reading:
        halving = Halving(reading, opset, rounder, _names(keep_io_types), blocked_ops, blocked_nodes, keep_sums)
        if not halving.floats:
            remark("nothing was converted: the model has no float32 tensor")
            return model
        halving.decide()
        if halving.halves or keep_io_types is not True:
            if opset < _CASTS_INFER:
                raise NotApplicable(
                    f"what a Cast gives is inferred since opset {_CASTS_INFER}, and the model is of {opset}"
                )
            if not opsets.keys() & {"", "ai.onnx"}:
                model.opset_import.add(version=opset)
        Rewiring(model, reading, halving, rounder).write()
    if rounder.waiting >= _LARGE:
        model = _moved(model, rounder)
    rounder.flush()
    if rounder.half == FLOAT16:
        multiply_before_moving(model.graph)
    for text in (*rounder.remarks(), *halving.notes):
        remark(text)
    return model


def _names(keep_io_types: bool | Collection[str]) -> bool | frozenset[str]:
    return keep_io_types if isinstance(keep_io_types, bool) else frozenset(keep_io_types)


def _moved(model: onnx.ModelProto, rounder: Rounder) -> onnx.ModelProto:
    """A new model of the same, without the weights that are to be rounded: they will be written to it."""
    weights = list(model.graph.initializer)
    rounder.flush(but=weights)  # what is written elsewhere is copied with the graph
    moved = onnx.ModelProto()
    copy_fields(model, moved, but="graph")
    copy_fields(model.graph, moved.graph, but="initializer")
    for tensor in weights:
        new = moved.graph.initializer.add()
        if rounder.redirect(tensor, new):
            new.name = tensor.name
            if tensor.doc_string:
                new.doc_string = tensor.doc_string
            new.dims.extend(tensor.dims)
            new.metadata_props.extend(tensor.metadata_props)
        else:
            new.CopyFrom(tensor)
    return moved
