"""Pairs of fresh sessions, run in random order: the measurement itself, whoever drives it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from onnx_harness.errors import HarnessError
from onnx_harness.latency.plan import PILOT_RUNS, PILOT_S, SETTLED, WINDOW, Pilot, Plan
from onnx_harness.latency.statistics import log_ratio

Clock = Callable[[], int]
NS_PER_S = 1e9


class LatencyError(HarnessError):
    """A measurement fell apart: a run without its counterpart, a clock that stood still, sessions used twice."""


class Side(Protocol):
    """One side of a pair: a fresh session, ready to run, not run yet. It may live in another process."""

    @property
    def session_s(self) -> float:
        """Seconds that creating the session took."""

    @property
    def input_sets(self) -> int:
        """How many sets of inputs it can be run on."""

    @property
    def transfers(self) -> bool:
        """Whether it can also be timed end to end, with inputs and outputs on their way to a device and back."""

    def time(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``; the nanoseconds until the outputs exist."""

    def time_end_to_end(self, index: int, clock: Clock) -> int:
        """The same from arrays in host memory to arrays in host memory."""

    def close(self) -> None:
        """Let go of the session."""


def _nothing() -> None:
    """Close a side that lets go of everything when it's dropped."""


@dataclass(slots=True)
class Timed:
    """A side in this process.

    Attributes:
        runs: one for each set of inputs; runs the model once and returns when the outputs exist.
        session_s: seconds that creating the session took.
        end_to_end: the same with transfers to the device and back; empty where there are none.
        closing: lets go of what dropping the object doesn't.
    """

    runs: Sequence[Callable[[], object]]
    session_s: float
    end_to_end: Sequence[Callable[[], object]] = ()
    closing: Callable[[], object] = _nothing

    @property
    def input_sets(self) -> int:
        """How many sets of inputs it can be run on."""
        return len(self.runs)

    @property
    def transfers(self) -> bool:
        """Whether it can be timed end to end."""
        return bool(self.end_to_end)

    def time(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``; in nanoseconds."""
        return _elapsed(self.runs[index], clock)

    def time_end_to_end(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``, transfers included; in nanoseconds."""
        return _elapsed(self.end_to_end[index], clock)

    def close(self) -> None:
        """Let go of the session: nothing can be run on it any more."""
        self.runs = self.end_to_end = ()
        self.closing()


def _elapsed(run: Callable[[], object], clock: Clock) -> int:
    start = clock()
    run()
    return clock() - start


Opener = Callable[[], Side]
Planner = Callable[[Pilot], Plan]
Readings = list[list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Recording:
    """What was measured. Times are (baseline, variant) in nanoseconds, by pair and iteration.

    Attributes:
        readings: of runs whose inputs and outputs are where the provider wants them.
        end_to_end: of runs with transfers; empty where there are none.
        session_s: creating the variant's session, by pair.
        first_run_ns: its first run, by pair.
        unsettled: pairs whose warm-up ended before two adjacent windows of runs agreed.
        input_sets: sets of inputs that the runs took in turn.
    """

    readings: Readings
    end_to_end: Readings
    session_s: list[float]
    first_run_ns: list[int]
    unsettled: int
    input_sets: int

    @property
    def log_ratios(self) -> list[float]:
        """d_k, one for each pair: the median over its iterations of ln(baseline / variant)."""
        return [log_ratio(pair) for pair in self.readings]


def collect(
    *, baseline: Opener, variant: Opener, planner: Planner, seed: int, clock: Clock = time.perf_counter_ns
) -> Recording:
    """Measure pairs in a loop of our own, where no pytest-benchmark is at hand. For its meaning see `Pairs`.

    Args:
        baseline: opens a fresh session of the baseline.
        variant: opens a fresh session of the variant; the same as ``baseline`` makes an A/A reading.
        planner: how many pairs and iterations, from what a pilot found (see `fixed_plan`).
        seed: of the order.
        clock: nanoseconds, monotonic.

    Raises:
        LatencyError: the readings aren't pairs, or the clock stood still.
    """
    pairs = Pairs(baseline, variant, random.Random(seed), clock)
    try:
        pairs.prepare(planner)
        for _ in range(pairs.plan.rounds):
            pairs.setup()
            pairs.target()
            pairs.teardown()
    finally:
        pairs.close()
    return pairs.recording()


@dataclass(slots=True)
class Pairs:
    """A measurement under way. ``setup``, ``target`` and ``teardown`` are one iteration.

    The replicate is a pair of fresh sessions, created in random order. In every iteration both sides run once on the
    same inputs, one right after the other, in random order: what disturbs the machine meets both. Half of a pair's
    iterations have the baseline first, as near as odd numbers allow, and one of each two adjacent pairs creates it
    first: of two sessions the first was found to be slower, by 0.1% to 1.6% in the mean of a model. The first run of
    each session is kept apart, and the following ones are dropped until they have settled.
    """

    baseline: Opener
    variant: Opener
    rng: random.Random
    clock: Clock
    plan: Plan = field(default_factory=lambda: Plan(0, 0, 0))
    readings: Readings = field(default_factory=list)
    end_to_end: Readings = field(default_factory=list)
    session_s: list[float] = field(default_factory=list)
    first_run_ns: list[int] = field(default_factory=list)
    unsettled: int = 0
    _sides: tuple[Side, Side] | None = None
    _creation: list[bool] = field(default_factory=list)
    _order: list[bool] = field(default_factory=list)
    _round: int = 0
    _set: int = 0
    _input_sets: int = 1
    _baseline_ns: int | None = None
    _variant_ns: int | None = None

    def prepare(self, planner: Planner) -> None:
        """Open the first pair, run the pilot on it, make the plan and warm up."""
        start = self.clock()
        self._creation = alternating(self.rng, 2)
        self._open()
        opened = self.clock()
        totals: list[int] = []
        for baseline_first in balanced(self.rng, PILOT_RUNS):
            before = self.clock()
            self._both(baseline_first)
            self._both_end_to_end(baseline_first)
            totals.append(self.clock() - before)
            if self.clock() - opened > PILOT_S * NS_PER_S:
                break
        pilot = Pilot((opened - start) / NS_PER_S, median(totals) / NS_PER_S, (self.clock() - start) / NS_PER_S)
        self.plan = planner(pilot)
        self._creation += alternating(self.rng, max(0, self.plan.pairs - 2))
        self._warm_up()

    def setup(self) -> None:
        """Before the variant: the next pair where one is due, and the baseline if it's its turn."""
        if self._over:
            return
        pair, iteration = divmod(self._round, self.plan.iterations)
        if iteration == 0:
            if pair > 0:
                self._open()
                self._warm_up()
            self.readings.append([])
            self.end_to_end.append([])
            self._order = balanced(self.rng, self.plan.iterations)
        self._set = self._round % self._open_sides[0].input_sets
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
        baseline_first = self._baseline_ns is not None
        if self._baseline_ns is None:
            self._baseline_ns = self._timed(self._open_sides[0])
        if self._variant_ns is None:
            raise LatencyError("the variant didn't run in an iteration: the readings are no pairs")
        self.readings[-1].append((self._baseline_ns, self._variant_ns))
        self.end_to_end[-1] += self._both_end_to_end(baseline_first)
        self._baseline_ns = self._variant_ns = None
        self._round += 1

    def close(self) -> None:
        """Let go of the sessions that are open."""
        sides, self._sides = self._sides, None
        for side in sides or ():
            side.close()

    def recording(self) -> Recording:
        """What was measured, once every round has been.

        Raises:
            LatencyError: rounds are missing.
        """
        counts = [len(pair) for pair in self.readings]
        if counts != [self.plan.iterations] * self.plan.pairs:
            raise LatencyError(
                f"{self.plan.pairs} pairs of {self.plan.iterations} iterations were planned, and those with both "
                f"readings are {counts}: the benchmark left out setups or teardowns"
            )
        return Recording(
            self.readings,
            [pair for pair in self.end_to_end if pair],
            self.session_s,
            self.first_run_ns,
            self.unsettled,
            self._input_sets,
        )

    @property
    def _over(self) -> bool:
        # pytest-benchmark goes on after the last round when it's asked for a profile: nothing of that is recorded.
        return self._round >= self.plan.rounds

    @property
    def _open_sides(self) -> tuple[Side, Side]:
        if self._sides is None:
            raise LatencyError("a run was asked for with no sessions open")
        return self._sides

    def _open(self) -> None:
        """Replace the open pair by a fresh one, and run each side of it once."""
        # The old sessions go first: two pairs at once might not fit on the device.
        self.close()
        baseline_first = self._creation[len(self.session_s)]
        opened: dict[bool, Side] = {}
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
        if not (baseline.input_sets and variant.input_sets):
            raise LatencyError("a session of an earlier pair was handed out again: every pair needs fresh ones")
        if baseline.input_sets != variant.input_sets or baseline.transfers != variant.transfers:
            raise LatencyError("baseline and variant aren't run on the same inputs in the same way")
        self._input_sets = baseline.input_sets
        self.session_s.append(variant.session_s)
        self._set = 0
        _, first_ns = self._both(baseline_first)
        self._both_end_to_end(baseline_first)
        self.first_run_ns.append(first_ns)

    def _warm_up(self) -> None:
        """Run both sides until two adjacent windows of runs take as long, or the plan's patience ends."""
        previous, done = 0.0, 0
        while done < self.plan.warmup:
            size = min(WINDOW, self.plan.warmup - done)
            totals = []
            for baseline_first in balanced(self.rng, size):
                self._set = done % self._input_sets
                totals.append(sum(self._both(baseline_first)))
                done += 1
            current = median(totals)
            if size == WINDOW and previous and abs(current / previous - 1) <= SETTLED:
                return
            previous = current
        self.unsettled += 1

    def _both(self, baseline_first: bool) -> tuple[int, int]:
        """Run both sides once; their times."""
        baseline, variant = self._open_sides
        if baseline_first:
            before = self._timed(baseline)
            return before, self._timed(variant)
        after = self._timed(variant)
        return self._timed(baseline), after

    def _both_end_to_end(self, baseline_first: bool) -> list[tuple[int, int]]:
        """Run both sides once with transfers, where there are any."""
        sides = self._open_sides
        if not sides[0].transfers:
            return []
        times = {}
        for side in sides if baseline_first else sides[::-1]:
            times[side is sides[1]] = _positive(side.time_end_to_end(self._set, self.clock))
        return [(times[False], times[True])]

    def _timed(self, side: Side) -> int:
        return _positive(side.time(self._set, self.clock))


def _positive(elapsed: int) -> int:
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


def alternating(rng: random.Random, count: int) -> list[bool]:
    """``count`` coin tosses, of each two adjacent ones one heads."""
    return [toss for _ in range(0, count, 2) for toss in balanced(rng, 2)][:count]
