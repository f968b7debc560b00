"""A cell's measurement through pytest-benchmark, which times the variant.

The baseline runs in turn with it, outside of what pytest-benchmark times.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any, Protocol

from onnx_harness.latency.conditions import undisturbed
from onnx_harness.latency.pairs import NS_PER_S, Pairs, Readings, Recording
from onnx_harness.latency.plan import BUDGET_S, PAIRS, THREADS, make_plan
from onnx_harness.latency.sessions import SPINNING
from onnx_harness.latency.sides import Clock, Opener
from onnx_harness.latency.statistics import log_ratio, percentile, speedup, speedup_interval
from onnx_harness.results.timings import ConditionsRecord, LatencyRecord, TransferRecord

NS_PER_MS = 1e6


class Benchmark(Protocol):
    """The part of pytest-benchmark's fixture that is used here, all of it documented."""

    disabled: bool
    extra_info: dict[str, Any]

    def pedantic(
        self,
        target: Callable[[], object],
        *,
        setup: Callable[[], None] | None = None,
        teardown: Callable[[], None] | None = None,
        rounds: int = 1,
    ) -> object:
        """Call ``setup``, the timed ``target`` and ``teardown``, ``rounds`` times."""


def measure(
    benchmark: Benchmark,
    *,
    baseline: Opener,
    variant: Opener,
    budget_s: float = BUDGET_S,
    pairs: int = PAIRS,
    seed: int = 0,
    threads: int = THREADS,
    pin: bool = False,
    labels: Mapping[str, str] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> LatencyRecord | None:
    """Measure a variant against its baseline, in pairs of fresh sessions (see `Pairs`).

    pytest-benchmark times the variant (its files, histograms and comparisons are the variant's);
    the baseline runs in its setup or its teardown. Garbage collection is off meanwhile, and so is
    tracing, which would slow one side only.

    The number of pairs and of iterations follows from a pilot on the first pair, before anything is
    timed for the record: see `make_plan` for what a slow model gets.

    Args:
        benchmark: pytest-benchmark's fixture, unused so far. Its ``extra_info`` gets the result and
            ``labels``.
        baseline: opens a fresh session of the baseline.
        variant: opens a fresh session of the variant; the same as ``baseline`` makes an A/A
            reading.
        budget_s: seconds for all of it.
        pairs: pairs of sessions, at most.
        seed: of the order.
        threads: intra-op threads of the sessions.
        pin: whether the runs keep to as many cores as they have threads. Not for what computes on
            threads that a driver starts.
        labels: what is measured, such as the provider and the variant.
        clock: nanoseconds, monotonic.

    Returns:
        None under ``--benchmark-disable``, where the variant is run once and nothing is timed.

    Raises:
        LatencyError: the readings aren't pairs, or the clock stood still.
    """
    if benchmark.disabled:
        _run_once(benchmark, variant, clock)
        return None
    run = Pairs(baseline, variant, random.Random(seed), clock)
    entered = clock()
    with undisturbed(threads if pin else None) as watch:
        left_s = budget_s - (clock() - entered) / NS_PER_S
        try:
            run.prepare(lambda pilot: make_plan(pilot, budget_s=left_s, pairs=pairs))
            benchmark.pedantic(
                run.target, setup=run.setup, teardown=run.teardown, rounds=run.plan.rounds
            )
        finally:
            run.close()
    record = summarize(run.recording(), threads, watch.record)
    benchmark.extra_info.update(
        {
            **(labels or {}),
            "speedup": record.speedup,
            "speedup_ci95": record.speedup_ci95,
            "baseline_median_ms": record.baseline_median_ms,
            "pairs": record.pairs,
            "threads": threads,
            "seed": seed,
        }
    )
    return record


def _run_once(benchmark: Benchmark, variant: Opener, clock: Clock) -> None:
    side = variant()
    try:
        benchmark.pedantic(lambda: side.time(0, clock))
    finally:
        side.close()


def summarize(
    recording: Recording, threads: int, conditions: ConditionsRecord | None
) -> LatencyRecord:
    """Work a measurement's figures out."""
    times_ms = [elapsed / NS_PER_MS for elapsed in _variant_ns(recording.readings)]
    return LatencyRecord(
        median_ms=median(times_ms),
        p90_ms=percentile(times_ms, 0.9),
        p99_ms=percentile(times_ms, 0.99),
        baseline_median_ms=_baseline_median_ms(recording.readings),
        speedup=speedup(recording.log_ratios),
        speedup_ci95=speedup_interval(recording.log_ratios),
        samples=len(times_ms),
        pairs=len(recording.readings),
        session_ms=median(recording.session_s) * 1e3,
        first_run_ms=median(recording.first_run_ns) / NS_PER_MS,
        threads=threads,
        spinning=SPINNING,
        log_ratios=tuple(recording.log_ratios),
        unsettled_pairs=recording.unsettled,
        input_sets=recording.input_sets,
        end_to_end=_transferred(recording.end_to_end),
        conditions=conditions,
    )


def _transferred(readings: Readings) -> TransferRecord | None:
    if not readings:
        return None
    log_ratios = [log_ratio(pair) for pair in readings]
    return TransferRecord(
        median_ms=median(_variant_ns(readings)) / NS_PER_MS,
        baseline_median_ms=_baseline_median_ms(readings),
        speedup=speedup(log_ratios),
        speedup_ci95=speedup_interval(log_ratios),
        log_ratios=tuple(log_ratios),
    )


def _variant_ns(readings: Readings) -> Iterator[int]:
    for pair in readings:
        for _, variant_ns in pair:
            yield variant_ns


def _baseline_median_ms(readings: Readings) -> float:
    times_ns = []
    for pair in readings:
        times_ns += [baseline_ns for baseline_ns, _ in pair]
    return median(times_ns) / NS_PER_MS
