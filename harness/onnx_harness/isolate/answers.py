"""Answers of a process that isn't trusted: as data, of which nothing is run when it is read.

JSON says how a value is put together, and the bytes of arrays follow it. What may be put together
is written here: plain values, arrays, paths, and the records (dataclasses and enumerations) of this
package. A pickle would let whoever took over the worker, by a hole in a library, run code in its
parent.
"""

from __future__ import annotations

import builtins
import collections
import dataclasses
import enum
import importlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PACKAGE = "onnx_harness"
MOST_BYTES = 1 << 36
_HEAD = struct.Struct("<Q")
_TAG = "!"
_PLAIN: tuple[type[Any], ...] = (str, int, float, list)


class UnreadableAnswer(Exception):
    """The message that came isn't an answer."""


def pack(value: object) -> bytes:
    """Put a value into bytes.

    Raises:
        TypeError: it holds something that isn't data.
    """
    blocks: list[bytes] = []
    head = json.dumps(_packed(value, blocks)).encode()
    return b"".join([_HEAD.pack(len(head)), head, *blocks])


def unpack(data: bytes) -> Any:
    """Read a value from bytes that anybody may have written.

    Raises:
        UnreadableAnswer: they don't hold one.
    """
    try:
        (length,) = _HEAD.unpack_from(data)
        document = json.loads(data[_HEAD.size : _HEAD.size + length])
        return _Reader(memoryview(data)[_HEAD.size + length :]).value(document)
    except UnreadableAnswer:
        raise
    except (
        Exception
    ) as error:  # whatever the bytes bring about, and what a record's own checks raise
        raise UnreadableAnswer(
            f"the worker's answer can't be read: {type(error).__name__}: {error}"
        ) from None


def _packed(value: object, blocks: list[bytes]) -> Any:
    if value is None or type(value) in (bool, str, float):
        return value
    if type(value) is int:
        return value if abs(value) < 1 << 63 else {_TAG: "int", "v": str(value)}
    if type(value) is list:
        return [_packed(item, blocks) for item in value]
    if isinstance(value, enum.Enum):
        return {
            _TAG: "enum",
            "t": _type_name(type(value)),
            "v": _packed(value.value, blocks),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {}
        for field in dataclasses.fields(value):
            fields[field.name] = _packed(getattr(value, field.name), blocks)
        return {_TAG: "record", "t": _type_name(type(value)), "v": fields}
    if isinstance(value, BaseException):
        return _packed_error(value, blocks)
    return _packed_other(value, blocks)


def _packed_other(value: Any, blocks: list[bytes]) -> Any:
    if isinstance(value, tuple | set | frozenset):
        kind = "tuple" if isinstance(value, tuple) else "set"
        named = _type_name(type(value)) if hasattr(value, "_fields") else ""
        return {_TAG: kind, "t": named, "v": [_packed(item, blocks) for item in value]}
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, collections.Counter) else "dict"
        pairs = [
            [_packed(key, blocks), _packed(item, blocks)] for key, item in value.items()
        ]
        return {_TAG: kind, "v": pairs}
    if isinstance(value, bytes | bytearray):
        blocks.append(bytes(value))
        return {_TAG: "bytes", "n": len(value)}
    if isinstance(value, Path):
        return {_TAG: "path", "v": str(value)}
    for plain in _PLAIN:  # subclasses of theirs
        if isinstance(value, plain):
            return _packed(plain(value), blocks)
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return _packed_array(value, blocks)
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} can't travel from a worker: it "
        f"isn't data"
    )


def _packed_array(value: Any, blocks: list[bytes]) -> Any:
    scalar = type(value).__name__ != "ndarray"
    if value.dtype == object:
        items = [_packed(item, blocks) for item in value.reshape(-1).tolist()]
        return {_TAG: "objects", "s": list(value.shape), "v": items}
    raw = value.tobytes()
    blocks.append(raw)
    dtype = value.dtype.name if _is_extended(value.dtype) else value.dtype.str
    return {
        _TAG: "array",
        "d": dtype,
        "s": list(value.shape),
        "n": len(raw),
        "scalar": scalar,
    }


def _packed_error(error: BaseException, blocks: list[bytes]) -> Any:
    kind = type(error)
    arguments = error.__reduce__()[1]
    try:
        packed = [_packed(argument, blocks) for argument in arguments]
    except TypeError:
        packed = [str(error)]
    return {_TAG: "error", "t": _type_name(kind), "v": packed, "words": str(error)}


def _type_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_extended(dtype: Any) -> bool:
    """Return whether a dtype is one that numpy itself doesn't have.

    Bfloat16, float8 and the like.
    """
    return bool(dtype.type.__module__ != "numpy")


