"""Nights for the gate without the nights: histories written as runs write them, with noise that is
seeded.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from onnx_harness.gate.verdicts import (
    confirming_pairs,
    decide_again,
    decide_cells,
    undecided,
    with_verdict,
)
from onnx_harness.results.cells import CellResult, PinnedRecord, Status
from onnx_harness.results.history import History
from tests.unit.results_examples import RUN, cell, latency

NAMES = ("original", "simplify")
PINNED = {"python": "3.11.7", "onnx": "1.23.2", "onnxruntime": "1.31.0"}
PAIRS = 16


def pinned(
    ratio: float = 1.0,
    *,
    again: float | None = None,
    accepted: float = 1.0,
    pairs: int = PAIRS,
    spread: float = 0.005,
    **more: Any,
) -> PinnedRecord:
    """A reference's record with ``ratio`` as the median of its pairs, decided upon as a run does.

    Args:
        ratio: of the first measurement.
        again: of the second, where the verdict asks for one; None takes ``ratio``.
        accepted: the level.
        pairs: of the first measurement.
        spread: of the pairs.
        more: fields as they are to be in the end.
    """
    rng = np.random.default_rng(0)
    made = PinnedRecord(
        PINNED,
        Status.PASS,
        None,
        "ab" * 32,
        ratio=ratio,
        log_ratios=spread_about(ratio, spread, pairs, rng),
        median_ms=2.0 * ratio,
        pinned_median_ms=2.0,
    )
    first = decide_cells({"": (made, accepted)})[""]
    made = with_verdict(made, accepted, first)
    if undecided(made):
        second = spread_about(again or ratio, spread, confirming_pairs(pairs), rng)
        made = with_verdict(made, accepted, decide_again(first, second, accepted))
        made = replace(made, confirming_log_ratios=second)
    return replace(made, **more)


def spread_about(
    ratio: float, spread: float, count: int, rng: np.random.Generator
) -> tuple[float, ...]:
    """ln(ratio) of ``count`` pairs, with ``ratio`` as their median."""
    noise = rng.normal(scale=spread, size=count)
    return tuple(float(value) for value in math.log(ratio) + noise - np.median(noise))


def timed(name: str, ratio: float = 1.0, **more: Any) -> CellResult:
    """A cell that passed, with everything that the gate looks at."""
    given = {
        "latency": latency(),
        "card_sha256": "c1",
        "inputs_sha256": "i1",
        "pinned": pinned(ratio),
    }
    return cell(name, **{**given, **more})


def night(
    folder: Path,
    cells: Sequence[CellResult] | None = None,
    *,
    started: datetime | None = None,
    cpu: str = RUN.host.cpu,
    devices: Mapping[str, str] = RUN.host.devices,
    seed: int = RUN.seed,
    **of_run: Any,
) -> str:
    """Enter a run into the history in ``folder``: a minute after the one before, the first an hour
    ago. Its id.
    """
    with History(folder / "history.sqlite") as past:
        number = len(past.runs())
        started = started or datetime.now(UTC) - timedelta(minutes=60 - number)
        host = replace(RUN.host, cpu=cpu, devices=dict(devices))
        run = replace(
            RUN,
            id=f"night{number:04}",
            started=started.isoformat(),
            seed=seed,
            host=host,
            **of_run,
        )
        past.begin(run)
        for each in [timed(name) for name in NAMES] if cells is None else cells:
            past.put(each)
    return run.id


def rows_digest(folder: Path, runs: int) -> str:
    """Hash of the first ``runs`` runs in the history with their cells, straight from the file."""
    database = sqlite3.connect(f"file:{folder / 'history.sqlite'}?mode=ro", uri=True)
    try:
        kept = [
            database.execute(
                "SELECT * FROM runs WHERE number <= ? ORDER BY number", (runs,)
            ).fetchall(),
            database.execute(
                (
                    "SELECT cells.* FROM cells JOIN runs USING (run_id) WHERE number <= ? ORDER BY "
                    "number, cell_id"
                ),
                (runs,),
            ).fetchall(),
        ]
    finally:
        database.close()
    return hashlib.sha256(repr(kept).encode()).hexdigest()


def simulated(
    rng: np.random.Generator, count: int, spread: float, step: float = 0.0, at: int = 0
) -> list[float]:
    """ln(ratio) of ``count`` nights, with normal noise of ``spread``, ``step`` slower from night
    ``at`` on.
    """
    values = rng.normal(scale=spread, size=count)
    if step:
        values[at:] += math.log1p(step)
    return [float(value) for value in values]
