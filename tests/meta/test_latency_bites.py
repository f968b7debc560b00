"""Broken on purpose: a slower variant must show, a broken pairing must be noticed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

import onnx_harness.latency.pairs as subject
from onnx_harness.latency import LatencyError, collect, measure
from onnx_harness.latency.plan import fixed_plan
from onnx_harness.latency.statistics import Outcome, decide
from onnx_harness.results.timings import LatencyRecord
from tests.unit.latency_fakes import Clock, Fixture, Sessions


def noisy(clock: Clock, run_s: float, name: str, seed: int = 0) -> Sessions:
    """Sessions with the noise of a quiet machine: 5% from run to run, 0.5% from session to session."""
    return Sessions(clock, run_s, name, run_noise=0.05, pair_noise=0.005, seed=seed)


def reading(
    baseline_s: float, variant_s: float, seed: int = 0, fixture: Fixture | None = None
) -> LatencyRecord:
    clock = Clock()
    record = measure(
        fixture or Fixture(),
        baseline=noisy(clock, baseline_s, "baseline", seed),
        variant=noisy(clock, variant_s, "variant", seed),
        clock=clock,
        seed=seed,
    )
    assert record is not None
    assert record.speedup_ci95 is not None
    return record


def upper(record: LatencyRecord) -> float:
    assert record.speedup_ci95 is not None
    return record.speedup_ci95[1]


def test_a_variant_that_is_5_percent_slower_shows() -> None:
    slower = [reading(0.002, 0.0021, seed) for seed in range(20)]
    assert all(record.speedup < 1 for record in slower)
    assert sum(upper(record) < 1 for record in slower) >= 18


def test_equals_are_seldom_told_apart() -> None:
    equals = [reading(0.002, 0.002, seed) for seed in range(40)]
    told = [
        record
        for record in equals
        if not (record.speedup_ci95 or (0, 0))[0] <= 1 <= upper(record)
    ]
    assert len(told) <= 5


def test_swapping_the_sides_turns_the_verdict_round() -> None:
    assert upper(reading(0.002, 0.0022)) < 1
    swapped = reading(0.0022, 0.002)
    assert swapped.speedup_ci95 is not None
    assert swapped.speedup_ci95[0] > 1


class TargetTwice(Fixture):
    def pedantic(self, target: Any, **options: Any) -> object:
        return super().pedantic(lambda: (target(), target()), **options)


class NoTarget(Fixture):
    def pedantic(self, target: Any, **options: Any) -> object:
        del target
        return super().pedantic(lambda: None, **options)


class NoTeardown(Fixture):
    def pedantic(self, target: Any, **options: Any) -> object:
        return super().pedantic(target, **{**options, "teardown": None})


class TooFewRounds(Fixture):
    def pedantic(self, target: Any, *, rounds: int = 1, **options: Any) -> object:
        return super().pedantic(target, rounds=rounds // 2, **options)


@pytest.mark.parametrize(
    ("fixture", "said"),
    [
        (TargetTwice, "ran twice"),
        (NoTarget, "didn't run"),
        (NoTeardown, "left out setups or teardowns"),
        (TooFewRounds, "were planned"),
    ],
)
def test_a_broken_pairing_is_noticed(fixture: Callable[[], Fixture], said: str) -> None:
    with pytest.raises(LatencyError, match=said):
        reading(0.002, 0.002, fixture=fixture())


def test_one_session_for_both_sides_is_noticed() -> None:
    clock = Clock()
    only = Sessions(clock, 0.002)()
    with pytest.raises(LatencyError, match="one session"):
        measure(Fixture(), baseline=lambda: only, variant=lambda: only, clock=clock)


def test_a_clock_that_stands_still_is_noticed() -> None:
    clock = Clock()
    with pytest.raises(LatencyError, match="clock moved by 0 ns"):
        measure(
            Fixture(),
            baseline=Sessions(clock, 0.0, "b"),
            variant=Sessions(clock, 0.002),
            clock=clock,
        )


@pytest.mark.parametrize("randomised", [True, False])
def test_without_the_coin_toss_whoever_runs_first_would_lose(
    randomised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which the first of two runs is slower: only the random order keeps that out of
    the ratio.
    """
    clock = Clock()
    calls = [0]
    spend = clock.spend

    def first_is_slower(seconds: float) -> None:
        calls[0] += 1
        spend(seconds * (1.2 if calls[0] % 2 else 1.0))

    if not randomised:
        monkeypatch.setattr(subject, "balanced", lambda _rng, count: [True] * count)
    clock.spend = first_is_slower  # type: ignore[method-assign]
    record = measure(
        Fixture(),
        baseline=noisy(clock, 0.002, "baseline"),
        variant=noisy(clock, 0.002, "variant"),
        clock=clock,
    )
    assert record is not None
    assert (abs(record.speedup - 1) < 0.05) == randomised


