"""Arrays drawn at random that take the place of others and say nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_harness.diagnose.smaller_case import Array

_EVEN = 0.5
_FEW = 8
"""Zeros and ones: so many of them are flags, axes or pads. More may be a mask."""


def says_nothing(array: Array) -> bool:
    """Return whether an array holds zeros and ones that are few, all the same, or but for one 0."""
    if array.dtype.kind in "OUS":
        return False
    magnitude = (
        np.abs(array.astype(np.float64)) if array.dtype.kind != "c" else np.abs(array)
    )
    if not np.isin(magnitude, (0, 1)).all():
        return False
    few = array.size <= _FEW or np.count_nonzero(magnitude) <= 1
    return bool(few or (array == array.reshape(-1)[0]).all())


@dataclass(frozen=True, slots=True)
class Drawn:
    """An array in the place of another one.

    Attributes:
        array: of the same type and shape.
        signs: whether it has the signs of the other, and they say something.
    """

    array: Array
    signs: bool = False


def replacements(
    array: Array,
    number: int,
) -> Iterator[Drawn]:
    """Yield arrays of a type and shape, the least telling first.

    None of them is the array. An integer or a truth value is drawn from few: some may be the same.

    Args:
        array: to replace, of numbers.
        number: that decides the draw: arrays with different numbers have nothing in common.

    Yields:
        Of floats: draws of magnitude 1; of the scale of the array; with its signs and with what
        isn't finite; one magnitude with its signs. Of integers: draws from the smallest power of
        two that has room for them; from their range; the same sorted; their least.
    """
    generator = np.random.default_rng(number)
    # Zeros that a reduction left stay.
    sparse = np.count_nonzero(array) <= 1 and array.size > 1
    for drawn in _drawn(array, generator):
        values = np.where(array != 0, drawn.array, 0) if sparse else drawn.array
        cast = np.asarray(values).astype(array.dtype)
        if not np.array_equal(cast, array):
            yield Drawn(cast, drawn.signs)


def _drawn(
    array: Array,
    generator: np.random.Generator,
) -> Iterator[Drawn]:
    if array.dtype.kind == "b":
        yield Drawn(np.asarray(generator.random(array.shape) < _EVEN))
        yield Drawn(np.ones_like(array))
        yield Drawn(np.zeros_like(array))
    elif array.dtype.kind == "c":
        yield Drawn(
            np.asarray(generator.random(array.shape) + 1j * generator.random(array.shape))
        )
    elif is_whole(array.dtype):
        yield from _whole(array, generator)
    else:
        yield from _floats(array, generator)


def is_whole(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is one of integers, those of ml_dtypes included."""
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))


def scale_of(array: Array) -> float:
    """Return the power of two nearest to the greatest finite magnitude; 1 where there is none."""
    values = np.abs(array.astype(np.float64))
    greatest = float(values[np.isfinite(values)].max(initial=0.0))
    return float(2.0 ** np.round(np.log2(greatest))) if greatest else 1.0


def _floats(
    array: Array,
    generator: np.random.Generator,
) -> Iterator[Drawn]:
    wide = array.astype(np.float64)
    # What isn't negative may be a variance, or go under a root.
    least = 0.0 if np.nanmin(wide, initial=0.0) >= 0 else -1.0
    unit = np.asarray(generator.uniform(least, 1.0, array.shape))
    scale = min(scale_of(array), _greatest(array.dtype))
    yield Drawn(unit)
    yield Drawn(unit * scale)
    finite, signs = np.isfinite(wide), np.sign(wide)
    say_something = bool(np.unique(signs).size > 1 or not finite.all())
    yield Drawn(np.where(finite, np.abs(unit) * scale * signs, wide), say_something)
    yield Drawn(np.where(finite, scale * signs, wide), say_something)


def _greatest(dtype: np.dtype[Any]) -> float:
    try:
        return float(np.finfo(dtype).max)
    except ValueError:  # a type that numpy doesn't have
        import ml_dtypes

        return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _whole(
    array: Array,
    generator: np.random.Generator,
) -> Iterator[Drawn]:
    if not array.size:
        return
    low, high = int(array.min()), int(array.max())
    room = 1 << max(abs(low), abs(high)).bit_length()
    limits = _limits(array.dtype)
    lowest = max(-room if low < 0 else 0, limits[0])
    highest = min(room - 1, limits[1])
    kind = np.uint64 if limits[0] == 0 else np.int64
    yield Drawn(
        np.asarray(generator.integers(lowest, highest, array.shape, kind, endpoint=True))
    )
    within = np.asarray(generator.integers(low, high, array.shape, kind, endpoint=True))
    yield Drawn(within)
    yield Drawn(np.sort(within.reshape(-1)).reshape(array.shape))
    yield Drawn(np.full(array.shape, low))


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info: Any
    try:
        info = np.iinfo(dtype)
    except ValueError:  # a type that numpy doesn't have
        import ml_dtypes

        info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)
