"""A night's verdicts: how many pairs each cell gets, and what they say of its time beside the accepted level.

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
from onnx_harness.results.cells import LevelVerdict, PinnedRecord
from onnx_harness.results.outcome import Outcome

SPREAD = 0.02
"""Of the pairs of the noisiest cells that are to be seen: 1% was measured at a millisecond, 3% at
some microseconds."""
EFFECT = 0.03
"""What a night should find: where nights spread by 1%, the two-nights rule suspects a cell from
2.7% on."""
PAIR_S = 0.9
"""Of a pair, over the zoo: 0.6 s with a small model, mostly for starting two processes, and 2 s
with ResNet-50."""
BUDGET_S = 2400.0
"""For the first measurement of all cells: judging them and measuring some again are to fit into the
same hour."""

PART_PAIRS = 12
"""Of a second measurement, in one go; those of other cells have their turns between. What two
versions take beside each other drifts by some tenths of a percent within seconds, so a measurement
taken at once is surer of itself than right. An even number: two adjacent pairs make a replicate of
the interval."""


def lockstep_pairs(cells: int) -> PairCount:
    """K, fixed before a run that times ``cells`` cells beside the reference. So many can fail, whatever that takes."""
    return choose_pairs(cells=cells, pair_s=PAIR_S, budget_s=BUDGET_S, spread=SPREAD, effect=EFFECT)


def confirming_pairs(pairs: int) -> int:
    """Of the second measurement of a cell that got ``pairs`` in the first: at least as many."""
    return max(CONFIRMING_PAIRS, pairs)


def decide_cells(cells: Mapping[str, tuple[PinnedRecord, float]]) -> dict[str, Decision]:
    """The verdicts on a run's first measurements, adjusted for one another.

    Args:
        cells: by id, what was measured and the accepted ratio.
    """
    return decide_run(
        {name: _speedups(record.log_ratios, accepted) for name, (record, accepted) in cells.items()}
    )


def decide_again(first: Decision, log_ratios: Sequence[float], accepted: float) -> Decision:
    """The verdict on a cell that was measured a second time: it fails only if both say so."""
    return confirm(first, statistics.decide(_speedups(log_ratios, accepted)))


def with_verdict(record: PinnedRecord, verdict: Decision, accepted: float) -> PinnedRecord:
    """``record`` with the verdict on it, its ratios turned over."""
    return replace(
        record,
        verdict=LevelVerdict(
            outcome=verdict.outcome,
            accepted=accepted,
            p=verdict.p,
            ratio=None if verdict.estimate is None else 1 / verdict.estimate,
            ratio_ci95=None if verdict.ci95 is None else (1 / verdict.ci95[1], 1 / verdict.ci95[0]),
            pairs=verdict.pairs,
            reason=verdict.reason,
        ),
    )


def without_second(record: PinnedRecord, why: str) -> PinnedRecord:
    """``record``, whose verdict asked for a second measurement that failed: no verdict can rest on the first alone."""
    if record.verdict is None:
        raise ValueError("a cell without a verdict doesn't ask for a second measurement")
    reason = f"{record.verdict.outcome}, and couldn't be measured again: {why}"
    return replace(
        record, verdict=replace(record.verdict, outcome=Outcome.INVALID, p=None, reason=reason)
    )


def undecided(record: PinnedRecord) -> bool:
    """Whether a verdict asked for a second measurement, and there is none: the run ended too early."""
    asks = record.verdict is not None and record.verdict.outcome in (
        Outcome.FAIL,
        Outcome.INCONCLUSIVE,
    )
    return asks and not record.confirming_log_ratios


def _speedups(log_ratios: Sequence[float], accepted: float) -> list[float]:
    """ln(accepted level / time under test) of each pair: below 0 where it's slower than accepted."""
    return [math.log(accepted) - value for value in log_ratios]
