"""What a classifier's output is read for: its greatest elements, row by row."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.ranking import agreement, changed_choices, distribution_axis

RNG = np.random.default_rng(11)
MANY = 3_000  # classes: few are sorted whole, where any order does
MANY_ROWS = 10_000  # more than are worked on at a time
FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


def shuffled(rows: int, classes: int) -> Any:
    """Return rows that hold 0, 1, 2 ... in some order."""
    return RNG.permuted(np.tile(np.arange(float(classes)), (rows, 1)), axis=1)


@pytest.mark.parametrize("k", [1, 2, 3, 10, MANY - 1, MANY, MANY + 1])
def test_the_greatest_of_many_are_those_of_a_sorted_row(k: int) -> None:
    reference, candidate = shuffled(50, MANY), shuffled(50, MANY)
    candidate[:20] = reference[:20]
    expected = 0
    for one, other in zip(reference, candidate, strict=True):
        best, chosen = np.argsort(-one)[:k], np.argsort(-other)[:k]
        expected += set(best.tolist()) == set(chosen.tolist())
    assert agreement(reference, candidate, k) == expected / 50


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_lie_along_the_last_axis(dtype: Any) -> None:
    reference = np.array([[[1, 2, 3, 4], [4, 3, 2, 1], [1, 4, 2, 3]]] * 2, dtype)
    candidate = reference.copy()
    candidate[1, 2] = [4, 1, 2, 3]
    assert agreement(reference, candidate, 1) == 5 / 6
    assert agreement(reference[0, 0], reference[0, 0], 1) == 1.0
    assert agreement(reference[0, 0], reference[0, 1], 1) == 0.0


@pytest.mark.parametrize("wrong", [slice(0, 1), slice(-1, None), slice(0, None, 4)])
def test_the_rows_of_all_pieces_count(wrong: slice) -> None:
    reference = np.tile([[0.0, 1.0]], (MANY_ROWS, 1))
    candidate = reference.copy()
    candidate[wrong] = [1.0, 0.0]
    count = len(range(MANY_ROWS)[wrong])
    assert agreement(reference, candidate, 1) == (MANY_ROWS - count) / MANY_ROWS
    assert changed_choices(reference, candidate, 1, 0.5) == (count, MANY_ROWS)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_choices_are_made_along_any_axis(axis: int, dtype: Any) -> None:
    rows = np.array([[[8, 1, 2, 3], [1, 8, 2, 3], [4, 4, 1, 0]]] * 2, dtype)
    others = rows.copy()
    others[1, 1] = [8, 1, 2, 3]
    reference, candidate = np.moveaxis(rows, -1, axis), np.moveaxis(others, -1, axis)
    assert changed_choices(reference, candidate, axis, 0.0) == (1, 4)
    assert changed_choices(reference, candidate, axis, 5.0) == (0, 0)
    assert changed_choices(reference, candidate, axis, 4.75) == (1, 4)


def test_the_next_greatest_of_many_is_the_one_that_counts() -> None:
    reference = shuffled(60, MANY)
    reference[:30] *= 2  # the greatest two lie two apart
    assert changed_choices(reference, -reference, 1, 1.0) == (30, 30)
    assert changed_choices(reference, -reference, 1, 2.0) == (0, 0)
    assert changed_choices(reference, -reference, 1, 0.5) == (60, 60)


def test_rows_that_choose_each_its_own_and_stay_have_not_changed() -> None:
    rows = shuffled(60, MANY)
    assert len(set(rows.argmax(axis=1).tolist())) > 1
    assert changed_choices(rows, rows.copy(), 1, 0.5) == (0, 60)
    assert changed_choices(rows, rows * 2, -1, 0.5) == (0, 60)


def test_two_infinities_leave_doubt_and_one_does_not() -> None:
    reference = np.array([[math.inf, math.inf, 0.0], [math.inf, 1.0, 0.0]])
    assert changed_choices(reference, reference[:, ::-1], 1, 0.5) == (1, 1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_probabilities_of_every_float_type_are_recognized(dtype: Any) -> None:
    odds = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], dtype)
    assert distribution_axis(odds) == 1
    assert distribution_axis(odds[np.newaxis, :, np.newaxis]) == 3
    assert distribution_axis(np.moveaxis(odds[np.newaxis], -1, 0)) == 0


@pytest.mark.parametrize(
    ("total", "axis"), [(1.0019, 0), (0.9981, 0), (1.002005, None), (0.997995, None)]
)
def test_probabilities_sum_to_one_within_two_thousandths(
    total: float, axis: int | None
) -> None:
    assert distribution_axis(np.array([0.5, total - 0.5])) == axis


@pytest.mark.parametrize(
    "array",
    [
        np.array([0, 1]),
        np.array([False, True]),
        np.array(["a", "b"]),
        np.array([0.5 + 0j, 0.5]),
        np.array([1.5, -0.5]),
        np.array([1.0, math.nan]),
        np.array([1.0, math.inf]),
        np.array(1.0),
        np.array([1.0]),
        np.zeros((2, 0)),
    ],
)
def test_other_arrays_hold_no_probabilities(array: Any) -> None:
    assert distribution_axis(array) is None
