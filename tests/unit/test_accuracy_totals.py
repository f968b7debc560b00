"""Checks of whole outputs, and what is gathered of an output over the input sets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.checks import check_elements
from onnx_harness.accuracy.compare import ComparedSet, compare
from onnx_harness.accuracy.explain import Bound
from onnx_harness.accuracy.failures import Check, OutputFailure, Question
from onnx_harness.accuracy.magnitudes import Magnitude, magnitudes
from onnx_harness.accuracy.measure import measure
from onnx_harness.accuracy.noise import FEW_ELEMENTS, Gap
from onnx_harness.accuracy.tolerance import Tolerance, choose
from onnx_harness.accuracy.totals import Total
from onnx_harness.accuracy.whole_checks import (
    check_agreement,
    check_choices,
    check_cosine,
    check_sqnr,
)
from onnx_harness.transforms import Precision

LETTER = Tolerance(rtol=1e-4, k=1e-5)
DEFAULT = choose(Precision.FP16, None, None)
ONE = np.array([3.0, 4.0])


def sqnr(
    reference: Any, candidate: Any, tolerance: Tolerance, *more: Any
) -> OutputFailure | None:
    made = measure(np.asarray(reference), np.asarray(candidate), rtol=0.0, atol=0.0)
    return check_sqnr("y", np.asarray(reference), made, tolerance, *more)


def test_the_signal_is_so_many_decibels_above_the_noise() -> None:
    noisy = ONE + np.array([0.0, 0.05])  # 20 log10(5 / 0.05) = 40 dB
    assert sqnr(ONE, noisy, replace(LETTER, sqnr_db=39.99)) is None
    failed = sqnr(ONE, noisy, replace(LETTER, sqnr_db=40.01))
    assert failed is not None
    assert failed.what == (
        "has a signal 40 dB above its noise, and 40 dB are asked for; greatest difference 0.05"
    )
    assert failed.severity == pytest.approx(0.01)
    assert failed.sqnr_db == pytest.approx(40)
    assert (failed.minimum_tolerance, failed.question) == (None, Question.USABLE)
    alone = sqnr(ONE, noisy, replace(LETTER, sqnr_db=50.0, elementwise=False))
    assert alone is not None
    assert alone.minimum_tolerance == pytest.approx(0.01)
    silent = sqnr([0.0, 0.0], [0.0, 1.0], replace(LETTER, sqnr_db=1.0))
    assert silent is not None
    assert silent.what.startswith("has no signal at all, only noise, and 1 dB")
    assert (silent.severity, silent.sqnr_db) == (0.0, None)


def test_no_ratio_is_asked_of_what_is_equal_whole_or_without_a_demand() -> None:
    demand = replace(LETTER, sqnr_db=300.0)
    assert sqnr(ONE, ONE, demand) is None
    assert sqnr([3, 4], [3, 5], demand) is None
    assert sqnr(ONE, ONE + 1, LETTER) is None


def test_a_default_ratio_yields_to_noise_and_to_the_signal_of_all_sets() -> None:
    noisy = ONE + 1.0
    noise, quiet = Bound(Gap(l2=1.0, greatest=1.0)), Bound(Gap(l2=1e-9))
    loud = Magnitude(scale=9.0, signal=1e9, size=2)
    stated = replace(DEFAULT, choices_changed=None)
    assert sqnr(ONE, noisy, DEFAULT, noise) is None
    assert sqnr(ONE, noisy, stated, noise) is not None
    assert sqnr(ONE, noisy, DEFAULT, quiet) is not None
    assert sqnr(ONE, noisy, DEFAULT, None, loud) is None
    assert sqnr(ONE, noisy, stated, None, loud) is not None
    assert sqnr(ONE, ONE + 1e-3, DEFAULT, None, Magnitude(0.0, 0.0, 2)) is None


def test_an_output_points_where_the_reference_does() -> None:
    turned = np.array([4.0, 3.0])  # a cosine of 24/25
    made = measure(ONE, turned, rtol=0.0, atol=0.0)
    assert check_cosine("y", ONE, made, replace(LETTER, cosine=0.96)) is None
    failed = check_cosine("y", ONE, made, replace(LETTER, cosine=0.961))
    assert failed is not None
    assert failed.what == "has a cosine of 0.96; 0.961 is asked for"
    assert failed.severity == pytest.approx(0.04)
    assert (failed.enough, failed.question) == ("cosine 0.96", Question.USABLE)
    assert check_cosine("y", ONE, made, LETTER) is None
    nothing = measure(ONE, 0 * ONE, rtol=0.0, atol=0.0)
    none = check_cosine("y", ONE, nothing, replace(LETTER, cosine=-1.0))
    assert none is not None
    assert (none.what, none.enough, none.severity) == (
        "has no cosine; -1 is asked for",
        "",
        1.0,
    )
    whole = np.array([3, 4])
    made = measure(whole, whole + 1, rtol=0.0, atol=0.0)
    assert check_cosine("y", whole, made, replace(LETTER, cosine=1.0)) is None


def test_the_top_choices_agree_in_the_share_of_rows_asked_for() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [5.0, 3.0], [0.0, 1.0]])
    other = rows.copy()
    other[0] = [2.0, 1.0]
    made = measure(rows, other, rtol=0.0, atol=0.0)
    top = replace(LETTER, top_k=1, agreement=0.75)
    assert check_agreement("y", rows, other, made, top) is None
    failed = check_agreement("y", rows, other, made, replace(top, agreement=0.76))
    assert failed is not None
    assert failed.what == "agrees on the top 1 in 75.0000% of rows; 76.0000% are asked for"
    assert (failed.severity, failed.enough) == (0.25, "agreement 0.75")
    assert failed.question is Question.USABLE
    asked = replace(top, agreement=1.0)
    assert check_agreement("y", rows, other, made, LETTER) is None
    assert check_agreement("y", rows[0, 0], rows[0, 1], made, asked) is None
    assert check_agreement("y", rows.astype(int), other.astype(int), made, asked) is None
    equal = measure(rows, rows, rtol=0.0, atol=0.0)
    assert check_agreement("y", rows, rows, equal, asked) is None


CHOICES = np.tile(np.array([[0.75, 0.25]]), (200, 1))


@pytest.mark.parametrize(
    ("wrong", "more", "fails"),
    [
        (2, {}, False),
        (3, {}, True),
        (3, {"axis": 1}, True),
        (3, {"axis": -1}, True),
        (3, {"axis": -2}, False),  # along the rows, whose values are level
        (3, {"axis": 2}, False),
        (3, {"axis": -3}, False),
        (3, {"choices_changed": None}, False),
        (3, {"choices_changed": 0.015}, False),
    ],
)
def test_few_rows_may_choose_otherwise(
    wrong: int, more: dict[str, Any], fails: bool
) -> None:
    candidate = CHOICES.copy()
    candidate[:wrong] = [0.25, 0.75]
    made = measure(CHOICES, candidate, rtol=0.0, atol=0.0)
    tolerance = replace(DEFAULT, **more)
    bound = Bound(Gap(greatest=0.01))
    failed = check_choices("y", CHOICES, candidate, made, tolerance, bound)
    assert (failed is not None) is fails
    assert check_choices("y", CHOICES, candidate, made, tolerance, None) is None
    noisy = Bound(Gap(greatest=0.25))  # the choice stands 0.5 above: twice the noise
    assert check_choices("y", CHOICES, candidate, made, tolerance, noisy) is None
    loud = Bound(Gap(greatest=0.2))  # twice that is less than 0.5
    told = check_choices("y", CHOICES, candidate, made, tolerance, loud)
    assert (told is not None) is fails
    if failed is not None:
        axis = tolerance.axis or 1
        assert failed.what == (
            f"chooses otherwise along axis {axis} in 3 of 200 rows whose greatest value stands "
            "above the noise (1.50%; at most 1%)"
        )
        assert (failed.severity, failed.question) == (0.015, Question.USABLE)


def test_choices_lie_along_the_first_axis_too_however_it_is_counted() -> None:
    candidate = CHOICES.T.copy()
    candidate[:, :3] = [[0.25], [0.75]]
    made = measure(CHOICES.T, candidate, rtol=0.0, atol=0.0)
    for axis in (0, -2):
        tolerance = replace(DEFAULT, axis=axis)
        bound = Bound(Gap(greatest=0.01))
        failed = check_choices("y", CHOICES.T, candidate, made, tolerance, bound)
        assert failed is not None
        assert failed.what.startswith(
            f"chooses otherwise along axis {axis} in 3 of 200 rows"
        )


def test_nothing_is_chosen_by_where_values_are_no_odds_or_whole_or_equal() -> None:
    bound = Bound(Gap(greatest=0.01))
    scores = CHOICES * 3
    made = measure(scores, scores[:, ::-1].copy(), rtol=0.0, atol=0.0)
    assert check_choices("y", scores, scores[:, ::-1], made, DEFAULT, bound) is None
    whole = np.tile([[1, 0]], (200, 1))
    axis = replace(DEFAULT, axis=1)
    assert check_choices("y", whole, whole[:, ::-1], made, axis, bound) is None
    equal = measure(CHOICES, CHOICES, rtol=0.0, atol=0.0)
    assert check_choices("y", CHOICES, CHOICES[:, ::-1], equal, DEFAULT, bound) is None


def total(*references: Any, tolerance: Tolerance = LETTER) -> Total:
    made = Total(tolerance)
    for reference in references:
        array = np.asarray(reference)
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        scale = float(np.abs(finite).max()) if finite.size else 0.0
        constant = array.size > 0 and bool((array == array.reshape(-1)[0]).all())
        made.see(array, scale, constant)
    return made


NAN = float("nan")


@pytest.mark.parametrize(
    ("references", "sets", "differ", "why", "inert"),
    [
        ([[1.0, 2.0], [1.0, 3.0]], 2, True, None, False),
        ([[1.0, 2.0], [1.0, 2.0]], 2, True, "is identical for all 2 input sets", True),
        ([[1.0, 2.0], [1.0, 2.0]], 2, False, None, False),
        (
            [[1.0, 2.0], [1.0, 2.0 + 2.0**-50]],
            2,
            True,
            "moves by less than its own resolution over all 2 input sets",
            True,
        ),
        ([[1.0, 2.0], [1.0, 2.0], [1.0, 9.0]], 3, True, None, False),
        (
            [[1.0, 1.0]],
            1,
            True,
            "has one and the same value throughout in the one input set",
            False,
        ),
        (
            [[1.0, 1.0], [2.0, 2.0]],
            2,
            True,
            "has one and the same value throughout in every input set",
            False,
        ),
        ([[1.0], [2.0]], 2, True, None, False),
        ([[1.0, 1.0], [2.0, 3.0]], 2, True, None, False),
        ([[], []], 2, True, "is empty in every input set", True),
        ([[]], 2, True, None, True),
        ([[]], 1, True, "is empty in the one input set", True),
        ([[], [1.0, 2.0]], 2, True, "is identical for all 2 input sets", True),
        ([[], [1.0, 2.0], [1.0, 3.0]], 3, True, None, False),
        ([[NAN, NAN]], 1, True, "is NaN or infinite throughout in the one input set", True),
        ([[NAN, 1.0]], 1, True, None, False),
        (
            [[NAN, NAN], [NAN, NAN]],
            2,
            True,
            "is NaN or infinite throughout in every input set",
            True,
        ),
        ([[0.0, 0.0], [0.0, 1.0]], 2, True, None, False),
    ],
)
def test_an_output_that_says_nothing_is_told(
    references: list[Any], sets: int, differ: bool, why: str | None, inert: bool
) -> None:
    made = total(*(np.array(reference, np.float64) for reference in references))
    assert made.vacuous(sets, differ) == why
    assert made.inert(differ, sets) is inert


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (1, "differs in nothing but its size"),
        (True, "differs in nothing but its size"),
        (1.0, "moves by less than its own resolution"),
    ],
)
def test_whole_numbers_have_no_resolution(value: Any, what: str) -> None:
    made = total(np.array([value]), np.array([value, value]))
    assert made.vacuous(2, True) == f"{what} over all 2 input sets"


@pytest.mark.parametrize(
    ("dtype", "still", "moving"),
    [
        (np.float32, 1 + 2.0**-20, 1 + 2.0**-18),
        (np.float16, 1 + 2.0**-7, 1 + 2.0**-5),
        (ml_dtypes.bfloat16, 1 + 2.0**-4, 1.25),
        (ml_dtypes.float8_e4m3fn, 1.125, 1.25),
        (ml_dtypes.float8_e5m2, 1.25, 1.5),
    ],
)
def test_an_output_moves_by_steps_of_its_own_type(
    dtype: Any, still: float, moving: float
) -> None:
    for number, inert in ((still, True), (moving, False)):
        first, second = np.array([1.0, 0.5]), np.array([number, 0.5])
        made = Total(LETTER)
        for values in (first, second):
            made.see(values.astype(dtype), 1.0, constant=False)
        assert made.inert(True, 2) is inert


def test_a_later_set_is_compared_with_the_first_and_with_the_widest() -> None:
    first, widest = np.array([1.0]), np.array([1.0, 5.0, 5.0])
    assert total(first, widest).inert(True, 2)
    moved = total(np.array([1.0]), np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    assert moved.vacuous(3, True) is None
    kept = total(np.array([1.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert kept.vacuous(3, True) is not None


def test_the_widest_set_is_remembered_where_small_ones_follow() -> None:
    one, wide, other = np.array([1.0]), np.array([1.0, 5.0, 5.0]), np.array([1.0, 5.0, 7.0])
    assert not total(one, wide, one, other).inert(True, 4)
    assert total(one, wide, one, wide).inert(True, 4)


def test_an_empty_set_beside_one_without_a_finite_element_is_neither() -> None:
    made = total(np.zeros(0), np.array([NAN, NAN]))
    assert made.vacuous(2, False) is None


@pytest.mark.parametrize(("atol", "recorded"), [(0.25, 0.25), (None, 0.0)])
def test_an_output_that_was_never_compared_has_the_bounds_of_its_tolerance(
    atol: float | None, recorded: float
) -> None:
    record = Total(Tolerance(rtol=0.5, atol=atol)).accuracy(None)
    assert (record.rtol, record.atol, record.max_abs, record.rel_l2) == (
        0.5,
        recorded,
        None,
        None,
    )
    assert (record.errors, record.minimum_tolerance, record.faithful) == (None, 0.0, None)


def test_what_is_asked_for_exactly_passes() -> None:
    ten = np.array([10.0])
    assert sqnr(ten, ten + 1, replace(LETTER, sqnr_db=20.0)) is None
    assert sqnr(ten, ten + 1, replace(LETTER, sqnr_db=20.0000001)) is not None


def test_a_cosine_that_is_said_to_pass_is_rounded_down() -> None:
    one, cosine = np.array([1.0, 0.0]), 0.6000005
    other = np.array([cosine, math.sqrt(1 - cosine**2)])
    made = measure(one, other, rtol=0.0, atol=0.0)
    failed = check_cosine("y", one, made, replace(LETTER, cosine=0.9))
    assert failed is not None
    assert (failed.output, failed.check, failed.enough) == ("y", Check.COSINE, "cosine 0.6")
    # An error of 1.
    opposite = measure(np.array([0.5]), np.array([-0.5]), rtol=0.0, atol=0.0)
    assert check_cosine("y", one, opposite, replace(LETTER, cosine=0.9)) is not None


def test_an_agreement_that_is_said_to_pass_is_rounded_down() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [5.0, 3.0]])
    other = rows.copy()
    other[0] = [2.0, 1.0]
    made = measure(rows, other, rtol=0.0, atol=0.0)
    failed = check_agreement("y", rows, other, made, replace(LETTER, top_k=1))
    assert failed is not None
    assert failed.enough == "agreement 0.6666"


def test_what_is_absent_or_could_not_be_compared_leaves_no_trace_or_no_answer() -> None:
    absent = Total(LETTER, absent=True)
    assert absent.vacuous(1, True) == "is absent in the one input set"
    assert Total(LETTER, absent=True).vacuous(2, True) == "is absent in every input set"
    assert Total(LETTER).vacuous(1, True) is None
    broken = total([1.0, 2.0], [1.0, 2.0])
    broken.mismatched = True
    assert not broken.inert(True, 2)
    lone = total([1.0, 2.0])
    assert lone.inert(True, 2)
    beside = total([1.0, 2.0])
    beside.absent = True
    assert not beside.inert(True, 2)


def figures(*pairs: tuple[Any, Any], tolerance: Tolerance = LETTER, **more: Any) -> Any:
    sets = []
    for place, (reference, candidate) in enumerate(pairs):
        given = {"y": np.asarray(reference)}, {"y": np.asarray(candidate)}
        sets.append(ComparedSet(f"set {place}", *given, **more))
    return compare(sets, lambda _: tolerance).record.outputs["y"]


WIDE = Tolerance(rtol=100.0, atol=0.5)


@pytest.mark.parametrize("turned", [False, True])
def test_the_record_has_the_worst_figure_of_any_set(turned: bool) -> None:
    pairs = [(ONE, ONE + np.array([0.0, 0.4])), (10 * ONE, 10 * ONE + np.array([1.0, 0.0]))]
    record = figures(*(pairs[::-1] if turned else pairs), tolerance=WIDE)
    assert (record.max_abs, record.max_rel) == pytest.approx((1.0, 0.1))
    assert record.rel_l2 == pytest.approx(0.08)
    assert record.sqnr_db == pytest.approx(20 * math.log10(5 / 0.4))
    assert record.cosine == pytest.approx(
        min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)
    )
    assert (record.rtol, record.atol) == (100.0, 0.5)
    assert record.nonfinite == 0


@pytest.mark.parametrize("turned", [False, True])
def test_an_error_relative_to_nothing_is_worse_than_any(turned: bool) -> None:
    pairs = [(ONE, ONE + 0.1), (0 * ONE, ONE)]
    record = figures(*(pairs[::-1] if turned else pairs), tolerance=WIDE)
    assert record.rel_l2 is None


def test_the_smallest_tolerance_is_that_of_the_worst_set() -> None:
    tolerance = Tolerance(rtol=0.01, k=0.001)
    record = figures((ONE, ONE * 1.005), (ONE, ONE * 1.1), tolerance=tolerance)
    assert record.minimum_tolerance == pytest.approx(
        0.1 * 0.01 * 4 / (0.04 + 0.004), rel=1e-6
    )
    assert (record.rtol, record.atol) == pytest.approx((0.01, 0.004))
    hopeless = figures((ONE, ONE), (ONE, [NAN, 4.0]), tolerance=tolerance)
    assert (hopeless.minimum_tolerance, hopeless.nonfinite) == (None, 1)
    by_norm = replace(tolerance, elementwise=False, sqnr_db=20.0)
    record = figures((ONE, ONE + np.array([0.0, 0.25])), (ONE, ONE), tolerance=by_norm)
    assert record.minimum_tolerance == pytest.approx(0.05)
    assert (record.rtol, record.atol) == pytest.approx((0.1, 0.0))


def test_the_magnitude_of_few_elements_is_that_of_all_sets() -> None:
    few, many = np.full(FEW_ELEMENTS, 2.0), np.full(FEW_ELEMENTS + 1, 2.0)
    sets: list[dict[str, Any]] = [
        {"few": few, "many": many, "some": np.array([3.0]), "whole": np.array([3])},
        {
            "few": -3 * few[:2],
            "many": many[:2],
            "some": np.zeros(0),
            "map": {"a": 1.0, "b": 5.0},
        },
    ]
    found = magnitudes(sets)
    assert found.pop("many").size == 2
    assert set(found) == {"few", "some", "map"}
    seen = {
        name: (each.scale, round(each.signal, 6), each.size) for name, each in found.items()
    }
    assert seen["few"] == (6.0, 4.0 * 64 + 2 * 36.0, 66)
    assert seen["map"] == (5.0, 26.0, 2)
    assert found["few"].signal_of(33) == pytest.approx((4.0 * 64 + 72.0) / 2)
    assert Magnitude().signal_of(5) == 0.0


def whole_elements(
    tolerance: Tolerance, bound: Bound | None, wrong: int
) -> OutputFailure | None:
    reference = np.arange(200).reshape(2, 100)
    candidate = reference.copy()
    candidate[1, :wrong] += 5
    made = measure(reference, candidate, rtol=0.0, atol=0.0)
    return check_elements("y", reference, candidate, made, tolerance, bound)


def test_integers_may_change_as_the_type_changes_them_but_few() -> None:
    ideal = Bound(Gap(), ideal=Gap(changed=5))  # four times as many are explained
    assert whole_elements(DEFAULT, ideal, 2) is None
    failed = whole_elements(DEFAULT, ideal, 3)
    assert failed is not None
    assert failed.what == (
        "3 of 200 values (1.5%) are others, as the type itself makes them, and at most 2 may be; "
        "the first at [1, 0] (reference 100, got 105)"
    )
    assert (failed.severity, failed.question) == (0.015, Question.USABLE)
    assert whole_elements(replace(DEFAULT, share_beyond=0.0), ideal, 20) is None
    assert whole_elements(replace(DEFAULT, choices_changed=None), ideal, 20) is None
    unexplained = whole_elements(DEFAULT, ideal, 21)
    assert unexplained is not None
    assert unexplained.question is Question.FAITHFUL
    one = replace(DEFAULT, choices_changed=0.001)
    assert whole_elements(one, ideal, 1) is None


@pytest.mark.parametrize(("changed", "flip"), [(5, True), (4, False), (None, False)])
def test_integers_that_last_bits_change_in_another_set_are_a_flip(
    changed: int | None, flip: bool
) -> None:
    tail = None if changed is None else Gap(changed=changed)
    failed = whole_elements(LETTER, Bound(Gap(), tail=tail), 20)
    assert failed is not None
    assert failed.flip is flip
    alone = whole_elements(LETTER, None, 20)
    assert alone is not None
    assert not alone.flip


def test_an_empty_output_has_no_figures() -> None:
    record = figures((np.zeros(0), np.zeros(0)))
    assert (record.max_abs, record.max_rel, record.rel_l2) == (None, None, None)
    assert figures((ONE, ONE)).max_abs == 0.0


EXACT = Bound(Gap(l2=0.5, greatest=0.25), norm=10.0)


def explained(*sets: tuple[Any, Any, Bound], tolerance: Tolerance = LETTER) -> Total:
    """Add sets of reference, candidate and what explains it, none of which fails."""
    gathered = Total(tolerance)
    for reference, candidate, bound in sets:
        one, other = np.asarray(reference), np.asarray(candidate)
        gathered.add(one, measure(one, other, rtol=0.0, atol=0.0), [], bound)
    return gathered


def test_without_an_explanation_there_is_no_answer() -> None:
    gathered = Total(LETTER)
    gathered.add(ONE, measure(ONE, ONE, rtol=0.0, atol=0.0), [], None)
    record = gathered.accuracy("is so")
    assert (record.faithful, record.usable, record.departure, record.factor) == (None,) * 4
    assert (record.floor_rel_l2, record.ideal_rel_l2, record.vacuous) == (
        None,
        None,
        "is so",
    )


@pytest.mark.parametrize("turned", [False, True])
def test_what_explains_is_recorded_as_its_worst_share_of_the_reference(turned: bool) -> None:
    first = Bound(Gap(l2=0.6), ideal=Gap(l2=0.1), norm=0.5, factor=3.0)
    second = Bound(Gap(l2=2.0), ideal=Gap(l2=3.0), norm=10.0, factor=1.0)
    sets = [
        (ONE, ONE + np.array([0.0, 0.3]), first),
        (ONE, ONE + np.array([0.0, 0.3]), second),
    ]
    record = explained(*(sets[::-1] if turned else sets)).accuracy(None)
    assert record.floor_rel_l2 == pytest.approx(0.4)  # 0.6 / 3 / 0.5
    assert record.ideal_rel_l2 == pytest.approx(0.3)
    assert record.factor == pytest.approx(0.5)
    assert (record.faithful, record.usable) == (True, True)
    silent = explained((ONE, ONE, Bound(Gap(l2=1.0), ideal=Gap(l2=1.0)))).accuracy(None)
    assert (silent.floor_rel_l2, silent.ideal_rel_l2, silent.factor) == (None, None, 0.0)
    unexplained = explained((ONE, ONE + 1, Bound(Gap(), norm=5.0))).accuracy(None)
    assert unexplained.factor is None  # infinitely many times nothing


@pytest.mark.parametrize(
    ("candidates", "word"),
    [
        ([ONE, ONE], "exact"),
        ([ONE, ONE + np.array([0.0, 0.5])], "noise"),
        ([ONE + np.array([0.0, 0.5]), ONE], "noise"),
        ([ONE + np.array([0.0, 5.0]), ONE], "change"),
        ([ONE, ONE + np.array([0.0, 5.0])], "change"),
    ],
)
def test_a_departure_is_what_it_is_in_the_worst_set(
    candidates: list[Any], word: str
) -> None:
    gathered = explained(*((ONE, candidate, EXACT) for candidate in candidates))
    assert gathered.accuracy(None).departure == word
    gathered.refute()
    refuted = gathered.accuracy(None)
    assert (refuted.faithful, refuted.usable) == (False, True)
    assert refuted.departure == ("exact" if word == "exact" else "change")
    gathered.mismatched = True
    broken = gathered.accuracy(None)
    assert (broken.faithful, broken.usable, broken.departure) == (False, False, "change")
    assert broken.minimum_tolerance is None


WHOLE = np.array([3, 4, 5])


@pytest.mark.parametrize(
    ("candidates", "word"),
    [
        ([WHOLE, WHOLE], "exact"),
        ([WHOLE + 1, WHOLE], "change"),
        ([WHOLE, WHOLE + 1], "change"),
    ],
)
def test_integers_have_no_noise(candidates: list[Any], word: str) -> None:
    sets = ((WHOLE, candidate, EXACT) for candidate in candidates)
    record = explained(*sets).accuracy(None)
    assert record.departure == word
    assert (record.floor_rel_l2, record.factor) == (None, None)


@pytest.mark.parametrize("turned", [False, True])
def test_the_most_integers_that_were_let_pass_are_remembered(turned: bool) -> None:
    two, one = Bound(Gap(), ideal=Gap(changed=2)), Bound(Gap(changed=1))
    sets = [
        (WHOLE, WHOLE + np.array([0, 1, 1]), two),
        (WHOLE, WHOLE + np.array([0, 0, 1]), one),
        (WHOLE, WHOLE, one),
    ]
    assert explained(*(sets[::-1] if turned else sets)).forgiven == (2, 2)
    assert explained((WHOLE, WHOLE + np.array([0, 0, 1]), one)).forgiven == (1, 1)
    assert explained((WHOLE, WHOLE, two)).forgiven is None
    assert explained((WHOLE, WHOLE + 1, Bound(Gap()))).forgiven is None
    failed = Total(LETTER)
    departed = measure(WHOLE, WHOLE + 1, rtol=0.0, atol=0.0)
    failure = OutputFailure("y", Check.ELEMENTS, "differs", question=Question.FAITHFUL)
    failed.add(WHOLE, departed, [failure], two)
    assert failed.forgiven is None
    record = failed.accuracy(None)
    assert (record.faithful, record.usable) == (False, True)


@pytest.mark.parametrize(
    ("questions", "faithful", "usable"),
    [
        ([Question.FAITHFUL], False, True),
        ([Question.USABLE], True, False),
        ([Question.FAITHFUL, Question.USABLE], False, False),
        ([], True, True),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_an_answer_is_that_of_the_worst_set(
    questions: list[Question], faithful: bool, usable: bool, turned: bool
) -> None:
    failing = [
        OutputFailure("y", Check.SQNR, "differs", question=each) for each in questions
    ]
    gathered = Total(LETTER)
    departed = measure(ONE, ONE + 1, rtol=9.0, atol=9.0)
    for problems in ([], failing) if turned else (failing, []):
        gathered.add(ONE, departed, problems, EXACT)
    record = gathered.accuracy(None)
    assert (record.faithful, record.usable) == (faithful, usable)


@pytest.mark.parametrize("turned", [False, True])
def test_nan_and_infinity_are_counted_over_all_sets_and_figures_are_of_what_is_finite(
    turned: bool,
) -> None:
    sets = [([NAN, 4.0], [3.0, 4.0]), ([NAN, NAN], [1.0, 2.0]), ([3.0, 4.0], [NAN, 4.5])]
    record = figures(*(sets[::-1] if turned else sets), tolerance=WIDE)
    assert (record.nonfinite, record.max_abs, record.minimum_tolerance) == (4, 0.5, None)


@pytest.mark.parametrize("turned", [False, True])
def test_a_set_without_a_figure_leaves_that_of_the_others(turned: bool) -> None:
    sets = [(ONE, ONE + np.array([0.0, 0.4])), (0 * ONE, 0 * ONE), (ONE, ONE)]
    record = figures(*(sets[::-1] if turned else sets), tolerance=WIDE)
    assert (record.max_rel, record.cosine) == (
        pytest.approx(0.1),
        pytest.approx(26.6 / 5 / math.sqrt(28.36)),
    )
    assert record.sqnr_db == pytest.approx(20 * math.log10(5 / 0.4))


def test_of_sets_that_are_as_bad_the_first_one_s_bounds_are_recorded() -> None:
    tolerance = Tolerance(rtol=0.0, k=0.25)
    record = figures((ONE, ONE), (10 * ONE, 10 * ONE), tolerance=tolerance)
    assert (record.minimum_tolerance, record.rtol, record.atol) == (0.0, 0.0, 1.0)
    later = figures((ONE, ONE), (10 * ONE, 10 * ONE + 1), tolerance=tolerance)
    assert (later.minimum_tolerance, later.atol) == (1.0, 10.0)


@pytest.mark.parametrize(("decibels", "rtol"), [(20.0, 0.1), (None, 1.0), (-20.0, 10.0)])
def test_a_demand_in_decibels_is_a_bound_on_the_relative_error(
    decibels: float | None, rtol: float
) -> None:
    tolerance = replace(LETTER, elementwise=False, sqnr_db=decibels)
    record = figures((ONE, ONE * 1.01), tolerance=tolerance)
    assert (record.rtol, record.atol) == (pytest.approx(rtol), 0.0)
    assert record.minimum_tolerance == pytest.approx(0.01)
    # Integers are exact whatever is asked of floats.
    whole = figures((WHOLE, WHOLE + 1), tolerance=tolerance)
    assert (whole.rtol, whole.atol, whole.minimum_tolerance) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("array", "empty_of_news"),
    [
        (np.array([NAN, 1.0], np.float16), False),
        (np.array([NAN, NAN], np.float16), True),
        (np.array([complex(NAN, 1.0)]), False),
        (np.array([complex(NAN, NAN)]), True),
        (np.array([math.inf], np.float32), True),
        (np.array([0.0, NAN]), False),
        (np.array([0, 0]), False),
        (np.array(["a"]), False),
    ],
)
def test_an_output_that_is_nowhere_finite_proves_nothing(
    array: Any, empty_of_news: bool
) -> None:
    record = figures((array, array), tolerance=WIDE)
    told = record.vacuous == "is NaN or infinite throughout in the one input set"
    assert told is empty_of_news