def test_a_session_of_an_earlier_pair_is_noticed() -> None:
    clock = Clock()
    sessions = Sessions(clock, 0.002)
    kept = sessions()
    with pytest.raises(LatencyError, match="every pair needs fresh ones"):
        measure(
            Fixture(),
            baseline=Sessions(clock, 0.002, "b"),
            variant=lambda: kept,
            clock=clock,
        )


def test_sides_on_different_inputs_are_noticed() -> None:
    clock = Clock()
    with pytest.raises(LatencyError, match="aren't run on the same inputs"):
        measure(
            Fixture(),
            baseline=Sessions(clock, 0.002, "b", sets=2),
            variant=Sessions(clock, 0.002),
            clock=clock,
        )


def test_a_clock_that_steps_back_is_noticed() -> None:
    clock = Clock()
    spend, turns = clock.spend, itertools.count()

    def steps_back(seconds: float) -> None:
        spend(seconds)
        if next(turns) == 100:
            clock.now -= 3_600_000_000_000

    clock.spend = steps_back  # type: ignore[method-assign]
    with pytest.raises(LatencyError, match="clock moved by -"):
        measure(
            Fixture(),
            baseline=Sessions(clock, 0.002, "b"),
            variant=Sessions(clock, 0.002),
            clock=clock,
        )


def pairs_of(
    baseline: Callable[[], Any], variant: Callable[[], Any], clock: Clock, seed: int = 0
) -> list[float]:
    recording = collect(
        baseline=baseline,
        variant=variant,
        planner=lambda pilot: fixed_plan(pilot, pairs=16),
        seed=seed,
        clock=clock,
    )
    return recording.log_ratios


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, Outcome.PASS), (1.05, Outcome.FAIL)])
def test_a_clock_that_leaps_an_hour_changes_no_verdict(
    factor: float, outcome: Outcome
) -> None:
    clock = Clock()
    spend, turns = clock.spend, itertools.count()

    def leaps(seconds: float) -> None:
        spend(seconds)
        if next(turns) in (200, 1001, 1500):
            clock.now += 3_600_000_000_000

    clock.spend = leaps  # type: ignore[method-assign]
    baseline = Sessions(clock, 0.002, "baseline", run_noise=0.02, pair_noise=0.005)
    variant = Sessions(clock, 0.002 * factor, "variant", run_noise=0.02, pair_noise=0.005)
    assert decide(pairs_of(baseline, variant, clock)).outcome is outcome


def test_a_baseline_whose_times_are_made_up_decides_nothing() -> None:
    """One that hands out a stored time, and a variant that does, too."""
    clock = Clock()
    found = pairs_of(Sessions(clock, 0.002, "baseline"), Sessions(clock, 0.002), clock)
    verdict = decide(found)
    assert verdict.outcome is Outcome.INVALID
    assert "replayed" in (verdict.reason or "")


def test_a_baseline_that_does_not_run_is_no_pass() -> None:
    clock = Clock()
    assert (
        decide(
            pairs_of(noisy(clock, 1e-6, "baseline"), noisy(clock, 0.002, "variant"), clock)
        ).outcome
        is Outcome.FAIL
    )


@pytest.mark.parametrize("randomised", [True, False])
def test_without_random_order_equals_would_fail(
    randomised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    calls, spend = itertools.count(), clock.spend
    clock.spend = lambda seconds: spend(seconds * (1.1 if next(calls) % 2 else 1.0))  # type: ignore[method-assign]
    if not randomised:
        monkeypatch.setattr(subject, "balanced", lambda _rng, count: [True] * count)
    found = pairs_of(noisy(clock, 0.002, "baseline"), noisy(clock, 0.002, "variant"), clock)
    assert (decide(found).outcome is Outcome.FAIL) is not randomised
