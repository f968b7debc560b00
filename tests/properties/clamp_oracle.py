"""What the clamp has to give, from its definition, in integer arithmetic on the bits.

Nothing here casts to float16 or compares floats, so that no cast is judged by itself.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Halves = npt.NDArray[np.float16]
Limits = tuple[float, float]

# Bits of the significand and of the exponent, without the sign (IEEE 754-2019, table 3.5).
FORMATS = {2: (10, 5), 4: (23, 8), 8: (52, 11)}
INFINITY, QUIET_NAN = 0x7C00, 0x7E00
SMALLEST_EXPONENT = -24  # float16 counts in steps of 2^-24 at the finest


def compared(array: npt.ArrayLike) -> Floats:
    """The values in the dtype that numpy compares them with a Python float in.

    Every value is kept exactly.
    """
    values = np.asarray(array)
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(values.dtype.newbyteorder("="))
    return _widened(
        values, np.float32 if values.dtype == ml_dtypes.float8_e5m2 else np.float64
    )


def doubles(array: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The same values as float64, which holds each of them."""
    return _widened(np.asarray(array), np.float64)


def _widened(values: npt.NDArray[Any], dtype: type[Any]) -> npt.NDArray[Any]:
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return values.astype(dtype)


def expected(array: Floats, limits: Limits) -> npt.NDArray[np.uint16]:
    """The bits of the clamped float16 values of a float16, float32 or float64 array.

    Each NaN as the quiet one.
    """
    fraction, exponent = FORMATS[array.itemsize]
    sign, magnitude = _parts(array)
    low, high = (int(_parts(np.array(limit, array.dtype))[1]) for limit in limits)
    infinity = ((1 << exponent) - 1) << fraction

    number = (magnitude > 0) & (magnitude < infinity)
    clamped = np.where(
        number & (magnitude < low),
        low,
        np.where(number & (magnitude > high), high, magnitude),
    )
    halves = _rounded(np.where(number, clamped, low), fraction, exponent)
    halves = np.where(
        number,
        halves,
        np.where(magnitude == 0, 0, np.where(magnitude == infinity, INFINITY, QUIET_NAN)),
    )
    return (halves | sign << 15).astype(np.uint16)


def bits(halves: Halves) -> npt.NDArray[np.uint16]:
    """The bits of float16 values, payloads of NaN aside, for the comparison with `expected`."""
    found = halves.view(np.uint16)
    payload = (found & 0x7FFF) > INFINITY
    return np.where(payload, found & 0x8000 | QUIET_NAN, found).astype(np.uint16)


def _parts(array: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    width = array.itemsize * 8
    whole = array.view(f"uint{width}")
    return (whole >> (width - 1)).astype(np.int64), (
        whole & ((1 << (width - 1)) - 1)
    ).astype(np.int64)


def _rounded(
    magnitude: npt.NDArray[np.int64], fraction: int, exponent: int
) -> npt.NDArray[np.int64]:
    """To the nearest float16, ties to the even one, of finite magnitudes given as bits."""
    field = magnitude >> fraction
    significand = np.where(field > 0, 1 << fraction, 0) | magnitude & ((1 << fraction) - 1)
    # The value is significand * 2^scale, and float16 holds multiples of 2^step there.
    scale = np.maximum(field, 1) - ((1 << exponent - 1) - 1) - fraction
    step = np.maximum(scale + fraction - 10, SMALLEST_EXPONENT)
    shift = step - scale
    multiple = significand >> shift
    rest, whole = significand - (multiple << shift), np.int64(1) << shift
    multiple += (2 * rest > whole) | ((2 * rest == whole) & (multiple % 2 == 1))
    # A multiple of 1024 to 2047 is a significand with its leading bit, which adds one to the
    # exponent's field.
    halves: npt.NDArray[np.int64] = multiple + (step - SMALLEST_EXPONENT) * 1024
    return halves
