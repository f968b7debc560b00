"""The figures of a paired measurement, and the decision that rests on them. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement
from statistics import fmean, median, stdev
from typing import TypeVar

from onnx_harness.results.outcome import Outcome as Outcome

K = TypeVar("K")

FEWEST_PAIRS = 3
"""Below this an interval says nothing: with two pairs Student's t is 12.7 standard errors."""
LEAST_PAIRS, MOST_PAIRS = 16, 64
"""Of a cell that is decided upon: 2^-16 is the smallest p-value of 16 pairs, enough for hundreds of cells."""
CONFIRMING_PAIRS = 32
"""Of the second measurement of a cell that didn't pass the first."""
ALPHA = 0.01
"""Probability that a run of equals has a FAIL before the confirmation, which multiplies it by about as much again."""
MINIMUM_EFFECT = 0.02
"""A slowdown that is shown to be below 2% fails no cell: alignment and memory layout alone are worth that much."""


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

    From 16 pairs on the replicates are the means of two adjacent pairs, one of which created the baseline first. What
    that order does to a session drops out of such a mean, as it does out of the mean of all; among single pairs it
    would count as noise, and the interval would be too wide.

    Returns:
        None with fewer than 3 pairs.
    """
    count = len(log_ratios)
    if count < FEWEST_PAIRS:
        return None
    middle, centre = median(log_ratios), fmean(log_ratios)
    replicates = log_ratios
    if count >= LEAST_PAIRS:
        replicates = [fmean(two) for two in zip(log_ratios[::2], log_ratios[1::2], strict=False)]
    half = student(len(replicates) - 1, confidence) * stdev(replicates) / math.sqrt(len(replicates))
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
    return ordered[below] + (position - below) * (ordered[below + 1] - ordered[below])


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about one cell. Ratios are baseline over variant: 0.95 is a variant that takes 1 / 0.95 as long.

    Attributes:
        p: of the one-sided test that the variant isn't slower, adjusted for the other cells of its run; None where
            INVALID.
        estimate: the speedup, the pseudomedian over pairs (see `pseudomedian`).
        ci95: its 95% interval.
        pairs: how many pairs of sessions it rests on.
        reason: why it's INVALID, or how two verdicts made this one; else None.
        own_p: of the same test, not adjusted; None where INVALID.
        family: the number of cells that ``p`` is adjusted for.
    """

    outcome: Outcome
    p: float | None
    estimate: float | None
    ci95: tuple[float, float] | None
    pairs: int
    reason: str | None = None
    own_p: float | None = None
    family: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """How many pairs of sessions each cell of a run gets.

    Attributes:
        pairs: K.
        power: the probability that a slowdown of the wanted size is significant in these pairs, by simulation.
        wanted: the K that would have reached the power asked for; more than `pairs` where time forbids it.
        why: a sentence to print before the run.
    """

    pairs: int
    power: float
    wanted: int
    why: str


def decide(log_ratios: Sequence[float], *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT) -> Verdict:
    """The verdict on one cell that is alone in its run; `decide_run` is for more.

    Args:
        log_ratios: d_k = ln(baseline / variant), one for each fresh pair of sessions.
        alpha: the probability of a FAIL among equals that is put up with.
        minimum_effect: 0.02 fails no variant that is shown to take less than 1.02 times as long as its baseline.
    """
    return decide_run({"": log_ratios}, alpha=alpha, minimum_effect=minimum_effect)[""]


