"""The change-point pass: advice, made by a library that needn't be installed."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import SimpleNamespace
from typing import Any

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


class Search:
    """In place of ruptures: what it was asked, and an answer that is given."""

    def __init__(self, ends: list[int]) -> None:
        self.ends = ends
        self.options: dict[str, object] = {}
        self.values: list[float] = []
        self.pen = 0.0

    def __call__(self, **options: object) -> Search:
        self.options = options
        return self

    def fit(self, values: np.ndarray[Any, Any]) -> Search:
        assert values.dtype == np.float64
        self.values = [float(value) for value in values]
        return self

    def predict(self, *, pen: float) -> list[int]:
        self.pen = pen
        return self.ends


@pytest.mark.parametrize(
    ("steps", "spread"),
    [
        # The median of the differences, of which the greatest is a step.
        ([0.01, -0.02, 0.03, -0.02, 0.01, -0.02, 0.5], 0.02 * 1.4826 / math.sqrt(2)),
        ([0.001] * 7, drift.LEAST_SPREAD),
    ],
)
def test_a_further_segment_costs_four_squared_spreads_times_the_logarithm_of_the_nights(
    steps: list[float], spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search([3, 6, 8])
    monkeypatch.setitem(sys.modules, "ruptures", SimpleNamespace(Pelt=search))
    figures = [0.0, *np.cumsum(steps)]
    assert drift.change_points([math.exp(figure) for figure in figures]) == [3, 6]
    assert search.values == pytest.approx(figures)
    assert search.options == {"model": "l2", "min_size": 3, "jump": 1}
    assert search.pen == pytest.approx(4 * spread**2 * math.log(8))


@needs_ruptures
def test_the_fewest_nights_that_are_looked_at_and_the_fewest_in_a_level() -> None:
    assert drift.available()
    assert drift.change_points([1.0] * 5 + [1.2] * 3) == [5]
    assert drift.change_points([1.0] * 3 + [1.2] * 5) == [3]
    assert drift.change_points([1.0] * 4 + [1.2] * 3) == []
