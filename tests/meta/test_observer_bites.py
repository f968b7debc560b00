"""The row of the observer effect counts an effect that isn't reported."""

from __future__ import annotations

import pytest

from onnx_harness.diagnose.findings import Findings
from onnx_harness.selftest.observer_rows import OBSERVED, judge, observed_models


def test_an_effect_that_is_not_reported_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Findings.note

    def silent(findings: Findings, line: str) -> None:
        if "watching values" not in line:
            note(findings, line)

    monkeypatch.setattr(Findings, "note", silent)

    outcome = judge(next(observed_models()))

    assert (outcome.count, outcome.bad) == (1, 1)
    assert not OBSERVED.reached([outcome])


def test_an_effect_that_is_reported_counts() -> None:
    outcome = judge(next(observed_models()))

    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
