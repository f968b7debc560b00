"""How many pairs of sessions, and how many iterations of each: fixed before anything is timed for the record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.latency.statistics import FEWEST_PAIRS, student

THREADS = 1
"""Intra-op threads of both sessions: the steadiest figure. Spread with two threads is up to three times as large."""
BUDGET_S = 1.5
"""Seconds for a cell, session creation included."""
PAIRS = 5
"""Pairs of fresh sessions that are made when the budget has room for them."""

MOST_ROUNDS = 2000
"""Iterations over all pairs: three times what p99 needs; more would buy a fast model nothing."""
MOST_WARMUP = 5
WARMUP_SHARE = 0.02
# What pytest-benchmark's loop and our own bookkeeping cost an iteration, measured at 10 to 20 us.
ROUND_OVERHEAD_S = 20e-6


@dataclass(frozen=True, slots=True)
class Plan:
    """The shape of a measurement.

    Attributes:
        pairs: fresh pairs of sessions.
        iterations: timed runs of each side in each pair.
        warmup: untimed runs of each side after their first, in every pair but the first (whose pilot they were).
    """

    pairs: int
    iterations: int
    warmup: int

    @property
    def rounds(self) -> int:
        """Timed runs of the variant, over all pairs."""
        return self.pairs * self.iterations


def make_plan(*, open_s: float, iteration_s: float, spent_s: float, budget_s: float, pairs: int) -> Plan:
    """Divide what is left of the budget between pairs and iterations.

    More pairs make the interval's t quantile smaller and cost their sessions; more iterations make each pair's
    median steadier. Where noise lies mostly within the pair, as it was found to, the half-width is in proportion to
    ``t(K - 1) / sqrt(K n)``: the plan is the K that makes it least, with the n that the budget allows.

    The budget is kept wherever 3 pairs with one iteration each fit. A model too slow for that gets those all the
    same, and overruns: fewer would be no measurement.

    Args:
        open_s: creating a pair of sessions and running both once.
        iteration_s: one run of each side.
        spent_s: used up so far, by the first pair and its pilot.
        budget_s: for the cell.
        pairs: at most so many.
    """
    warmup = 0 if iteration_s > budget_s else min(MOST_WARMUP, max(1, int(WARMUP_SHARE * budget_s / iteration_s)))
    best, best_width = None, math.inf
    for count in range(min(FEWEST_PAIRS, pairs), pairs + 1):
        room = budget_s - spent_s - (count - 1) * (open_s + warmup * iteration_s)
        iterations = min(int(room / (count * (iteration_s + ROUND_OVERHEAD_S))), MOST_ROUNDS // count)
        if iterations < 1:
            continue
        width = student(max(count - 1, 1)) / math.sqrt(count * iterations)
        if width < best_width:
            best, best_width = Plan(count, iterations, warmup), width
    return best or Plan(min(FEWEST_PAIRS, pairs), 1, warmup)
