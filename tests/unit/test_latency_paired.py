"""The measurement: fresh pairs, random order, both sides once an iteration, through
pytest-benchmark.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import random
import sys
from types import FrameType
from typing import Any

import pytest

from onnx_harness.latency import LatencyError, Timed, collect, measure
from onnx_harness.latency.conditions import undisturbed
from onnx_harness.latency.pairs import alternating, balanced
from onnx_harness.latency.plan import STEADY_ITERATIONS, fixed_plan
from onnx_harness.results.timings import LatencyRecord
from tests.unit.latency_fakes import Clock, Fixture, Sessions


def run(
    baseline_s: float = 0.004, variant_s: float = 0.002, **options: Any
) -> tuple[LatencyRecord, list[str]]:
    clock = options.pop("clock", None) or Clock()
    baseline = Sessions(clock, baseline_s, "baseline")
    variant = Sessions(clock, variant_s, "variant", log=baseline.log)
    record = measure(Fixture(), baseline=baseline, variant=variant, clock=clock, **options)
    assert record is not None
    return record, baseline.log


def test_the_figures_are_those_of_the_clock() -> None:
    record, _ = run()
    assert record.median_ms == pytest.approx(2.0)
    assert record.baseline_median_ms == pytest.approx(4.0)
    assert record.speedup == pytest.approx(2.0)
    assert record.speedup_ci95 == pytest.approx((2.0, 2.0))
    assert record.session_ms == pytest.approx(10.0)
    assert record.first_run_ms == pytest.approx(2.0)
    assert (record.pairs, record.threads) == (5, 1)


def test_every_iteration_runs_both_sides_once_and_every_pair_is_fresh() -> None:
    record, log = run()
    assert log.count("open baseline") == log.count("open variant") == record.pairs
    assert log.count("close baseline") == log.count("close variant") == record.pairs
    assert log.count("baseline") == log.count("variant")
    runs = [entry for entry in log if entry in ("baseline", "variant")]
    assert all(
        set(runs[at : at + 2]) == {"baseline", "variant"} for at in range(0, len(runs), 2)
    )


def test_no_two_pairs_are_open_at_once() -> None:
    _, log = run()
    most = count = 0
    for entry in log:
        count += entry.startswith("open") - entry.startswith("close")
        most = max(most, count)
    assert (most, count) == (2, 0)


def test_the_order_is_random_and_balanced() -> None:
    record, log = run()
    iterations = record.samples // record.pairs
    leads = [entry for entry in log if entry in ("baseline", "variant")][::2]
    timed = leads[6 : 6 + iterations]  # after the first run and the pilot of the first pair
    assert abs(timed.count("baseline") - timed.count("variant")) <= 1
    assert timed != sorted(timed)


@pytest.mark.parametrize("seed", range(20))
def test_one_of_each_two_adjacent_pairs_creates_the_baseline_first(seed: int) -> None:
    record, log = run(seed=seed)
    created = [entry for entry in log if entry.startswith("open")][::2]
    assert len(created) == record.pairs >= 4
    assert all(one != other for one, other in zip(created[::2], created[1::2], strict=False))


def test_the_seed_decides_the_order() -> None:
    assert run(seed=1)[1] == run(seed=1)[1]
    assert run(seed=1)[1] != run(seed=2)[1]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
def test_coin_tosses_are_balanced(count: int) -> None:
    heads = [sum(balanced(random.Random(seed), count)) for seed in range(200)]
    assert set(heads) <= {count // 2, count - count // 2}
    first = (
        sum(balanced(random.Random(seed), count)[0] for seed in range(200)) if count else 100
    )
    assert 60 < first < 140


def test_each_two_adjacent_pairs_create_the_baseline_first_once() -> None:
    for seed in range(50):
        tosses = alternating(random.Random(seed), 21)
        assert len(tosses) == 21
        assert all(
            one != other for one, other in zip(tosses[:20:2], tosses[1:20:2], strict=True)
        )
    firsts = [alternating(random.Random(seed), 40)[::2] for seed in range(50)]
    assert {toss for each in firsts for toss in each} == {True, False}
    assert all(len(set(each)) == 2 for each in firsts)


def test_what_slows_both_alike_changes_nothing() -> None:
    clock = Clock()
    baseline, variant = Sessions(clock, 0.004, "baseline"), Sessions(clock, 0.002)
    spend, drift = clock.spend, iter(range(10**6))
    clock.spend = lambda seconds: spend(seconds * (1 + next(drift) / 300))  # type: ignore[method-assign]
    record = measure(Fixture(), baseline=baseline, variant=variant, clock=clock)
    assert record is not None
    assert record.speedup == pytest.approx(2.0, rel=0.02)


def test_noise_of_the_sessions_widens_the_interval() -> None:
    clock = Clock()
    steady = measure(Fixture(), baseline=Sessions(clock, 0.002, "b", run_noise=0.05),
                     variant=Sessions(clock, 0.002, run_noise=0.05), clock=clock)  # fmt: skip
    shaky = measure(Fixture(), baseline=Sessions(clock, 0.002, "b", run_noise=0.05, pair_noise=0.05),
                    variant=Sessions(clock, 0.002, run_noise=0.05, pair_noise=0.05), clock=clock)  # fmt: skip
    assert steady is not None
    assert shaky is not None
    assert steady.speedup_ci95 is not None
    assert shaky.speedup_ci95 is not None
    width = [record.speedup_ci95[1] - record.speedup_ci95[0] for record in (steady, shaky)]  # type: ignore[index]
    assert width[1] > 2 * width[0]
    assert shaky.speedup_ci95[0] < 1 < shaky.speedup_ci95[1]


@pytest.mark.parametrize("run_s", [1e-4, 2e-3, 3e-2])
def test_the_budget_is_kept(run_s: float) -> None:
    clock = Clock()
    run(run_s, run_s, clock=clock, budget_s=1.5)
    assert clock.now / 1e9 <= 1.5


def test_a_slow_model_gets_three_pairs_and_an_interval() -> None:
    record, _ = run(5.0, 5.0)
    assert (record.pairs, record.samples) == (3, 3)
    assert record.speedup_ci95 is not None


def test_percentiles_wait_for_their_counts() -> None:
    few, _ = run(0.03, 0.03)
    some, _ = run(0.004, 0.002)
    many, _ = run(1e-4, 1e-4)
    assert (few.p90_ms, few.p99_ms) == (None, None)
    assert some.p90_ms == pytest.approx(2.0)
    assert some.p99_ms is None
    assert many.p99_ms == pytest.approx(0.1)


def test_an_a_a_reading_is_one() -> None:
    clock = Clock()
    same = Sessions(clock, 0.002)
    record = measure(Fixture(), baseline=same, variant=same, clock=clock)
    assert record is not None
    assert record.speedup == pytest.approx(1.0)


def test_what_was_measured_goes_with_the_benchmark() -> None:
    fixture, clock = Fixture(), Clock()
    record = measure(
        fixture, baseline=Sessions(clock, 0.004, "b"), variant=Sessions(clock, 0.002), clock=clock, seed=3,
        labels={"provider": "cpu", "variant": "simplify"},
    )  # fmt: skip
    assert record is not None
    assert fixture.rounds == record.samples
    assert fixture.extra_info == {
        "provider": "cpu", "variant": "simplify", "speedup": record.speedup, "speedup_ci95": record.speedup_ci95,
        "baseline_median_ms": record.baseline_median_ms, "pairs": 5, "threads": 1, "seed": 3,
    }  # fmt: skip


def test_with_benchmarks_disabled_the_variant_runs_once_and_nothing_is_claimed() -> None:
    clock, fixture = Clock(), Fixture(disabled=True)
    baseline, variant = Sessions(clock, 0.004, "baseline"), Sessions(clock, 0.002)
    assert measure(fixture, baseline=baseline, variant=variant, clock=clock) is None
    assert variant.log == ["open variant", "variant", "close variant"]
    assert baseline.log == []
    assert fixture.extra_info == {}


def test_sessions_are_let_go_when_a_run_fails() -> None:
    clock = Clock()
    baseline, variant = Sessions(clock, 0.004, "baseline"), Sessions(clock, 0.002)

    class Fails(Fixture):
        def pedantic(self, *_: Any, **_options: Any) -> object:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measure(Fails(), baseline=baseline, variant=variant, clock=clock)
    assert (baseline.closed, variant.closed) == (1, 1)


def test_a_session_is_let_go_when_its_counterpart_can_not_be_opened() -> None:
    for seed in range(4):
        clock = Clock()
        variant = Sessions(clock, 0.002)

        def refuses() -> Any:
            raise RuntimeError("no device")

        with pytest.raises(RuntimeError, match="no device"):
            measure(Fixture(), baseline=refuses, variant=variant, clock=clock, seed=seed)
        assert variant.closed == variant.log.count("open variant")


def test_garbage_collection_and_tracing_are_off_meanwhile_and_back_afterwards() -> None:
    seen: list[tuple[bool, object]] = []
    clock = Clock()
    variant = Sessions(clock, 0.002)
    spend = clock.spend

    def look(seconds: float) -> None:
        seen.append((gc.isenabled(), sys.gettrace()))
        spend(seconds)

    def tracer(_frame: FrameType, _event: str, _arg: object) -> None:
        return None

    clock.spend = look  # type: ignore[method-assign]
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        measure(
            Fixture(), baseline=Sessions(clock, 0.004, "b"), variant=variant, clock=clock
        )
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert set(seen) == {(False, None)}
    assert gc.isenabled()


INNER = """
from onnx_harness.latency import measure
from tests.unit.latency_fakes import Clock, Sessions

