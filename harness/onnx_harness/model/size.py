"""The size of a model in memory, without writing it: protobuf fails at that above 2 GiB."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from onnx_harness.model.walk import subgraphs, walk

_WRITTEN_BYTES = 1 << 26


def byte_size(model: onnx.ModelProto) -> int:
    """Return the bytes that a model takes as one message.

    From 64 MB of weights on those alone are counted, by their dimensions: protobuf would write all
    of it to count, beside the model, and raises where that is more than it holds.
    """
    weights = sum(_data_bytes(tensor) for tensor in _tensors(model))
    return weights if weights > _WRITTEN_BYTES else model.ByteSize()


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the initializers, those of bodies, and the tensors in attributes of nodes."""
    yield from model.graph.initializer
    for node in walk(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
        for body in subgraphs(node):
            yield from body.initializer


def _data_bytes(tensor: onnx.TensorProto) -> int:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return 0
    try:
        itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError):  # no type, or one that this onnx doesn't know
        return 0
    return int(math.prod(max(size, 0) for size in tensor.dims) * itemsize)
