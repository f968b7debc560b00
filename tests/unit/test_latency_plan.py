"""Dividing a budget between pairs and iterations."""

from __future__ import annotations

import pytest

from onnx_harness.latency.plan import (
    LEAST_ITERATIONS,
    MOST_ITERATIONS,
    MOST_ROUNDS,
    WINDOW,
    Pilot,
    Plan,
    fixed_plan,
    make_plan,
)
from onnx_harness.latency.statistics import FEWEST_PAIRS


def cost(plan: Plan, open_s: float, iteration_s: float, spent_s: float) -> float:
    """Seconds that a plan takes, the first pair and its pilot included."""
    later = (plan.pairs - 1) * open_s + plan.pairs * plan.warmup * iteration_s
    return spent_s + later + plan.rounds * iteration_s


@pytest.mark.parametrize("budget_s", [0.5, 1.5, 10.0])
@pytest.mark.parametrize("iteration_s", [1e-4, 2e-3, 2e-2, 6e-2])
@pytest.mark.parametrize("open_s", [2e-3, 2e-2, 1e-1])
def test_a_budget_that_can_be_kept_is_kept(
    budget_s: float, iteration_s: float, open_s: float
) -> None:
    spent = open_s + 3 * iteration_s
    plan = make_plan(Pilot(open_s, iteration_s, spent), budget_s=budget_s, pairs=5)
    if plan.iterations > 1:
        assert cost(plan, open_s, iteration_s, spent) <= budget_s
    assert FEWEST_PAIRS <= plan.pairs <= 5


def test_a_fast_model_gets_every_pair_and_as_many_iterations_as_do_it_any_good() -> None:
    plan = make_plan(Pilot(0.002, 1e-4, 0.003), budget_s=1.5, pairs=5)
    assert (plan.pairs, plan.rounds) == (5, MOST_ROUNDS)


def test_a_budget_is_used() -> None:
    plan = make_plan(Pilot(0.02, 4e-3, 0.04), budget_s=1.5, pairs=5)
    assert cost(plan, 0.02, 4e-3, 0.04) > 1.4


def test_sessions_that_are_slow_to_create_cost_pairs_before_they_cost_the_interval() -> None:
    plan = make_plan(Pilot(0.3, 4e-3, 0.32), budget_s=1.5, pairs=5)
    assert plan.pairs < 5
    assert plan.iterations > 10


@pytest.mark.parametrize(("open_s", "iteration_s"), [(2.0, 1e-3), (0.5, 20.0)])
def test_a_model_too_slow_for_the_budget_still_gets_three_pairs(
    open_s: float, iteration_s: float
) -> None:
    plan = make_plan(Pilot(open_s, iteration_s, open_s), budget_s=1.5, pairs=5)
    assert (plan.pairs, plan.iterations) == (3, 1)
    assert plan.warmup == 0 or plan.warmup * iteration_s < 0.1


def test_fewer_pairs_are_made_where_fewer_are_asked_for() -> None:
    assert make_plan(Pilot(0.01, 1e-3, 0.01), budget_s=1.5, pairs=1).pairs == 1


@pytest.mark.parametrize("iteration_s", [1e-5, 1e-4, 4e-3, 0.4])
def test_where_the_pairs_are_fixed_they_are_made(iteration_s: float) -> None:
    plan = fixed_plan(Pilot(0.01, iteration_s, 0.02), pairs=16)
    assert plan.pairs == 16
    assert LEAST_ITERATIONS <= plan.iterations <= MOST_ITERATIONS
    assert plan.warmup * iteration_s <= max(0.05, iteration_s)


def test_a_model_of_2_ms_has_room_to_settle_and_16_pairs_of_it_take_seconds() -> None:
    plan = fixed_plan(Pilot(0.02, 4e-3, 0.04), pairs=16)
    assert plan.warmup >= 2 * WINDOW
    assert cost(plan, 0.02, 4e-3, 0.04) < 3


@pytest.mark.parametrize(
    ("iteration_s", "iterations"),
    [(2e-3, 40), (5e-3, 16), (8e-3, 16), (1e-2, 16), (1.6e-2, 10), (4e-2, 5), (0.4, 5)],
)
def test_a_pair_of_a_slow_model_is_longer_as_its_noise_falls_with_its_iterations(
    iteration_s: float, iterations: int
) -> None:
    assert fixed_plan(Pilot(0.02, iteration_s, 0.04), pairs=16).iterations == iterations