def decide_run(
    cells: Mapping[K, Sequence[float]],
    *,
    alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
    family: int | None = None,
) -> dict[K, Verdict]:
    """The verdicts on the cells of one run, of which with probability 1 - ``alpha`` none is a false FAIL.

    PASS: a test of non-inferiority at ``alpha`` shows that the slowdown is below the minimum effect, its margin: the
    interval of confidence 1 - 2 alpha lies within it. FAIL: it doesn't, and the exact one-sided Wilcoxon signed-rank
    test rejects that the variant is no slower, at ``alpha`` adjusted by Holm's method over the cells. What is neither
    is INCONCLUSIVE: it says nothing, and saying PASS of it would be a check that can't fail.

    The margin is held against the interval, not the estimate: that would make a slowdown of exactly the minimum
    effect a coin toss, however many pairs there are. This way it's caught as often as the test finds it, but for a
    share of ``alpha``, and one that the pairs can tell from the minimum effect isn't.

    Args:
        cells: d_k = ln(baseline / variant) by cell, one for each fresh pair of sessions.
        alpha: of the whole run.
        minimum_effect: relative, of the variant's time.
        family: the number of cells to adjust for, where that is more than are given here.
    """
    family = max(family or 0, len(cells))
    invalid = {key: invalidity(values, alpha / family) for key, values in cells.items()}
    own = {key: slower_p(values) for key, values in cells.items() if invalid[key] is None}
    adjusted = dict(zip(own, holm(list(own.values()), family), strict=True))
    return {
        key: replace(_judged(values, adjusted[key], alpha, minimum_effect), own_p=own[key], family=family)
        if key in adjusted
        else Verdict(Outcome.INVALID, None, None, None, len(values), invalid[key])
        for key, values in cells.items()
    }


def confirm(first: Verdict, second: Verdict, *, alpha: float = ALPHA) -> Verdict:
    """The verdict on a cell that was measured a second time, on fresh pairs, because it hadn't passed.

    It fails only if both show the slowdown: each by its own p-value at ``alpha``, and one of them, whichever it is,
    at ``alpha`` adjusted for the cells of the run. So a run of equals has a FAIL with a probability of 2 alpha^2 at
    most. Were the first to be the adjusted one, a disturbance in its few pairs would spare a slowdown that the second
    shows beyond doubt. Otherwise the verdict is what the second says, which has more pairs, except that a FAIL by
    itself is INCONCLUSIVE. INVALID stays: whatever broke a measurement isn't mended by another.

    Args:
        first: one of its run's (see `decide_run`).
        second: of the cell alone (see `decide`).
        alpha: of both.
    """
    if Outcome.INVALID in (first.outcome, second.outcome):
        return first if first.outcome is Outcome.INVALID else second
    told = f"{first.outcome}, then {second.outcome} on fresh pairs"
    if second.outcome is Outcome.FAIL and first.outcome is not Outcome.FAIL:
        shown = first.own_p is not None and first.own_p <= alpha
        beyond = second.own_p is not None and second.own_p * first.family <= alpha
        if not (shown and beyond):
            return replace(second, outcome=Outcome.INCONCLUSIVE, reason=told)
    return replace(second, reason=told)


def needs_confirmation(verdict: Verdict) -> bool:
    """Whether a cell is to be measured again before its verdict stands."""
    return verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)


