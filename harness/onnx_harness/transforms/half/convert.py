"""A model to float16 or bfloat16: read, decided, written, its weights last."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import onnx

from onnx_harness.errors import NotApplicable, NothingConverted
from onnx_harness.model.collector import collector_paused
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.messages import copy_fields
from onnx_harness.model.ops import imports_standard, opset_of
from onnx_harness.model.walk import graphs
from onnx_harness.transforms import remark
from onnx_harness.transforms.declared_types import declare_custom_types
from onnx_harness.transforms.half import contrib
from onnx_harness.transforms.half.decide import Halving
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.integer_products import (
    may_multiply_before_moving,
    multiply_before_moving,
)
from onnx_harness.transforms.half.masks import lower_fillings
from onnx_harness.transforms.half.requests import Request, names_of_functions
from onnx_harness.transforms.half.rewrite import Rewiring
from onnx_harness.transforms.half.schemas import (
    BFLOAT16,
    DEFAULT_OP_BLOCK_LIST,
    FLOAT,
    FLOAT16,
)
from onnx_harness.transforms.half.steps import Step
from onnx_harness.transforms.half.unfuse import unfuse
from onnx_harness.transforms.half.vain import refuse_vain
from onnx_harness.transforms.half.weights import Rounder

# From this many weights on, the result is a new model. A message never gives memory back while it
# lives, so that one changed in place would hold its float32 weights as well.
_LARGE = 1 << 24
_BLOCKED_OPS = frozenset(DEFAULT_OP_BLOCK_LIST)
_HALVES = (FLOAT16, BFLOAT16)
# Elements of a tensor that is copied: a stand-in for it takes as long to make. What needs the
# numbers of a constant themselves looks at no more than 64.
_COPIED = 1 << 14
_NAMED_READERS = 3
# Before, a Cast says its type in words, from which neither onnx nor ONNX Runtime infers it.
_CASTS_INFER = 6


def convert_to_half(
    model: onnx.ModelProto, rounder: Rounder, request: Request
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to the half type.

    That is the type that ``rounder`` rounds to.

    Args:
        model: the model; it is changed.
        rounder: for its weights.
        request: how.

    Returns:
        The model, or a new one if it is large.

    Raises:
        NotApplicable: the model's opset has no Cast to a type that can be inferred, or the request
            refuses a conversion in vain and no node would compute in the half type, or nearly no
            weight would be converted.
        UsageError: the request names what the model doesn't have.
    """
    with collector_paused():
        return _converted(model, rounder, request)


def converted_copy(
    model: onnx.ModelProto, rounder: Rounder, request: Request
) -> onnx.ModelProto:
    """Convert a copy of a model, as `convert_to_half` does.

    Of large weights only what stays float32 is copied.

    Args:
        model: the model; it stays as it is.
        rounder: for its weights.
        request: how.
    """
    with collector_paused():
        return _converted(_beside(model, rounder), rounder, request)


def _beside(model: onnx.ModelProto, rounder: Rounder) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    if model.functions:  # what is inlined loses the identity of its tensors
        copied.CopyFrom(model)
        return copied
    if not any(_is_large(tensor) for tensor in model.graph.initializer):
        copied.CopyFrom(model)
        return copied
    copy_fields(model, copied, but="graph")
    copied.graph.SetInParent()
    copy_fields(model.graph, copied.graph, but="initializer")
    for tensor in model.graph.initializer:
        twin = copied.graph.initializer.add()
        if _is_large(tensor):
            twin.name, twin.data_type = tensor.name, tensor.data_type
            twin.dims.extend(tensor.dims)
            twin.doc_string = tensor.doc_string
            twin.metadata_props.extend(tensor.metadata_props)
            rounder.stand_in(twin, tensor)
        else:
            twin.CopyFrom(tensor)
    return copied


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == FLOAT and math.prod(tensor.dims[:]) > _COPIED


