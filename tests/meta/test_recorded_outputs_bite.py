"""Outputs that were recorded beside a model: the untouched model that misses them fails, by the
bound that holds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.cell import subjects
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Judged, Task
from onnx_harness.diagnose import repro
from onnx_harness.judging import recorded
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import linear, save

MISSES = "the untouched model misses the outputs recorded beside it: output y: "


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def recorded_beside(
    folder: Path, *, off: float = 0.0, card: str = "", sets: int = 1
) -> Path:
    """A linear model with a ``.npz`` whose last set has an output that is off by a share of the
    greatest.
    """
    path = save(linear(), folder / "lin.onnx")
    weights = {each.name: numpy_helper.to_array(each) for each in linear().graph.initializer}
    arrays: dict[str, Any] = {}
    for number in range(sets):
        x = np.random.default_rng(number).normal(size=(3, 4)).astype(np.float32)
        y = x @ weights["w"] + weights["b"]
        if number == sets - 1:
            y[0, 0] += off * np.abs(y).max()
        arrays |= {f"{number}/x": x, f"{number}/y": y}
    np.savez(folder / "lin.npz", **arrays)
    if card:
        (folder / "lin.model.toml").write_text(card)
    return path


def task(path: Path, variant: str = "original", **settings: Any) -> Task:
    return Task(
        Cell(card_for(path), parse_variant(variant), "cpu"),
        path,
        Settings(input_sets=2, **settings),
    )


def judged(path: Path, variant: str = "original", **settings: Any) -> Judged:
    return judge(task(path, variant, **settings))


def test_the_untouched_model_that_misses_them_fails(tmp_path: Path) -> None:
    found = judged(recorded_beside(tmp_path, off=0.1, sets=2))
    result = found.result
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.COMPARE,
        Symptom.WRONG_VALUES,
    )
    assert str(result.reason).startswith(MISSES)
    assert any('[recorded] outputs = "note"' in line for line in result.detail)
    assert found.failing == (1,)


def test_what_gives_them_passes_without_a_word(tmp_path: Path) -> None:
    result = judged(recorded_beside(tmp_path)).result
    assert (result.status, result.notes) == (Status.PASS, ())


def test_it_is_not_the_fault_of_a_variant(tmp_path: Path) -> None:
    result = judged(recorded_beside(tmp_path, off=0.1), "optimize").result
    assert result.status is Status.PASS
    assert [note.startswith(MISSES) for note in result.notes] == [True]


def test_a_card_can_make_it_a_remark(tmp_path: Path) -> None:
    result = judged(
        recorded_beside(tmp_path, off=0.1, card='[recorded]\noutputs = "note"')
    ).result
    assert result.status is Status.PASS
    assert [note.startswith(MISSES) for note in result.notes] == [True]


@pytest.mark.parametrize(
    ("off", "card", "settings", "status"),
    [
        (
            3e-6,
            "",
            {},
            Status.PASS,
        ),  # by default a thousandth of the value, and 1e-5 of the greatest
        (3e-3, "", {}, Status.FAIL),
        (3e-3, "[tolerance.y]\natol = 0.1", {}, Status.PASS),
        (3e-6, "[tolerance.y]\nrtol = 0\natol = 1e-9", {}, Status.FAIL),
        (3e-3, "", {"rtol": 0.1, "atol": 0.1}, Status.PASS),
    ],
)
def test_the_bound_is_the_cards(
    tmp_path: Path, off: float, card: str, settings: dict[str, Any], status: Status
) -> None:
    assert (
        judged(recorded_beside(tmp_path, off=off, card=card), **settings).result.status
        is status
    )


@pytest.mark.parametrize(
    ("card", "status"),
    [("", Status.PASS), ("[tolerance.y]\nrtol = 1e-4\natol = 0", Status.FAIL)],
)
def test_a_default_bound_yields_to_the_models_own_noise_and_a_chosen_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str, status: Status
) -> None:
    path = recorded_beside(tmp_path, off=3e-3, card=card)
    noisy = Noise(({"y": Gap(greatest=0.1, scale=1.0)},))
    monkeypatch.setattr(recorded, "noise_floor", lambda *_: noisy)
    assert judged(path).result.status is status


def test_what_is_kept_shows_it(tmp_path: Path) -> None:
    path = recorded_beside(tmp_path, off=0.1)
    found, folder = judged(path), tmp_path / "kept"
    repro.keep(task(path), found, folder, found.result)
    shown = subprocess.run(
        [sys.executable, "-I", folder / repro.SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1, shown.stderr
    lines = shown.stdout.splitlines()
    assert (
        " apart at [0, 0]"
        in lines[lines.index("  the untouched model, beside what was recorded") + 1]
    )
    assert "    y: equal" in shown.stdout


def test_without_the_comparison_it_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "missed", lambda *_: None)
    assert judged(recorded_beside(tmp_path, off=0.1)).result.status is Status.PASS
