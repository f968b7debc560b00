"""The figures of a paired measurement. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, median, stdev

FEWEST_PAIRS = 3
"""Below this an interval says nothing: with two pairs Student's t is 12.7 standard errors."""


def log_ratio(readings: Sequence[tuple[int, int]]) -> float:
    """d_k of one pair of sessions: the median over its iterations of ln(baseline / variant).

    Args:
        readings: (baseline, variant) of each iteration, in nanoseconds, all above 0.
    """
    return median(math.log(baseline / variant) for baseline, variant in readings)


def speedup(log_ratios: Sequence[float]) -> float:
    """exp(median d_k): above 1 the variant is faster."""
    return math.exp(median(log_ratios))


def speedup_interval(log_ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """A two-sided confidence interval of the speedup, with the pairs as the replicates.

    Student's t interval of the mean of d_k (Student, The probable error of a mean, 1908), in ratios. Iterations
    inside one pair share its sessions' memory layout and are no replicates. d_k is a median over iterations, so it
    is near to normal where the few pairs of a cell couldn't show that it isn't; heavier tails make the interval
    wider than it has to be, not narrower. An interval by ranks would need at least 6 pairs to reach 95% at all
    (1 - 2 / 2^K). It's widened where it wouldn't contain the median, which is what is reported beside it.

    Returns:
        None with fewer than 3 pairs.
    """
    count = len(log_ratios)
    if count < FEWEST_PAIRS:
        return None
    middle, centre = median(log_ratios), fmean(log_ratios)
    half = student(count - 1, confidence) * stdev(log_ratios) / math.sqrt(count)
    return math.exp(min(centre - half, middle)), math.exp(max(centre + half, middle))


@cache
def student(degrees: int, confidence: float = 0.95) -> float:
    """The two-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The ``share`` quantile, or None where the sample is too small for it (see `samples_needed`).

    Linear interpolation between order statistics: type 7 of Hyndman and Fan, Sample quantiles in statistical
    packages, 1996; numpy's default.
    """
    if len(values) < samples_needed(share):
        return None
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


@cache
def samples_needed(share: float, confidence: float = 0.99) -> int:
    """How many samples carry a quantile: 64 for 0.9, 662 for 0.99.

    So many that with 99% confidence at least two lie above the true quantile, so that it is bracketed by the sample
    and doesn't hang on a single outlier: the smallest n with ``share^n + n (1 - share) share^(n-1) <= 0.01`` (Wilks,
    Determination of sample sizes for setting tolerance limits, 1941, for the second greatest).
    """
    count = 2
    while share**count + count * (1 - share) * share ** (count - 1) > 1 - confidence:
        count += 1
    return count
