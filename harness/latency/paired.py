"""The measurement itself: the variant timed by pytest-benchmark, the baseline beside it, in random order."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from harness.errors import HarnessError
from harness.latency.plan import BUDGET_S, PAIRS, THREADS, Plan, make_plan
from harness.latency.statistics import log_ratio, percentile, speedup, speedup_interval
from harness.results.cells import LatencyRecord

Clock = Callable[[], int]
PILOT_RUNS = 5
PILOT_SHARE = 0.1
NS_PER_MS = 1e6
NS_PER_S = 1e9


class LatencyError(HarnessError):
    """A measurement fell apart: a run without its counterpart, a clock that stood still, sessions used twice."""


class Benchmark(Protocol):
    """What is used of pytest-benchmark's fixture, all of it documented."""

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


def _nothing() -> None:
    """Close a side that lets go of everything when it's dropped."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One side of a pair: a fresh session, ready to run, not run yet.

    Attributes:
        run: runs the model once and returns when the outputs exist.
        session_s: seconds that creating the session took.
        close: lets go of what dropping the object doesn't.
    """

    run: Callable[[], object]
    session_s: float
    close: Callable[[], object] = _nothing


Opener = Callable[[], Timed]


def measure(
    benchmark: Benchmark,
    *,
    baseline: Opener,
    variant: Opener,
    budget_s: float = BUDGET_S,
    pairs: int = PAIRS,
    seed: int = 0,
    threads: int = THREADS,
    labels: Mapping[str, str] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> LatencyRecord | None:
    """Measure a variant against its baseline.

    The replicate is a pair of fresh sessions, created in random order. In every iteration both sides run once, one
    right after the other, in random order: what disturbs the machine meets both. pytest-benchmark times the variant
    (its files, histograms and comparisons are the variant's); the baseline runs in its setup or its teardown. Half
    of a pair's iterations have the baseline first, and half of the pairs create it first, as near as odd numbers
    allow. Garbage collection is off meanwhile, and so is tracing, which would slow one side only.

    The number of pairs and of iterations follows from a pilot on the first pair, before anything is timed for the
    record: see `make_plan` for what a slow model gets.

    Args:
        benchmark: pytest-benchmark's fixture, unused so far. Its ``extra_info`` gets the result and ``labels``.
        baseline: opens a fresh session of the baseline.
        variant: opens a fresh session of the variant; the same as ``baseline`` makes an A/A reading.
        budget_s: seconds for all of it.
        pairs: pairs of sessions, at most.
        seed: of the order.
        threads: intra-op threads of the sessions, for the record.
        labels: what is measured, such as the provider and the variant.
        clock: nanoseconds, monotonic.

    Returns:
        None under ``--benchmark-disable``, where the variant is run once and nothing is timed.

    Raises:
        LatencyError: the readings aren't pairs, or the clock stood still.
    """
    if benchmark.disabled:
        side = variant()
        try:
            benchmark.pedantic(side.run)
        finally:
            side.close()
        return None
    run = _Run(baseline, variant, random.Random(seed), clock)
    with _undisturbed():
        try:
            run.prepare(budget_s, pairs)
            benchmark.pedantic(run.target, setup=run.setup, teardown=run.teardown, rounds=run.plan.rounds)
        finally:
            run.close()
    record = run.record(threads)
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


@dataclass(slots=True)
class _Run:
    """A measurement under way. ``setup``, ``target`` and ``teardown`` are one iteration."""

    baseline: Opener
    variant: Opener
    rng: random.Random
    clock: Clock
    plan: Plan = field(default_factory=lambda: Plan(0, 0, 0))
    readings: list[list[tuple[int, int]]] = field(default_factory=list)
    session_s: list[float] = field(default_factory=list)
    first_run_ns: list[int] = field(default_factory=list)
    _sides: tuple[Timed, Timed] | None = None
    _creation: list[bool] = field(default_factory=list)
    _order: list[bool] = field(default_factory=list)
    _round: int = 0
    _baseline_ns: int | None = None
    _variant_ns: int | None = None

    def prepare(self, budget_s: float, pairs: int) -> None:
        """Open the first pair, run the pilot on it and make the plan."""
        start = self.clock()
        self._creation = balanced(self.rng, pairs)
        self._open()
        opened = self.clock()
        totals: list[int] = []
        for baseline_first in balanced(self.rng, PILOT_RUNS):
            totals.append(sum(self._both(baseline_first)))
            if self.clock() - opened > PILOT_SHARE * budget_s * NS_PER_S:
                break
        self.plan = make_plan(
            open_s=(opened - start) / NS_PER_S,
            iteration_s=median(totals) / NS_PER_S,
            spent_s=(self.clock() - start) / NS_PER_S,
            budget_s=budget_s,
            pairs=pairs,
        )

    def setup(self) -> None:
        """Before the variant: the next pair where one is due, and the baseline if it's its turn."""
        if self._over:
            return
        pair, iteration = divmod(self._round, self.plan.iterations)
        if iteration == 0:
            if pair > 0:
                self._open()
                for baseline_first in balanced(self.rng, self.plan.warmup):
                    self._both(baseline_first)
            self.readings.append([])
            self._order = balanced(self.rng, self.plan.iterations)
        self._baseline_ns = self._variant_ns = None
        if self._order[iteration]:
            self._baseline_ns = self._timed(self._open_sides[0])

    def target(self) -> None:
        """The variant, once."""
        elapsed = self._timed(self._open_sides[1])
        if not self._over and self._variant_ns is not None:
            raise LatencyError("the variant ran twice in one iteration: the readings are no pairs")
        self._variant_ns = elapsed

    def teardown(self) -> None:
        """After the variant: the baseline if it hasn't run, and both readings together."""
        if self._over:
            return
        if self._baseline_ns is None:
            self._baseline_ns = self._timed(self._open_sides[0])
        if self._variant_ns is None:
            raise LatencyError("the variant didn't run in an iteration: the readings are no pairs")
        self.readings[-1].append((self._baseline_ns, self._variant_ns))
        self._baseline_ns = self._variant_ns = None
        self._round += 1

    def close(self) -> None:
        """Let go of the sessions that are open."""
        sides, self._sides = self._sides, None
        for side in sides or ():
            side.close()

    def record(self, threads: int) -> LatencyRecord:
        """The figures, once every round has been.

        Raises:
            LatencyError: rounds are missing.
        """
        counts = [len(pair) for pair in self.readings]
        if counts != [self.plan.iterations] * self.plan.pairs:
            raise LatencyError(
                f"{self.plan.pairs} pairs of {self.plan.iterations} iterations were planned, and those with both "
                f"readings are {counts}: the benchmark left out setups or teardowns"
            )
        log_ratios = [log_ratio(pair) for pair in self.readings]
        times_ms = [reading / NS_PER_MS for pair in self.readings for _, reading in pair]
        return LatencyRecord(
            median_ms=median(times_ms),
            p90_ms=percentile(times_ms, 0.9),
            p99_ms=percentile(times_ms, 0.99),
            baseline_median_ms=median(reading for pair in self.readings for reading, _ in pair) / NS_PER_MS,
            speedup=speedup(log_ratios),
            speedup_ci95=speedup_interval(log_ratios),
            samples=len(times_ms),
            pairs=self.plan.pairs,
            session_ms=median(self.session_s) * 1e3,
            first_run_ms=median(self.first_run_ns) / NS_PER_MS,
            threads=threads,
        )

    @property
    def _over(self) -> bool:
        # pytest-benchmark goes on after the last round when it's asked for a profile: nothing of that is recorded.
        return self._round >= self.plan.rounds

    @property
    def _open_sides(self) -> tuple[Timed, Timed]:
        if self._sides is None:
            raise LatencyError("a run was asked for with no sessions open")
        return self._sides

    def _open(self) -> None:
        """Replace the open pair by a fresh one, and run each side of it once."""
        # The old sessions go first: two pairs at once might not fit on the device.
        self.close()
        baseline_first = self._creation[len(self.session_s)]
        opened: dict[bool, Timed] = {}
        try:
            for is_baseline in (baseline_first, not baseline_first):
                opened[is_baseline] = self.baseline() if is_baseline else self.variant()
        except BaseException:
            for side in opened.values():
                side.close()
            raise
        baseline, variant = self._sides = (opened[True], opened[False])
        if baseline is variant:
            raise LatencyError("baseline and variant are one session: a pair needs two")
        self.session_s.append(variant.session_s)
        _, first_ns = self._both(baseline_first)
        self.first_run_ns.append(first_ns)

    def _both(self, baseline_first: bool) -> tuple[int, int]:
        """Run both sides once; their times."""
        baseline, variant = self._open_sides
        if baseline_first:
            before = self._timed(baseline)
            return before, self._timed(variant)
        after = self._timed(variant)
        return self._timed(baseline), after

    def _timed(self, side: Timed) -> int:
        run, clock = side.run, self.clock
        start = clock()
        run()
        elapsed = clock() - start
        if elapsed <= 0:
            raise LatencyError(f"the clock moved by {elapsed} ns during a run: no time can be read from it")
        return elapsed


def balanced(rng: random.Random, count: int) -> list[bool]:
    """``count`` coin tosses in random order, half of them heads; the odd one is a toss of its own."""
    tosses = [True] * (count // 2) + [False] * (count // 2)
    if count % 2:
        tosses.append(rng.random() < 0.5)
    rng.shuffle(tosses)
    return tosses


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection, no tracing: pytest-benchmark pauses tracing for its target, and so for one side only."""
    collecting, tracer, profiler = gc.isenabled(), sys.gettrace(), sys.getprofile()
    gc.disable()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.setprofile(profiler)
        sys.settrace(tracer)
        if collecting:
            gc.enable()
