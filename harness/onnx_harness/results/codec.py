"""Records to JSON values and back, by the types that their dataclasses declare.

Values to files and back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Generic, TypeVar

from onnx_harness.errors import ResultsError
from onnx_harness.isolate.answers import UnreadableAnswer, pack, unpack

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """A value as the bytes of a file.

    Attributes:
        suffix: of the file's name.
        dumps: the bytes of a value.
        loads: the value of bytes that ``dumps`` gave.
    """

    suffix: str
    dumps: Callable[[T], bytes]
    loads: Callable[[bytes], T]


def as_data(kind: type[T]) -> Codec[T]:
    """Return the codec for a record with arrays in it.

    A file of which nothing is run when it is read, since a process that has opened an untrusted
    model may have written it.

    The format is that of a worker's answers, `onnx_harness.isolate.answers`.

    Args:
        kind: of record, or ``list``; bytes that hold anything else raise ResultsError.
    """

    def loads(data: bytes) -> T:
        try:
            value = unpack(data)
        except UnreadableAnswer as error:
            raise ResultsError(str(error)) from None
        if not isinstance(value, kind):
            raise ResultsError(f"it holds no {kind.__name__}")
        return value

    return Codec("data", pack, loads)


def as_json(kind: type[T]) -> Codec[T]:
    """Return the codec for a record without infinities.

    JSON, by the types that its dataclass declares.
    """
    return Codec(
        "json",
        lambda value: json.dumps(encode(value)).encode(),
        lambda data: decode(kind, json.loads(data), kind.__name__),
    )


def encode(value: object) -> Any:
    """A JSON value for a record: fields in their declared order, enums as text, tuples as lists.

    Numbers that JSON can't say (NaN, infinities) become None, and numpy's scalars plain ones.

    Raises:
        TypeError: there is no JSON form.
    """
    # By the exact type first: a run of ten thousand cells has millions of plain values.
    kind: Any = type(value)  # for mypy, type[object] has no hash
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else None  # type: ignore[arg-type]
    names = _field_names(kind)
    if names is not None:
        return {name: encode(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return _encode_subclass(value)


_PLAIN = frozenset({type(None), bool, str, int})


def line_of(record: object) -> str:
    """Return a record as one line of JSON, in ASCII: what each file that keeps it has.

    Raises:
        TypeError: as for :func:`encode`.
    """
    return json.dumps(encode(record), ensure_ascii=True)


@functools.cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """The names of a record's fields; None for what is no record."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


def _encode_subclass(value: object) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):  # numpy.float32 is no float, numpy.int64 no int
        return encode(value.item())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def decode(kind: type[T], value: object, where: str) -> T:
    """The record of ``kind`` in a JSON value.

    Fields that this version doesn't know are passed over.

    Args:
        kind: a dataclass.
        value: what ``json.loads`` gave.
        where: what ``value`` is, for messages, such as ``cells[3]``.

    Raises:
        ResultsError: a field is missing or has another type; the message says which.
    """
    if not isinstance(value, dict):
        raise ResultsError(f"{where} should be an object, and is {_shown(value)}")
    values: dict[str, Any] = {}
    for name, read, plain, needed in _plan(kind):  # type: ignore[arg-type]
        if name not in value:
            if needed:
                raise ResultsError(f"{where}.{name} is missing")
            continue
        item = value[name]
        # Most values are what they stand for: 10,000 cells have a million of them.
        values[name] = item if type(item) in plain else read(item, f"{where}.{name}")
    return kind(**values)


_Read = Callable[[Any, str], Any]
"""Reads a JSON value that stands at a place."""


@functools.cache
def _plan(kind: type) -> tuple[tuple[str, _Read, frozenset[type], bool], ...]:
    """Return of each field its name, what reads it, the types of values that need no reading.

    And whether it must be there.
    """
    hints = typing.get_type_hints(kind)
    plan = []
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING
        needed = not has_default and field.default_factory is dataclasses.MISSING
        hint = hints[field.name]
        plan.append((field.name, _reader(hint), _plain_types(hint), needed))
    return tuple(plan)


@functools.cache
def _plain_types(hint: Any) -> frozenset[type]:
    """Return the types of JSON values that are a value of the hint as they are."""
    if typing.get_origin(hint) in {types.UnionType, typing.Union}:
        members = typing.get_args(hint)
        return frozenset().union(*map(_plain_types, members))
    return frozenset({hint}) & {str, int, bool, float, type(None)}


@functools.cache
def _reader(hint: Any) -> _Read:
    """Return what reads values of a type: what that is, is asked once and not of each value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        [member] = [argument for argument in arguments if argument is not type(None)]
        read_member, optional = _reader(member), type(None) in arguments

        def read(value: Any, where: str) -> Any:
            if value is None and optional:
                return None
            return read_member(value, where)

        return read
    if origin is tuple:
        return _tuple_reader(hint, arguments)
    if origin is dict:
        return _mapping_reader(hint, arguments[1])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return functools.partial(decode, hint)
    return functools.partial(_read_plain, hint)


def _tuple_reader(hint: Any, members: tuple[Any, ...]) -> _Read:
    readers = [_reader(member) for member in members if member is not Ellipsis]
    endless = members[-1] is Ellipsis

    def read(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not (endless or len(value) == len(readers)):
            raise _mismatch(hint, value, where)
        all_readers = readers
        if endless:
            all_readers = readers * len(value)
        items = []
        for index, item in enumerate(value):
            read_item = all_readers[index]
            items.append(read_item(item, f"{where}[{index}]"))
        return tuple(items)

    return read


def _mapping_reader(hint: Any, member: Any) -> _Read:
    read_member, plain = _reader(member), _plain_types(member)

    def read(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(hint, value, where)
        mapping = {}
        for key, item in value.items():
            if type(item) in plain:
                mapping[key] = item
            else:
                mapping[key] = read_member(item, f"{where}[{key!r}]")
        return mapping

    return read


def _read_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and value is None:
        return math.nan  # What was written isn't a number that JSON can say.
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return hint(value)
    if hint in {int, str, bool} and type(value) is hint:
        return value
    raise _mismatch(hint, value, where)


def _mismatch(hint: Any, value: object, where: str) -> ResultsError:
    return ResultsError(f"{where} should be {_named(hint)}, and is {_shown(value)}")


def _named(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "one of " + ", ".join(hint)
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint) or ("an object" if typing.get_origin(hint) is dict else "a list")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
