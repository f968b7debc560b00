"""What is measured of two arrays: every figure, for every kind of element, across pieces."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.measure import (
    CHUNK,
    Measured,
    extent,
    is_float,
    is_text,
    measure,
    same_bits,
)

FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
WHOLE = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_figure_is_that_of_its_formula(dtype: Any) -> None:
    reference = np.array([3, -4, 0, 2], dtype)
    candidate = np.array([3, -4.5, 0.25, 2], dtype)
    assert measure(reference, candidate, rtol=0.1, atol=0.1) == Measured(
        size=4,
        rtol=0.1,
        atol=0.1,
        finite=4,
        max_abs=0.5,
        greatest_at=1,
        max_rel=0.125,
        error=0.5**2 + 0.25**2,
        signal=9.0 + 16.0 + 4.0,
        candidate=9.0 + 4.5**2 + 0.25**2 + 4.0,
        product=9.0 + 18.0 + 4.0,
        beyond=1,
        worst=2.5,
        worst_at=2,
    )


@pytest.mark.parametrize("dtype", WHOLE)
def test_integers_have_differences_too(dtype: Any) -> None:
    made = measure(
        np.array([3, 9, 0], dtype), np.array([4, 7, 0], dtype), rtol=0.0, atol=1.0
    )
    assert (made.max_abs, made.greatest_at, made.error, made.max_rel) == (2.0, 1, 5.0, 1 / 3)
    assert (made.beyond, made.worst, made.worst_at) == (1, 2.0, 1)
    assert (made.signal, made.candidate, made.product) == (90.0, 65.0, 75.0)
    assert (made.signed_zero, made.nonfinite, made.equal) == (0, 0, False)


@pytest.mark.parametrize(
    ("reference", "candidate", "gap"),
    [
        (np.int64(2**62), np.int64(2**62 + 1), 1.0),
        (np.int64(2**62 + 3), np.int64(2**62), 3.0),
        (np.uint64(2**64 - 1), np.uint64(2**64 - 2), 1.0),
        (np.int64(-(2**63)), np.int64(2**63 - 1), float(2**64 - 1)),
        (np.uint64(0), np.uint64(2**64 - 1), float(2**64 - 1)),
        (np.uint32(0), np.uint32(2**32 - 1), float(2**32 - 1)),
        (np.int8(-128), np.int8(127), 255.0),
    ],
)
def test_the_difference_of_integers_is_exact_however_large_they_are(
    reference: Any, candidate: Any, gap: float
) -> None:
    made = measure(np.array([reference]), np.array([candidate]), rtol=0.0, atol=0.0)
    assert (made.max_abs, made.beyond, made.worst) == (gap, 1, gap)


@pytest.mark.parametrize(
    ("value", "relative"), [(0.5, 0.0), (-3.0, 0.0), (0.0, None), (NAN, None)]
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_arrays_have_no_difference(
    dtype: Any, value: float, relative: float | None
) -> None:
    array = np.array([[value]], dtype)
    made = measure(array, array.copy(), rtol=1.0, atol=1.0)
    assert (made.max_abs, made.max_rel, made.error, made.rel_l2) == (0.0, relative, 0.0, 0.0)
    assert (made.equal, made.finite, made.beyond, made.nonfinite) == (True, 1, 0, 0)
    assert (made.greatest_at, made.worst_at, made.minimum_tolerance) == (None, None, 0.0)
    assert (made.cosine, made.sqnr_db) == (None if relative is None else 1.0, None)


def test_booleans_differ_or_not() -> None:
    made = measure(
        np.array([True, False, True]), np.array([True, True, False]), rtol=0, atol=0
    )
    assert (made.beyond, made.worst_at, made.max_abs, made.equal) == (2, 1, 1.0, False)
    assert measure(np.array([True]), np.array([True]), rtol=0, atol=0).equal


@pytest.mark.parametrize("dtype", [object, np.str_])
def test_text_differs_or_not(dtype: Any) -> None:
    reference = np.array([["a", "b"], ["c", "d"]], dtype)
    candidate = np.array([["a", "x"], ["c", "y"]], object)
    made = measure(reference, candidate, rtol=1.0, atol=2.0, sketched=True)
    assert made == Measured(size=4, rtol=1.0, atol=2.0, beyond=2, worst=INF, worst_at=1)
    same = measure(reference, reference.astype(object), rtol=0.0, atol=0.0)
    assert same == Measured(size=4, rtol=0.0, atol=0.0, equal=True)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_are_measured_by_part_and_each_part_has_a_position(
    dtype: Any,
) -> None:
    reference = np.array([[1 + 2j], [3 + 4j]], dtype)
    made = measure(
        reference, reference + np.array([[0], [0.5j]], dtype), rtol=0.0, atol=0.25
    )
    assert (made.size, made.finite, made.greatest_at, made.worst_at) == (2, 4, 3, 3)
    assert (made.max_abs, made.max_rel, made.worst, made.beyond) == (0.5, 0.125, 2.0, 1)
    assert (made.error, made.signal, made.product) == (0.25, 30.0, 32.0)
    turned = np.array([1 + 2j, 3 + 4j], dtype)[::-1]  # a view that isn't contiguous
    assert measure(turned, turned + 1, rtol=0.0, atol=0.0).error == 2.0


def test_nan_and_infinity_count_where_the_other_side_has_something_else() -> None:
    reference = np.array([NAN, INF, -INF, INF, 1.0, NAN, 2.0, 0.0])
    candidate = np.array([NAN, INF, INF, NAN, NAN, 5.0, 4.0, -0.0])
    made = measure(reference, candidate, rtol=0.5, atol=0.5)
    assert (made.nonfinite, made.nonfinite_at, made.finite, made.size) == (4, 2, 2, 8)
    assert (made.max_abs, made.greatest_at, made.worst_at) == (2.0, 6, 6)
    assert (made.error, made.signal, made.candidate, made.product) == (4.0, 4.0, 16.0, 8.0)
    assert (made.signed_zero, made.signed_zero_at) == (1, 7)
    alike = measure(reference[:3], np.array([NAN, INF, -INF]) * 1, rtol=0.0, atol=0.0)
    assert (alike.nonfinite, alike.nonfinite_at) == (0, None)


@pytest.mark.parametrize("candidate", [[NAN], [INF], [-INF]])
def test_an_infinity_is_of_one_sign(candidate: list[float]) -> None:
    made = measure(np.array([INF]), np.array(candidate), rtol=0.0, atol=0.0)
    assert (made.nonfinite, made.finite, made.max_abs) == (
        int(candidate != [INF]),
        0,
        0.0,
    ) or (made.equal and made.finite == 1)


def test_zeros_of_the_other_sign_are_no_difference_and_are_counted() -> None:
    reference = np.array([0.0, -0.0, 0.0, 1.0, 0.0])
    candidate = np.array([0.0, 0.0, -0.0, 1.0, -1.0])
    made = measure(reference, candidate, rtol=1.0, atol=0.0)
    assert (made.signed_zero, made.signed_zero_at) == (2, 1)
    assert (made.beyond, made.worst, made.worst_at) == (1, INF, 4)


ALLOWED = 0.5 * 2.0 + 0.25


@pytest.mark.parametrize(
    ("off", "beyond"), [(ALLOWED, 0), (np.nextafter(ALLOWED, 9), 1), (-ALLOWED, 0)]
)
def test_a_bound_is_broken_by_one_last_place(off: float, beyond: int) -> None:
    nothing = np.zeros(1)  # so that the difference is exact
    assert measure(nothing, nothing + off, rtol=0.5, atol=ALLOWED).beyond == beyond
    made = measure(np.array([2.0]), np.array([2.0 + ALLOWED]), rtol=0.5, atol=0.25)
    assert (made.beyond, made.worst, made.minimum_tolerance) == (0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("reference", "candidate", "figures"),
    [
        ([3.0, 4.0], [3.0, 4.0], (0.0, 1.0, None, 0.0)),
        ([0.0, 0.0], [0.0, 0.0], (0.0, None, None, 0.0)),
        ([0.0, 0.0], [3.0, 4.0], (None, None, None, None)),
        ([3.0, 4.0], [0.0, 0.0], (1.0, None, 0.0, 1.0)),
        ([3.0, 4.0], [-3.0, -4.0], (2.0, -1.0, -20 * math.log10(2.0), 2.0)),
        # Squares beyond float64: there's no cosine, which isn't one of -1.
        ([1e200, 1.0], [2e200, 1.0], (None, None, None, 1.0)),
    ],
)
def test_figures_of_the_whole_exist_or_are_none(
    reference: list[float], candidate: list[float], figures: tuple[float | None, ...]
) -> None:
    made = measure(np.array(reference), np.array(candidate), rtol=1.0, atol=0.0)
    found = (made.rel_l2, made.cosine, made.sqnr_db, made.minimum_tolerance)
    assert found == tuple(None if each is None else pytest.approx(each) for each in figures)


def test_the_smallest_tolerance_passes_and_one_last_place_less_does_not() -> None:
    reference, candidate = np.array([3.0, 7.0]), np.array([3.1, 7.7])
    made = measure(reference, candidate, rtol=0.03, atol=0.01)
    least = made.minimum_tolerance
    assert least is not None
    enough = measure(reference, candidate, rtol=least, atol=0.01 * least / 0.03)
    assert (made.beyond, enough.beyond) == (2, 0)
    less = least * (1 - 1e-12)
    assert measure(reference, candidate, rtol=less, atol=0.01 * less / 0.03).beyond == 1
    loose = measure(reference, candidate, rtol=0.3, atol=0.1)
    assert loose.minimum_tolerance == pytest.approx(0.3 * 0.7 / (0.3 * 7 + 0.1))
    assert (
        measure(reference, candidate, rtol=0.0, atol=9.0).minimum_tolerance == made.max_abs
    )


def spread(*at: int) -> Any:
    """Return two and a half pieces of ones, other at some places."""
    array = np.ones(5 * CHUNK // 2)
    array[list(at)] = 3.0
    return array


def test_pieces_are_added_up_and_positions_are_those_of_the_whole() -> None:
    ones = spread()
    made = measure(ones, spread(5, CHUNK + 7, 2 * CHUNK + 9), rtol=0.5, atol=0.5)
    assert (made.size, made.finite, made.signal) == (ones.size,) * 3
    assert (made.error, made.beyond, made.candidate) == (12.0, 3, ones.size + 24.0)
    assert made.product == ones.size + 6.0
    assert (made.greatest_at, made.worst_at, made.max_abs, made.max_rel) == (5, 5, 2.0, 2.0)


@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, 2 * CHUNK, 5 * CHUNK // 2 - 1])
def test_each_place_is_found_wherever_it_lies(place: int) -> None:
    made = measure(spread(), spread(place), rtol=0.0, atol=0.5)
    assert (made.greatest_at, made.worst_at, made.max_rel) == (place, place, 2.0)
    holed = spread()
    holed[place] = NAN
    lost = measure(spread(), holed, rtol=0.0, atol=0.0)
    assert (lost.nonfinite, lost.nonfinite_at, lost.finite) == (1, place, holed.size - 1)
    zeros = 0 * spread()
    negative = zeros.copy()
    negative[place] = -0.0
    signed = measure(zeros, negative, rtol=0.0, atol=0.0)
    assert (signed.signed_zero, signed.signed_zero_at, signed.equal) == (1, place, False)
    assert not same_bits(spread(), spread(place))


def test_what_is_counted_is_counted_in_every_piece_and_the_first_is_named() -> None:
    reference, candidate = spread(), spread()
    for at in (3, CHUNK + 4, 2 * CHUNK + 5):
        candidate[at] = INF
        reference[at + 1], candidate[at + 1] = 0.0, -0.0
    candidate[[9, CHUNK + 9]] = 2.0
    made = measure(reference, candidate, rtol=0.0, atol=0.5)
    assert (made.nonfinite, made.nonfinite_at) == (3, 3)
    assert (made.signed_zero, made.signed_zero_at) == (3, 4)
    assert (made.beyond, made.worst_at, made.greatest_at) == (2, 9, 9)
    assert made.finite == reference.size - 3


def test_the_greatest_relative_difference_is_kept_from_an_earlier_piece() -> None:
    reference, candidate = spread(), spread()
    reference[5], candidate[5] = 0.25, 0.5
    candidate[CHUNK + 5] = 1.5
    made = measure(reference, candidate, rtol=1.0, atol=0.0)
    assert (made.max_rel, made.max_abs, made.greatest_at) == (1.0, 0.5, CHUNK + 5)
    assert (made.worst, made.worst_at) == (1.0, 5)


def test_a_sketch_is_kept_where_it_was_asked_for() -> None:
    one = np.array([1.0, 2.0, 4.0])
    assert measure(one, one + 1, rtol=0.1, atol=0.0).sketch is None
    sketch = measure(
        one, one + np.array([0, 0.125, 1.0]), rtol=0.125, atol=0.0, sketched=True
    ).sketch
    assert sketch is not None
    assert (sketch.record().equal, sketch.record().shares) == (1, {"-1": 1, "1": 1})
    same = measure(one, one, rtol=0.0, atol=0.0, sketched=True).sketch
    assert same is not None
    assert (same.record().equal, same.record().shares, same.record().greatest) == (3, {}, {})
    exact = measure(one, one + np.array([0, 1, 0]), rtol=0.0, atol=0.0, sketched=True).sketch
    assert exact is not None  # nothing is allowed: no share of it
    assert (exact.record().equal, exact.record().shares) == (0, {})
    assert set(exact.record().greatest) == {"1"}


@pytest.mark.parametrize(
    ("array", "scale", "constant"),
    [
        (np.array([[1.0, -3.0]]), 3.0, False),
        (np.array([2.0, 2.0]), 2.0, True),
        (np.array([[-2.0]]), 2.0, True),
        (np.array(7.0), 7.0, True),
        (np.array([5.0, NAN, -7.0]), 7.0, False),
        (np.array([NAN, NAN]), 0.0, True),
        (np.array([INF, INF]), 0.0, True),
        (np.array([INF, -INF]), 0.0, False),
        (np.array([-INF, 2.0]), 2.0, False),
        (np.array([INF, -8.0, 2.0]), 8.0, False),
        (np.array([1, -3], np.float16), 3.0, False),
        (np.array([INF, -3], np.float16), 3.0, False),
        (np.array([1, -3], ml_dtypes.bfloat16), 3.0, False),
        (np.array([NAN, -3], ml_dtypes.bfloat16), 3.0, False),
        (np.array([1, 1.5], ml_dtypes.float8_e4m3fn), 1.5, False),
        (np.array([1 - 3j, 2 + 1j]), 3.0, False),
        (np.array([2 + 2j, 2 + 2j]), 2.0, True),
        (np.array([-128, 3], np.int8), 128.0, False),
        (np.array([3, 3], np.uint64), 3.0, True),
        (np.array([-(2**63)]), 2.0**63, True),
        (np.array([True, False]), 1.0, False),
        (np.array([NAN]), 0.0, True),
        (np.array([2**24 + 1, 2**24], np.int32), 2.0**24 + 1, False),
        (np.array([1.0, 1.0 + 2.0**-40]), 1.0 + 2.0**-40, False),
        (np.array(["a"]), 0.0, True),
        (np.array(["a", "a"]), 0.0, True),
        (np.array(["a", "b"], object), 0.0, False),
        (np.zeros((0, 3)), 0.0, False),
        (np.zeros(0, object), 0.0, False),
    ],
)
def test_the_extent_is_the_greatest_finite_magnitude(
    array: Any, scale: float, constant: bool
) -> None:
    assert extent(array) == (scale, constant)


@pytest.mark.parametrize(
    ("array", "floating", "text"),
    [
        *((np.zeros(1, dtype), True, False) for dtype in FLOATS),
        *(
            (np.zeros(1, dtype), False, False)
            for dtype in (*WHOLE, np.bool_, ml_dtypes.int4)
        ),
        (np.zeros(1, ml_dtypes.float8_e5m2), True, False),
        (np.zeros(1, np.complex64), True, False),
        (np.array(["a"]), False, True),
        (np.array([b"a"]), False, True),
        (np.array(["a"], object), False, True),
        (np.array(["a"], np.dtypes.StringDType()), False, True),
    ],
)
def test_elements_are_floating_or_text_or_neither(
    array: Any, floating: bool, text: bool
) -> None:
    assert (is_float(array), is_text(array)) == (floating, text)


@pytest.mark.parametrize(
    "dtype", [*FLOATS, *WHOLE, np.complex64, np.complex128, np.bool_, object]
)
def test_the_same_bits_are_of_one_dtype_one_shape_and_one_content(dtype: Any) -> None:
    array = np.array([[1, 0, 1], [0, 1, 1]], dtype)
    other = array.copy()
    other[1, 2] = 0
    assert same_bits(array, array.copy())
    assert same_bits(array[:, ::-1], array[:, ::-1].copy())
    assert not same_bits(array, other)
    assert not same_bits(array, array.reshape(3, 2))
    assert not same_bits(array, array.astype(np.clongdouble))


def test_signs_of_zero_and_payloads_of_nan_are_bits() -> None:
    quiet = np.array([NAN], np.float32)
    other = (quiet.view(np.uint32) | 1).view(np.float32)
    assert not same_bits(quiet, other)
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert same_bits(np.array(3.0), np.array(3.0))
    long = np.zeros(40 * CHUNK, np.int8)
    late = long.copy()
    late[-1] = 1
    assert same_bits(long, long.copy())
    assert not same_bits(long, late)
