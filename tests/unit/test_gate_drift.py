"""The change-point pass: advice, made by a library that needn't be installed."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from onnx_harness.gate import drift
from tests.nights import simulated

needs_ruptures = pytest.mark.skipif(
    importlib.util.find_spec("ruptures") is None, reason="needs ruptures (extra gate)"
)


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)
    assert not drift.available()
    assert "pip install 'onnx-harness[gate]'" in drift.MISSING


def test_few_nights_are_not_looked_at() -> None:
    assert drift.change_points([1.0] * 3 + [1.2] * 4) == []


@needs_ruptures
def test_the_night_of_a_step_is_named() -> None:
    ratios = np.exp(simulated(np.random.default_rng(0), 40, 0.01, step=0.05, at=25))
    [found] = drift.change_points([float(ratio) for ratio in ratios])
    assert abs(found - 25) <= 1


@needs_ruptures
def test_quiet_nights_seldom_have_a_step() -> None:
    rng = np.random.default_rng(1)
    told = [
        bool(drift.change_points([float(r) for r in np.exp(simulated(rng, 60, 0.01))]))
        for _ in range(40)
    ]
    assert sum(told) <= 4
