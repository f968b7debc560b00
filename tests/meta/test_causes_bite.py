"""The table of causes counts a diagnosis as wrong where the search is broken on purpose."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import card_for
from onnx_harness.diagnose import trials
from onnx_harness.results.diagnosis import Cause, Diagnosis, Smallest
from onnx_harness.selftest import smallest_rows
from onnx_harness.selftest.bench import Outcome
from onnx_harness.selftest.cause_rows import CAUSES, _of_step, of_tiny
from onnx_harness.selftest.planted_causes import STEP, planted_steps
from onnx_harness.selftest.smallest_rows import SMALLEST
from tests.models import linear, save


def test_a_right_search_names_the_planted_pass(tmp_path: Path) -> None:
    card = card_for(save(linear(), tmp_path / "net.onnx"))

    outcome = _of_step(card, next(planted_steps()))

    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
    assert CAUSES.reached([outcome])


def test_a_search_that_takes_every_trial_for_the_failure_is_counted_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "same_failure", lambda *_: True)
    card = card_for(save(linear(), tmp_path / "net.onnx"))

    outcome = _of_step(card, next(planted_steps()))

    assert outcome.bad == 1
    assert not CAUSES.reached([outcome])


def test_a_smallest_model_is_measured_with_its_cause_and_its_script() -> None:
    outcome = of_tiny(partial(smallest_rows.judge, fault=next(planted_steps())))

    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
    assert outcome.figures["nodes"] <= 2
    assert outcome.figures["checks"] > 0
    assert SMALLEST.reached([outcome])


def test_another_cause_at_the_end_and_a_script_that_shows_nothing_are_counted() -> None:
    fault = next(planted_steps())
    same = Diagnosis("It's that.", Cause(transform=STEP, passes=fault.parts))
    other = Diagnosis("It's another one.", Cause(transform=STEP, passes=("part_00",)))
    smallest = Smallest("shown", 2, 30)

    right, wrong, mute, stuck = (
        smallest_rows.outcome_of("m", smallest, again, fault, codes)
        for again, codes in ((same, (1, 0)), (other, (1, 0)), (same, (0, 0)), (same, (1, 1)))
    )

    assert (right.bad, wrong.bad, mute.bad, stuck.bad) == (0, 1, 1, 1)
    assert SMALLEST.reached([right])
    assert not any(SMALLEST.reached([right, outcome]) for outcome in (wrong, mute, stuck))


def test_large_smallest_models_and_many_checks_are_counted() -> None:
    figures = {"nodes": 2.0, "checks": 30.0, "same": 1.0, "shown": 1.0}
    small = Outcome(1, 0, (), figures)
    assert SMALLEST.reached([small, small, small])
    assert not SMALLEST.reached([Outcome(1, 0, (), figures | {"nodes": 4.0})])
    assert not SMALLEST.reached([small, small, Outcome(1, 0, (), figures | {"nodes": 7.0})])
    assert not SMALLEST.reached([Outcome(1, 0, (), figures | {"checks": 41.0})])
