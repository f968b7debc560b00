"""Figures of a paired measurement: speedup, interval and percentiles. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, median, stdev

FEWEST_PAIRS = 3
"""Below this an interval says nothing: with two pairs Student's t is 12.7 standard errors."""
LEAST_PAIRS, MOST_PAIRS = 16, 64
"""Of a cell that is decided upon.

2^-16 is the smallest p-value of 16 pairs, enough for hundreds of cells.
"""


def log_ratio(readings: Sequence[tuple[int, int]]) -> float:
    """d_k of one pair of sessions: the median over its iterations of ln(baseline / variant).

    Args:
        readings: (baseline, variant) of each iteration, in nanoseconds, all above 0.
    """
    logs = [math.log(baseline / variant) for baseline, variant in readings]
    return median(logs)


def speedup(log_ratios: Sequence[float]) -> float:
    """exp(median d_k): above 1 the variant is faster."""
    return math.exp(median(log_ratios))


def speedup_interval(
    log_ratios: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """A two-sided confidence interval of the speedup, with the pairs as the replicates.

    Student's t interval of the mean of d_k (Student, The probable error of a mean, 1908), in
    ratios. Iterations inside one pair share its sessions' memory layout and are no replicates. d_k
    is a median over iterations, so it is near to normal where the few pairs of a cell couldn't show
    that it isn't; heavier tails make the interval wider than it has to be, not narrower. An
    interval by ranks would need at least 6 pairs to reach 95% at all (1 - 2 / 2^K). It's widened
    where it wouldn't contain the median, which is the speedup that is reported.

    From 16 pairs on the replicates are the means of two adjacent pairs, one of which created the
    baseline first. What that order does to a session drops out of such a mean, as it does out of
    the mean of all; among single pairs it would count as noise, and the interval would be too wide.

    Returns:
        None with fewer than 3 pairs.
    """
    count = len(log_ratios)
    if count < FEWEST_PAIRS:
        return None
    replicates = log_ratios
    if count >= LEAST_PAIRS:
        adjacent = zip(log_ratios[::2], log_ratios[1::2], strict=False)
        replicates = [fmean(pairs) for pairs in adjacent]
    standard_error = stdev(replicates) / math.sqrt(len(replicates))
    half = student(len(replicates) - 1, confidence) * standard_error
    middle, centre = median(log_ratios), fmean(log_ratios)
    low = min(centre - half, middle)
    high = max(centre + half, middle)
    return math.exp(low), math.exp(high)


@cache
def student(degrees: int, confidence: float = 0.95) -> float:
    """The two-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the ``share`` quantile; None where the sample is too small (see `samples_needed`).

    Linear interpolation between order statistics: type 7 of Hyndman and Fan, Sample quantiles in
    statistical packages, 1996; numpy's default.
    """
    if len(values) < samples_needed(share):
        return None
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    index = math.floor(position)
    below, above = ordered[index : index + 2]
    return below + (position - index) * (above - below)


@cache
def samples_needed(share: float, confidence: float = 0.99) -> int:
    """Return the fewest samples that a quantile can be read from: 64 for 0.9, 662 for 0.99.

    With 99% confidence at least two of them lie above the true quantile, so that the sample
    brackets it and it doesn't depend on a single outlier: the smallest n with
    ``share^n + n (1 - share) share^(n-1) <= 0.01`` (Wilks, Determination of sample sizes for
    setting tolerance limits, 1941, for the second greatest).
    """
    count = 2
    while _at_most_one_above(share, count) > 1 - confidence:
        count += 1
    return count


def _at_most_one_above(share: float, count: int) -> float:
    """The probability that no sample, or one, lies above the ``share`` quantile."""
    none = share**count
    single = count * (1 - share) * share ** (count - 1)
    return none + single
