"""Read a model without its large tensors: the fields of its file, stripped."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.errors import ModelError
from onnx_harness.model.unreadable import describe

if TYPE_CHECKING:
    import onnx

# Tensors up to this size keep their data in a skeleton: shapes, axes and the like, which input
# generation reads.
# Field numbers from onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE_TENSOR, _ATTRIBUTE_SPARSE_TENSORS = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
SMALL_BYTES = 1024
_FUNCTION_NODE = 7
_ML_DOMAIN = b"ai.onnx.ml"
_ATTRIBUTE_LISTS = frozenset({7, 8, 9})  # floats, ints, strings
_LENGTH_DELIMITED = 2  # wire type of messages, strings, bytes and packed numbers
_Strip = Callable[[mmap.mmap, int, int], bytes]
_TENSOR_DATA = frozenset(
    {4, 5, 6, 7, 9, 10, 11}
)  # float_, int32_, string_, int64_, raw_, double_, uint64_data


def skeleton(path: Path) -> onnx.ModelProto:
    """Read a model without the data of its large tensors."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            stripped = _strip(
                data,
                0,
                len(data),
                {_MODEL_GRAPH: _strip_graph, _MODEL_FUNCTIONS: _strip_function},
            )
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # an empty file can't be mapped; a cut one ends inside a field
        raise ModelError(describe(path, str(error))) from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(stripped)
    except DecodeError as error:
        raise ModelError(describe(path, str(error))) from None
    if not model.HasField("graph") or not model.ir_version:
        raise ModelError(
            f"{path.name} isn't an ONNX model: it has no "
            f"{'graph' if model.ir_version else 'IR version'}"
        )
    return model


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"a number ends at byte {at} of the file")


def _fields(
    data: mmap.mmap, start: int, end: int
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the fields of a protobuf message.

    Each is (field number, wire type, start of the field, start of its payload, end).
    """
    at = start
    while at < end:
        first = at
        tag, at = _varint(data, at, end)
        payload = at
        match tag & 7:
            case 0:
                _, at = _varint(data, at, end)
            case 1:
                at += 8
            case 2:
                length, payload = _varint(data, at, end)
                at = payload + length
            case 5:
                at += 4
            case other:
                raise ValueError(f"wire type {other} at byte {first}")
        if at > end:
            raise ValueError(
                f"a field that starts at byte {first} ends {at - end} bytes after its message"
            )
        yield tag >> 3, tag & 7, first, payload, at


def _strip(data: mmap.mmap, start: int, end: int, inner: Mapping[int, _Strip]) -> bytes:
    """Copy a message, with its large fields stripped.

    Those named in ``inner`` are stripped in their turn.
    """
    message = bytearray()
    for number, wire_type, first, payload, last in _fields(data, start, end):
        strip = inner.get(number) if wire_type == _LENGTH_DELIMITED else None
        if strip is None or (last - payload <= SMALL_BYTES and number != _MODEL_GRAPH):
            message += data[first:last]
        else:
            body = strip(data, payload, last)
            message += _encode_varint(number << 3 | 2) + _encode_varint(len(body)) + body
    return bytes(message)


def _strip_graph(data: mmap.mmap, start: int, end: int) -> bytes:
    inner: dict[int, _Strip] = {_GRAPH_NODE: _strip_node, _GRAPH_INITIALIZER: _strip_tensor}
    return _strip(
        data, start, end, inner | {_GRAPH_SPARSE_INITIALIZER: _strip_sparse_tensor}
    )


def _strip_function(data: mmap.mmap, start: int, end: int) -> bytes:
    return _strip(data, start, end, {_FUNCTION_NODE: _strip_node})


def _strip_node(data: mmap.mmap, start: int, end: int) -> bytes:
    # The tensors of a tree ensemble are its thresholds: what inputs have to reach.
    for number, _, _, payload, last in _fields(data, start, end):
        if number == _NODE_DOMAIN and data[payload:last] == _ML_DOMAIN:
            return data[start:end]
    return _strip(data, start, end, {_NODE_ATTRIBUTE: _strip_attribute})


def _strip_attribute(data: mmap.mmap, start: int, end: int) -> bytes:
    inner: dict[int, _Strip] = {
        _ATTRIBUTE_TENSOR: _strip_tensor,
        _ATTRIBUTE_TENSORS: _strip_tensor,
        _ATTRIBUTE_GRAPH: _strip_graph,
        _ATTRIBUTE_GRAPHS: _strip_graph,
        _ATTRIBUTE_SPARSE_TENSOR: _strip_sparse_tensor,
        _ATTRIBUTE_SPARSE_TENSORS: _strip_sparse_tensor,
    }
    # A list is a field for each of its items, millions for a forest of trees, and has no tensors
    # beside it.
    for number, *_ in _fields(data, start, end):
        if number in _ATTRIBUTE_LISTS:
            return data[start:end]
        if number in inner:
            break
    return _strip(data, start, end, inner)


def _strip_sparse_tensor(data: mmap.mmap, start: int, end: int) -> bytes:
    return _strip(
        data, start, end, {_SPARSE_VALUES: _strip_tensor, _SPARSE_INDICES: _strip_tensor}
    )


def _strip_tensor(data: mmap.mmap, start: int, end: int) -> bytes:
    pieces = []
    for number, _, first, _, last in _fields(data, start, end):
        if number not in _TENSOR_DATA:
            pieces.append(data[first:last])
    return b"".join(pieces)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
