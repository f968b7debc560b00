"""False alarms and power of the two-nights rule, over many simulated nights. Run with -s: it prints the table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.gate.nights import judge_nights
from harness.results.outcome import Outcome
from tests.nights import simulated

pytestmark = pytest.mark.performance

HISTORIES = 1000
NIGHTS = 30
SETTLED = 15
"""Nights before a step, in the measurements of power."""


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided upper bound of a proportion (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    return 1.0 if events == trials else float(betaincinv(events + 1, trials - events, confidence))


def verdicts(history: list[float], first: int) -> list[Outcome]:
    """The gate's word on each night from number ``first`` on; night 0 was accepted."""
    counts = range(first + 1, len(history) + 1)
    return [judge_nights(history[0], history[1:count], [0.0] * (count - 1)).outcome for count in counts]


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
def test_false_alarms_and_power_of_the_two_nights_rule(spread: float) -> None:
    rng = np.random.default_rng(round(spread * 1e4))
    told = [verdicts(simulated(rng, NIGHTS + 1, spread), 1) for _ in range(HISTORIES)]
    alarms = sum(history.count(Outcome.FAIL) for history in told)
    nights = HISTORIES * NIGHTS
    print(
        f"\nnightly spread {spread:.1%}: {alarms} false alarms in {nights:,} nights "
        f"(below {upper_bound(alarms, nights):.5f} a night at 95%)"
    )
    caught = {}
    for step in (0.03, 0.05, 0.10):
        within = [0, 0]
        for _ in range(HISTORIES):
            found = verdicts(simulated(rng, SETTLED + 4, spread, step=step, at=SETTLED), SETTLED)
            within[0] += Outcome.FAIL in found[:2]
            within[1] += Outcome.FAIL in found
        caught[step] = within[0] / HISTORIES
        print(f"  {step:.0%} slower, caught: {caught[step]:.3f} in 2 nights, {within[1] / HISTORIES:.3f} in 4")
    if math.isclose(spread, 0.01):  # the spread for which the rule is meant
        assert upper_bound(alarms, nights) <= 1e-3
        assert caught[0.05] >= 0.9
