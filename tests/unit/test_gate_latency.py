"""A cell's latency against its level: the nights that count, and the noise of each."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from onnx_harness.gate.latency import _sentence, comparable, compare_latency
from onnx_harness.gate.nights import standard_error
from onnx_harness.gate.rules import Compared
from onnx_harness.results.cells import CellResult
from onnx_harness.results.gated import Nights
from onnx_harness.results.history_rows import PastCell
from onnx_harness.results.levels import Level, trimmed
from onnx_harness.results.outcome import Outcome
from tests.nights import pinned, spread_about, timed
from tests.unit.results_examples import RUN

LEVEL = Level(
    trimmed(timed("original")),
    RUN.host.processor_of("cpu"),
    RUN.seed,
    "night0",
    "2026-01-02T03:00:00+00:00",
    "w",
    "y",
)


def history(*cells: CellResult) -> list[PastCell]:
    """Return a run for each cell, the first of them the accepted one."""
    runs = [replace(RUN, id=f"night{number}") for number in range(len(cells))]
    return [PastCell(run, cell) for run, cell in zip(runs, cells, strict=True)]


def test_the_accepted_night_is_not_one_of_those_after_it() -> None:
    past = history(timed("original"), timed("original", 1.01), timed("original", 1.02))
    assert comparable(LEVEL, past) == past[1:]


def test_without_the_accepted_run_the_night_that_began_then_is_not_after_it() -> None:
    past = [
        PastCell(replace(RUN, id=started, started=started), timed("original"))
        for started in (LEVEL.accepted, "2026-01-02T03:00:01+00:00")
    ]
    assert comparable(LEVEL, past) == past[1:]


@pytest.mark.parametrize(("first", "second"), [(0.001, 0.2), (0.2, 0.001)])
def test_the_noise_of_a_night_is_that_of_the_measurement_it_goes_by(
    first: float, second: float
) -> None:
    rng = np.random.default_rng(2)
    again = spread_about(1.0, second, 32, rng)
    record = pinned(
        1.05, log_ratios=spread_about(1.05, first, 16, rng), confirming_log_ratios=again
    )
    found = compare_latency(
        Compared(), LEVEL, now := timed("original", pinned=record), history(timed("original"), now)
    )
    assert found is not None
    spread = max(0.02, standard_error(again))
    assert found.smallest_step == pytest.approx(math.expm1(2.5 * spread * math.sqrt(3)))


@pytest.mark.parametrize(
    ("ratio", "z", "words"),
    [
        (1.05, 1.0, "its nights vary so much that a slowdown of 12% wouldn't be noticed"),
        (1.2, 3.0, "1.200 times the pinned reference's time, and 1.000 was accepted: +20.0%"),
        (1.2, 0.0, "its nights vary so much that a slowdown of 12% wouldn't be noticed"),
    ],
)
def test_a_night_that_decides_nothing_says_why(ratio: float, z: float, words: str) -> None:
    nights = Nights(Outcome.INCONCLUSIVE, ratio, level=1.0, z=z, smallest_step=0.12, count=3)
    assert _sentence(nights).startswith(words)
