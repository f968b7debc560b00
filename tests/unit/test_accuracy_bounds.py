"""Both sides of each boundary that explains or measures a departure, one figure at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2, MOST_STEPS, Bound, Yardstick
from onnx_harness.accuracy.measure import Measured, extent, measure, same_bits
from onnx_harness.accuracy.noise import FEW_ELEMENTS, Gap, Noise, gap_of
from onnx_harness.accuracy.ranking import agreement, changed_choices, distribution_axis
from onnx_harness.accuracy.totals import _reacts


def departure(l2: float = 0.0, greatest: float = 0.0, **more: Any) -> Measured:
    return replace(measured(), error=l2**2, max_abs=greatest, size=100, **more)


def measured(**fields: Any) -> Measured:
    return Measured(**{"size": 1, "rtol": 0.0, "atol": 0.0, **fields})


NOISE = Gap(l2=2.0, greatest=1.0, norm=10.0, scale=5.0, changed=3, size=100, moved=4)
ABOVE = 1 + 1e-9


@pytest.mark.parametrize(
    ("l2", "greatest", "moved", "bound", "explained"),
    [
        (MOST_L2 * 2, MOST_ELEMENT, 0, Bound(NOISE), True),
        (MOST_L2 * 2 * ABOVE, 0, 0, Bound(NOISE), False),
        (0, MOST_ELEMENT * ABOVE, 0, Bound(NOISE), False),
        (MOST_L2 * 6, 0, 0, Bound(NOISE, ideal=Gap(l2=6.0)), True),
        (MOST_L2 * 2, 0, 0, Bound(NOISE, ideal=Gap(l2=1.0)), True),
        (0, MOST_ELEMENT * 3, 0, Bound(NOISE, ideal=Gap(greatest=3.0)), True),
        (0, MOST_STEPS, 16, Bound(NOISE, step=0.5), True),
        (0, MOST_STEPS * ABOVE, 16, Bound(NOISE, step=0.5), False),
        (0, MOST_STEPS, 17, Bound(NOISE, step=0.5), False),
        (0, MOST_ELEMENT, 17, Bound(NOISE, ideal=Gap(), step=0.5), True),
        (0, MOST_ELEMENT, 17, Bound(NOISE), True),
        (1e-9, 0, 0, Bound(Gap(greatest=1.0)), False),
        (0, 0, 0, Bound(Gap()), True),
    ],
)
def test_a_departure_is_explained_up_to_the_bound(
    l2: float, greatest: float, moved: int, bound: Bound, explained: bool
) -> None:
    assert bound.explains(departure(l2, greatest), moved) is explained


TAIL = Gap(l2=4.0, greatest=2.0, moved=4)


@pytest.mark.parametrize(
    ("made", "moved", "bound", "happens"),
    [
        (departure(16.0, 16.0), 0, Bound(NOISE, tail=TAIL), True),
        (departure(16.0 * ABOVE, 16.0), 0, Bound(NOISE, tail=TAIL), False),
        (departure(16.0, 16.0 * ABOVE), 0, Bound(NOISE, tail=TAIL), False),
        (departure(1.0, 1.0), 0, Bound(NOISE), False),
        (departure(1.0, 1.0, nonfinite=1), 0, Bound(NOISE, tail=TAIL), False),
        (departure(16.0, 4.0), 16, Bound(NOISE, tail=TAIL, step=3.0), True),
        (departure(16.0, 4.0), 17, Bound(NOISE, tail=TAIL, step=3.0), False),
        (departure(16.0, 4.0 * ABOVE), 16, Bound(NOISE, tail=TAIL, step=3.0), False),
        (departure(99.0, 9.0), 1, Bound(NOISE, tail=TAIL, step=9.0), True),
        (departure(99.0, 9.1), 1, Bound(NOISE, tail=TAIL, step=9.0), False),
        (departure(99.0, 9.0), 2, Bound(NOISE, tail=TAIL, step=9.0), False),
    ],
)
def test_a_flip_is_what_the_noise_does_in_another_set(
    made: Measured, moved: int, bound: Bound, happens: bool
) -> None:
    assert bound.happens(made, moved) is happens


def test_a_scale_s_own_last_bits_are_in_a_step() -> None:
    bound = Bound(NOISE, tail=TAIL, step=9.0)
    assert bound.happens(departure(99.0, 1.001 * 9.0), 1)
    assert not bound.happens(departure(99.0, 1.001 * 9.0 * ABOVE), 1)


def test_noise_is_that_of_the_set_or_of_the_worst_set() -> None:
    assert Bound(NOISE).is_noise(departure(8.0, 8.0))
    assert not Bound(NOISE).is_noise(departure(8.0 * ABOVE, 8.0))
    assert not Bound(NOISE).is_noise(departure(8.0, 8.0 * ABOVE))
    assert Bound(NOISE, tail=TAIL).is_noise(departure(16.0, 16.0))
    assert not Bound(NOISE, tail=TAIL).is_noise(departure(1.0, 1.0, nonfinite=1))


def test_a_bound_says_what_explains_and_by_how_much() -> None:
    alone = Bound(NOISE)
    both = Bound(NOISE, ideal=Gap(changed=5), type="bfloat16")
    assert alone.explained_by == "the untouched model's own noise does"
    assert both.explained_by == "ideal bfloat16 does"
    assert (alone.most_changed, both.most_changed) == (3 * MOST_L2, 5 * MOST_L2)
    assert Bound(NOISE, ideal=Gap(changed=1)).most_changed == 3 * MOST_L2
    assert (alone.times(departure(3.0)), alone.times(departure())) == (1.5, 0.0)
    assert (Bound(Gap()).times(departure(3.0)), Bound(Gap()).times(departure())) == (
        math.inf,
        0.0,
    )


@pytest.mark.parametrize(
    ("gap", "rtol", "atol", "share", "beyond", "chaos"),
    [
        (Gap(greatest=6.0, scale=10.0), 0.5, 1.0, 0.6, False, False),
        (Gap(greatest=6.1, scale=10.0), 0.5, 1.0, 0.6, True, True),
        (Gap(changed=1), 9.0, 9.0, 9.0, True, True),
        (Gap(nonfinite=1), 9.0, 9.0, 9.0, True, True),
        (Gap(), 0.0, 0.0, 0.0, False, False),
    ],
)
def test_a_gap_breaks_a_bound_or_is_chaos(
    gap: Gap, rtol: float, atol: float, share: float, beyond: bool, chaos: bool
) -> None:
    assert (gap.beyond(rtol, atol), gap.is_chaos(share)) == (beyond, chaos)


def test_the_tail_is_the_worst_set_s_as_it_would_be_at_other_magnitudes() -> None:
    first = Gap(l2=1.0, greatest=2.0, norm=10.0, scale=4.0, size=1000, changed=10, moved=5)
    second = Gap(l2=3.0, greatest=1.0, norm=60.0, scale=1.0, size=500, signs=7, nonfinite=2)
    empty = Gap(size=0)
    noise = Noise(({"y": first}, {"y": second}, {"z": first}, {"y": empty}))
    tail = noise.tail((), "y", norm=20.0, scale=8.0, size=2000)
    assert (tail.l2, tail.greatest) == (2.0, 8.0)  # 1/10 of 20; 1/1 of 8
    assert (tail.norm, tail.scale, tail.size) == (20.0, 8.0, 2000)
    assert (tail.changed, tail.moved, tail.signs, tail.nonfinite) == (20, 10, 28, 2)
    alone = noise.tail((1,), "y", norm=20.0, scale=8.0, size=2000)
    assert (alone.l2, alone.changed) == (1.0, 0)
    assert noise.tail((), "x", 1.0, 1.0, 1) == Gap(norm=1.0, scale=1.0, size=1)


@pytest.mark.parametrize("size", [FEW_ELEMENTS, FEW_ELEMENTS + 1])
def test_of_few_elements_the_tail_is_absolute_too(size: int) -> None:
    gap = Gap(l2=8.0, greatest=3.0, norm=8e9, scale=3e9, size=size)
    tail = Noise(({"y": gap},)).tail((), "y", norm=1.0, scale=1.0, size=size)
    few = size == FEW_ELEMENTS
    assert tail.l2 == pytest.approx(8.0 if few else 1e-9)
    assert tail.greatest == pytest.approx(3.0 if few else 1e-9)
    other = Noise(({"y": gap},)).tail((), "y", norm=1.0, scale=1.0, size=FEW_ELEMENTS // 4)
    assert other.l2 == pytest.approx(4.0 if few else 1e-9)


def many(*l2: float, size: int = 1000) -> Noise:
    return Noise(
        tuple(
            {"y": Gap(l2=each, greatest=each, norm=1.0, scale=1.0, size=size)} for each in l2
        )
    )


ROW = np.ones(1000, np.float32)


def test_a_set_has_its_own_noise_or_what_is_typical() -> None:
    yardstick = Yardstick(many(1.0, 2.0, 9.0))
    assert [yardstick.bound(at, "y", ROW, 1.0).l2 for at in range(3)] == [2.0, 2.0, 9.0]
    assert [yardstick.bound(at, "y", ROW, 3.0).greatest for at in range(3)] == [
        6.0,
        6.0,
        9.0,
    ]
    usual = Yardstick(many(1.0, 2.0, 9.0), usual=(0,))
    assert [usual.bound(at, "y", ROW, 1.0).l2 for at in range(3)] == [1.0, 2.0, 9.0]
    rounds = Yardstick(replace(many(1.0, 2.0, 9.0), has_tail=True))
    assert [rounds.bound(at, "y", ROW, 1.0).l2 for at in range(3)] == [1.0, 2.0, 9.0]
    tails = [rounds.bound(at, "y", ROW, 1.0).tail for at in range(3)]
    assert [tail and tail.l2 for tail in tails] == [9.0, 9.0, 9.0]
    assert yardstick.bound(0, "y", ROW, 1.0).tail is None


def test_of_few_elements_noise_is_typical_in_absolute_terms_too() -> None:
    few = np.ones(4, np.float32)
    gaps = [Gap(l2=4.0, greatest=3.0, norm=4e9, scale=3e9, size=16)] * 3
    noise = Noise((*({"y": gap} for gap in gaps), {"y": Gap(norm=1.0, scale=1.0, size=4)}))
    bound = Yardstick(noise).bound(3, "y", few, 1.0)
    assert (bound.l2, bound.greatest) == pytest.approx((2.0, 3.0))
    edge = Yardstick(noise).bound(3, "y", np.ones(FEW_ELEMENTS), 1.0)
    assert (edge.l2, edge.greatest) == pytest.approx((8.0, 3.0))
    wide = Yardstick(noise).bound(3, "y", ROW, 1.0)
    assert (wide.l2, wide.greatest) == pytest.approx((1e-9, 1e-9), rel=1e3)
    assert wide.l2 < 1e-5


def few(l2: float, size: int = 16) -> dict[str, Gap]:
    """Return the gap of few elements, which relative to their size is next to nothing."""
    return {"y": Gap(l2=l2, greatest=l2, norm=1e9, scale=1e9, size=size)}


NOTHING = {"y": Gap(norm=1.0, scale=1.0, size=4)}


@pytest.mark.parametrize(
    ("sets", "usual", "l2", "greatest"),
    [
        ((few(4.0), few(8.0), few(40.0), NOTHING), (0, 1, 2), 4.0, 8.0),
        ((few(4.0), few(8.0), few(40.0), NOTHING), (0,), 2.0, 4.0),
        ((few(4.0, FEW_ELEMENTS), NOTHING), (0,), 1.0, 4.0),
        ((few(4.0, FEW_ELEMENTS + 1), NOTHING), (0,), 0.0, 0.0),
        ((few(4.0, 0), NOTHING), (0,), 0.0, 0.0),
        ((few(4.0, 1), NOTHING), (0,), 8.0, 4.0),
    ],
)
def test_what_few_elements_have_is_the_median_of_usual_sets_that_have_few(
    sets: tuple[dict[str, Gap], ...], usual: tuple[int, ...], l2: float, greatest: float
) -> None:
    bound = Yardstick(Noise(sets), usual=usual).bound(len(sets) - 1, "y", np.ones(4), 1.0)
    assert (bound.l2, bound.greatest) == pytest.approx((l2, greatest), abs=1e-5)
    ideal = Yardstick(Noise((NOTHING,) * len(sets)), Noise(sets), usual=usual)
    found = ideal.bound(len(sets) - 1, "y", np.ones(4), 1.0).ideal
    assert found is not None
    assert (found.l2, found.greatest) == pytest.approx((l2, greatest), abs=1e-5)


def test_noise_and_ideal_have_each_their_own_typical_gap_and_so_has_each_output() -> None:
    noise = Noise(({"y": Gap(norm=1.0, scale=1.0)}, *many(1.0, 1.0).sets))
    ideal = Noise(({"y": Gap(norm=1.0, scale=1.0)}, *many(6.0, 6.0).sets))
    other = Noise(
        tuple({"y": gaps["y"], "z": Gap(norm=1.0, scale=1.0)} for gaps in ideal.sets)
    )
    yardstick = Yardstick(noise, other, ideal)
    bound = yardstick.bound(0, "y", ROW, 1.0)
    assert bound.ideal is not None
    assert bound.range is not None
    assert (bound.floor.l2, bound.ideal.l2, bound.range.l2) == (1.0, 6.0, 6.0)
    z = yardstick.bound(0, "z", ROW, 1.0).ideal
    assert z is not None
    assert (z.l2, z.greatest) == (0.0, 0.0)


def test_where_a_model_rounds_the_ideal_s_greatest_gap_is_typical() -> None:
    rounds = replace(many(0.0, 0.0, 0.0), has_tail=True)
    ideal = Yardstick(rounds, many(1.0, 2.0, 9.0)).bound(0, "y", ROW, 1.0).ideal
    assert ideal is not None
    assert (ideal.l2, ideal.greatest) == (9.0, 9.0)
    steady = (
        Yardstick(many(0.0, 0.0, 0.0), many(1.0, 2.0, 9.0)).bound(0, "y", ROW, 1.0).ideal
    )
    assert steady is not None
    assert (steady.l2, steady.greatest) == (2.0, 2.0)


def test_the_tail_is_of_the_usual_sets_and_as_many_times_as_the_provider_s_noise() -> None:
    rounds = replace(many(1.0, 2.0, 9.0), has_tail=True)
    tail = Yardstick(rounds, usual=(0, 1), factor=3.0).bound(0, "y", ROW, 1.0).tail
    assert tail is not None
    assert (tail.l2, tail.greatest) == (6.0, 6.0)
    own = Yardstick(rounds, usual=(0, 1), factor=3.0).bound(2, "y", ROW, 1.0).tail
    assert own is not None
    assert (own.l2, own.greatest) == (27.0, 27.0)  # never below the set's own


def test_a_yardstick_on_some_sets_forgets_what_was_typical_of_all() -> None:
    sets = (few(4.0), few(8.0), few(40.0), NOTHING)
    whole = Yardstick(Noise(sets), Noise(sets))
    assert whole.bound(3, "y", np.ones(4), 1.0).l2 == pytest.approx(3.0)
    assert whole.on([0, 3]).bound(1, "y", np.ones(4), 1.0).l2 == pytest.approx(1.0)


def test_the_ideal_conversion_and_its_range_are_bounds_of_their_own() -> None:
    yardstick = Yardstick(many(1.0), many(5.0), many(7.0), "bfloat16", factor=4.0)
    bound = yardstick.bound(0, "y", ROW, 1.0)
    assert bound.ideal is not None
    assert bound.range is not None
    assert (bound.floor.l2, bound.ideal.l2, bound.range.l2) == (4.0, 5.0, 7.0)
    assert (bound.floor.greatest, bound.type, bound.factor, bound.norm) == (
        4.0,
        "bfloat16",
        4.0,
        1,
    )
    alone = Yardstick(many(1.0)).bound(0, "y", ROW, 1.0)
    assert (alone.ideal, alone.range, alone.step) == (None, None, 0.0)
    stepped = Yardstick(replace(many(1.0), steps={"y": 0.25}))
    assert stepped.bound(0, "y", ROW, 1.0).step == 0.25


def test_where_no_noise_was_seen_last_places_remain_but_of_what_is_picked() -> None:
    ulp = 2.0**-23
    for dtype, step in (
        (np.float32, ulp),
        (np.float64, ulp),
        (np.float16, 2.0**-10),
        (ml_dtypes.bfloat16, 2.0**-7),
        (np.complex64, ulp),
        (np.int32, ulp),
    ):
        bound = Yardstick(many(0.0)).bound(0, "y", ROW.astype(dtype), 1.0)
        assert (bound.l2, bound.greatest) == (2 * step, 4 * step)
    unseen = Yardstick(Noise(({},))).bound(0, "y", np.ones(100, np.float32), 3.0)
    assert (unseen.norm, unseen.l2, unseen.greatest) == (30.0, 60 * ulp, 12 * ulp)
    assert (unseen.floor.norm, unseen.floor.scale) == (30.0, 3.0)
    ideal = Yardstick(Noise(({},)), many(0.0)).bound(0, "y", ROW, 3.0)
    assert ideal.norm == 1.0
    picked = replace(many(0.0), picked=("y",))
    assert Yardstick(picked).bound(0, "y", ROW, 1.0).l2 == 0.0
    assert Yardstick(picked).bound(0, "z", ROW, 1.0).l2 > 0.0
    assert Yardstick(picked, many(0.0)).bound(0, "y", ROW, 1.0).l2 > 0.0
    assert Yardstick(picked, factor=1.5).bound(0, "y", ROW, 1.0).l2 > 0.0


def test_noise_of_further_sets_takes_the_place_of_what_was_there() -> None:
    more = Noise(({}, {"y": Gap(l2=5.0)}))
    widened = Yardstick(many(1.0, 2.0), usual=(0,)).with_noise(more)
    assert [gaps["y"].l2 for gaps in widened.floor.sets] == [1.0, 5.0]
    assert widened.usual == (0,)


def test_a_yardstick_on_some_sets_has_what_belongs_to_them() -> None:
    floor, ideal, ranged = many(1.0, 2.0, 3.0), many(4.0, 5.0, 6.0), many(7.0, 8.0, 9.0)
    whole = Yardstick(floor, ideal, ranged, "float16", usual=(0, 2))
    assert whole.on([0, 1, 2]) is whole
    some = whole.on([2, 0])
    parts = (some.floor, some.ideal, some.range)
    assert [[gaps["y"].l2 for gaps in part.sets] for part in parts if part is not None] == [
        [3.0, 1.0],
        [6.0, 4.0],
        [9.0, 7.0],
    ]
    assert (some.usual, some.type) == ((1, 0), "float16")
    alone = Yardstick(floor).on([1])
    assert (alone.ideal, alone.range) == (None, None)


def test_the_gap_of_text_counts_what_differs() -> None:
    text = np.array(["a", "b", "c"], dtype=object)
    assert gap_of(text, np.array(["a", "x", "y"], dtype=object)) == Gap(changed=2, size=3)
    whole = gap_of(np.array([1, 5, 9]), np.array([1, 5, 2]))
    assert (whole.changed, whole.greatest, whole.size) == (1, 7.0, 3)
    step = gap_of(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.5, 2.6]), step=1.0)
    assert step.moved == 1
    assert gap_of(np.array([3.0, 4.0]), np.array([3.0, np.nan])).norm == 5.0
    zeros = gap_of(np.array([0.0, 1.0]), np.array([-0.0, 2.0]))
    assert (zeros.signs, zeros.scale, zeros.norm) == (1, 1.0, 1.0)


RANKS = np.array([[9.0, 8.0, 7.0, 1.0], [1.0, 2.0, 3.0, 4.0]])


@pytest.mark.parametrize(
    ("second_row", "k", "expected"),
    [
        ([1, 2, 3, 4], 1, 1.0),
        ([1, 2, 4, 3], 1, 0.5),
        ([1, 2, 4, 3], 2, 1.0),
        ([1, 5, 3, 4], 2, 0.5),
        ([5, 1, 3, 4], 3, 0.5),
        ([4, 3, 2, 1], 4, 1.0),
        ([4, 3, 2, 1], 9, 1.0),
    ],
)
def test_the_greatest_elements_agree_in_any_order(
    second_row: list[float], k: int, expected: float
) -> None:
    assert agreement(RANKS, np.array([RANKS[0], second_row]), k) == expected


def test_an_element_level_with_the_last_one_is_as_good() -> None:
    tied = np.array([[3.0, 2.0, 2.0, 1.0]])
    assert agreement(tied, np.array([[3.0, 1.0, 2.0, 0.0]]), 2) == 1.0
    assert agreement(tied, np.array([[3.0, 1.0, 0.0, 2.0]]), 2) == 0.0
    assert agreement(np.zeros((0, 4)), np.zeros((0, 4)), 1) == 1.0


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.0, (2, 3)), (0.9, (2, 3)), (1.0, (1, 1)), (5.0, (0, 0))]
)
def test_only_choices_above_the_margin_count(
    margin: float, expected: tuple[int, int]
) -> None:
    reference = np.array(
        [[9.0, 7.0, 1.0], [3.0, 4.0, 1.0], [1.0, 2.0, 3.0], [5.0, 5.0, 1.0]]
    )
    candidate = np.array(
        [[1.0, 7.0, 1.0], [5.0, 4.0, 1.0], [1.0, 2.0, 3.0], [1.0, 5.0, 9.0]]
    )
    assert changed_choices(reference, candidate, 1, margin) == expected
    assert changed_choices(reference.T, candidate.T, 0, margin) == expected


def test_probabilities_sum_to_one_along_an_axis_of_two_or_more() -> None:
    odds = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    assert distribution_axis(odds) == 1
    assert distribution_axis(odds.T) == 0
    assert distribution_axis(odds[:, :, np.newaxis]) == 1
    assert distribution_axis(np.full((2, 2), 0.5, np.float32)) == 1
    assert distribution_axis(np.ones((3, 1), np.float32)) is None
    assert distribution_axis(np.array([1.5, -0.5], np.float32)) is None
    assert distribution_axis(np.array([np.nan, 1.0], np.float32)) is None
    assert distribution_axis(np.zeros((0, 2), np.float32)) is None
    assert distribution_axis(np.array([0, 1])) is None


def test_of_equal_differences_the_first_is_named() -> None:
    made = measure(np.zeros(4), np.array([0.0, 2.0, -2.0, 2.0]), rtol=0.0, atol=1.0)
    assert (made.greatest_at, made.worst_at, made.max_abs, made.worst) == (1, 1, 2.0, 2.0)
    assert (made.beyond, made.max_rel) == (3, None)
    exact = measure(np.zeros(2), np.array([1.0, 3.0]), rtol=0.0, atol=0.0)
    assert (exact.worst, exact.worst_at, exact.beyond, exact.minimum_tolerance) == (
        3.0,
        1,
        2,
        3.0,
    )
    allowed = measure(np.array([2.0, 4.0]), np.array([3.0, 6.0]), rtol=0.5, atol=0.0)
    assert (allowed.beyond, allowed.max_rel) == (0, 0.5)
    assert allowed.minimum_tolerance == 0.5


def test_extents_and_bits_of_what_is_odd() -> None:
    assert extent(np.array([np.nan, np.nan])) == (0.0, True)
    assert extent(np.array([np.nan, 2.0])) == (2.0, False)
    assert extent(np.array([np.inf, -3.0])) == (3.0, False)
    assert extent(np.array([-128, 3], np.int8)) == (128.0, False)
    assert extent(np.array(["a", "a"], dtype=object)) == (0.0, True)
    assert extent(np.zeros(0)) == (0.0, False)
    assert not same_bits(np.zeros(2), -np.zeros(2))
    assert not same_bits(np.zeros(2, np.float32), np.zeros(2, np.int32))
    assert same_bits(np.array([np.nan]), np.array([np.nan]))


@pytest.mark.parametrize(
    ("first", "second", "moves"),
    [
        ([np.nan, 1.0], [1.0, 1.0], True),
        ([np.nan, 1.0], [np.nan, 1.0], False),
        ([np.inf, 1.0], [-np.inf, 1.0], True),
        ([-np.inf, 1.0], [1.0, 1.0], True),
        ([np.nan, np.inf], [np.nan, np.inf], False),
        ([1.0, 2.0], [1.0, 2.0 + 2.0**-17], True),
        ([1.0, 2.0], [1.0, 2.0 + 2.0**-18], False),
        ([1.0, 2.0], [1.0 + 2.0**-18, 2.0], False),  # exactly its resolution
        ([1.0, 2.0], [1.0 + 2.0**-17, 2.0], True),
        ([np.nan, np.inf], [np.nan, -np.inf], True),
        ([], [], False),
    ],
)
def test_an_output_reacts_by_more_than_its_resolution(
    first: list[float], second: list[float], moves: bool
) -> None:
    assert _reacts(np.array(first, np.float32), np.array(second, np.float32)) is moves
    assert _reacts(np.array(second, np.float32), np.array(first, np.float32)) is moves


@pytest.mark.parametrize(
    ("first", "second", "moves"),
    [
        (np.array([1.0, 2.0]), np.array([[1.0, 2.0]]), True),  # another rank
        # They overlap in one element.
        (np.array([[1.0, 2.0]]), np.array([[1.0], [3.0]]), False),
        (np.array([[1.0, 2.0]]), np.array([[4.0], [3.0]]), True),
        (np.zeros((0, 2)), np.zeros((3, 2)), False),
        (np.array([1, 2]), np.array([1, 2, 3]), False),
        (np.array([1, 2]), np.array([2, 2]), True),
        (np.array(["a"]), np.array(["b"]), True),
        (np.array(["a"], object), np.array(["a", "b"], object), False),
        (np.array([True]), np.array([False]), True),
        (np.array([1 + 1j]), np.array([1 + 2j]), True),
        (np.array([1 + 1j]), np.array([1 + 1j]), False),
        (np.array([complex(1, np.inf)]), np.array([complex(1, -np.inf)]), True),
        (np.array([1, 2], np.float16), np.array([1, 2.25], np.float16), True),
        (np.array([1, 2], np.float16), np.array([1, 2.015625], np.float16), False),
        (
            np.array([1, 2], ml_dtypes.bfloat16),
            np.array([1, 2.25], ml_dtypes.bfloat16),
            False,
        ),
        (np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 2.5], ml_dtypes.bfloat16), True),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0 + 2.0**-46]), True),
    ],
)
def test_outputs_react_where_they_overlap_whatever_their_type(
    first: Any, second: Any, moves: bool
) -> None:
    assert _reacts(first, second) is moves
    assert _reacts(second, first) is moves
