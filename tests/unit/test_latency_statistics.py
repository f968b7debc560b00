"""The figures: intervals that cover what they say, percentiles that the sample can carry."""

from __future__ import annotations

import math
import random
from statistics import median

import numpy as np
import pytest

from onnx_harness.latency.pairs import alternating
from onnx_harness.latency.statistics import (
    log_ratio,
    percentile,
    samples_needed,
    speedup,
    speedup_interval,
    student,
)

TRIALS = 4000
# The spread over pairs that was measured on trained models: 1% to 3%.
SPREAD = 0.02


def coverage(
    draws: np.ndarray[tuple[int, int], np.dtype[np.float64]], truth: float = 0.0
) -> float:
    """The share of rows whose interval contains the truth."""
    intervals = [speedup_interval(row) for row in draws.tolist()]
    return sum(
        1
        for interval in intervals
        if interval and interval[0] <= math.exp(truth) <= interval[1]
    ) / len(draws)


@pytest.mark.parametrize("pairs", [3, 4, 5, 16])
def test_the_interval_covers_the_truth_as_often_as_it_says(pairs: int) -> None:
    draws = np.random.default_rng(pairs).normal(0.05, SPREAD, (TRIALS, pairs))
    # 4,000 trials of a 95% event spread by 0.34 points: three of those each way, and the few that
    # the widening adds.
    assert 0.94 <= coverage(draws, 0.05) <= 0.965


@pytest.mark.parametrize("pairs", [3, 5, 16])
def test_heavy_tails_do_not_make_it_promise_too_much(pairs: int) -> None:
    draws = SPREAD * np.random.default_rng(pairs).standard_t(3, (TRIALS, pairs))
    assert coverage(draws) >= 0.94


@pytest.mark.parametrize("pairs", [3, 5])
def test_medians_over_disturbed_iterations_are_covered_too(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    shape = (TRIALS // 2, pairs, 21)
    noise = rng.normal(0, 0.03, shape) + (rng.random(shape) < 0.1) * rng.exponential(
        1.0, shape
    )
    other = rng.normal(0, 0.03, shape) + (rng.random(shape) < 0.1) * rng.exponential(
        1.0, shape
    )
    draws = rng.normal(0, 0.01, shape[:2]) + np.median(noise - other, axis=2)
    assert coverage(draws) >= 0.94


def test_iterations_taken_for_replicates_would_promise_far_too_much() -> None:
    rng = np.random.default_rng(0)
    levels = rng.normal(0, SPREAD, (500, 5, 1))
    iterations = (levels + rng.normal(0, SPREAD, (500, 5, 20))).reshape(500, 100)
    assert coverage(iterations) < 0.7
    assert coverage(np.median(iterations.reshape(500, 5, 20), axis=2)) > 0.92


def test_the_interval_is_student_s() -> None:
    draws = [0.01, 0.03, 0.02, 0.05, 0.04]
    half = 2.776 * np.std(draws, ddof=1) / math.sqrt(5)
    assert speedup_interval(draws) == pytest.approx(
        (math.exp(0.03 - half), math.exp(0.03 + half)), rel=1e-4
    )
    assert [round(student(degrees), 3) for degrees in (2, 4, 15)] == [4.303, 2.776, 2.131]


@pytest.mark.parametrize("effect", [0.0, 0.02])
@pytest.mark.parametrize("pairs", [16, 20, 33])
def test_the_order_in_which_sessions_are_created_doesn_t_widen_the_interval(
    effect: float, pairs: int
) -> None:
    rng = np.random.default_rng(1)
    order = [
        np.where(alternating(random.Random(seed), pairs), effect, -effect)
        for seed in range(2000)
    ]
    draws = rng.normal(0.0, 0.01, (2000, pairs)) + np.array(order)
    intervals = [speedup_interval(row.tolist()) for row in draws]
    covered = sum(1 for each in intervals if each and each[0] <= 1 <= each[1]) / len(
        intervals
    )
    # An odd last pair keeps its order's effect, a 33rd of it.
    assert 0.93 <= covered <= 0.97


def test_the_interval_contains_what_is_reported_beside_it() -> None:
    rng = np.random.default_rng(0)
    for pairs in (3, 8, 30):
        for row in rng.exponential(0.3, (300, pairs)) ** 3:
            interval = speedup_interval(row.tolist())
            assert interval is not None
            assert interval[0] <= speedup(row.tolist()) <= interval[1]


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_too_few_pairs_have_no_interval(pairs: int) -> None:
    assert speedup_interval([0.1] * pairs) is None


def test_a_pair_s_ratio_is_the_median_of_its_iterations() -> None:
    assert log_ratio([(200, 100), (300, 100), (9_000, 100)]) == pytest.approx(math.log(3))
    assert speedup([math.log(2), math.log(2), math.log(50)]) == pytest.approx(2)


def test_swapping_the_sides_turns_the_ratio_round() -> None:
    readings = [(211, 100), (187, 103), (202, 95)]
    assert log_ratio(
        [(variant, baseline) for baseline, variant in readings]
    ) == pytest.approx(-log_ratio(readings))


@pytest.mark.parametrize(("share", "needed"), [(0.9, 64), (0.99, 662)])
def test_a_percentile_needs_its_count(share: float, needed: int) -> None:
    assert samples_needed(share) == needed
    assert percentile([1.0] * (needed - 1), share) is None
    assert percentile([1.0] * needed, share) == 1.0


def test_with_that_count_two_samples_lie_above_the_percentile() -> None:
    samples = np.random.default_rng(0).random((TRIALS, 64))
    assert 0.985 <= np.mean(np.sum(samples > 0.9, axis=1) >= 2) <= 0.995


@pytest.mark.parametrize("count", [662, 701, 705])  # of 701 both fall on a sample
def test_percentiles_are_numpy_s(count: int) -> None:
    values = np.random.default_rng(0).lognormal(size=count).tolist()
    assert percentile(values, 0.9) == pytest.approx(np.quantile(values, 0.9))
    assert percentile(values, 0.99) == pytest.approx(np.quantile(values, 0.99))
    assert percentile(values, 0.9) > median(values)
