"""The memory that a cell is said to have needed: its own, in all of its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.errors import FetchError, WorkerCrashed
from onnx_harness.isolate import Worker
from onnx_harness.names import parse_variant
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, save


class Played:
    """A worker that needs so much for each call, and dies of those that need a gigabyte."""

    def __init__(self, *peaks: int) -> None:
        self._peaks = iter(peaks)
        self.peak_bytes = 0

    def call(self, *_: object) -> str:
        self.peak_bytes = next(self._peaks)
        if self.peak_bytes >> 30:
            raise WorkerCrashed("was killed by SIGSEGV (signal 11)", "transform")
        return ""


def test_the_peak_is_that_of_all_calls_and_no_other_cell_inherits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_for(save(linear(), tmp_path / "m.onnx"))
    first, second = (Cell(card, parse_variant(name), "cpu") for name in ("simplify", "fp16"))
    runner = Runner(Settings())
    # It crashes twice, and something small is asked about a mend then.
    runner._worker = cast("Worker", Played(2 << 30, 1 << 30, 1 << 20))

    def task(cell: Cell) -> Any:
        if cell is second:
            raise FetchError("it isn't there")
        return Task(cell, card.path, runner.settings)

    monkeypatch.setattr(runner._attempts, "_task", task)
    monkeypatch.setattr(runner, "task", task)
    assert runner.judge(first).peak_bytes == 2 << 30
    assert runner.judge(second).peak_bytes is None
