"""Delta debugging: a smallest part that still fails."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part

PASSES = tuple(f"pass_{number}" for number in range(48))


def needs(*names: str) -> Callable[[tuple[str, ...]], bool]:
    return lambda part: set(names) <= set(part)


@pytest.mark.parametrize("culprit", PASSES)
def test_one_pass_of_48_takes_at_most_16_trials(culprit: str) -> None:
    result = minimal_part(PASSES, needs(culprit), passes_empty=True)

    assert result.items == (culprit,)
    assert result.proven
    assert result.trials <= 16


def test_a_combination_is_named_whole_and_proven_minimal() -> None:
    result = minimal_part(PASSES, needs("pass_3", "pass_17", "pass_40"))

    assert result.items == ("pass_3", "pass_17", "pass_40")
    assert result.proven


def test_either_of_two_is_enough() -> None:
    result = minimal_part(PASSES, lambda part: "pass_3" in part or "pass_40" in part)

    assert result.items in (("pass_3",), ("pass_40",))


def test_what_fails_without_any_of_them_is_nobodys_fault() -> None:
    result = minimal_part(PASSES, lambda _: True)

    assert result.items == ()


def test_no_set_is_tried_twice() -> None:
    tried: list[tuple[str, ...]] = []

    def fails(part: tuple[str, ...]) -> bool:
        tried.append(part)
        return {"pass_1", "pass_46"} <= set(part)

    result = minimal_part(PASSES, fails)

    assert len(tried) == len(set(tried)) == result.trials


def test_a_right_guess_saves_the_search() -> None:
    result = minimal_part(PASSES, needs("pass_5"), passes_empty=True, guesses=[("pass_5",)])

    assert (result.items, result.trials) == (("pass_5",), 1)


def test_a_spent_budget_leaves_the_smallest_so_far_unproven() -> None:
    tried = 0

    def fails(part: tuple[str, ...]) -> bool:
        nonlocal tried
        tried += 1
        if tried > 4:
            raise OutOfBudget
        return "pass_0" in part

    result = minimal_part(PASSES, fails, passes_empty=True)

    assert "pass_0" in result.items
    assert len(result.items) < len(PASSES)
    assert not result.proven


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1000])
def test_one_of_n_takes_two_trials_for_each_halving(size: int) -> None:
    items = tuple(range(size))

    result = minimal_part(items, lambda part: size - 1 in part)

    assert result.items == (size - 1,)
    assert result.trials <= 2 * math.ceil(math.log2(size)) + 2
