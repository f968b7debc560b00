"""Paired timing of a variant against the baseline."""

from harness.latency.paired import LatencyError, Timed, measure
from harness.latency.plan import BUDGET_S, PAIRS, THREADS

__all__ = ["BUDGET_S", "PAIRS", "THREADS", "LatencyError", "Timed", "measure"]
