"""The figures of a paired measurement, and the decision that rests on them. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement
from statistics import median
from typing import TypeVar

from onnx_harness.latency.figures import FEWEST_PAIRS as FEWEST_PAIRS
from onnx_harness.latency.figures import LEAST_PAIRS as LEAST_PAIRS
from onnx_harness.latency.figures import MOST_PAIRS as MOST_PAIRS
from onnx_harness.latency.figures import log_ratio as log_ratio
from onnx_harness.latency.figures import percentile as percentile
from onnx_harness.latency.figures import samples_needed as samples_needed
from onnx_harness.latency.figures import speedup as speedup
from onnx_harness.latency.figures import speedup_interval as speedup_interval
from onnx_harness.latency.figures import student as student
from onnx_harness.results.outcome import Outcome as Outcome

K = TypeVar("K")

CONFIRMING_PAIRS = 32
"""Of the second measurement of a cell that didn't pass the first."""
ALPHA = 0.01
"""Probability that a run of equals has a FAIL before the confirmation.

The confirmation multiplies it by about as much again.
"""
MINIMUM_EFFECT = 0.02
"""A slowdown that is shown to be below 2% fails no cell.

Alignment and memory layout alone are worth that much.
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about one cell. Its ratios are speedups: 0.95 is a variant that is slower.

    Attributes:
        p: of the one-sided test that the variant isn't slower, adjusted for the other cells of its
            run; None where INVALID.
        estimate: the speedup, the pseudomedian over pairs (see `pseudomedian`).
        ci95: its 95% interval.
        pairs: how many pairs of sessions it rests on.
        reason: why it's INVALID, or which two decisions made this one; else None.
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
class PairCount:
    """The number of pairs of sessions that each cell of a run gets.

    Attributes:
        pairs: K.
        power: the probability that a slowdown of the chosen size is significant in these pairs, by
            simulation.
        pairs_for_power: the K that would have reached the required power; more than `pairs` where
            time forbids it.
        why: a sentence to print before the run.
    """

    pairs: int
    power: float
    pairs_for_power: int
    why: str


def decide(
    log_ratios: Sequence[float],
    *,
    alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
) -> Decision:
    """Decide on one cell that is alone in its run; `decide_run` is for more.

    Args:
        log_ratios: d_k = ln(baseline / variant), one for each fresh pair of sessions.
        alpha: the probability of a FAIL among equals that is put up with.
        minimum_effect: 0.02 fails no variant that is shown to take less than 1.02 times as long as
            its baseline.
    """
    return decide_run({"": log_ratios}, alpha=alpha, minimum_effect=minimum_effect)[""]


def decide_run(
    cells: Mapping[K, Sequence[float]],
    *,
    alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
    family: int | None = None,
) -> dict[K, Decision]:
    """Decide on the cells of a run: with probability 1 - ``alpha`` none is a false FAIL.

    PASS: a test of non-inferiority at ``alpha`` shows that the slowdown is below the minimum
    effect, its margin: the interval of confidence 1 - 2 alpha lies within it. FAIL: it doesn't, and
    the exact one-sided Wilcoxon signed-rank test rejects that the variant is no slower, at
    ``alpha`` adjusted by Holm's method over the cells. What is neither is INCONCLUSIVE: it says
    nothing, and saying PASS of it would be a check that can't fail.

    The margin is compared with the interval, not the estimate: that would make a slowdown of
    exactly the minimum effect a coin toss, however many pairs there are. This way it's caught as
    often as the test finds it, but for a share of ``alpha``, and one that the pairs can tell from
    the minimum effect isn't.

    Args:
        cells: d_k = ln(baseline / variant) by cell, one for each fresh pair of sessions.
        alpha: of the whole run.
        minimum_effect: relative, of the variant's time.
        family: the number of cells to adjust for, where that is more than are given here.
    """
    family = max(family or 0, len(cells))
    invalid = {key: invalidity(values, alpha / family) for key, values in cells.items()}
    own = {}
    for key, values in cells.items():
        if invalid[key] is None:
            own[key] = slower_p(values)
    adjusted = dict(zip(own, holm(list(own.values()), family), strict=True))
    decisions = {}
    for key, values in cells.items():
        if key in adjusted:
            decision = _decision(values, adjusted[key], alpha, minimum_effect)
            decisions[key] = replace(decision, own_p=own[key], family=family)
        else:
            count = len(values)
            decisions[key] = Decision(Outcome.INVALID, None, None, None, count, invalid[key])
    return decisions


def confirm(first: Decision, second: Decision, *, alpha: float = ALPHA) -> Decision:
    """Decide on a cell that hadn't passed and was measured a second time, on fresh pairs.

    It fails only if both show the slowdown: each by its own p-value at ``alpha``, and one of them,
    whichever it is, at ``alpha`` adjusted for the cells of the run. So a run of equals has a FAIL
    with a probability of 2 alpha^2 at most. Were the first to be the adjusted one, a disturbance in
    its few pairs would spare a slowdown that the second shows beyond doubt. Otherwise the verdict
    is what the second says, which has more pairs, except that a FAIL by itself is INCONCLUSIVE.
    INVALID stays: whatever broke a measurement isn't mended by another.

    Args:
        first: one of its run's (see `decide_run`).
        second: of the cell alone (see `decide`).
        alpha: of both.
    """
    if Outcome.INVALID in (first.outcome, second.outcome):
        return first if first.outcome is Outcome.INVALID else second
    reason = f"{first.outcome}, then {second.outcome} on fresh pairs"
    if second.outcome is Outcome.FAIL and first.outcome is not Outcome.FAIL:
        first_shows_it = _rejects(first.own_p, alpha)
        second_is_adjusted = _rejects(second.own_p, alpha, first.family)
        if not (first_shows_it and second_is_adjusted):
            return replace(second, outcome=Outcome.INCONCLUSIVE, reason=reason)
    return replace(second, reason=reason)


def _rejects(p: float | None, alpha: float, family: int = 1) -> bool:
    return p is not None and p * family <= alpha


def needs_confirmation(verdict: Decision) -> bool:
    """True where a cell is to be measured again before the decision is final."""
    return verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)


def slower_p(log_ratios: Sequence[float]) -> float:
    """The exact one-sided p-value of the Wilcoxon signed-rank test that the variant is not slower.

    Wilcoxon, Individual comparisons by ranking methods, 1945. The exact distribution knows neither
    ties nor zeros. Where there are some (a coarse clock), ranks are given to the disadvantage of
    the alternative: of pairs of equal size those that speak against a slowdown get the higher
    ranks, and a ratio of exactly 1 counts as against. Ranks drawn at random among equals would be
    exact, so this p-value is never too small.

    Args:
        log_ratios: ln(baseline / variant), finite.
    """
    from scipy.stats import wilcoxon

    ordered = sorted(log_ratios, key=lambda value: (abs(value), value >= 0))
    signed_ranks = []
    for rank, value in enumerate(ordered, start=1):
        signed_ranks.append(-rank if value < 0 else rank)
    test = wilcoxon(signed_ranks, alternative="less", method="exact")
    return float(test.pvalue)


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Adjust p-values by Holm's step-down method.

    Holm, A simple sequentially rejective multiple test procedure, 1979.

    Args:
        p_values: of the cells of a run.
        family: how many there are in all, where some aren't given: those count as not significant.
    """
    count = family or len(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(order):
        stepped = (count - place) * p_values[index]
        highest = max(highest, min(1.0, stepped))
        adjusted[index] = highest
    return adjusted


def invalidity(log_ratios: Sequence[float], alpha: float) -> str | None:
    """Return the reason why nothing can be decided from these pairs, or None."""
    count = len(log_ratios)
    needed = pairs_needed(alpha)
    distinct = len(set(log_ratios))
    if not all(math.isfinite(value) for value in log_ratios):
        return "a pair's ratio isn't a number: a time was zero, infinite or missing"
    if count < needed:
        return (
            f"{count} pairs can't fail at {alpha:.1g} whatever they show: it takes {needed}"
        )
    if distinct <= count // 2:
        return (
            f"only {distinct} of {count} pairs differ from one another: readings were replayed, or "
            "the clock is too coarse"
        )
    return None


def pairs_needed(alpha: float) -> int:
    """Return the fewest pairs with which the exact test can reject at ``alpha``.

    All of K pairs being slower has p = 2^-K.
    """
    return max(FEWEST_PAIRS, math.ceil(-math.log2(alpha)))


def pseudomedian(log_ratios: Sequence[float]) -> float:
    """The estimate that goes with the test: the median of the means of all pairs of values.

    A value is paired with itself too.
    Hodges and Lehmann, Estimates of location based on rank tests, 1963: nearly as efficient as the
    mean where that is best (0.955 on normal values; the median has 0.637), and not moved by an
    outlier.
    """
    two = combinations_with_replacement(log_ratios, 2)
    means = [(first + second) / 2 for first, second in two]
    return median(means)


def choose_pairs(
    *,
    cells: int,
    pair_s: float,
    budget_s: float,
    spread: float,
    effect: float = MINIMUM_EFFECT,
    power: float = 0.95,
    alpha: float = ALPHA,
) -> PairCount:
    """Choose the pairs that each cell of a run gets: enough to see ``effect`` if time allows it.

    Decided from a pilot, before anything is measured for the record: going on until something is
    significant would find it among equals.

    Args:
        cells: of the run; more of them ask for stronger evidence from each.
        pair_s: seconds of one pair of sessions, of the mean cell.
        budget_s: for the first measurement of all cells.
        spread: standard deviation of d_k over pairs, of the noisiest class of cells that is to be
            seen.
        effect: relative slowdown that should be found.
        power: probability of finding it.
        alpha: of the run.
    """
    strictest = alpha / cells
    # Even numbers: two adjacent pairs make a replicate of the interval.
    least = max(LEAST_PAIRS, 2 * math.ceil(pairs_needed(strictest) / 2))
    affordable = 2 * int(budget_s / (2 * cells * pair_s))
    pairs_for_power = MOST_PAIRS
    for count in range(least, MOST_PAIRS, 2):
        if _power(count, effect, spread, strictest) >= power:
            pairs_for_power = count
            break
    pairs = max(least, min(pairs_for_power, affordable))
    reached = _power(pairs, effect, spread, strictest)
    minutes = cells * pairs * pair_s / 60
    subject = "the cell" if cells == 1 else f"each of {cells} cells"
    why = (
        f"{pairs} pairs for {subject}, about {minutes:.1f} minutes: with a spread of {spread:.1%} "
        f"over pairs a slowdown of {effect:.0%} is significant in {reached:.1%} of runs"
    )
    allowed = f"the time allowed is {budget_s / 60:.1f} minutes"
    if pairs_for_power > pairs:
        why += f"; {power:.0%} would take {pairs_for_power} pairs, and {allowed}"
    elif pairs > affordable:
        why += f"; fewer couldn't fail at all, though {allowed}"
    return PairCount(pairs, reached, pairs_for_power, why)


_SIMULATED = 4000


@cache
def _power(pairs: int, effect: float, spread: float, alpha: float) -> float:
    """The share of simulated normal d_k whose exact test rejects at ``alpha``.

    Seeded, so that the same call gives the same number of pairs.
    """
    import numpy as np
    from scipy.stats import wilcoxon

    rng = np.random.default_rng(pairs)
    draws = rng.normal(-math.log1p(effect), spread, (_SIMULATED, pairs))
    tests = wilcoxon(draws, axis=1, alternative="less", method="exact")
    return float(np.mean(tests.pvalue <= alpha))


def _decision(
    values: Sequence[float], p: float, alpha: float, minimum_effect: float
) -> Decision:
    interval = speedup_interval(values)
    wider = speedup_interval(values, 1 - 2 * alpha)
    if interval is None or wider is None:
        raise ValueError("too few pairs for an interval got past the check for validity")
    if wider[0] > 1 / (1 + minimum_effect):
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if p <= alpha else Outcome.INCONCLUSIVE
    return Decision(outcome, p, math.exp(pseudomedian(values)), interval, len(values))
