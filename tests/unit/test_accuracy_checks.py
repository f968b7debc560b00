"""Each check alone: what it lets pass, up to which figure, and every field of its failure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.checks import (
    check_dtype,
    check_elements,
    check_faithful,
    check_kind,
    check_length,
    check_names,
    check_nonfinite,
    check_shape,
    check_signed_zero,
)
from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2, MOST_STEPS, Bound
from onnx_harness.accuracy.failures import Check, OutputFailure, Question
from onnx_harness.accuracy.flips import in_steps, is_flip
from onnx_harness.accuracy.measure import Measured, measure
from onnx_harness.accuracy.noise import Gap
from onnx_harness.accuracy.tolerance import Tolerance, choose
from onnx_harness.accuracy.values import Mismatch
from onnx_harness.transforms import Precision

NAN, INF = math.nan, math.inf
LETTER = Tolerance(rtol=0.0, atol=0.5)
DEFAULT = choose(Precision.FP16, None, None)


def made(reference: Any, candidate: Any, atol: float = 0.0, rtol: float = 0.0) -> Measured:
    return measure(reference, candidate, rtol=rtol, atol=atol)


def test_outputs_are_missing_or_new() -> None:
    assert check_names({"a": 1, "b": 2}, {"c": 3, "b": 2}) == [
        OutputFailure("a", Check.NAMES, "is missing"),
        OutputFailure("c", Check.NAMES, "is new: the reference has no such output"),
    ]
    assert check_names({"a": 1, "b": 2}, {"b": 9, "a": 8}) == []


def test_structures_part_by_their_kinds_or_by_their_lengths() -> None:
    kinds = Mismatch("y[0]", "y", "a map", "a tensor", kind=True)
    lengths = Mismatch("y[0]", "y", "2 keys", "1 key", kind=False)
    assert check_kind(kinds) == OutputFailure(
        "y[0]", Check.KIND, "is a tensor; the reference is a map"
    )
    assert check_length(lengths) == OutputFailure(
        "y[0]", Check.SHAPE, "has 1 key; the reference has 2 keys"
    )
    assert (check_kind(lengths), check_length(kinds)) == (None, None)


@pytest.mark.parametrize(
    ("reference", "candidate", "float_io", "what"),
    [
        ("float32", "float32", None, None),
        ("float32", "float16", "float16", None),
        ("float32", "bfloat16", "bfloat16", None),
        ("float32", "float16", None, "is float16; the reference is float32"),
        ("float32", "float16", "bfloat16", "is float16; the reference is float32"),
        ("float64", "float16", "float16", "is float16; the reference is float64"),
        ("int32", "int64", None, "is int64; the reference is int32"),
        ("object", "str", None, None),
        ("str", "object", None, None),
        ("object", "float32", None, "is float32; the reference is object"),
        ("float32", "object", None, "is object; the reference is float32"),
    ],
)
def test_the_dtype_is_the_reference_s_or_the_promised_one(
    reference: str, candidate: str, float_io: str | None, what: str | None
) -> None:
    one, other = (np.zeros(1, getattr(ml_dtypes, n, n)) for n in (reference, candidate))
    expected = None if what is None else OutputFailure("y", Check.DTYPE, what)
    assert check_dtype("y", one, other, float_io) == expected


def test_a_dimension_of_one_counts() -> None:
    assert check_shape("y", np.zeros((1, 3)), np.zeros((1, 3))) is None
    failed = check_shape("y", np.zeros((1, 3)), np.zeros((3, 1)))
    what = "has shape [3, 1]; the reference has [1, 3]"
    assert failed == OutputFailure("y", Check.SHAPE, what)


def overflowed(count: int, bound: Bound | None) -> OutputFailure | None:
    reference = np.arange(1.0, 9.0).reshape(2, 4)
    candidate = reference.copy()
    candidate.flat[8 - count :] = INF
    return check_nonfinite("y", reference, candidate, made(reference, candidate), bound)


@pytest.mark.parametrize(
    ("count", "ranged", "explained"),
    [
        (1, 1, True),
        (4, 1, True),
        (5, 1, False),
        (8, 2, True),
        (1, 0, False),
        (4, None, False),
        (1, None, False),
    ],
)
def test_overflows_are_explained_by_four_times_as_many_of_the_ideal_conversion_s(
    count: int, ranged: int | None, explained: bool
) -> None:
    range_gap = None if ranged is None else Gap(nonfinite=ranged)
    bound = Bound(Gap(), ideal=Gap(), range=range_gap, type="float16")
    failed = overflowed(count, bound)
    assert failed is not None
    assert failed.question is (Question.USABLE if explained else Question.FAITHFUL)
    assert failed.what.endswith(f"; ideal float16 overflows too, in {ranged}") is explained
    assert failed.what.startswith(f"{count} of 8 values (")
    assert failed.severity == count / 8


def test_without_an_explanation_nan_and_infinity_are_none_of_the_model_s() -> None:
    what = "1 of 8 values (12%) differ in NaN or infinity; the first at [1, 3] (reference 8, got inf)"
    assert overflowed(1, None) == OutputFailure(
        "y", Check.NONFINITE, what, severity=0.125, question=Question.FAITHFUL
    )
    assert overflowed(0, None) is None


ONES = np.ones((2, 50))
NOISE = Gap(l2=0.5, greatest=0.25, norm=10.0)


def faithful(off: dict[int, float], bound: Bound | None, reference: Any = ONES) -> Any:
    candidate = reference.copy()
    for place, by in off.items():
        candidate.flat[place] += by
    return check_faithful(
        "y", reference, candidate, made(reference, candidate, 2.0, 1.0), bound
    )


@pytest.mark.parametrize(
    ("off", "bound", "explained"),
    [
        ({0: 2.0}, Bound(NOISE, norm=10.0), True),  # 4 times the L2, 8 times the greatest
        ({0: np.nextafter(2.0, 3)}, Bound(NOISE, norm=10.0), False),
        ({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, Bound(NOISE, norm=10.0), True),
        ({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 0.1}, Bound(NOISE, norm=10.0), False),
        ({0: 5.0}, None, True),
        ({}, Bound(Gap()), True),
        ({0: 1e-9}, Bound(Gap()), False),
    ],
)
def test_a_departure_is_explained_as_a_whole_and_in_its_worst_element(
    off: dict[int, float], bound: Bound | None, explained: bool
) -> None:
    assert (faithful(off, bound) is None) is explained
    assert faithful(dict.fromkeys(off, 5), bound, ONES.astype(int)) is None


def test_the_failure_says_what_departs_most() -> None:
    whole = faithful(dict.fromkeys(range(9), 1.0), Bound(NOISE, norm=10.0))
    assert whole == OutputFailure(
        "y",
        Check.FAITHFUL,
        "departs by 3.0e-01 (relative L2), 6.0 times what the untouched model's own noise does "
        "(5.0e-02; at most 4x)",
        severity=6.0,
        question=Question.FAITHFUL,
        rtol=1.0,
    )
    ideal = Bound(Gap(), ideal=Gap(l2=1.0, greatest=0.1), type="float16", norm=10.0)
    one = faithful({51: -3.0}, ideal)
    assert one == OutputFailure(
        "y",
        Check.FAITHFUL,
        "departs by 3 at [1, 1] (reference 1, got -2), 30 times the greatest difference that "
        "ideal float16 does (0.1; at most 8x)",
        severity=3.0,
        question=Question.FAITHFUL,
        rtol=1.0,
    )
    first = faithful({0: -3.0}, ideal)
    assert "departs by 3 at [0, 0] (reference 1, got -2)" in first.what
    nothing = faithful({0: 1.0}, Bound(Gap()))
    assert nothing.severity == INF
    assert nothing.what == (
        "departs by 1.0e-01 (relative L2); nothing is what the untouched model's own noise does "
        "(0.0e+00; at most 4x)"
    )
    silent = faithful({0: 0.5}, Bound(Gap(l2=0.05)), 0 * ONES)
    assert silent.what.startswith("departs by 5.0e-01 from 0 (relative L2), 10 times what")
    assert "(5.0e-02 from 0; at most 4x)" in silent.what
    small = faithful({0: 0.05}, Bound(Gap(l2=0.001)), 0.01 * ONES)
    assert small.what.startswith("departs by 5.0e-01 (relative L2), 50 times")
    exactly = faithful({0: 2.0}, Bound(Gap(l2=0.5, greatest=0.125), norm=10.0))
    # As a whole no more than it may.
    assert exactly.what.startswith("departs by 2 at [0, 0]")
    many = faithful({0: 0.5}, Bound(Gap(l2=0.0002)))
    assert "2,500 times" in many.what


@pytest.mark.parametrize(
    ("moved", "by", "what", "flip"),
    [
        (4, 1.0, None, False),
        (5, 1.0, "departs by 2 steps", True),
        (1, 1.5, "departs by 3 steps", False),
    ],
)
@pytest.mark.parametrize("step", [0.5, 2.0])
def test_on_a_grid_steps_and_how_many_are_counted(
    moved: int, by: float, what: str | None, flip: bool, step: float
) -> None:
    size = 2 * step
    noise = Gap(l2=100.0, greatest=0.5 * size, moved=1)
    bound = Bound(noise, tail=replace(noise, moved=moved - 1), step=step)
    failed = faithful(dict.fromkeys(range(moved), by * size), bound)
    assert (failed is None) is (what is None)
    if failed is not None:
        assert failed.what.startswith(str(what))
        assert failed.flip is flip


@pytest.mark.parametrize(
    ("bound", "off"),
    [
        (Bound(Gap(), ideal=Gap(l2=0.1, greatest=9.0), step=0.5), 1.0),
        (Bound(Gap(l2=0.001, greatest=9.0), step=0.5), 0.25),
    ],
)
def test_steps_are_not_told_of_what_a_type_costs_or_of_what_moved_by_none(
    bound: Bound, off: float
) -> None:
    assert "(relative L2)" in faithful({3: off}, bound).what


def test_a_flip_is_what_the_model_s_last_bits_do_in_another_set() -> None:
    tail = Bound(NOISE, tail=Gap(l2=2.0, greatest=1.0), norm=10.0)
    assert faithful({0: 8.0}, tail).flip
    assert not faithful({0: np.nextafter(8.0, 9)}, tail).flip
    assert not faithful({0: 8.0}, Bound(NOISE, norm=10.0)).flip


def signs(
    count: int, tolerance: Tolerance, bound: Bound | None = None
) -> OutputFailure | None:
    reference, candidate = np.zeros((2, 5)), np.zeros((2, 5))
    candidate.flat[10 - count :] = -0.0
    return check_signed_zero(
        "y", reference, candidate, made(reference, candidate), tolerance, bound
    )


def test_zeros_have_the_reference_s_sign() -> None:
    what = (
        "2 of 10 values (20%) are zero with the other sign; the first at [1, 3] "
        "(reference 0, got -0)"
    )
    failure = OutputFailure(
        "y", Check.SIGNED_ZERO, what, severity=0.2, question=Question.USABLE
    )
    assert signs(2, LETTER) == failure
    assert signs(2, LETTER, Bound(Gap())) == failure
    assert signs(0, LETTER) is None
    assert signs(2, replace(LETTER, signed_zero=False)) is None


@pytest.mark.parametrize(
    ("count", "of_tail", "passes"), [(4, 1, True), (5, 1, False), (8, 2, True)]
)
def test_as_many_signs_as_last_bits_change_in_another_set_stand(
    count: int, of_tail: int, passes: bool
) -> None:
    bound = Bound(Gap(), tail=Gap(signs=of_tail))
    assert (signs(count, LETTER, bound) is None) is passes


def elements(
    reference: Any,
    candidate: Any,
    tolerance: Tolerance = LETTER,
    *bounds: Bound | None,
    **more: Any,
) -> OutputFailure | None:
    departure = made(reference, candidate, atol=0.5)
    return check_elements("y", reference, candidate, departure, tolerance, *bounds, **more)


def test_the_failure_of_a_float_element_has_every_figure() -> None:
    reference = np.array([[2.0, 4.0], [1.0, 8.0]])
    candidate = np.array([[2.0, 5.0], [1.5, 6.0]])
    departure = measure(reference, candidate, rtol=0.125, atol=0.25)
    assert check_elements("y", reference, candidate, departure, LETTER) == OutputFailure(
        "y",
        Check.ELEMENTS,
        "3 of 4 values (75%) beyond the tolerance; worst 2 at [1, 1] (reference 8, got 6, allowed "
        "1.2)",
        severity=1.6,
        minimum_tolerance=departure.minimum_tolerance,
        rtol=0.125,
        atol=0.25,
        max_rel=0.5,
        question=Question.USABLE,
    )
    assert departure.minimum_tolerance == pytest.approx(0.2)
    assert (
        check_elements("y", reference, reference, made(reference, reference), LETTER) is None
    )
    assert (
        check_elements(
            "y", reference, candidate, departure, replace(LETTER, elementwise=False)
        )
        is None
    )


@pytest.mark.parametrize(
    ("dtype", "expected", "actual"),
    [(np.bool_, "False", "True"), (object, "0", "1"), (np.str_, "'0'", "'1'")],
)
def test_booleans_and_text_differ(dtype: Any, expected: str, actual: str) -> None:
    reference = np.zeros(4, np.int64).astype(dtype)
    candidate = np.array([0, 0, 1, 1]).astype(dtype)
    departure = measure(reference, candidate, rtol=0.0, atol=0.0)
    for elementwise in (True, False):
        tolerance = replace(LETTER, elementwise=elementwise)
        failed = check_elements("y", reference, candidate, departure, tolerance)
        assert failed == OutputFailure(
            "y",
            Check.ELEMENTS,
            f"2 of 4 values (50%) differ; the first at [2] (reference {expected}, got {actual})",
            severity=0.5,
            question=Question.FAITHFUL,
        )
    tail = Bound(Gap(), tail=Gap(changed=1))
    flipped = check_elements("y", reference, candidate, departure, LETTER, tail)
    assert flipped is not None
    assert flipped.flip


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_beyond_float64_are_told_exactly(dtype: Any) -> None:
    reference = np.array([5, 2**62], dtype)
    failed = elements(reference, reference + np.array([0, 1], dtype), LETTER)
    assert failed is not None
    assert f"worst 1 at [1] (reference {2**62}, got {2**62 + 1}, allowed 0.5)" in failed.what
    assert (failed.severity, failed.question) == (2.0, Question.FAITHFUL)


@pytest.mark.parametrize(
    ("greatest", "told"), [(0.5, False), (np.nextafter(0.5, 1), True), (0.25, False)]
)
def test_what_the_type_costs_is_told_where_it_is_more_than_is_allowed(
    greatest: float, told: bool
) -> None:
    bound = Bound(Gap(), ideal=Gap(greatest=greatest), type="bfloat16")
    failed = elements(ONES, ONES + 1, LETTER, bound)
    assert failed is not None
    assert failed.what.startswith(
        "100 of 100 values (100%) beyond the tolerance; worst 1 at [0, 0]"
    )
    assert failed.what.endswith("; ideal bfloat16 departs by up to 0.5") is told
    whole = elements(ONES.astype(int), ONES.astype(int) + 1, LETTER, bound)
    assert whole is not None
    assert "ideal" not in whole.what


SHARE = Tolerance(rtol=0.0, atol=0.5, share_beyond=0.02, most_times=4.0)


@pytest.mark.parametrize(
    ("count", "off", "passes"),
    [(2, 2.0, True), (3, 2.0, False), (2, np.nextafter(2.0, 3), False), (1, 1.0, True)],
)
def test_a_small_share_of_floats_may_be_beyond_and_not_far(
    count: int, off: float, passes: bool
) -> None:
    reference = 0 * ONES
    candidate = reference.copy()
    candidate.flat[:count] = off
    assert (elements(reference, candidate, SHARE) is None) is passes
    assert elements(reference.astype(int), candidate.astype(int) + 1, SHARE) is not None


STEADY = Bound(NOISE, tail=Gap(l2=2.0, greatest=1.0), norm=10.0)


@pytest.mark.parametrize(
    ("off", "steadiness", "more", "flip"),
    [
        (8.0, STEADY, {}, True),
        (8.5, STEADY, {}, False),
        (8.0, STEADY, {"edged": True}, False),
        (8.0, STEADY, {"edged": False}, True),
        (8.0, None, {}, False),
        (8.0, replace(STEADY, ideal=Gap()), {}, False),
        (8.0, replace(STEADY, tail=None), {}, False),
    ],
)
def test_a_float_element_on_another_step_is_a_flip_but_on_an_edge_or_a_stated_bound(
    off: float, steadiness: Bound | None, more: dict[str, bool], flip: bool
) -> None:
    candidate = ONES.copy()
    candidate[1, 7] += off
    failed = elements(ONES, candidate, LETTER, None, steadiness, **more)
    assert failed is not None
    assert failed.flip is flip
    stated = elements(
        ONES, candidate, replace(LETTER, chosen=True), None, steadiness, **more
    )
    assert stated is not None
    assert not stated.flip


@pytest.mark.parametrize(("by", "changes"), [(4, True), (5, False)])
def test_integers_on_a_grid_may_change_by_twice_as_many_steps(
    by: int, changes: bool
) -> None:
    whole = np.arange(100)
    candidate = whole.copy()
    candidate[:2] += by
    bound = Bound(Gap(greatest=2.0, changed=2), step=2.0)
    assert (elements(whole, candidate, LETTER, bound) is None) is changes
    assert elements(whole, candidate, LETTER, replace(bound, step=0.0)) is None


@pytest.mark.parametrize(("by", "passes"), [(1, True), (9, False)])
def test_levels_are_of_use_while_their_signal_is_far_above_their_noise(
    by: int, passes: bool
) -> None:
    whole = np.arange(100, 200)
    candidate = whole.copy()
    candidate[::5] += by
    ideal = Bound(Gap(), ideal=Gap(changed=20))
    assert elements(whole, candidate, DEFAULT, ideal) is not None
    levels = replace(DEFAULT, are_levels=True)
    assert (elements(whole, candidate, levels, ideal) is None) is passes


@pytest.mark.parametrize(("wrong", "passes"), [(1, True), (2, False)])
def test_one_integer_of_few_may_be_a_tie(wrong: int, passes: bool) -> None:
    whole = np.arange(50)
    candidate = whole.copy()
    candidate[:wrong] += 5
    ideal = Bound(Gap(), ideal=Gap(changed=5))
    failed = elements(whole, candidate, DEFAULT, ideal)
    assert (failed is None) is passes
    if failed is not None:
        assert failed == OutputFailure(
            "y",
            Check.ELEMENTS,
            "2 of 50 values (4%) are others, as the type itself makes them, and at most 1 may be; "
            "the first at [0] (reference 0, got 5)",
            severity=0.04,
            question=Question.USABLE,
        )


@pytest.mark.parametrize(
    ("place", "step", "flip"), [(0, 0.5, True), (0, 2.0, True), (7, 0.5, True)]
)
def test_one_element_one_step_off_is_a_flip_and_two_are_none(
    place: int, step: float, flip: bool
) -> None:
    bound = Bound(Gap(), tail=Gap(), step=step)
    reference, candidate = 0 * ONES, 0 * ONES
    candidate.flat[place] = step * 1.001  # a scale's own last bits are in it
    assert is_flip(reference, candidate, made(reference, candidate), bound) is flip
    candidate.flat[place] = step * 1.0011
    assert not is_flip(reference, candidate, made(reference, candidate), bound)
    candidate.flat[[place, 9]] = step
    assert not is_flip(reference, candidate, made(reference, candidate), bound)


@pytest.mark.parametrize(
    ("place", "where"), [(0, "[0, 0] (reference 1, got 2)"), (1, "[0, 1]")]
)
def test_steps_are_told_with_their_place(place: int, where: str) -> None:
    candidate = ONES.copy()
    candidate.flat[place] = 2.0
    told = in_steps(
        ONES, candidate, made(ONES, candidate), 1, Bound(Gap(size=100), step=0.5)
    )
    assert told.startswith(
        f"departs by 2 steps of its last quantizer or rounding at {where}"
    )


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (MOST_L2, MOST_ELEMENT, MOST_STEPS) == (4.0, 8.0, 2.0)
