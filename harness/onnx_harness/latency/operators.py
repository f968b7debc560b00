"""The operators that got slower, from profiles of pairs of fresh sessions. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from onnx_harness.latency.figures import speedup_interval
from onnx_harness.latency.statistics import MINIMUM_EFFECT, holm, pseudomedian, slower_p
from onnx_harness.providers.profile_runs import RunProfiles
from onnx_harness.results.operators import SlowerOperator

ALPHA = 0.01
"""Probability that an operator is named where none is slower."""
LEAST_TIME = 0.005
"""Nodes with a smaller share of the time can't slow a model by what fails a cell."""
LEAST_SHARE = 0.1
"""Of the whole slowdown: what is below isn't what somebody looks for."""
MOST_OPERATORS = 5
# ONNX Runtime's clock ticks in microseconds.
_LEAST_US = 0.5


@dataclass(frozen=True, slots=True)
class ProfiledPair:
    """Profiles of two fresh sessions whose runs took turns.

    Attributes:
        baseline: of the reference.
        variant: under test; as many runs.
    """

    baseline: RunProfiles
    variant: RunProfiles


@dataclass(frozen=True, slots=True)
class _Operator:
    """A node over all pairs: times in microseconds, and ln(baseline / variant) of each pair."""

    name: str
    op_type: str
    before_us: float
    after_us: float
    log_ratios: tuple[float, ...]

    @property
    def added_us(self) -> float:
        return self.after_us - self.before_us


def slower_operators(pairs: Sequence[ProfiledPair]) -> tuple[SlowerOperator, ...]:
    """Name the operators that got slower, the one that adds most first.

    An operator is named where all of this holds: the exact one-sided Wilcoxon test over the pairs,
    adjusted by Holm's method for the operators that have a share in the time, is below `ALPHA`; its
    own slowdown is above `MINIMUM_EFFECT`; and it makes up a tenth of the whole slowdown.

    Args:
        pairs: 16 of them are enough for 600 operators: 2^-16 is the smallest p-value.

    Returns:
        At most five; none where the whole isn't slower.
    """
    operators = _operators(pairs)
    added_us = sum(operator.added_us for operator in operators)
    if added_us <= 0:
        return ()
    total_us = sum(max(operator.before_us, operator.after_us) for operator in operators)
    tested = [
        operator
        for operator in operators
        if max(operator.before_us, operator.after_us) >= LEAST_TIME * total_us
    ]
    p_values = holm([slower_p(operator.log_ratios) for operator in tested])
    slower = [
        operator
        for operator, p in zip(tested, p_values, strict=True)
        if p <= ALPHA and _matters(operator, added_us)
    ]
    slower.sort(key=lambda operator: operator.added_us, reverse=True)
    # Where others became faster, the slower ones add more than the whole is slower.
    whole_us = max(added_us, sum(operator.added_us for operator in slower))
    return tuple(_record(operator, whole_us) for operator in slower[:MOST_OPERATORS])


def _matters(operator: _Operator, added_us: float) -> bool:
    slowdown = -pseudomedian(operator.log_ratios)
    return (
        slowdown >= math.log1p(MINIMUM_EFFECT)
        and operator.added_us >= LEAST_SHARE * added_us
    )


def _record(operator: _Operator, added_us: float) -> SlowerOperator:
    interval = speedup_interval(operator.log_ratios) if operator.before_us else None
    return SlowerOperator(
        name=operator.name,
        op_type=operator.op_type,
        before_ms=operator.before_us / 1e3,
        after_ms=operator.after_us / 1e3,
        ratio_ci95=None if interval is None else (1 / interval[1], 1 / interval[0]),
        share=operator.added_us / added_us,
    )


def _operators(pairs: Sequence[ProfiledPair]) -> list[_Operator]:
    op_types: dict[str, str] = {}
    for pair in pairs:
        op_types.update(pair.baseline.op_types)
    for pair in pairs:
        op_types.update(pair.variant.op_types)
    return [_operator(name, op_type, pairs) for name, op_type in op_types.items()]


def _operator(name: str, op_type: str, pairs: Sequence[ProfiledPair]) -> _Operator:
    before: list[float] = []
    after: list[float] = []
    log_ratios: list[float] = []
    for pair in pairs:
        baseline = [run.get(name, 0.0) for run in pair.baseline.runs]
        variant = [run.get(name, 0.0) for run in pair.variant.runs]
        before.append(middle_mean(baseline))
        after.append(middle_mean(variant))
        logs = []
        for first, second in zip(baseline, variant, strict=True):
            logs.append(math.log(max(first, _LEAST_US) / max(second, _LEAST_US)))
        log_ratios.append(middle_mean(logs))
    before_us, after_us = median(before), median(after)
    if before_us and after_us:
        # Of paired runs: what disturbs a session meets both sides, and not each side's times alone.
        after_us = before_us * math.exp(-pseudomedian(log_ratios))
    return _Operator(name, op_type, before_us, after_us, tuple(log_ratios))


def middle_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half: as steady as a median, and finer than a clock's tick.

    Tukey's midmean (Exploratory data analysis, 1977), without fractions of values.
    """
    ordered = sorted(values)
    cut = len(ordered) // 4
    return fmean(ordered[cut : len(ordered) - cut])
