"""A night's verdicts: the pairs that each cell gets, and its time compared with its level.

`onnx_harness.latency.statistics` decides; here its ratios, baseline over variant, become those of
the gate: time under test over time in the reference, above 1 where slower. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_harness.latency import statistics
from onnx_harness.latency.statistics import (
    CONFIRMING_PAIRS,
    Decision,
    PairCount,
    choose_pairs,
    confirm,
    decide_run,
)
from onnx_harness.results.cells import PinnedRecord
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.timings import LevelVerdict

SPREAD = 0.02
"""Of the pairs of the noisiest cells that are to be seen.

1% was measured at a millisecond, 3% at some microseconds.
"""
EFFECT = 0.03
"""The effect that a night should find.

Where nights spread by 1%, the two-nights rule suspects a cell from 2.7% on.
"""
PAIR_S = 0.9
"""The seconds of a pair, over the zoo.

It's 0.6 s with a small model, mostly for starting two processes, and 2 s with ResNet-50.
"""
BUDGET_S = 2400.0
"""For the first measurement of all cells.

Judging them and measuring some again are to fit into the same hour.
"""

PART_PAIRS = 12
"""Pairs of a second measurement that are timed at once.

Other cells have their turns in between. The ratio of two versions drifts by some tenths of a
percent within seconds, so a measurement without a pause looks more certain than it is. An even
number: two adjacent pairs make a replicate of the interval.
"""


def lockstep_pairs(cells: int) -> PairCount:
    """Choose K before a run that times ``cells`` cells: enough pairs for each of them to fail."""
    return choose_pairs(
        cells=cells, pair_s=PAIR_S, budget_s=BUDGET_S, spread=SPREAD, effect=EFFECT
    )


def confirming_pairs(pairs: int) -> int:
    """Return the pairs of a cell's second measurement: no fewer than the first's ``pairs``."""
    return max(CONFIRMING_PAIRS, pairs)


def decide_cells(
    cells: Mapping[str, tuple[PinnedRecord, float]], family: int | None = None
) -> dict[str, Decision]:
    """Decide on a run's first measurements, adjusted for one another.

    Args:
        cells: by id, the measurement and the accepted ratio.
        family: how many cells the whole run times, of which these are a part.
    """
    speedups = {}
    for name, (record, accepted) in cells.items():
        speedups[name] = _log_speedups(record.log_ratios, accepted)
    return decide_run(speedups, family=family)


def decide_again(first: Decision, log_ratios: Sequence[float], accepted: float) -> Decision:
    """Decide on a cell that was measured a second time: it fails only if both say so."""
    second = statistics.decide(_log_speedups(log_ratios, accepted))
    return confirm(first, second)


def with_verdict(record: PinnedRecord, accepted: float, decision: Decision) -> PinnedRecord:
    """Add the verdict to ``record``: its ratios are the inverse of the decision's speedups."""
    ratio = None
    if decision.estimate is not None:
        ratio = 1 / decision.estimate
    interval = None
    if decision.ci95 is not None:
        slowest, fastest = decision.ci95
        interval = (1 / fastest, 1 / slowest)
    verdict = LevelVerdict(
        outcome=decision.outcome,
        accepted=accepted,
        p=decision.p,
        ratio=ratio,
        ratio_ci95=interval,
        pairs=decision.pairs,
        reason=decision.reason,
    )
    return replace(record, verdict=verdict)


def without_second(record: PinnedRecord, why: str) -> PinnedRecord:
    """Make a verdict INVALID whose second measurement failed: the first alone doesn't suffice."""
    if record.verdict is None:
        raise ValueError("a cell without a verdict doesn't ask for a second measurement")
    reason = f"{record.verdict.outcome}, and couldn't be measured again: {why}"
    verdict = replace(record.verdict, outcome=Outcome.INVALID, p=None, reason=reason)
    return replace(record, verdict=verdict)


def is_slower(decision: Decision) -> bool:
    """True where a cell fails, or looks slower by as much: then its operators are profiled."""
    if decision.outcome is Outcome.FAIL:
        return True
    least = 1 + statistics.MINIMUM_EFFECT
    return decision.estimate is not None and decision.estimate < 1 / least


def undecided(record: PinnedRecord) -> bool:
    """True where a second measurement is needed and missing: the run ended too early."""
    if record.verdict is None or record.confirming_log_ratios:
        return False
    return record.verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)


def _log_speedups(log_ratios: Sequence[float], accepted: float) -> list[float]:
    """ln(accepted level / time under test) of each pair: below 0 where slower than accepted."""
    return [math.log(accepted) - value for value in log_ratios]