def _converted(
    model: onnx.ModelProto, rounder: Rounder, request: Request
) -> onnx.ModelProto:
    blocked_ops = (
        _BLOCKED_OPS if request.op_block_list is None else frozenset(request.op_block_list)
    )
    blocked_nodes = frozenset(request.node_block_list or ()) - {""}

    # A function is kept whole by its name in the list, or where a node that calls it is; not by a
    # standard operator's.
    functions = names_of_functions(model)
    called = (
        {node.op_type for node in model.graph.node if node.name in blocked_nodes}
        if blocked_nodes
        else set()
    )
    model = inline_functions(model, kept=called.union(request.op_block_list or ()))
    declare_custom_types(model)
    # Of a model that imports none of the standard operators any will do.
    opset = opset_of(model) if imports_standard(model) else _CASTS_INFER
    if any(entry.domain == contrib.DOMAIN for entry in model.opset_import):
        unfuse(model.graph, opset)
    with contextlib.closing(Reading(model, opset, rounder.half, blocked_ops)) as reading:
        request.check(
            model, functions
        )  # values of inner graphs may have got other names, and unnamed nodes with them
        for name in request.missing_nodes(model, functions):
            remark(f"node_block_list names '{name}', and the model has no such node")
        halving = Halving(reading, opset, rounder, request, blocked_ops, blocked_nodes)
        if not halving.floats:
            return _unconverted(model, reading, request)
        halving.decide()
        lower_fillings(reading, rounder, halving.read_half - halving.halves)
        if request.refuse_vain and not halving.computes_in_half():
            raise NothingConverted(f"nothing is converted: {_stays_whole(reading)}")
        if halving.halves or request.keep_io_types is not True:
            if opset < _CASTS_INFER:
                raise NotApplicable(
                    f"what a Cast gives is inferred since opset {_CASTS_INFER}, and the model is "
                    f"of {opset}"
                )
            if not imports_standard(model):
                model.opset_import.add(version=opset)
        Rewiring(model, reading, halving, rounder).write()
        moves = rounder.half == FLOAT16 and may_multiply_before_moving(reading)
        if request.refuse_vain:
            refuse_vain(reading, rounder, blocked_nodes)
        if not halving.halves and not rounder.waiting:
            remark(f"nothing was converted: {_stays_whole(reading)}")
    if not rounder.stands_in and rounder.waiting >= _LARGE:
        model = _moved(model, rounder)
    rounder.flush()
    rounder.fill()
    if moves:
        nested = len(reading.scopes) > 1
        multiply_before_moving(list(graphs(model.graph)) if nested else [model.graph])
    for text in (*rounder.remarks(), *_epsilon_notes(reading, rounder), *halving.notes):
        remark(text)
    return model


def _stays_whole(reading: Reading) -> str:
    operators = sorted({step.node.op_type for step in reading.floating})[:_NAMED_READERS]
    return f"what the model computes stays float32 ({', '.join(operators) or 'nothing'})"


def _epsilon_notes(reading: Reading, rounder: Rounder) -> Iterator[str]:
    """Yield a sentence for each small constant that float16 can't hold.

    The tensor, the node and the mend.
    """
    raised = []
    for name, value in rounder.raised():
        if _is_small(reading, name):
            raised.append((name, value))
    for name, value in raised[:_NAMED_READERS]:
        nodes = _half_readers(reading, name)
        if nodes:
            node = nodes[0]
            named = f" '{node.name}'" if node.name else ""
            if all(reader.name for reader in nodes):
                mend = f"node_block_list={[reader.name for reader in nodes]!r}"
            else:
                mend = f"op_block_list={sorted({reader.op_type for reader in nodes})!r}"
            yield (
                f"'{name}', which {node.op_type}{named} reads, is {value:.4g}, and float16 has no "
                f"such number; "
                f"to keep it: {mend}"
            )


def _half_readers(reading: Reading, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that read a constant as it was rounded: of all of them it's to be kept."""
    for rounded in (f"{name}_float16", name):
        nodes = [step.node for step in reading.floating if rounded in step.ins]
        if nodes:
            return nodes
    return []


def _is_small(reading: Reading, name: str) -> bool:
    tensor = reading.initializers.get(name)
    maker = reading.makers.get(name)
    if tensor is None and isinstance(maker, Step):
        tensor = maker.tensor
    return tensor is not None and math.prod(tensor.dims) == 1


def _unconverted(
    model: onnx.ModelProto, reading: Reading, request: Request
) -> onnx.ModelProto:
    """The model, which has no float32 tensor."""
    why = "the model has no float32 tensor"
    if request.refuse_vain:
        halves = any(tensor.data_type in _HALVES for tensor in reading.initializers.values())
        already = ", and its weights are float16 or bfloat16 already" if halves else ""
        raise NotApplicable(f"nothing is converted: {why}{already}")
    remark(f"nothing was converted: {why}")
    return model


def _moved(model: onnx.ModelProto, rounder: Rounder) -> onnx.ModelProto:
    """A new model of the same, without the weights that are to be rounded.

    They will be written to it.
    """
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
