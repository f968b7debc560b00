"""The decision about a cell: exact, with the error rates that it says, and silent about nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from onnx_harness.latency import statistics
from onnx_harness.latency.statistics import (
    CONFIRMING_PAIRS,
    LEAST_PAIRS,
    MINIMUM_EFFECT,
    MOST_PAIRS,
    Decision,
    Outcome,
    PairCount,
    choose_pairs,
    confirm,
    decide,
    decide_run,
    holm,
    needs_confirmation,
    pairs_needed,
    pseudomedian,
    slower_p,
)

CELLS = 100


def draws(
    slowdown: float, spread: float, trials: int, pairs: int = LEAST_PAIRS, seed: int = 0
) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return rng.normal(-math.log1p(slowdown), spread, (trials, pairs)).tolist()  # type: ignore[no-any-return]


def outcomes(
    slowdown: float, spread: float, trials: int = 200, pairs: int = LEAST_PAIRS
) -> list[Outcome]:
    """Of cells that are each one of a hundred."""
    cells = draws(slowdown, spread, trials, pairs)
    return [decide_run({0: values}, family=CELLS)[0].outcome for values in cells]


def share(found: list[Outcome], outcome: Outcome) -> float:
    return found.count(outcome) / len(found)


def test_the_p_value_is_scipy_s() -> None:
    for values in draws(0.01, 0.02, 50, pairs=20):
        assert slower_p(values) == pytest.approx(
            wilcoxon(values, alternative="less", method="exact").pvalue, rel=1e-12
        )


def test_the_p_value_counts_the_signs() -> None:
    """Against the definition: the share of all 2^8 signs of the ranks whose sum is as extreme."""
    values = [-0.08, 0.01, -0.02, -0.07, 0.03, -0.04, -0.05, -0.06]
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    seen = ranks[np.array(values) > 0].sum()
    sums = [
        sum(rank for rank, faster in zip(ranks, signs, strict=True) if faster)
        for signs in product([0, 1], repeat=8)
    ]
    assert slower_p(values) == pytest.approx(np.mean(np.array(sums) <= seen))


def test_all_pairs_slower_is_a_power_of_two() -> None:
    assert slower_p([-0.01 - k / 1000 for k in range(16)]) == pytest.approx(2**-16)
    assert slower_p([0.01 + k / 1000 for k in range(16)]) == 1.0


def test_ties_and_zeros_never_make_it_surer() -> None:
    assert slower_p([-0.02, 0.02, -0.02, -0.02]) == slower_p([-0.02, 0.04, -0.021, -0.022])
    assert slower_p([0.0, -0.01, -0.02]) == slower_p([0.001, -0.01, -0.02])
    rng = np.random.default_rng(0)
    coarse = np.round(rng.normal(0, 2, (1000, 16)))  # a clock that knows a handful of values
    for level in (0.05, 0.01):
        assert np.mean(
            [slower_p(row) <= level for row in coarse.tolist()]
        ) <= level + 2 * math.sqrt(level / 1000)


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_equals_are_rejected_no_more_often_than_it_says(level: float) -> None:
    rejected = np.mean([slower_p(row) <= level for row in draws(0.0, 0.02, 1500)])
    assert level / 2 < rejected < level + 3 * math.sqrt(level / 1500)


def test_holm_steps_down_and_counts_who_isn_t_there() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.01], family=3) == pytest.approx([0.03])
    assert holm([]) == []


def test_a_run_of_equals_has_a_false_fail_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(3)
    runs = [rng.normal(0, 0.03, (20, LEAST_PAIRS)).tolist() for _ in range(100)]
    verdicts = [
        decide_run(dict(enumerate(run)), alpha=0.05, minimum_effect=0.0) for run in runs
    ]
    failed = sum(
        any(verdict.outcome is Outcome.FAIL for verdict in run.values()) for run in verdicts
    )
    assert 0 < failed <= 0.05 * 100 + 3 * math.sqrt(0.05 * 100)


@pytest.mark.parametrize(("slowdown", "least"), [(0.03, 0.95), (0.05, 0.99), (0.1, 0.99)])
def test_a_slower_variant_fails_among_a_hundred_cells(slowdown: float, least: float) -> None:
    assert share(outcomes(slowdown, 0.01), Outcome.FAIL) >= least


def test_equals_pass_and_noise_beyond_measure_is_no_pass() -> None:
    assert share(outcomes(0.0, 0.01), Outcome.PASS) == 1.0
    shaky = outcomes(0.0, 0.2)
    assert share(shaky, Outcome.PASS) < 0.1
    assert share(shaky, Outcome.FAIL) < 0.01
    assert share(outcomes(0.05, 0.2), Outcome.PASS) < 0.1


def test_significant_but_small_does_not_fail() -> None:
    values = [-0.01 - k / 10_000 for k in range(16)]
    small = decide(values)
    assert small.outcome is Outcome.PASS
    assert small.p == pytest.approx(2**-16)
    assert decide(values, minimum_effect=0.005).outcome is Outcome.FAIL


def test_a_slowdown_of_the_minimum_effect_is_no_coin_toss() -> None:
    """Held against the estimate it would be one, however many pairs there are."""
    assert share(outcomes(0.02, 0.007), Outcome.FAIL) >= 0.9
    assert share(outcomes(0.02, 0.01, pairs=MOST_PAIRS), Outcome.FAIL) >= 0.95


def test_what_the_pairs_can_tell_from_the_minimum_effect_passes() -> None:
    assert share(outcomes(0.01, 0.007), Outcome.PASS) >= 0.95
    assert share(outcomes(0.014, 0.01, pairs=MOST_PAIRS), Outcome.PASS) >= 0.95


def test_a_faster_variant_passes() -> None:
    assert set(outcomes(-0.1, 0.02)) == {Outcome.PASS}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_decides_nothing(bad: float) -> None:
    verdict = decide([bad, *draws(0.1, 0.01, 1)[0]])
    assert (verdict.outcome, verdict.p, verdict.estimate) == (Outcome.INVALID, None, None)
    assert "isn't a number" in (verdict.reason or "")


def test_too_few_pairs_to_ever_fail_are_no_pass() -> None:
    verdict = decide_run({0: [0.01, 0.02, 0.03, 0.04, 0.05]}, family=CELLS)[0]
    assert verdict.outcome is Outcome.INVALID
    assert "it takes 14" in (verdict.reason or "")
    assert decide([]).outcome is Outcome.INVALID


def test_replayed_readings_decide_nothing() -> None:
    assert decide([0.0] * 16).outcome is Outcome.INVALID
    assert decide([0.01, -0.02] * 8).outcome is Outcome.INVALID


def test_an_invalid_cell_does_not_spare_the_others() -> None:
    found = decide_run(
        {
            "broken": [math.nan] * 16,
            "slow": draws(0.1, 0.01, 1)[0],
            "same": draws(0, 0.01, 1)[0],
        }
    )
    assert [found[name].outcome for name in found] == [
        Outcome.INVALID,
        Outcome.FAIL,
        Outcome.PASS,
    ]


def test_the_estimate_is_the_pseudomedian_and_outliers_leave_it_alone() -> None:
    assert pseudomedian([1.0, 2.0, 4.0]) == pytest.approx(2.25)  # of 1, 1.5, 2, 2.5, 3, 4
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.01, 16).tolist()
    assert abs(pseudomedian([*values, 5.0]) - pseudomedian(values)) < 0.005
    errors = [pseudomedian(row) for row in rng.normal(0, 0.01, (2000, 16)).tolist()]
    assert np.std(errors) < 1.05 * 0.01 / 4
    verdict = decide(draws(0.05, 0.001, 1)[0])
    assert verdict.estimate == pytest.approx(1 / 1.05, rel=1e-3)
    assert verdict.ci95 is not None
    assert verdict.ci95[0] < 1 / 1.05 < verdict.ci95[1]


def verdict(outcome: Outcome, own_p: float = 0.5) -> Decision:
    return Decision(outcome, 0.5, 1.0, (0.9, 1.1), 16, own_p=own_p, family=CELLS)


P, F, U, N = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.INVALID


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [(F, F, F), (F, P, P), (F, U, U), (U, P, P), (U, F, U), (U, U, U), (F, N, N), (N, P, N)],
)
def test_a_cell_fails_only_where_both_measurements_say_so(
    first: Outcome, second: Outcome, both: Outcome
) -> None:
    assert confirm(verdict(first), verdict(second)).outcome is both


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [(0.009, 0.00009, F), (0.011, 0.00009, U), (0.009, 0.00011, U), (0.00011, 0.009, U)],
)
def test_either_measurement_may_be_the_one_beyond_doubt(
    first: float, second: float, both: Outcome
) -> None:
    """Both at 0.01, and one of them at 0.01 over a hundred cells: here the second, as the first
    isn't.
    """
    assert confirm(verdict(U, first), verdict(F, second)).outcome is both


def test_a_run_s_verdict_knows_its_own_p_and_its_family() -> None:
    found = decide_run({0: draws(0.05, 0.01, 1)[0]}, family=CELLS)[0]
    assert found.family == CELLS
    assert found.p == pytest.approx(CELLS * (found.own_p or 0))


def test_only_what_is_undecided_or_failing_is_measured_again() -> None:
    assert [outcome for outcome in Outcome if needs_confirmation(verdict(outcome))] == [F, U]


def test_confirmation_makes_false_fails_rarer_than_either_measurement() -> None:
    first = [decide(values, minimum_effect=0.0) for values in draws(0.0, 0.02, 1000)]
    flagged = [each for each in first if each.outcome is Outcome.FAIL]
    assert 2 < len(flagged) < 30
    second = [
        decide(values, minimum_effect=0.0)
        for values in draws(0.0, 0.02, len(flagged), CONFIRMING_PAIRS, seed=1)
    ]
    assert not [
        each for each in map(confirm, flagged, second) if each.outcome is Outcome.FAIL
    ]


def test_pairs_follow_from_cells_noise_and_time() -> None:
    calm = choose_pairs(cells=100, pair_s=0.1, budget_s=3600, spread=0.007)
    assert calm.pairs == calm.pairs_for_power == LEAST_PAIRS
    noisy = choose_pairs(cells=100, pair_s=0.1, budget_s=3600, spread=0.02)
    assert LEAST_PAIRS < noisy.pairs == noisy.pairs_for_power <= MOST_PAIRS
    assert noisy.power >= 0.95
    hurried = choose_pairs(cells=100, pair_s=0.1, budget_s=200, spread=0.02)
    assert hurried.pairs == 20
    assert hurried.power < 0.95
    assert f"would take {noisy.pairs_for_power} pairs" in hurried.why
    many = choose_pairs(cells=10_000, pair_s=0.001, budget_s=3600, spread=0.001)
    assert many.pairs == pairs_needed(0.01 / 10_000) == 20


def test_the_choice_is_the_same_each_time_and_its_power_is_true() -> None:
    asked = {"cells": 100, "pair_s": 0.1, "budget_s": 3600.0, "spread": 0.02}
    choice = choose_pairs(**asked)  # type: ignore[arg-type]
    assert choice == choose_pairs(**asked)  # type: ignore[arg-type]
    fresh = draws(MINIMUM_EFFECT, 0.02, 1000, choice.pairs, seed=9)
    assert np.mean([slower_p(row) <= 0.01 / 100 for row in fresh]) == pytest.approx(
        choice.power, abs=0.015
    )


def test_a_p_value_at_the_limit_is_beyond_it() -> None:
    first = replace(verdict(U, 0.5), family=2)
    assert confirm(first, verdict(F, 0.25), alpha=0.5).outcome is F
    assert confirm(first, verdict(F, 0.2501), alpha=0.5).outcome is U
    assert confirm(replace(first, own_p=0.501), verdict(F, 0.25), alpha=0.5).outcome is U


@pytest.mark.parametrize("second", [P, F, U])
def test_a_confirmed_verdict_says_what_each_measurement_said(second: Outcome) -> None:
    assert (
        confirm(verdict(U), verdict(second)).reason
        == f"inconclusive, then {second} on fresh pairs"
    )


def test_a_cell_alone_is_decided_at_the_level_that_was_asked_for() -> None:
    pairs = [number / 100 if number < 5 else -number / 100 for number in range(1, 17)]
    p = slower_p(pairs)
    assert decide(pairs, alpha=p * 1.01, minimum_effect=0.0).outcome is F
    assert decide(pairs, alpha=p * 0.99, minimum_effect=0.0).outcome is not F


def chosen(monkeypatch: pytest.MonkeyPatch, power_of_one: float, **more: Any) -> PairCount:
    """Return the choice where each pair adds ``power_of_one`` to the power."""
    given = {"cells": 2, "pair_s": 0.5, "budget_s": 600.0, "spread": 0.01, **more}

    def power(pairs: int, effect: float, spread: float, alpha: float) -> float:
        assert (effect, spread, alpha) == (0.02, 0.01, 0.01 / given["cells"])
        return pairs * power_of_one

    monkeypatch.setattr(statistics, "_power", power)
    return choose_pairs(**given)


def test_the_fewest_even_pairs_that_reach_the_power_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The time allowed is just enough.
    assert chosen(monkeypatch, 0.95 / 38, pair_s=50.0, budget_s=3800.0) == PairCount(
        38,
        pytest.approx(0.95),  # type: ignore[arg-type]
        38,
        "38 pairs for each of 2 cells, about 63.3 minutes: with a spread of 1.0% over pairs "
        "a slowdown of 2% is significant in 95.0% of runs",
    )
    assert chosen(monkeypatch, 0.95 / 37).pairs_for_power == 38
    assert chosen(monkeypatch, 0.0).pairs_for_power == MOST_PAIRS


def test_no_fewer_pairs_are_chosen_than_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    many = chosen(monkeypatch, 0.045, cells=20_000, budget_s=6000.0)
    assert pairs_needed(0.01 / 20_000) == 21
    assert (many.pairs, many.pairs_for_power) == (22, 22)
    assert many.why == (
        "22 pairs for each of 20000 cells, about 3666.7 minutes: with a spread of 1.0% over pairs "
        "a slowdown of 2% is significant in 99.0% of runs; fewer couldn't fail at all, though the "
        "time "
        "allowed is 100.0 minutes"
    )


def test_where_the_time_ends_first_the_pairs_that_it_would_take_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = chosen(monkeypatch, 0.01, cells=1, pair_s=50.0, budget_s=900.0)
    assert (alone.pairs, alone.pairs_for_power) == (18, MOST_PAIRS)
    assert alone.why == (
        "18 pairs for the cell, about 15.0 minutes: with a spread of 1.0% over pairs a slowdown "
        "of 2% "
        "is significant in 18.0% of runs; 95% would take 64 pairs, and the time allowed is 15.0 "
        "minutes"
    )
