"""Paired timing of a variant against the baseline, and the decision that rests on it."""

from harness.latency.paired import measure
from harness.latency.pairs import LatencyError, Timed, collect
from harness.latency.plan import BUDGET_S, PAIRS, THREADS

__all__ = ["BUDGET_S", "PAIRS", "THREADS", "LatencyError", "Timed", "collect", "measure"]
