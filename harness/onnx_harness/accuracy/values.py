"""Walk two runs' results side by side: tensors, sequences, maps and absent optionals, nested.

The values of a map are numbers beside one another, and so are those of the maps of a sequence: a
classifier's scores, spelt out. All that an output holds in maps is one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        labels: of the elements, such as ``[0]['cat']``, where they come out of maps; empty: they
            are told apart by their indexes.
    """

    name: str
    output: str
    reference: Array | None
    candidate: Array | None
    labels: Sequence[str] = ()


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
    scores = _Scores()
    yield from _walk(name, name, reference, candidate, scores)
    if scores.labels:
        yield scores.leaf(name)


class _Scores:
    """What an output holds in maps, on both sides, as it is met."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self._reference: list[Array] = []
        self._candidate: list[Array] = []

    def add(
        self, label: str, reference: Mapping[Any, Any], candidate: Mapping[Any, Any]
    ) -> None:
        """Add a map, whose keys are the same on both sides."""
        keys = list(reference)
        dtype = object if isinstance(reference[keys[0]], str) else None
        self._reference.append(np.array([reference[key] for key in keys], dtype))
        self._candidate.append(np.array([candidate[key] for key in keys], dtype))
        self.labels += [f"{label}[{_plain(key)!r}]" for key in keys]

    def leaf(self, output: str) -> Leaf:
        """Return all of them: a row for each map where these are of one size, else a vector."""
        rows = len({len(array) for array in self._reference}) == 1
        join = np.stack if rows else np.concatenate
        return Leaf(
            output, output, join(self._reference), join(self._candidate), self.labels
        )


def _walk(
    name: str, output: str, reference: Value, candidate: Value, scores: _Scores
) -> Iterator[Leaf | Mismatch]:
    kind, candidate_kind = kind_of(reference), kind_of(candidate)
    if kind is not candidate_kind or kind is Kind.OTHER:
        yield Mismatch(name, output, _described(reference), _described(candidate), kind=True)
    elif kind is Kind.NONE:
        yield Leaf(name, output, None, None)
    elif kind is Kind.TENSOR:
        yield Leaf(name, output, _array(reference), _array(candidate))
    elif kind is Kind.SEQUENCE:
        if len(reference) != len(candidate):
            lengths = _count(len(reference), "element"), _count(len(candidate), "element")
            yield Mismatch(name, output, *lengths, kind=False)
        elif len(reference) == 0:
            yield Leaf(name, output, np.empty(0), np.empty(0))
        else:
            for index, (expected, actual) in enumerate(
                zip(reference, candidate, strict=True)
            ):
                yield from _walk(f"{name}[{index}]", output, expected, actual, scores)
    elif set(reference) != set(candidate):
        yield Mismatch(
            name,
            output,
            _keys(reference, candidate),
            _keys(candidate, reference),
            kind=False,
        )
    elif len(reference) == 0:
        yield Leaf(name, output, np.empty(0), np.empty(0))
    elif _are_scalars([*reference.values(), *candidate.values()]):
        scores.add(name.removeprefix(output), reference, candidate)
    else:
        for key, expected in reference.items():
            inner = f"{name}[{_plain(key)!r}]"
            yield from _walk(inner, output, expected, candidate[key], scores)


def _are_scalars(values: Sequence[Value]) -> bool:
    """Return whether values are scalars of one type, as a map has them in ONNX Runtime."""
    kinds = {type(value) for value in values}
    return len(kinds) == 1 and issubclass(kinds.pop(), bool | int | float | str | np.number)


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
