"""What a cell is timed on: usual inputs of one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.cell.timing import timing_inputs
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.settings import Settings
from tests.models import linear, save


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def task_of(path: Path, input_sets: int) -> Task:
    return Task(
        Cell(card_for(path), parse_variant("original"), "cpu"),
        path,
        Settings(input_sets=input_sets),
    )


def test_they_are_of_the_first_set_s_shapes_and_ordinary(tmp_path: Path) -> None:
    task = task_of(save(linear(), tmp_path / "linear.onnx"), 8)
    judged = judge(task).result
    assert judged.status is Status.PASS
    assert judged.accuracy is not None
    assert judged.accuracy.input_sets > 8  # unusual ones come on top
    sets = timing_inputs(task)
    assert 2 <= len(sets) < 8  # the sizes of the batch differ
    assert len({each["x"].shape for each in sets}) == 1
    values = np.concatenate([each["x"].ravel() for each in sets])
    assert np.isfinite(values).all()
    assert not np.any((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny))
    assert len({each["x"].tobytes() for each in sets}) == len(sets)


def test_a_recorded_set_says_what_size_is_timed(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "linear.onnx")
    np.savez(tmp_path / "linear.npz", x=np.ones((17, 4), np.float32))
    (first, *_) = sets = timing_inputs(task_of(path, 2))
    assert np.array_equal(first["x"], np.ones((17, 4), np.float32))
    assert {each["x"].shape for each in sets} == {(17, 4)}
