"""One input set: what a model is fed, with a name for messages and a digest for cache keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Value = Array | list[Array]


MAGNIFIED = "times the usual magnitude"
"""The words for a set that differs from a usual one by a factor above 1 alone.

They follow ``at 100``.
"""
RISING = "with large values that rise along the last axis"


@dataclass(frozen=True)
class InputSet:
    """The values of every input that the model has no default for.

    Attributes:
        name: for a person, such as ``set 2 (seed 0, page-like, 1x3x256x640)``.
        values: input name to an array, or to a list of arrays for a sequence. Strings are arrays of
            dtype object.
        unusual: what no user would feed as a rule, such as ``at 100 times the usual magnitude``;
            empty for a usual set. An unusual set is there to reveal: no conversion to a narrower
            type has to be usable on it, and nothing is calibrated on it.
        smooth: of an unusual set: whether no value lies on purpose where a last bit decides, so
            that the model's noise on it is no more than noise.
        poised: of an unusual set: whether its values are ordinary, but for lying where a last bit
            decides, on the threshold of a tree or the like. What the model computes in float32 is
            the same there; its noise under changed last bits says nothing.
        large: of a usual set: whether a dimension of it is beyond 2,048. No stranger's code is fed
            with it, and nothing is timed on it.
    """

    name: str
    values: dict[str, Value] = field(default_factory=dict)
    unusual: str = ""
    smooth: bool = False
    poised: bool = False
    large: bool = False

    @property
    def magnified(self) -> bool:
        """It's a usual set, but for its magnitude, which is a multiple of the usual."""
        return self.unusual.endswith(MAGNIFIED)

    @property
    def saturates(self) -> bool:
        """Gates saturate on it, since its values are large without being odd otherwise."""
        return self.magnified or self.unusual == RISING

    def digest(self) -> str:
        """SHA-256 over names, dtypes, shapes and contents, in hexadecimal.

        The set's own name doesn't count. It's taken once: nobody writes into a set's arrays.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.values):
            value = self.values[name]
            digest.update(
                f"{name!r}:{'sequence' if isinstance(value, list) else 'tensor'}\n".encode()
            )
            for array in arrays_of(value):
                digest.update(f"{array.dtype.name}{list(array.shape)}\n".encode())
                digest.update(_contents(array))
        return digest.hexdigest()


def digest_of(sets: Iterable[InputSet]) -> str:
    """SHA-256 over the digests of several sets, in order, in hexadecimal."""
    return hashlib.sha256(
        "".join(input_set.digest() for input_set in sets).encode()
    ).hexdigest()


@dataclass(frozen=True, slots=True)
class DataSet:
    """One recorded set: what the model was fed, and what it is said to give.

    Attributes:
        expected: output name to a tensor, a list, or None for an absent optional; outputs that
            weren't recorded are left out.
    """

    inputs: InputSet
    expected: Mapping[str, Any] = field(default_factory=dict)


def arrays_of(value: Value) -> Iterator[Array]:
    """The arrays in a value: one, or those of the sequence."""
    yield from value if isinstance(value, list) else [value]


def shape_text(shape: tuple[int, ...]) -> str:
    """``1x3x256x640``, or ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


def set_name(
    index: int, origin: str, values: Mapping[str, Value], main: str, kind: str
) -> str:
    """The name of a generated set.

    Its index and origin, what its main input looks like, its scalars.

    Args:
        index: the set's number, from 0.
        origin: where it comes from, such as ``seed 0``.
        values: the set's values.
        main: the input that the name tells about.
        kind: the word for its values, such as ``page-like``.
    """
    if not values:
        return f"set {index} (no inputs)"
    first = next(arrays_of(values[main]), np.empty(0))
    parts = [origin, kind, shape_text(first.shape)]
    for name, value in values.items():
        if name != main and isinstance(value, np.ndarray) and value.size == 1:
            parts.append(f"{name}={number_text(value)}")
    return f"set {index} ({', '.join(parts)})"


def number_text(array: Array) -> str:
    """The only element of an array, in few digits."""
    item = array.reshape(-1)[0]
    return f"{float(item):g}" if isinstance(item, np.floating) else str(item)


def _contents(array: Array) -> bytes:
    if array.dtype.kind in "OUS":
        # A length before each text, so that ["ab", "c"] and ["a", "bc"] differ.
        texts = []
        for item in array.reshape(-1).tolist():
            texts.append(item if isinstance(item, bytes) else str(item).encode())
        return b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return np.ascontiguousarray(array).tobytes()


def shapes_of(inputs: InputSet) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of a set's tensors by input."""
    shapes_by_name: dict[str, list[tuple[int, ...]]] = {}
    for name, value in inputs.values.items():
        shapes_by_name[name] = [array.shape for array in arrays_of(value)]
    return shapes_by_name
