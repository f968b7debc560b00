"""Pairs of fresh sessions, run in random order: the measurement itself, whoever drives it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from onnx_harness.latency.plan import PILOT_RUNS, PILOT_S, SETTLED, WINDOW, Pilot, Plan
from onnx_harness.latency.sides import Clock, LatencyError, Opener, Side
from onnx_harness.latency.statistics import log_ratio

NS_PER_S = 1e9
Planner = Callable[[Pilot], Plan]
Readings = list[list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Recording:
    """The times of a measurement: (baseline, variant) in nanoseconds, by pair and iteration.

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
    *,
    baseline: Opener,
    variant: Opener,
    planner: Planner,
    seed: int,
    clock: Clock = time.perf_counter_ns,
) -> Recording:
    """Measure pairs without pytest-benchmark. See `Pairs` for what a pair is.

    Args:
        baseline: opens a fresh session of the baseline.
        variant: opens a fresh session of the variant; the same as ``baseline`` makes an A/A
            reading.
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
class _Log:
    """The times so far: see `Recording`, which they become."""

    readings: Readings = field(default_factory=list)
    end_to_end: Readings = field(default_factory=list)
    session_s: list[float] = field(default_factory=list)
    first_run_ns: list[int] = field(default_factory=list)
    unsettled: int = 0
    input_sets: int = 1


@dataclass(slots=True)
class _Turn:
    """The iteration under way.

    Attributes:
        order: of the pair's iterations: True where the baseline runs first.
        round: number of the iteration, over all pairs.
        input_set: that both sides run on.
        baseline_ns: the baseline's time, once it has run.
        variant_ns: the variant's, once it has run.
    """

    order: list[bool] = field(default_factory=list)
    round: int = 0
    input_set: int = 0
    baseline_ns: int | None = None
    variant_ns: int | None = None

    def clear(self) -> None:
        """Forget both times."""
        self.baseline_ns = self.variant_ns = None


@dataclass(slots=True)
class Pairs:
    """A measurement under way. ``setup``, ``target`` and ``teardown`` are one iteration.

    The replicate is a pair of fresh sessions, created in random order. In every iteration both
    sides run once on the same inputs, one right after the other, in random order: what disturbs the
    machine meets both. Half of a pair's iterations have the baseline first, as near as odd numbers
    allow, and one of each two adjacent pairs creates it first: of two sessions the first was found
    to be slower, by 0.1% to 1.6% in the mean of a model. The first run of each session is kept
    apart, and the following ones are dropped until they have settled.
    """

    baseline: Opener
    variant: Opener
    rng: random.Random
    clock: Clock
    plan: Plan = field(default_factory=lambda: Plan(0, 0, 0))
    _log: _Log = field(default_factory=_Log)
    _turn: _Turn = field(default_factory=_Turn)
    _sides: tuple[Side, Side] | None = None
    _creation: list[bool] = field(default_factory=list)

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
        pilot = Pilot(
            open_s=(opened - start) / NS_PER_S,
            iteration_s=median(totals) / NS_PER_S,
            spent_s=(self.clock() - start) / NS_PER_S,
        )
        self.plan = planner(pilot)
        self._creation += alternating(self.rng, max(0, self.plan.pairs - 2))
        self._warm_up()

    def setup(self) -> None:
        """Before the variant: open the next pair where it's due; run the baseline in its turn."""
        if self._over:
            return
        turn = self._turn
        pair, iteration = divmod(turn.round, self.plan.iterations)
        if iteration == 0:
            if pair > 0:
                self._open()
                self._warm_up()
            self._log.readings.append([])
            self._log.end_to_end.append([])
            turn.order = balanced(self.rng, self.plan.iterations)
        baseline, variant = self._open_sides
        turn.input_set = turn.round % baseline.input_sets
        turn.clear()
        if turn.order[iteration]:
            turn.baseline_ns = self._timed(baseline)
        variant.ready()  # pytest-benchmark times what comes next

    def target(self) -> None:
        """Run the variant once."""
        _, variant = self._open_sides
        elapsed = self._timed(variant)
        if not self._over and self._turn.variant_ns is not None:
            raise LatencyError(
                "the variant ran twice in one iteration: the readings are no pairs"
            )
        self._turn.variant_ns = elapsed

    def teardown(self) -> None:
        """After the variant: run the baseline if it hasn't run, and record both readings."""
        if self._over:
            return
        turn = self._turn
        baseline_first = turn.baseline_ns is not None
        if turn.baseline_ns is None:
            baseline, _ = self._open_sides
            turn.baseline_ns = self._timed(baseline)
        if turn.variant_ns is None:
            raise LatencyError(
                "the variant didn't run in an iteration: the readings are no pairs"
            )
        self._log.readings[-1].append((turn.baseline_ns, turn.variant_ns))
        self._log.end_to_end[-1] += self._both_end_to_end(baseline_first)
        turn.clear()
        turn.round += 1

    def close(self) -> None:
        """Release the sessions that are open."""
        sides, self._sides = self._sides, None
        for side in sides or ():
            side.close()

    def recording(self) -> Recording:
        """Return the times, once every round has been.

        Raises:
            LatencyError: rounds are missing.
        """
        log = self._log
        counts = [len(pair) for pair in log.readings]
        if counts != [self.plan.iterations] * self.plan.pairs:
            raise LatencyError(
                f"{self.plan.pairs} pairs of {self.plan.iterations} iterations were planned, and "
                f"those with both readings are {counts}: the benchmark left out setups or "
                "teardowns"
            )
        return Recording(
            readings=log.readings,
            end_to_end=[pair for pair in log.end_to_end if pair],
            session_s=log.session_s,
            first_run_ns=log.first_run_ns,
            unsettled=log.unsettled,
            input_sets=log.input_sets,
        )

    @property
    def _over(self) -> bool:
        # pytest-benchmark goes on after the last round when it's asked for a profile: nothing of
        # that is recorded.
        return self._turn.round >= self.plan.rounds

    @property
    def _open_sides(self) -> tuple[Side, Side]:
        if self._sides is None:
            raise LatencyError("a run was asked for with no sessions open")
        return self._sides

    def _open(self) -> None:
        """Replace the open pair by a fresh one, and run each side of it once."""
        # The old sessions go first: two pairs at once might not fit on the device.
        self.close()
        log = self._log
        baseline_first = self._creation[len(log.session_s)]
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
            raise LatencyError(
                "a session of an earlier pair was handed out again: every pair needs fresh ones"
            )
        if (
            baseline.input_sets != variant.input_sets
            or baseline.transfers != variant.transfers
        ):
            raise LatencyError(
                "baseline and variant aren't run on the same inputs in the same way"
            )
        log.input_sets = baseline.input_sets
        log.session_s.append(variant.session_s)
        self._turn.input_set = 0
        _, first_ns = self._both(baseline_first)
        self._both_end_to_end(baseline_first)
        log.first_run_ns.append(first_ns)

    def _warm_up(self) -> None:
        """Run both sides until two adjacent windows take as long, or the plan's warm-up ends."""
        previous, done = 0.0, 0
        while done < self.plan.warmup:
            size = min(WINDOW, self.plan.warmup - done)
            totals = []
            for baseline_first in balanced(self.rng, size):
                self._turn.input_set = done % self._log.input_sets
                totals.append(sum(self._both(baseline_first)))
                done += 1
            current = median(totals)
            # A window cut short by the plan has too few runs to be compared.
            if size == WINDOW and _is_settled(previous, current):
                return
            previous = current
        self._log.unsettled += 1

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
        baseline, variant = self._open_sides
        if not baseline.transfers:
            return []
        if baseline_first:
            before = self._timed_end_to_end(baseline)
            return [(before, self._timed_end_to_end(variant))]
        after = self._timed_end_to_end(variant)
        return [(self._timed_end_to_end(baseline), after)]

    def _timed(self, side: Side) -> int:
        return _positive(side.time(self._turn.input_set, self.clock))

    def _timed_end_to_end(self, side: Side) -> int:
        return _positive(side.time_end_to_end(self._turn.input_set, self.clock))


def _is_settled(previous: float, current: float) -> bool:
    """True where two windows' times agree; ``previous`` is 0 where there was no window yet."""
    return previous > 0 and abs(current / previous - 1) <= SETTLED


def _positive(elapsed: int) -> int:
    if elapsed <= 0:
        raise LatencyError(
            f"the clock moved by {elapsed} ns during a run: no time can be read from it"
        )
    return elapsed


def balanced(rng: random.Random, count: int) -> list[bool]:
    """Toss ``count`` coins of which half are heads, in random order; an odd one is tossed alone."""
    half = count // 2
    tosses = [True] * half + [False] * half
    if count % 2:
        tosses.append(rng.random() < 0.5)
    rng.shuffle(tosses)
    return tosses


def alternating(rng: random.Random, count: int) -> list[bool]:
    """Toss ``count`` coins of which each two adjacent ones have one heads."""
    tosses: list[bool] = []
    while len(tosses) < count:
        tosses += balanced(rng, 2)
    return tosses[:count]
