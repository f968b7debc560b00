"""How far two runs of one model lie apart: which outputs are paired, and every figure of a gap."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.magnitudes import Magnitude, magnitudes
from onnx_harness.accuracy.noise import (
    FEW_ELEMENTS,
    Gap,
    Noise,
    gap_of,
    gaps,
    moved_elements,
    norm_of,
    worst,
)
from onnx_harness.accuracy.sketch import MOST_SAMPLED, Sketch

ONE, TWO = np.array([[3.0, 4.0]]), np.array([[3.0, 5.0]])
FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
WHOLE_GAP = Gap(l2=1.0, greatest=1.0, norm=5.0, scale=4.0, size=2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_gap_of_floats(dtype: Any) -> None:
    assert gap_of(ONE.astype(dtype), TWO.astype(dtype)) == WHOLE_GAP
    same = gap_of(ONE.astype(dtype), ONE.astype(dtype), step=0.5)
    assert same == Gap(norm=5.0, scale=4.0, size=2)


@pytest.mark.parametrize(
    ("reference", "rerun", "gap"),
    [
        (np.array([1, 5, 9]), np.array([1, 7, 6]), Gap(greatest=3.0, changed=2, size=3)),
        (
            np.array([True, False]),
            np.array([True, True]),
            Gap(greatest=1.0, changed=1, size=2),
        ),
        (np.array(["a", "b"]), np.array(["a", "c"]), Gap(changed=1, size=2)),
        (np.array([3 + 4j]), np.array([3 + 5j]), Gap(1.0, 1.0, 5.0, 4.0, size=1)),
        (
            np.array([math.nan, 3.0, 4.0, 0.0]),
            np.array([1.0, math.inf, 5.0, -0.0]),
            Gap(1.0, 1.0, 5.0, 4.0, nonfinite=2, size=4, signs=1),
        ),
        (np.zeros((0, 2)), np.zeros((0, 2)), Gap()),
    ],
)
def test_the_gap_of_other_arrays(reference: Any, rerun: Any, gap: Gap) -> None:
    assert gap_of(reference, rerun) == gap


@pytest.mark.parametrize(("step", "moved"), [(0.0, 0), (1.0, 2), (1.99, 2), (2.0, 0)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_moved_by_more_than_half_a_step_lies_on_another_point(
    dtype: Any, step: float, moved: int
) -> None:
    reference, rerun = np.array([[1, 2, 3]], dtype), np.array([[1, 3, 2]], dtype)
    assert gap_of(reference, rerun, step).moved == moved
    if step:
        assert moved_elements(reference, rerun, step) == moved


@pytest.mark.parametrize("unlike", [None, [ONE], np.ones((3, 1)), {"a": 1.0}, "missing"])
def test_what_cannot_be_paired_is_left_out_and_what_follows_is_not(unlike: Any) -> None:
    rerun = {"x": unlike, "y": TWO}
    if isinstance(unlike, str):
        del rerun["x"]
    assert gaps({"x": ONE, "y": ONE}, rerun) == {"y": WHOLE_GAP}


def test_an_absent_optional_has_no_gap_and_what_follows_has() -> None:
    assert gaps({"x": None, "y": ONE}, {"x": None, "y": TWO}) == {"y": WHOLE_GAP}
    nested = gaps({"x": [np.ones(2), ONE]}, {"x": [np.ones(3), TWO]})
    assert nested == {"x[1]": WHOLE_GAP}
    assert gaps({"x": [None, ONE]}, {"x": [None, TWO]}) == {"x[1]": WHOLE_GAP}


def test_each_output_is_counted_on_its_own_grid() -> None:
    found = gaps(
        {"x": ONE, "y": ONE, "z": ONE}, {"x": TWO, "y": TWO, "z": TWO}, {"x": 1.0, "y": 9}
    )
    assert {name: gap.moved for name, gap in found.items()} == {"x": 1, "y": 0, "z": 0}


def test_the_values_of_maps_are_one_tensor() -> None:
    reference = {"y": [{"a": 2.0, "b": 2.0}, {"a": 2.0, "b": 2.0, "c": 3.0}]}
    rerun = {"y": [{"a": 2.5, "b": 2.5}, {"a": 2.5, "b": 2.5, "c": 3.0}]}
    assert gaps(reference, rerun) == {"y": Gap(1.0, 0.5, 5.0, 3.0, size=5)}


@pytest.mark.parametrize(
    ("array", "norm"),
    [
        (ONE, 5.0),
        (np.array(-5.0), 5.0),
        (np.array([[3.0, math.nan], [math.inf, 4.0]]), 5.0),
        (np.array([[3 + 4j, 12.0]]), 13.0),
        (np.array([3, 4], ml_dtypes.bfloat16), 5.0),
        (np.array([200, 150], np.uint8), 250.0),
        (np.zeros((0, 2)), 0.0),
    ],
)
def test_the_norm_is_that_of_the_finite_elements(array: Any, norm: float) -> None:
    assert norm_of(array) == pytest.approx(norm, rel=1e-15)


@pytest.mark.parametrize(
    ("size", "asked", "l2", "greatest"),
    [
        (1, 4, 16.0, 3.0),
        (1, FEW_ELEMENTS, 64.0, 3.0),
        (1, FEW_ELEMENTS + 1, 8e-9, 3e-9),
        (FEW_ELEMENTS, 1, 1.0, 3.0),
        (FEW_ELEMENTS + 1, 1, 8e-9, 3e-9),
        (0, 1, 8e-9, 3e-9),
    ],
)
def test_noise_in_absolute_terms_is_of_few_elements_on_both_sides(
    size: int, asked: int, l2: float, greatest: float
) -> None:
    gap = Gap(l2=8.0, greatest=3.0, norm=1e9, scale=1e9, size=size)
    tail = Noise(({"y": gap},)).tail((), "y", norm=1.0, scale=1.0, size=asked)
    assert (tail.l2, tail.greatest) == pytest.approx((l2, greatest))


def test_noise_relative_to_nothing_says_nothing() -> None:
    silent = Noise(({"y": Gap(l2=8.0, greatest=3.0, size=1000)},))
    tail = silent.tail((), "y", norm=5.0, scale=4.0, size=1000)
    assert tail == Gap(norm=5.0, scale=4.0, size=1000)
    small = Noise(({"y": Gap(l2=0.5, greatest=0.25, norm=0.5, scale=0.5, size=1000)},))
    assert small.tail((), "y", norm=4.0, scale=4.0, size=1000).l2 == 4.0
    assert small.tail((), "y", norm=4.0, scale=4.0, size=1000).greatest == 2.0


@pytest.mark.parametrize(
    ("counted", "size", "asked", "expected"),
    [(1, 1, 10, 10), (1, 3, 10, 4), (0, 3, 10, 0), (3, 3, 0, 0), (0, 0, 10, 0)],
)
@pytest.mark.parametrize("figure", ["changed", "moved", "signs"])
def test_shares_are_those_of_the_asked_size_rounded_up(
    figure: str, counted: int, size: int, asked: int, expected: int
) -> None:
    gap = Gap(size=size, **{figure: counted})
    tail = Noise(({"y": gap}, {"y": Gap(size=2)})).tail((), "y", 1.0, 1.0, asked)
    assert getattr(tail, figure) == expected


def test_the_worst_of_runs_has_each_output_that_any_of_them_has() -> None:
    one, two = Gap(l2=1.0, size=3), Gap(l2=2.0, size=3)
    assert worst([{"x": two}, {"x": one, "y": one}]) == {"x": two, "y": one}
    assert worst([]) == {}


def test_a_sketch_counts_a_sample_of_what_is_equal_as_of_what_is_not() -> None:
    size = 2 * MOST_SAMPLED + 1
    one, other = Sketch(size), Sketch(size)
    one.add_equal(size)
    other.add_shares(np.zeros(size))
    assert one.record() == other.record()
    assert one.record().equal == MOST_SAMPLED + 1
    one.add_equal(5)
    assert one.record().equal == MOST_SAMPLED + 4
    assert (Sketch(0).step, Sketch(2 * MOST_SAMPLED - 1).step, Sketch(size).step) == (
        1,
        1,
        2,
    )


def test_sketches_are_joined_count_by_count_and_extreme_by_extreme() -> None:
    one, other = Sketch(4), Sketch(4)
    one.add_errors(np.array([0.25, 0.5, 3.0]), np.array([1.0, 1.5, 4.0]))
    one.add_errors(np.array([0.125, math.inf]), np.array([1.0, 8.0]))
    other.add_errors(np.array([1.0, 2.0]), np.array([1.0, 5.0]))
    one.add_shares(np.array([0.0, 0.75, 1.0]))
    other.add_shares(np.array([0.5, 2.5]))
    one.join(other)
    record = one.record()
    assert (record.equal, record.shares) == (1, {"-1": 2, "0": 1, "1": 1})
    # Rounded to four digits, never downwards; what isn't finite is left out.
    assert record.greatest == {"0": 1.001, "2": 3.002}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.full(FEW_ELEMENTS, -2.0), Magnitude(2.0, 4.0 * FEW_ELEMENTS, FEW_ELEMENTS)),
        (np.array([3.0, math.nan, math.inf]), Magnitude(3.0, 9.0, 3)),
        (np.array([3 + 4j]), Magnitude(4.0, 25.0, 1)),
        (np.array([0.5], np.float16), Magnitude(0.5, 0.25, 1)),
        (np.full(FEW_ELEMENTS + 1, 2.0), None),
        (np.array([1, 2]), None),
        (np.array(["a"]), None),
        (np.zeros(0), None),
        (None, None),
    ],
)
def test_outputs_of_few_floats_have_a_magnitude(
    value: Any, expected: Magnitude | None
) -> None:
    found = magnitudes([{"x": value, "last": np.array([1.0])}])
    assert found.pop("last") == Magnitude(1.0, 1.0, 1)
    assert found.get("x") == expected if expected is None else found["x"] == expected


def test_what_has_no_magnitude_hides_none_that_follows() -> None:
    large = np.ones(FEW_ELEMENTS + 1)
    value = [None, np.array([1]), np.zeros(0), large, np.array([2.0])]
    assert magnitudes([{"x": value, "y": {}, "z": [np.array([3.0])]}]) == {
        "x[4]": Magnitude(2.0, 4.0, 1),
        "z[0]": Magnitude(3.0, 9.0, 1),
    }


@pytest.mark.parametrize("turned", [False, True])
def test_magnitudes_are_those_of_the_sets_of_few_elements(turned: bool) -> None:
    sets = [
        {"x": np.array([1.0, 2.0]), "y": np.array([1.0]), "m": {"a": 3.0, "b": 4.0}},
        {"x": np.array([-3.0]), "y": np.ones(FEW_ELEMENTS + 1), "m": {"a": 12.0, "b": 0.0}},
    ]
    found = magnitudes(sets[::-1] if turned else sets)
    assert found.pop("y") == Magnitude(1.0, 1.0, 1)
    assert found.keys() == {"x", "m"}
    assert (found["x"].scale, found["x"].size) == (3.0, 3)
    assert found["x"].signal == pytest.approx(14.0)
    assert found["x"].signal_of(6) == pytest.approx(28.0)
    assert (found["m"].scale, found["m"].size) == (12.0, 4)
    assert found["m"].signal == pytest.approx(169.0)
