"""The table of causes counts a diagnosis as wrong where the search is broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_harness.cell.matrix import card_for
from onnx_harness.diagnose import trials
from onnx_harness.selftest.cause_rows import CAUSES, _of_step
from onnx_harness.selftest.planted_causes import planted_steps
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
