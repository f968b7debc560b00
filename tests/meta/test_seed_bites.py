"""A model that draws at random, judged by a seed: damage shows, and the seed is tried before it's offered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cards.seeded import judged_file
from onnx_harness.cell.comparison import Pair, compare_models
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.settings import Settings
from tests.models import model, save

NOISY = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w) drawn = RandomNormalLike<scale = 0.5>(h) quiet = Mul(drawn, breath) y = Add(h, quiet) }"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def noisy(breath: float = 1.0, **options: Any) -> onnx.ModelProto:
    made = model(NOISY, **options)
    for name, value in (("w", np.eye(8)), ("breath", np.array(breath))):
        made.graph.initializer.append(numpy_helper.from_array(value.astype("f4"), name))
    return made


def judged(path: Path, variant: str) -> CellResult:
    card = card_for(path)
    file = judged_file(path, card)
    return judge(Task(Cell(card, parse_variant(variant), "cpu"), file, Settings())).result


@pytest.mark.parametrize("variant", ["original", "simplify", "optimize", "fp16.io32"])
def test_a_model_with_a_seed_is_judged_in_every_output(tmp_path: Path, variant: str) -> None:
    path = save(noisy(), tmp_path / "net.onnx")
    (tmp_path / "net.model.toml").write_text("[random]\nseed = 0\n")
    result = judged(path, variant)
    assert result.status is Status.PASS
    assert result.accuracy is not None
    assert list(result.accuracy.outputs) == ["y"]
    assert not any("not judged, since" in note for note in result.notes)


@pytest.mark.parametrize(("breath", "departs"), [(1.0, False), (1.01, True)])
def test_noise_that_is_louder_by_a_hundredth_departs(
    tmp_path: Path, breath: float, departs: bool
) -> None:
    a, b = save(noisy(), tmp_path / "a.onnx"), save(noisy(breath), tmp_path / "b.onnx")
    (tmp_path / "a.model.toml").write_text("[random]\nseed = 0\n")
    card = card_for(a)
    outcome = compare_models(Pair(a, b, card, "cpu", None, False, Settings()))
    assert (outcome.reason is not None) is departs


def test_the_seed_is_offered_where_it_was_tried_and_nowhere_else(tmp_path: Path) -> None:
    path = save(noisy(), tmp_path / "net.onnx")
    result = judged(path, "original")
    assert result.status is Status.NOT_APPLICABLE
    assert "Mend: `[random] seed = 0` in net.model.toml next to the model" in str(
        result.reason
    )
    save(noisy(opset=8), path)  # too old for what takes the place of a draw
    assert "hold it at 0" in str(judged(path, "original").reason)


def test_recorded_outputs_that_were_drawn_otherwise_are_not_compared(tmp_path: Path) -> None:
    path = save(noisy(), tmp_path / "net.onnx")
    (tmp_path / "net.model.toml").write_text("[random]\nseed = 0\n")
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    for name, value in (("input_0", 1), ("output_0", 5)):
        array = np.full((2, 8), value, np.float32)
        (folder / f"{name}.pb").write_bytes(
            numpy_helper.from_array(array).SerializeToString()
        )
    assert judged(path, "original").status is Status.PASS
