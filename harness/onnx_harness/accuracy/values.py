"""Walk two runs' results side by side: tensors, sequences, maps and absent optionals, nested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from onnx_harness.accuracy.measure import Array

Value = Any
"""A value that a run returns.

An `Array`, a list of Values, a dict of Values by key, None, or a Python scalar as ONNX Runtime puts
in a map.
"""


class Kind(StrEnum):
    """The kind of a value, in words that follow "is"."""

    TENSOR = "a tensor"
    SEQUENCE = "a sequence"
    MAP = "a map"
    NONE = "absent (an empty optional)"
    OTHER = "of a type that can't be compared"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A place in an output where the two sides are of one kind and go no deeper.

    Attributes:
        name: flattened: ``probs[0]['cat']``.
        output: the graph output that it is in.
        reference: None for an absent optional.
        candidate: None for an absent optional.
        in_map: it is a value of a map, a number beside others and not a tensor with a scale of its
            own.
    """

    name: str
    output: str
    reference: Array | None
    candidate: Array | None
    in_map: bool


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A place in an output where the two sides' structures part.

    Attributes:
        name: flattened, as in `Leaf`.
        reference: what it is on the reference's side, in words that follow "is" or "has".
        candidate: what it is on the candidate's side.
        kind: whether the kinds differ; otherwise it's the lengths or the keys.
    """

    name: str
    output: str
    reference: str
    candidate: str
    kind: bool


def kind_of(value: Value) -> Kind:
    """Return the kind of ``value``."""
    if value is None:
        return Kind.NONE
    if isinstance(value, list | tuple):
        return Kind.SEQUENCE
    if isinstance(value, Mapping):
        return Kind.MAP
    if isinstance(
        value, np.ndarray | np.generic | bool | int | float | complex | str | bytes
    ):
        return Kind.TENSOR
    return Kind.OTHER


def walk(name: str, reference: Value, candidate: Value) -> Iterator[Leaf | Mismatch]:
    """Walk one graph output on both sides, as deep as their structures agree."""
    yield from _walk(name, name, reference, candidate, in_map=False)


def _walk(
    name: str, output: str, reference: Value, candidate: Value, *, in_map: bool
) -> Iterator[Leaf | Mismatch]:
    kind, candidate_kind = kind_of(reference), kind_of(candidate)
    if kind is not candidate_kind or kind is Kind.OTHER:
        yield Mismatch(name, output, _described(reference), _described(candidate), kind=True)
    elif kind is Kind.NONE:
        yield Leaf(name, output, None, None, in_map)
    elif kind is Kind.TENSOR:
        yield Leaf(name, output, _array(reference), _array(candidate), in_map)
    elif kind is Kind.SEQUENCE:
        if len(reference) != len(candidate):
            lengths = _count(len(reference), "element"), _count(len(candidate), "element")
            yield Mismatch(name, output, *lengths, kind=False)
        elif len(reference) == 0:
            yield Leaf(name, output, np.empty(0), np.empty(0), in_map)
        else:
            for index, (expected, actual) in enumerate(
                zip(reference, candidate, strict=True)
            ):
                yield from _walk(f"{name}[{index}]", output, expected, actual, in_map=in_map)
    elif set(reference) != set(candidate):
        yield Mismatch(
            name,
            output,
            _keys(reference, candidate),
            _keys(candidate, reference),
            kind=False,
        )
    elif len(reference) == 0:
        yield Leaf(name, output, np.empty(0), np.empty(0), in_map)
    else:
        for key, expected in reference.items():
            yield from _walk(
                f"{name}[{_plain(key)!r}]", output, expected, candidate[key], in_map=True
            )


def _array(value: Value) -> Array:
    if isinstance(value, str | bytes):
        return np.array(value, dtype=object)
    return np.asarray(value)


def _described(value: Value) -> str:
    kind = kind_of(value)
    return f"{kind} ({type(value).__name__})" if kind is Kind.OTHER else str(kind)


def _keys(own: Mapping[Any, Any], others: Mapping[Any, Any], most: int = 3) -> str:
    """The number of keys, and the first few that the other side lacks."""
    lacking = [repr(_plain(key)) for key in own if key not in others]
    shown = ", ".join(lacking[:most]) + (
        f" and {len(lacking) - most} more" if len(lacking) > most else ""
    )
    return _count(len(own), "key") + (f" ({shown} only there)" if lacking else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _plain(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key