def slower_p(log_ratios: Sequence[float]) -> float:
    """The exact one-sided p-value of the Wilcoxon signed-rank test that the variant is not slower.

    Wilcoxon, Individual comparisons by ranking methods, 1945. The exact distribution knows neither ties nor zeros.
    Where there are some (a coarse clock), ranks are given to the disadvantage of the alternative: of pairs of equal
    size those that speak against a slowdown get the higher ranks, and a ratio of exactly 1 counts as against. Ranks
    drawn at random among equals would be exact, so this p-value is never too small.

    Args:
        log_ratios: ln(baseline / variant), finite.
    """
    from scipy.stats import wilcoxon

    ordered = sorted(log_ratios, key=lambda value: (abs(value), value >= 0))
    ranks = [-rank if value < 0 else rank for rank, value in enumerate(ordered, start=1)]
    return float(wilcoxon(ranks, alternative="less", method="exact").pvalue)


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """p-values adjusted by Holm's step-down method (A simple sequentially rejective test procedure, 1979).

    Args:
        p_values: of the cells of a run.
        family: how many there are in all, where some aren't given: those count as not significant.
    """
    count = family or len(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (count - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def invalidity(log_ratios: Sequence[float], alpha: float) -> str | None:
    """Why no verdict can rest on these pairs, or None."""
    count = len(log_ratios)
    if not all(math.isfinite(value) for value in log_ratios):
        return "a pair's ratio isn't a number: a time was zero, infinite or missing"
    if count < pairs_needed(alpha):
        return f"{count} pairs can't fail at {alpha:.1g} whatever they say: it takes {pairs_needed(alpha)}"
    if len(set(log_ratios)) <= count // 2:
        return (
            f"only {len(set(log_ratios))} of {count} pairs differ from one another: readings were replayed, "
            f"or the clock is too coarse"
        )
    return None


def pairs_needed(alpha: float) -> int:
    """The fewest pairs with which the exact test can reject at ``alpha``: all of them slower has p = 2^-K."""
    return max(FEWEST_PAIRS, math.ceil(-math.log2(alpha)))


def pseudomedian(log_ratios: Sequence[float]) -> float:
    """The median of the means of all pairs of values, each with itself too: the estimate that goes with the test.

    Hodges and Lehmann, Estimates of location based on rank tests, 1963: nearly as efficient as the mean where that is
    best (0.955 on normal values; the median has 0.637), and not moved by an outlier.
    """
    return median((one + other) / 2 for one, other in combinations_with_replacement(log_ratios, 2))


def choose_pairs(
    *,
    cells: int,
    pair_s: float,
    budget_s: float,
    spread: float,
    effect: float = MINIMUM_EFFECT,
    power: float = 0.95,
    alpha: float = ALPHA,
) -> Choice:
    """How many pairs each cell of a run gets: enough to see ``effect``, as far as the time goes.

    Decided from a pilot, before anything is measured for the record: going on until something is significant would
    find it among equals.

    Args:
        cells: of the run; more of them ask for stronger evidence from each.
        pair_s: seconds of one pair of sessions, of the mean cell.
        budget_s: for the first measurement of all cells.
        spread: standard deviation of d_k over pairs, of the noisiest class of cells that is to be seen.
        effect: relative slowdown that should be found.
        power: probability of finding it.
        alpha: of the run.
    """
    # Even numbers: two adjacent pairs make a replicate of the interval.
    least = max(LEAST_PAIRS, 2 * math.ceil(pairs_needed(alpha / cells) / 2))
    room = 2 * int(budget_s / (2 * cells * pair_s))
    wanted = next(
        (count for count in range(least, MOST_PAIRS, 2) if _power(count, effect, spread, alpha / cells) >= power),
        MOST_PAIRS,
    )
    pairs = max(least, min(wanted, room))
    reached = _power(pairs, effect, spread, alpha / cells)
    seconds = cells * pairs * pair_s
    why = (
        f"{pairs} pairs for {'the cell' if cells == 1 else f'each of {cells} cells'}, about {seconds / 60:.1f} "
        f"minutes: with a spread of {spread:.1%} "
        f"over pairs a slowdown of {effect:.0%} is significant in {reached:.1%} of runs"
    )
    if wanted > pairs:
        why += f"; {power:.0%} would take {wanted} pairs, and the time allowed is {budget_s / 60:.1f} minutes"
    elif pairs > room:
        why += f"; fewer couldn't fail at all, though the time allowed is {budget_s / 60:.1f} minutes"
    return Choice(pairs, reached, wanted, why)


_SIMULATED = 4000


@cache
def _power(pairs: int, effect: float, spread: float, alpha: float) -> float:
    """The share of simulated normal d_k whose exact test rejects at ``alpha``. Seeded: the same call, the same K."""
    import numpy as np
    from scipy.stats import wilcoxon

    draws = np.random.default_rng(pairs).normal(-math.log1p(effect), spread, (_SIMULATED, pairs))
    return float(np.mean(wilcoxon(draws, axis=1, alternative="less", method="exact").pvalue <= alpha))


def _judged(values: Sequence[float], p: float, alpha: float, minimum_effect: float) -> Verdict:
    centre, interval, wider = pseudomedian(values), speedup_interval(values), speedup_interval(values, 1 - 2 * alpha)
    if interval is None or wider is None:
        raise ValueError("too few pairs for an interval got past the check for validity")
    if wider[0] > 1 / (1 + minimum_effect):
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if p <= alpha else Outcome.INCONCLUSIVE
    return Verdict(outcome, p, math.exp(centre), interval, len(values))
