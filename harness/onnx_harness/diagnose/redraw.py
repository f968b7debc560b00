"""Arrays drawn at random that take the place of others and say nothing of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_harness.diagnose.smaller_case import Array

_SEED = 0
_FEW = 8
"""Zeros and ones: so many of them are flags, axes or pads. More may be a mask."""


def says_nothing(array: Array) -> bool:
    """Return whether an array holds zeros and ones that are few, all the same, or but for one 0."""
    if array.dtype.kind in "OUS":
        return False
    magnitude = np.abs(array.astype(np.float64)) if array.dtype.kind != "c" else np.abs(array)
    if not np.isin(magnitude, (0, 1)).all():
        return False
    few = array.size <= _FEW or np.count_nonzero(magnitude) <= 1
    return bool(few or (array == array.reshape(-1)[0]).all())


def replacements(array: Array, number: int) -> list[Array]:
    """Return arrays of a type and shape, the least telling first.

    Args:
        array: to replace, of numbers.
        number: that decides the draw: arrays with different numbers have nothing in common.

    Returns:
        Of floats: draws of magnitude 1; of the scale of the array; with its signs and with what
        isn't finite; one magnitude with its signs. Of integers: draws from the smallest power of
        two that has room for them; from their range; the same sorted; their least. None of them is
        the array.
    """
    generator = np.random.default_rng(_SEED + number)
    drawn: list[Array]
    if array.dtype.kind == "b":
        drawn = [
            np.asarray(generator.random(array.shape) < 0.5),
            np.ones_like(array),
            np.zeros_like(array),
        ]
    elif is_whole(array.dtype):
        drawn = _whole(array, generator)
    elif array.dtype.kind == "c":
        drawn = [np.asarray(generator.random(array.shape) + 1j * generator.random(array.shape))]
    else:
        drawn = _floats(array, generator)
    if np.count_nonzero(array) <= 1 and array.size > 1:  # zeros that a reduction left stay
        drawn = [np.where(array != 0, other, 0) for other in drawn]
    different = []
    for other in drawn:
        cast = np.asarray(other).astype(array.dtype)
        if not np.array_equal(cast, array):
            different.append(cast)
    return different


def is_whole(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is one of integers, those of ml_dtypes included."""
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))


def scale_of(array: Array) -> float:
    """Return the power of two nearest to the greatest finite magnitude; 1 where there is none."""
    values = np.abs(array.astype(np.float64))
    greatest = float(values[np.isfinite(values)].max(initial=0.0))
    return float(2.0 ** np.round(np.log2(greatest))) if greatest else 1.0


def _floats(array: Array, generator: np.random.Generator) -> list[Array]:
    wide = array.astype(np.float64)
    # What isn't negative may be a variance, or go under a root.
    least = 0.0 if np.nanmin(wide, initial=0.0) >= 0 else -1.0
    unit = np.asarray(generator.uniform(least, 1.0, array.shape))
    scale = min(scale_of(array), _greatest(array.dtype))
    signed = np.where(np.isfinite(wide), np.abs(unit) * scale * np.sign(wide), wide)
    level = np.where(np.isfinite(wide), scale * np.sign(wide), wide)
    return [unit, unit * scale, signed, level]


def _greatest(dtype: np.dtype[Any]) -> float:
    try:
        return float(np.finfo(dtype).max)
    except ValueError:  # a type that numpy doesn't have
        import ml_dtypes

        return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _whole(array: Array, generator: np.random.Generator) -> list[Array]:
    if not array.size:
        return []
    low, high = int(array.min()), int(array.max())
    room = 1 << max(abs(low), abs(high)).bit_length()
    limits = _limits(array.dtype)
    lowest = max(-room if low < 0 else 0, limits[0])
    highest = min(room - 1, limits[1])
    kind = np.uint64 if limits[0] == 0 else np.int64
    free = generator.integers(lowest, highest, array.shape, kind, endpoint=True)
    within = generator.integers(low, high, array.shape, kind, endpoint=True)
    ordered = np.sort(np.asarray(within).reshape(-1)).reshape(array.shape)
    return [np.asarray(free), np.asarray(within), ordered, np.full(array.shape, low)]


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info: Any
    try:
        info = np.iinfo(dtype)
    except ValueError:  # a type that numpy doesn't have
        import ml_dtypes

        info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)
