"""A model file as its bytes say it, read without native code.

What has to be known before a library may open it.

Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) is walked field by field,
and the payloads of tensors are passed over. So the scan of a model costs by its nodes and not by
its weights.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from onnx_harness.errors import ModelError
from onnx_harness.model.scanned import (
    Scan,
    ScannedFunction,
    ScannedGraph,
    ScannedNode,
    ScannedTensor,
)
from onnx_harness.model.unreadable import describe

MOST_DEPTH = 90
"""Messages inside messages. Protobuf's own parsers stop at 100."""

SMALL_ITEMS = 64
"""Constants of up to so many integers are read: shapes, repeats, trip counts."""

# Field numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_INT64, _INT32, _FLOAT, _BOOL = 7, 6, 1, 9
_WIDTHS = {_INT64: ("q", 8), _INT32: ("i", 4), _BOOL: ("b", 1)}
_Field = tuple[int, int, int, int, int]


def scan(path: Path) -> Scan:
    """Read what the file at ``path`` says.

    Raises:
        ModelError: it can't be read, isn't protobuf, or nests deeper than protobuf's own parsers
            go.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _Reader(data).model()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except _TooDeep:
        raise ModelError(
            f"{path.name} holds messages nested more than {MOST_DEPTH} deep; ONNX's own parser "
            f"refuses it from 100 on"
        ) from None
    except (ValueError, IndexError, struct.error) as error:
        raise ModelError(describe(path, str(error))) from None


class _TooDeep(Exception):
    """Messages are nested too deep."""


class _Reader:
    """Reads one file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._scan = Scan()

    def model(self) -> Scan:
        """Read the whole file."""
        for number, wire, start, end, _ in self._fields(0, len(self._data)):
            if number == _MODEL_GRAPH and wire == 2:
                self._graph(self._scan.graph, start, end, 1)
            elif number == _MODEL_FUNCTION and wire == 2:
                self._function(start, end)
        return self._scan

    def _graph(self, graph: ScannedGraph, start: int, end: int, level: int) -> None:
        self._go_down(level)
        self._scan.deepest = max(self._scan.deepest, graph.depth)
        for number, wire, first, last, _ in self._fields(start, end):
            if wire != 2:
                continue
            match number:
                case 1:
                    node = self._node(first, last, level + 1, graph.depth)
                    if not node.op:  # a file of two bytes a node would be read for seconds
                        raise ValueError(f"a node at byte {first} has no operator")
                    graph.nodes.append(node)
                case 5:
                    tensor = self._tensor(first, last)
                    if not tensor.kind:
                        raise ValueError(f"a tensor at byte {first} has no type")
                    graph.tensors[tensor.name] = tensor
                case 11:
                    name, kind, dims = self._value(first, last, level + 1)
                    graph.inputs[name] = (kind, dims)
                case 12:
                    graph.outputs.append(self._value(first, last, level + 1)[0])
                case 13:
                    self._value(first, last, level + 1)
                case 15:
                    self._sparse(first, last)

    def _function(self, start: int, end: int) -> None:
        function = ScannedFunction()
        for number, wire, first, last, _ in self._fields(start, end):
            if wire != 2:
                continue
            match number:
                case 1:
                    function.name = self._name(first, last)
                case 4:
                    function.body.inputs[self._name(first, last)] = (0, None)
                case 5:
                    function.body.outputs.append(self._name(first, last))
                case 7:
                    function.body.nodes.append(self._node(first, last, 2, 0))
                case 10:
                    function.domain = self._name(first, last)
        if not function.name:
            raise ValueError(f"a function at byte {start} has no name")
        self._scan.functions.append(function)

    def _node(self, start: int, end: int, level: int, depth: int) -> ScannedNode:
        node = ScannedNode()
        for number, wire, first, last, _ in self._fields(start, end):
            if wire != 2:
                continue
            match number:
                case 1:
                    node.inputs.append(self._name(first, last))
                case 2:
                    node.outputs.append(self._name(first, last))
                case 3:
                    self._name(first, last)
                case 4:
                    node.op = self._name(first, last)
                case 5:
                    self._attribute(node, first, last, level + 1, depth)
                case 7:
                    node.domain = self._name(first, last)
        return node

    def _attribute(
        self, node: ScannedNode, start: int, end: int, level: int, depth: int
    ) -> None:
        self._go_down(level)
        name = ""
        numbers: list[int] = []
        for number, wire, first, last, value in self._fields(start, end):
            match number:
                case 1 if wire == 2:
                    name = self._name(first, last)
                case 3 if wire == 0:
                    numbers.append(_signed(value))
                case 8 if len(numbers) <= SMALL_ITEMS:
                    numbers += self._integers(wire, first, last, value)
                case (
                    7 | 8 | 9
                ):  # a forest's attribute has millions of these, and nothing beside them
                    if number != 8:
                        break
                case 5 | 10 if wire == 2:
                    node.tensors[name or "value"] = self._tensor(first, last)
                case 6 | 11 if wire == 2:
                    body = ScannedGraph(depth=depth + 1)
                    self._graph(body, first, last, level + 1)
                    node.graphs[
                        f"{name}{len(node.graphs)}" if name in node.graphs else name
                    ] = body
                case 22 | 23 if wire == 2:
                    self._sparse(first, last)
        if numbers:
            node.numbers[name] = numbers

    def _sparse(self, start: int, end: int) -> None:
        dims: list[int] = []
        for number, wire, first, last, value in self._fields(start, end):
            if number in (1, 2) and wire == 2:
                self._tensor(first, last)
            elif number == 3:
                dims += self._integers(wire, first, last, value)
        self._scan.tensors.append(ScannedTensor("a sparse tensor", dims, _FLOAT))

    def _tensor(self, start: int, end: int) -> ScannedTensor:
        tensor = ScannedTensor()
        raw: tuple[int, int] | None = None
        stored: list[int] = []
        for number, wire, first, last, value in self._fields(start, end):
            match number:
                case 1:
                    tensor.dims += self._integers(wire, first, last, value)
                    # Of a run that is too long to be read, each number has at most ten bytes.
                    least = max(len(tensor.dims), -(-(last - first) // 10))
                    self._scan.highest_rank = max(self._scan.highest_rank, least)
                case 2 if wire == 0:
                    tensor.kind = value
                case 8 if wire == 2:
                    tensor.name = self._name(first, last)
                case 9 if wire == 2:
                    raw = first, last
                case 5 | 7:
                    if last - first <= 10 * SMALL_ITEMS and len(stored) <= SMALL_ITEMS:
                        stored += self._integers(wire, first, last, value)
                case 4 | 10 | 11 if wire != 2:
                    # Unpacked numbers, millions of fields; what matters comes before them.
                    break
                case 13 if wire == 2:
                    key, text = self._entry(first, last)
                    tensor.external[key] = text
        if tensor.kind in _WIDTHS:
            tensor.values = stored or self._raw_integers(raw, *_WIDTHS[tensor.kind])
        self._scan.tensors.append(tensor)
        return tensor

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        key = text = ""
        for number, wire, first, last, _ in self._fields(start, end):
            if wire == 2 and number == 1:
                key = self._name(first, last)
            elif wire == 2 and number == 2:
                text = self._name(first, last)
        return key, text

    def _value(self, start: int, end: int, level: int) -> tuple[str, int, list[int] | None]:
        """Read the name of a graph's input or output, its element type and its dimensions."""
        name, kind, dims = "", 0, None
        for number, wire, first, last, _ in self._fields(start, end):
            if wire == 2 and number == 1:
                name = self._name(first, last)
            elif wire == 2 and number == 2:
                kind, dims = self._type(first, last, level + 1)
        return name, kind, dims

    def _type(self, start: int, end: int, level: int) -> tuple[int, list[int] | None]:
        self._go_down(level)
        kind, dims = 0, None
        for number, wire, first, last, _ in self._fields(start, end):
            if wire != 2:
                continue
            if number == 1:
                kind, dims = self._tensor_type(first, last)
            elif number in (4, 5, 9):
                # Of a sequence, a map, an optional: types inside types.
                for inner, inner_wire, begin, stop, _ in self._fields(first, last):
                    if inner_wire == 2 and (inner, number) in ((1, 4), (2, 5), (1, 9)):
                        self._type(begin, stop, level + 2)
        return kind, dims

    def _tensor_type(self, start: int, end: int) -> tuple[int, list[int] | None]:
        kind, dims = 0, None
        for number, wire, first, last, value in self._fields(start, end):
            if number == 1 and wire == 0:
                kind = value
            elif number == 2 and wire == 2:
                dims = self._shape(first, last)
        return kind, dims

    def _shape(self, start: int, end: int) -> list[int] | None:
        dims: list[int] = []
        for number, wire, first, last, _ in self._fields(start, end):
            if number != 1 or wire != 2:
                continue
            sizes = [
                value
                for inner, how, *_, value in self._fields(first, last)
                if inner == 1 and how == 0
            ]
            dims.append(_signed(sizes[-1]) if sizes else -1)
        self._scan.highest_rank = max(self._scan.highest_rank, len(dims))
        return dims if all(dim >= 0 for dim in dims) else None

    def _name(self, start: int, end: int) -> str:
        self._scan.longest_name = max(self._scan.longest_name, end - start)
        raw = self._data[start:end]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            if self._scan.misspelt is None:
                self._scan.misspelt = raw[:80]
            return raw.decode(errors="replace")

    def _integers(self, wire: int, start: int, end: int, value: int) -> list[int]:
        """Read a repeated integer: one of its items, or a packed run of them."""
        if wire == 0:
            return [_signed(value)]
        if wire != 2 or end - start > 10 * SMALL_ITEMS:
            return []
        values, at = [], start
        while at < end:
            item, at = self._varint(at, end)
            values.append(_signed(item))
        return values

    def _raw_integers(
        self, raw: tuple[int, int] | None, code: str, width: int
    ) -> list[int] | None:
        if raw is None:
            return None
        start, end = raw
        count, surplus = divmod(end - start, width)
        if surplus or count > SMALL_ITEMS:
            return None
        return [*struct.unpack(f"<{count}{code}", self._data[start:end])]

    def _go_down(self, level: int) -> None:
        if level > MOST_DEPTH:
            raise _TooDeep

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        """Yield the fields between two places.

        Each is (field number, wire type, start of the payload, its end, value where it is a
        number).
        """
        at, varint = start, self._varint
        while at < end:
            tag, at = varint(at, end)
            wire, value, first = tag & 7, 0, at
            if wire == 2:
                length, first = varint(at, end)
                at = first + length
            elif wire == 0:
                value, at = varint(at, end)
            elif wire == 5:
                at += 4
            elif wire == 1:
                at += 8
            else:
                raise ValueError(f"wire type {wire} at byte {first}")
            if at > end:
                raise ValueError(
                    f"a field ends {at - end} bytes after its message, at byte {end}"
                )
            yield tag >> 3, wire, first, at, value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        if at < end and (byte := self._data[at]) < 0x80:
            return byte, at + 1
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ValueError(f"a number ends at byte {at} of the file")


def _signed(value: int) -> int:
    """Read a varint as the 64-bit integer that it stands for."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
