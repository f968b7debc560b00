"""The clamp of the float16 conversions against the library that it stands in for, and by its own laws."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxconverter_common import float16 as library

from harness.transforms.float16 import convert_np_to_float16

Array = npt.NDArray[np.float32]

# Values round the limits are the ones that matter, and hardly ever come up by chance.
NEAR_LIMITS = [
    float(np.float32(sign * near))
    for limit in (2.0**-24, 2.0**-25, 5.96e-8, 1e-7, 6.1e-5, 1e4, 65504.0, 65520.0)
    for near in (
        limit,
        np.nextafter(np.float32(limit), np.float32(0)),
        np.nextafter(np.float32(limit), np.float32(9e9)),
    )
    for sign in (1, -1)
]
VALUES = st.floats(width=32) | st.sampled_from(NEAR_LIMITS)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0), elements=VALUES)
LIMITS = st.tuples(
    st.floats(2.0**-24, 1.0, width=32),
    st.floats(1.0, 65504.0, width=32),
    st.sampled_from([(1e-7, 1e4), (5.96e-8, 65504.0)]),
).flatmap(lambda each: st.sampled_from([(each[0], each[1]), each[2]]))


def reference(array: Array, limits: tuple[float, float]) -> npt.NDArray[np.float16]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every value that it clamps
        converted: npt.NDArray[np.float16] = library.convert_np_to_float16(array, *limits)
    return converted


def bits(array: npt.NDArray[np.float16]) -> list[int]:
    payloads_aside = np.where(np.isnan(array), np.float16(np.nan), array)
    return [int(each) for each in payloads_aside.view(np.uint16).reshape(-1)]


@given(ARRAYS, LIMITS)
def test_bit_for_bit_what_the_library_gives(array: Array, limits: tuple[float, float]) -> None:
    assert bits(convert_np_to_float16(array, *limits)) == bits(reference(array, limits))


@given(VALUES, LIMITS, st.integers(0, 2**16 - 1))
def test_a_long_array_is_converted_as_its_values_are(value: float, limits: tuple[float, float], at: int) -> None:
    array = np.linspace(-3, 3, 2**16 + 5, dtype=np.float32)
    array[at] = value
    converted = convert_np_to_float16(array, *limits)
    pieces = [convert_np_to_float16(piece, *limits) for piece in np.array_split(array[at : at + 64], 2)]
    assert bits(converted[at : at + 64]) == bits(np.concatenate(pieces))


@given(ARRAYS, LIMITS)
def test_sign_zero_and_finiteness_are_kept(array: Array, limits: tuple[float, float]) -> None:
    converted = convert_np_to_float16(array, *limits)
    assert converted.shape == array.shape
    for kept in (np.isnan, np.isinf, lambda each: each == 0):
        np.testing.assert_array_equal(kept(converted), kept(array))
    numbers = ~np.isnan(array)
    np.testing.assert_array_equal(np.signbit(converted)[numbers], np.signbit(array)[numbers])


@given(ARRAYS, LIMITS)
def test_converting_twice_changes_nothing_more(array: Array, limits: tuple[float, float]) -> None:
    once = convert_np_to_float16(array, *limits)
    low, high = np.float16(limits[0]), np.float16(limits[1])
    # A limit that isn't a float16 is rounded, perhaps to beyond itself: only then may the second time differ.
    if float(low) >= limits[0] and float(high) <= limits[1]:
        assert bits(convert_np_to_float16(once.astype(np.float32), *limits)) == bits(once)