class _Reader:
    """Reads one answer, whose arrays lie one behind the other in ``blocks``."""

    def __init__(self, blocks: memoryview) -> None:
        self._blocks = blocks
        self._at = 0

    def value(self, document: Any) -> Any:
        """Return the value that a part of the document stands for."""
        if isinstance(document, list):
            return [self.value(item) for item in document]
        if not isinstance(document, dict):
            return document
        read = getattr(self, f"_read_{document[_TAG]}", None)
        if read is None:
            raise UnreadableAnswer(
                f"the worker's answer holds something of no known kind: {document[_TAG]!r}"[
                    :200
                ]
            )
        return read(document)

    def _read_int(self, document: dict[str, Any]) -> int:
        return int(document["v"][:400])

    def _read_enum(self, document: dict[str, Any]) -> Any:
        kind = _own_type(document["t"])
        if not issubclass(kind, enum.Enum):
            raise UnreadableAnswer(f"{document['t']} isn't an enumeration")
        return kind(self.value(document["v"]))

    def _read_record(self, document: dict[str, Any]) -> Any:
        kind = _own_type(document["t"])
        if not dataclasses.is_dataclass(kind):
            raise UnreadableAnswer(f"{document['t']} isn't a record")
        fields = {field.name: field for field in dataclasses.fields(kind)}
        values = {name: self.value(item) for name, item in document["v"].items()}
        items = {}
        for name, item in values.items():
            if fields[name].init:
                items[name] = item
        record = kind(**items)
        for name, item in values.items():
            if not fields[name].init:
                object.__setattr__(record, name, item)
        return record

    def _read_tuple(self, document: dict[str, Any]) -> Any:
        items = [self.value(item) for item in document["v"]]
        if not document["t"]:
            return tuple(items)
        kind = _own_type(document["t"])
        if not issubclass(kind, tuple):
            raise UnreadableAnswer(f"{document['t']} isn't a named tuple")
        return kind(*items)

    def _read_set(self, document: dict[str, Any]) -> Any:
        return frozenset(self.value(item) for item in document["v"])

    def _read_dict(self, document: dict[str, Any]) -> Any:
        return {self.value(key): self.value(item) for key, item in document["v"]}

    def _read_counter(self, document: dict[str, Any]) -> Any:
        return collections.Counter(self._read_dict(document))

    def _read_bytes(self, document: dict[str, Any]) -> bytes:
        return bytes(self._block(document["n"]))

    def _read_path(self, document: dict[str, Any]) -> Path:
        return Path(document["v"])

    def _read_objects(self, document: dict[str, Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        items = np.empty(len(document["v"]), dtype=object)
        items[:] = [self.value(item) for item in document["v"]]
        return items.reshape(document["s"])

    def _read_array(self, document: dict[str, Any]) -> Any:
        import numpy as np

        array = (
            np.frombuffer(self._block(document["n"]), _dtype(document["d"]))
            .reshape(document["s"])
            .copy()
        )
        return array[()] if document["scalar"] else array

    def _read_error(self, document: dict[str, Any]) -> Exception:
        module, _, name = document["t"].partition(":")
        words = str(document["words"])
        if module == "builtins" and isinstance(kind := getattr(builtins, name, None), type):
            if issubclass(kind, Exception):
                return _built(kind, [self.value(item) for item in document["v"]], words)
        elif module.partition(".")[0] == PACKAGE:
            own = _own_type(document["t"])
            if issubclass(own, Exception):
                return _built(own, [self.value(item) for item in document["v"]], words)
        # Somebody else's: its name and its words, and none of its code.
        last = name.rpartition(".")[2][:80]
        foreign = type(
            last if last.isidentifier() else "Exception",
            (RuntimeError,),
            {"__module__": module[:80]},
        )
        return foreign(words)  # type: ignore[no-any-return]

    def _block(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._blocks) - self._at:
            raise UnreadableAnswer("the worker's answer is shorter than it says")
        self._at += count
        return self._blocks[self._at - count : self._at]


def _built(kind: type[Exception], arguments: list[Any], words: str) -> Exception:
    try:
        return kind(*arguments)
    except Exception:  # a type with arguments of its own
        return RuntimeError(f"{kind.__name__}: {words}")


def _own_type(name: str) -> type[Any]:
    """Return a type of this package; nothing else is imported for an answer."""
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] != PACKAGE:
        raise UnreadableAnswer(
            f"the worker's answer names a type of another package: {name!r}"[:200]
        )
    own = vars(importlib.import_module(module))[qualified]
    if not isinstance(own, type) or own.__module__.partition(".")[0] != PACKAGE:
        raise UnreadableAnswer(
            f"the worker's answer names something that isn't a type: {name!r}"
        )
    return own


def _dtype(name: str) -> Any:
    import numpy as np

    if name.isidentifier():
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    dtype = np.dtype(name)
    if dtype.hasobject:
        raise UnreadableAnswer(f"an array of {name} would hold objects")
    return dtype
