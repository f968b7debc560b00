"""Of two large models one is open at a time, and the figures are those of two open sessions."""

from __future__ import annotations

import pytest

from onnx_harness.latency import collect
from onnx_harness.latency.plan import Plan
from onnx_harness.latency.sides import Clock as Ticks
from onnx_harness.latency.sides import Side, Timed
from onnx_harness.latency.taking_turns import taking_turns


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Sessions:
    """Counts sessions that are open at once; the first run of each takes ten times as long."""

    most = 0
    open = 0

    def __init__(self, clock: Clock, run_ns: int) -> None:
        self.clock, self.run_ns = clock, run_ns
        self.opened = 0

    def __call__(self) -> Side:
        self.opened += 1
        Sessions.open += 1
        Sessions.most = max(Sessions.most, Sessions.open)
        self.clock.now += 10**9
        runs = 0

        def run() -> None:
            nonlocal runs
            runs += 1
            self.clock.now += self.run_ns * (10 if runs == 1 else 1)

        def close() -> None:
            Sessions.open -= 1

        return Timed([run, run], 1.0, closing=close)


@pytest.mark.parametrize("seed", range(4))
def test_one_session_is_open_at_a_time_and_only_steady_runs_are_timed(seed: int) -> None:
    clock, Sessions.most, Sessions.open = Clock(), 0, 0
    baseline, variant = Sessions(clock, 3000), Sessions(clock, 1500)
    openers = taking_turns(baseline, variant)
    recording = collect(
        baseline=openers[0],
        variant=openers[1],
        planner=lambda _pilot: Plan(3, 2, 1),
        seed=seed,
        clock=clock,
    )
    assert (Sessions.most, Sessions.open) == (1, 0)
    assert recording.readings == [[(3000, 1500)] * 2] * 3
    assert recording.first_run_ns == [15000] * 3
    assert baseline.opened == pytest.approx(variant.opened, abs=6)


def test_without_turns_both_are_open() -> None:
    clock, Sessions.most, Sessions.open = Clock(), 0, 0
    sessions = Sessions(clock, 3000), Sessions(clock, 1500)
    collect(
        baseline=sessions[0],
        variant=sessions[1],
        planner=lambda _pilot: Plan(3, 2, 1),
        seed=0,
        clock=clock,
    )
    assert Sessions.most == 2


def test_the_variants_session_is_open_before_its_run_is_timed() -> None:
    """pytest-benchmark times the call itself, with whatever it opens."""
    clock = Clock()
    openers = taking_turns(Sessions(clock, 3000), Sessions(clock, 1500))
    baseline, variant = openers[0](), openers[1]()
    ticks: Ticks = clock
    variant.time(0, ticks)
    baseline.time(0, ticks)
    variant.ready()
    before = clock.now
    assert variant.time(0, ticks) == clock.now - before == 1500
    baseline.close()
    variant.close()
    assert Sessions.open == 0
