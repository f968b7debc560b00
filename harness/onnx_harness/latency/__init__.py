"""Paired timing of a variant against the baseline, and the decision that rests on it."""

from onnx_harness.latency.paired import measure
from onnx_harness.latency.pairs import collect
from onnx_harness.latency.plan import BUDGET_S, PAIRS, THREADS
from onnx_harness.latency.sides import LatencyError, Timed

__all__ = ["BUDGET_S", "PAIRS", "THREADS", "LatencyError", "Timed", "collect", "measure"]
