"""``fp16``, ``fp16.io32``: float16 conversion by onnxconverter-common, with what can be mended from outside mended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.errors import NotApplicable
from harness.transforms import Precision, Transform
from harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL, check_limits, convert_np_to_float16

if TYPE_CHECKING:
    import onnx


def convert_float_to_float16(
    model: onnx.ModelProto,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    keep_io_types: bool = False,
    op_block_list: Sequence[str] | None = None,
    node_block_list: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Convert the float32 tensors and operators of a model to float16.

    Args:
        model: the model; it is changed.
        min_positive_val: smaller magnitudes among the weights are raised to it.
        max_finite_val: larger finite magnitudes among the weights are lowered to it.
        keep_io_types: leave the inputs and outputs of the model float32.
        op_block_list: operators that stay float32; the library's own list when not given.
        node_block_list: names of nodes that stay float32.

    Raises:
        NotApplicable: the model holds float16 already.
        ValueError: the limits can't hold in float16.
    """
    check_limits(min_positive_val, max_finite_val)

    from onnxconverter_common import float16

    if float16.check_if_fp16_ready(model.graph):
        raise NotApplicable("the model holds float16 tensors already")
    # The converter calls the Casts that it adds after the node beside them: nodes of one name get the same Cast twice.
    _name_nodes(model.graph, frozenset(node_block_list or ()))
    # It converts values stored one by one, and then writes them one by one: minutes per GB.
    _pack_floats(model.graph)
    with _fast_clamp():
        converted: onnx.ModelProto = float16.convert_float_to_float16(
            model,
            min_positive_val,
            max_finite_val,
            keep_io_types=keep_io_types,
            op_block_list=None if op_block_list is None else list(op_block_list),
            node_block_list=None if node_block_list is None else list(node_block_list),
        )
    return converted


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                yield from _graphs(inner)


def _name_nodes(graph: onnx.GraphProto, blocked: frozenset[str]) -> None:
    nodes = [node for inner in _graphs(graph) for node in inner.node]
    taken = {node.name for node in nodes}
    fresh = (name for number in itertools.count() if (name := f"node_{number}") not in taken)
    seen: set[str] = set()
    for node in nodes:
        if not node.name or (node.name in seen and node.name not in blocked):
            node.name = next(fresh)
        seen.add(node.name)


def _pack_floats(graph: onnx.GraphProto) -> None:
    import numpy as np

    for inner in _graphs(graph):
        held = [tensor for node in inner.node for attribute in node.attribute for tensor in _tensors(attribute)]
        for tensor in (*inner.initializer, *held):
            if len(tensor.float_data) and tensor.data_type == tensor.FLOAT:
                tensor.raw_data = np.array(tensor.float_data, np.dtype("<f4")).tobytes()
                tensor.ClearField("float_data")


def _tensors(attribute: onnx.AttributeProto) -> tuple[onnx.TensorProto, ...]:
    return (attribute.t, *attribute.tensors)


@contextmanager
def _fast_clamp() -> Iterator[None]:
    """Put our clamp in the place of the library's: the same bits, without its scalar casts and its warnings."""
    from onnxconverter_common import float16

    original = float16.convert_np_to_float16
    float16.convert_np_to_float16 = convert_np_to_float16
    try:
        yield
    finally:
        float16.convert_np_to_float16 = original


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
        requires=("onnxconverter-common",),
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
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        groups=("fp16",),
        check=_check,
    ),
)
