"""The number of pairs and of their iterations, fixed before anything is timed for the record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx_harness.latency.statistics import FEWEST_PAIRS, student

THREADS = 1
"""Intra-op threads of both sessions.

The steadiest figure. Spread with two threads is up to three times as large.
"""
BUDGET_S = 1.5
"""Seconds for a cell, session creation included."""
PAIRS = 5
"""Pairs of fresh sessions that are made when the budget has room for them."""
PAIR_S = 0.08
"""Seconds of timed running in each pair, where the number of pairs is fixed."""
LONG_PAIR_S = 2 * PAIR_S
"""The same for models of which ``PAIR_S`` holds fewer than `STEADY_ITERATIONS`.

5 iterations at least.
"""
STEADY_ITERATIONS = 16
"""The iterations after which a pair is steady.

The noise of a pair was found to lie within it (more than 0.8 of its variance, in models of 5 ms),
and to fall with its iterations. Twice as many cost such a pair half as much again: sessions and
warm-up come on top anyway.
"""

PILOT_RUNS = 5
PILOT_S = 0.15
"""The pilot ends after a tenth of `BUDGET_S`, however few runs it has."""
WINDOW = 5
"""Runs whose median is compared with that of the next ones, while sessions warm up."""
SETTLED = 0.01
"""Two adjacent windows that agree within 1% end the warm-up."""
MOST_ROUNDS = 2000
"""Iterations over all pairs: three times what p99 needs; more would buy a fast model nothing."""
MOST_WARMUP = 50
WARMUP_SHARE = 0.03
# Where pairs are fixed: of the time of a pair.
PATIENCE = 0.5
LEAST_ITERATIONS, MOST_ITERATIONS = 5, 200
# What pytest-benchmark's loop and our own bookkeeping cost an iteration, measured at 10 to 20 us.
ROUND_OVERHEAD_S = 20e-6


@dataclass(frozen=True, slots=True)
class Pilot:
    """Times of the first pair of sessions, in seconds.

    Attributes:
        open_s: creating a pair of sessions and running both once.
        iteration_s: one run of each side.
        spent_s: used up so far.
    """

    open_s: float
    iteration_s: float
    spent_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The shape of a measurement.

    Attributes:
        pairs: fresh pairs of sessions.
        iterations: timed runs of each side in each pair.
        warmup: untimed runs of each side after their first, at most; fewer where they settle
            before.
    """

    pairs: int
    iterations: int
    warmup: int

    @property
    def rounds(self) -> int:
        """Timed runs of the variant, over all pairs."""
        return self.pairs * self.iterations


def make_plan(pilot: Pilot, *, budget_s: float, pairs: int) -> Plan:
    """Divide what is left of the budget between pairs and iterations.

    More pairs make the interval's t quantile smaller and cost their sessions; more iterations make
    each pair's median steadier. Where noise lies mostly within the pair, as it was found to, the
    half-width is in proportion to ``t(K - 1) / sqrt(K n)``: the plan is the K that makes it least,
    with the n that the budget allows.

    The budget is kept wherever 3 pairs with one iteration each fit. A model too slow for that gets
    those all the same, and overruns: fewer would be no measurement.

    Args:
        pilot: what a pair takes.
        budget_s: for the cell.
        pairs: at most so many.
    """
    slow = pilot.iteration_s > budget_s
    warmup = 0 if slow else _warmup_runs(WARMUP_SHARE * budget_s, pilot)
    fewest = min(FEWEST_PAIRS, pairs)
    best, best_width = None, math.inf
    for count in range(fewest, pairs + 1):
        iterations = _iterations(pilot, budget_s, count, warmup)
        if iterations < 1:
            continue
        width = student(max(count - 1, 1)) / math.sqrt(count * iterations)
        if width < best_width:
            best, best_width = Plan(count, iterations, warmup), width
    return best or Plan(fewest, 1, warmup)


def _warmup_runs(seconds: float, pilot: Pilot) -> int:
    return min(MOST_WARMUP, max(1, int(seconds / pilot.iteration_s)))


def _iterations(pilot: Pilot, budget_s: float, pairs: int, warmup: int) -> int:
    """Iterations of a pair that the budget allows; none or fewer where it doesn't allow one."""
    # The pilot's pair is the measurement's first: it's open already.
    opening_s = (pairs - 1) * pilot.open_s
    warming_s = pairs * warmup * pilot.iteration_s
    room_s = budget_s - pilot.spent_s - opening_s - warming_s
    iteration_s = pilot.iteration_s + ROUND_OVERHEAD_S
    return min(int(room_s / (pairs * iteration_s)), MOST_ROUNDS // pairs)


def fixed_plan(pilot: Pilot, *, pairs: int) -> Plan:
    """Plan a number of pairs that has been decided beforehand, for a verdict (see `choose_pairs`).

    Args:
        pilot: what a pair takes.
        pairs: exactly so many.
    """
    short = int(PAIR_S / pilot.iteration_s)
    long = int(LONG_PAIR_S / pilot.iteration_s)
    iterations = max(short, min(long, STEADY_ITERATIONS), LEAST_ITERATIONS)
    warmup = _warmup_runs(PATIENCE * PAIR_S, pilot)
    return Plan(pairs, min(MOST_ITERATIONS, iterations), warmup)
