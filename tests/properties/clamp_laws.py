"""The laws of the clamp.

Each takes the clamp to judge, so that broken ones can be put before them too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxconverter_common import float16 as library

from onnx_harness.transforms.float16 import Clamped
from tests.properties.clamp_oracle import (
    Floats,
    Halves,
    Limits,
    bits,
    compared,
    doubles,
    expected,
)

Clamp = Callable[[Floats, float, float], Clamped]
Law = Callable[[Clamp, Floats, Limits], None]


def bit_for_bit_what_the_definition_says(
    clamp: Clamp, array: Floats, limits: Limits
) -> None:
    got = clamp(array, *limits).array
    _all(
        bits(got) == expected(compared(array), limits),
        "isn't what the definition says",
        array,
        got,
        limits,
    )


def bit_for_bit_what_the_library_gives(clamp: Clamp, array: Floats, limits: Limits) -> None:
    got = clamp(array, *limits).array
    _all(
        bits(got) == bits(of_the_library(array, limits)),
        "isn't what the library gives",
        array,
        got,
        limits,
    )


def the_sign_is_kept(clamp: Clamp, array: Floats, limits: Limits) -> None:
    got = clamp(array, *limits).array
    _all(
        np.signbit(got) == np.signbit(compared(array)),
        "has another sign",
        array,
        got,
        limits,
    )


def finite_stays_finite_and_nan_stays_nan(
    clamp: Clamp, array: Floats, limits: Limits
) -> None:
    got, values = clamp(array, *limits).array, compared(array)
    same = (np.isfinite(got) == np.isfinite(values)) & (np.isnan(got) == np.isnan(values))
    _all(same, "is of another kind", array, got, limits)


def only_zero_becomes_zero(clamp: Clamp, array: Floats, limits: Limits) -> None:
    got = clamp(array, *limits).array
    _all(
        (got == 0) == (compared(array) == 0), "is zero on one side only", array, got, limits
    )


def order_is_kept(clamp: Clamp, array: Floats, limits: Limits) -> None:
    flat = doubles(array).reshape(-1)
    with np.errstate(all="ignore"):
        # With what rounds to the neighbours of each value in float16: chance seldom gives both of a
        # pair.
        near = np.concatenate([flat, flat * (1 + 2.0**-10), flat * (1 - 2.0**-10)]).astype(
            array.dtype
        )
    values, got = compared(near), clamp(near, *limits).array
    # NaN is sorted to the end.
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]
    values, got = values[order], got[order]
    _all(
        got[:-1] <= got[1:], "is above its greater neighbour", values[:-1], got[:-1], limits
    )


def twice_is_once(clamp: Clamp, array: Floats, limits: Limits) -> None:
    once = clamp(array, *limits).array
    _all(
        bits(clamp(once, *limits).array) == bits(once),
        "changes when clamped again",
        array,
        once,
        limits,
    )


def half_a_step_away_at_most(clamp: Clamp, array: Floats, limits: Limits) -> None:
    got, values = clamp(array, *limits).array, doubles(array)
    low, high = _limits_in(array, limits)
    kept = (np.abs(values) >= low) & (np.abs(values) <= high)
    # x = m * 2^e with 1/2 <= m < 1, so float16, of 11 bits, counts in steps of 2^(e - 11), and of
    # 2^-24 at the finest.
    _, exponents = np.frexp(np.where(kept, values, 1.0))
    half_a_step = np.ldexp(0.5, np.maximum(exponents - 11, -24))
    near = np.abs(np.where(kept, got, 0.0) - np.where(kept, values, 0.0)) <= half_a_step
    _all(near, "isn't the nearest float16", array, got, limits)


def limits_hold(clamp: Clamp, array: Floats, limits: Limits) -> None:
    got = clamp(array, *limits).array
    low, high = (
        float(rounded)
        for rounded in expected(np.array(_limits_in(array, limits)), limits).view(np.float16)
    )
    magnitudes = np.abs(doubles(got))
    inside = ~np.isfinite(got) | (got == 0) | (magnitudes >= low) & (magnitudes <= high)
    _all(inside, "is beyond a limit", array, got, limits)


def shape_and_layout_are_kept(clamp: Clamp, array: Floats, limits: Limits) -> None:
    got = clamp(array, *limits).array
    assert (got.shape, got.dtype) == (array.shape, np.dtype(np.float16))
    assert type(got) is np.ndarray
    for contiguous in ("c_contiguous", "f_contiguous"):
        assert getattr(got.flags, contiguous) >= getattr(array.flags, contiguous), contiguous
    strides = sorted(
        stride for stride, size in zip(got.strides, got.shape, strict=True) if size > 1
    )
    assert not got.size or not strides or strides[0] == got.itemsize, (
        f"strides {got.strides} leave gaps"
    )


def the_input_is_untouched(clamp: Clamp, array: Floats, limits: Limits) -> None:
    before, flags = array.tobytes(), array.flags.writeable
    got = clamp(array, *limits).array
    assert array.tobytes() == before, "the input was written to"
    assert array.flags.writeable == flags
    assert got.flags.writeable
    assert not np.shares_memory(got, array)


def every_clamped_value_is_counted(clamp: Clamp, array: Floats, limits: Limits) -> None:
    found = clamp(array, *limits)
    magnitudes = np.abs(doubles(array)).reshape(-1)
    low, high = _limits_in(array, limits)
    raised = magnitudes[(magnitudes > 0) & (magnitudes < low)]
    lowered = magnitudes[(magnitudes > high) & np.isfinite(magnitudes)]
    assert (found.raised, found.lowered) == (raised.size, lowered.size)
    assert found.smallest == (raised.min() if raised.size else None)
    assert found.largest == (lowered.max() if lowered.size else None)


LAWS: tuple[Law, ...] = (
    bit_for_bit_what_the_definition_says,
    bit_for_bit_what_the_library_gives,
    the_sign_is_kept,
    finite_stays_finite_and_nan_stays_nan,
    only_zero_becomes_zero,
    order_is_kept,
    twice_is_once,
    half_a_step_away_at_most,
    limits_hold,
    shape_and_layout_are_kept,
    the_input_is_untouched,
    every_clamped_value_is_counted,
)


def of_the_library(array: Floats, limits: Limits) -> Halves:
    """What onnxconverter-common gives; it raises on 0-d arrays with numpy 2.4."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # it warns of what it clamps
        found: Halves = library.convert_np_to_float16(np.atleast_1d(array), *limits)
    return found.reshape(array.shape)


def _limits_in(array: Floats, limits: Limits) -> tuple[float, float]:
    """The limits as they are compared: rounded to the dtype of the values."""
    low, high = np.array(limits, compared(array).dtype).astype(np.float64)
    return float(low), float(high)


def _all(
    holds: npt.NDArray[np.bool_] | np.bool_,
    complaint: str,
    array: Floats,
    got: npt.NDArray[Any],
    limits: Limits,
) -> None:
    __tracebackhide__ = True
    wrong = ~np.asarray(holds)
    if not wrong.any():
        return
    at = np.flatnonzero(wrong)[0]
    value, half = array.reshape(-1)[at], got.reshape(-1)[at]
    raise AssertionError(
        f"{np.count_nonzero(wrong)} of {wrong.size}: {value!r} ({_hex(value)}) became {half!r} "
        f"({_hex(half)}), "
        f"which {complaint}, under the limits {limits}"
    )


def _hex(value: Any) -> str:
    return (
        f"0x{np.asarray(value, np.asarray(value).dtype.newbyteorder('>')).tobytes().hex()}"
    )