def test_latency(benchmark):
    clock = Clock()
    record = measure(benchmark, baseline=Sessions(clock, 0.004, "b"), variant=Sessions(clock, 0.002), clock=clock,
                     budget_s=0.2, labels={"provider": "cpu", "variant": "simplify"})
    print("record:", record and round(record.speedup, 6), record and record.samples)
"""


def inner(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    pytester.makepyfile(INNER)
    return pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider", *options)


def test_pytest_benchmark_s_json_has_it_and_a_profile_changes_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(
        "PYTEST_XDIST_WORKER", raising=False
    )  # in a worker of xdist, it writes no file
    result = inner(pytester, "--benchmark-json=out.json", "--benchmark-cprofile=tottime")
    result.assert_outcomes(passed=1)
    (benchmark,) = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    assert benchmark["extra_info"]["speedup"] == pytest.approx(2.0)
    assert benchmark["extra_info"]["speedup_ci95"] == pytest.approx([2.0, 2.0])
    assert (benchmark["extra_info"]["provider"], benchmark["extra_info"]["variant"]) == (
        "cpu",
        "simplify",
    )
    assert f"record: 2.0 {benchmark['stats']['rounds']}" in result.stdout.str()


def test_pytest_benchmark_s_switches_keep_their_meaning(pytester: pytest.Pytester) -> None:
    disabled = inner(pytester, "--benchmark-disable")
    disabled.assert_outcomes(passed=1)
    assert "record: None None" in disabled.stdout.str()
    inner(pytester, "--benchmark-skip").assert_outcomes(skipped=1)


def test_a_round_that_is_missing_is_noticed() -> None:
    class Stingy(Fixture):
        def pedantic(
            self, target: Any, *, setup: Any = None, teardown: Any = None, rounds: int = 1
        ) -> object:
            return super().pedantic(
                target, setup=setup, teardown=teardown, rounds=rounds - 1
            )

    clock = Clock()
    with pytest.raises(LatencyError, match="were planned"):
        measure(
            Stingy(),
            baseline=Sessions(clock, 0.004, "b"),
            variant=Sessions(clock, 0.002),
            clock=clock,
        )


def test_inputs_take_turns_and_both_sides_of_an_iteration_have_the_same() -> None:
    clock = Clock()
    log: list[str] = []
    baseline, variant = (
        Sessions(clock, 0.004, "b", sets=3, log=log),
        Sessions(clock, 0.002, "v", sets=3, log=log),
    )
    record = measure(Fixture(), baseline=baseline, variant=variant, clock=clock)
    assert record is not None
    assert record.input_sets == 3
    assert baseline.used == variant.used
    assert [abs(baseline.used[-30:].count(index) - 10) <= 1 for index in range(3)] == [
        True
    ] * 3


def test_with_transfers_an_iteration_has_the_same_inputs_as_without() -> None:
    clock = Clock()
    sides = [Sessions(clock, run_s, sets=3, transfer_s=0.01) for run_s in (0.004, 0.002)]
    measure(Fixture(), baseline=sides[0], variant=sides[1], clock=clock)
    for side in sides:
        assert {index for _, index in side.transferred} == {0, 1, 2}
        assert all(resident == index for resident, index in side.transferred)


def test_a_device_with_a_memory_of_its_own_has_two_figures() -> None:
    clock = Clock()
    fixture = Fixture()
    record = measure(
        fixture,
        baseline=Sessions(clock, 0.004, "b", transfer_s=0.01),
        variant=Sessions(clock, 0.002, transfer_s=0.01),
        clock=clock,
    )
    assert record is not None
    assert record.median_ms == pytest.approx(2.0)
    assert record.speedup == pytest.approx(2.0)
    assert record.end_to_end is not None
    assert record.end_to_end.median_ms == pytest.approx(12.0)
    assert record.end_to_end.baseline_median_ms == pytest.approx(14.0)
    assert record.end_to_end.speedup == pytest.approx(14 / 12)
    assert len(record.end_to_end.log_ratios) == record.pairs
    assert fixture.rounds == record.samples
    assert clock.now / 1e9 <= 1.5


def test_sessions_that_get_faster_are_warmed_up_until_they_have_settled() -> None:
    clock = Clock()

    class Warming(Sessions):
        def __call__(self) -> Timed:
            pace = iter([3.0, 2.5, 2.0, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1])
            spend = super().__call__().runs[0]

            def run() -> None:
                self.clock.spend(self.run_s * (next(pace, 1.0) - 1.0))
                spend()

            return Timed([run], self.open_s)

    baseline, variant = Warming(clock, 1e-3, "b"), Warming(clock, 1e-3)
    record = measure(
        Fixture(), baseline=baseline, variant=variant, clock=clock, budget_s=5.0
    )
    assert record is not None
    assert record.unsettled_pairs == 0
    assert record.median_ms == pytest.approx(1.0)
    assert record.first_run_ms == pytest.approx(3.0)
    assert record.p90_ms == pytest.approx(1.0)


def test_sessions_that_never_settle_are_reported() -> None:
    clock = Clock()

    class Restless(Sessions):
        def __call__(self) -> Timed:
            spend, turn = super().__call__().runs[0], itertools.count()

            def run() -> None:
                self.clock.spend(self.run_s * 0.05 * (next(turn) // 5))
                spend()

            return Timed([run], self.open_s)

    record = measure(
        Fixture(),
        baseline=Restless(clock, 1e-3, "b"),
        variant=Restless(clock, 1e-3),
        clock=clock,
    )
    assert record is not None
    assert record.unsettled_pairs == record.pairs == 5
    steady, _ = run(1e-3, 1e-3)
    assert steady.unsettled_pairs == 0


def test_the_conditions_are_recorded_and_the_thread_is_pinned_meanwhile() -> None:
    clock, seen = Clock(), set()
    variant = Sessions(clock, 0.002)
    spend = clock.spend

    def look(seconds: float) -> None:
        seen.add(tuple(os.sched_getaffinity(0)))
        spend(seconds)

    clock.spend = look  # type: ignore[method-assign]
    allowed = os.sched_getaffinity(0)
    record = measure(
        Fixture(),
        baseline=Sessions(clock, 0.004, "b"),
        variant=variant,
        clock=clock,
        pin=True,
    )
    assert record is not None
    assert record.conditions is not None
    assert record.conditions.affinity is not None
    assert seen == {record.conditions.affinity}
    assert len(record.conditions.affinity) == 1
    assert allowed.issuperset(record.conditions.affinity)
    assert os.sched_getaffinity(0) == allowed
    assert 0 <= record.conditions.steal_share <= 1
    assert record.conditions.involuntary_switches >= 0
    assert record.conditions.load is not None
    unpinned, _ = run()
    assert unpinned.conditions is not None
    assert unpinned.conditions.affinity is None


def test_pairs_can_be_measured_without_pytest_benchmark() -> None:
    clock = Clock()
    recording = collect(
        baseline=Sessions(clock, 0.004, "b"),
        variant=Sessions(clock, 0.002),
        planner=lambda pilot: fixed_plan(pilot, pairs=16),
        seed=0,
        clock=clock,
    )
    assert recording.log_ratios == pytest.approx([math.log(2)] * 16)
    assert {len(pair) for pair in recording.readings} == {STEADY_ITERATIONS}


def test_the_idlest_cores_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda _, cores: chosen.append(sorted(cores))
    )
    monkeypatch.setattr("psutil.cpu_percent", lambda **_: [90.0, 3.0, 40.0, 0.0, 0.0, 7.0])
    for cores in (1, 2):
        with undisturbed(cores):
            pass
    assert chosen == [[1], [0, 1, 2, 5], [1, 5], [0, 1, 2, 5]]


def test_where_pinning_is_forbidden_the_record_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    with undisturbed(1) as watch:
        pass
    assert watch.record is not None
    assert watch.record.affinity is None
