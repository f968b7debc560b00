"""A badly calibrated model is caught when it is compared; other samples are another model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from onnx_harness import transforms
from onnx_harness.cell import artifacts
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.judging.reference import calibration_sets, reference
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform, int8
from tests.models import linear, save

Samples = list[dict[str, Any]]
Seen = list[Samples]


@pytest.fixture
def judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[CellResult, Seen]]:
    """Judges ``linear`` with int8.static, its samples scaled.

    What its transform got is given as well.
    """
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    # As many values as a range needs to be the same for any seed.
    (tmp_path / "model.model.toml").write_text(
        '[inputs.x]\ngenerator = "uniform"\nlow = -1\nsizes = { n = [64] }\n'
    )
    save(linear(), tmp_path / "model.onnx")
    card = card_for(tmp_path / "model.model.toml")

    def run(
        variant: str = "int8.static", scale: float = 1.0, **settings: Any
    ) -> tuple[CellResult, Seen]:
        seen: Seen = []

        def apply(
            model: onnx.ModelProto, samples: Samples, **options: Any
        ) -> onnx.ModelProto:
            seen.append([dict(each) for each in samples])
            scaled = [
                {name: (scale * value).astype("f4") for name, value in each.items()}
                for each in samples
            ]
            return int8.quantize_static(model, scaled, **options)

        ours = next(each for each in int8.TRANSFORM if each.calibrated)
        registry = cast("dict[str, Transform]", transforms.registry())
        monkeypatch.setitem(registry, "int8.static", replace(ours, apply=apply))
        return judge(
            Task(
                Cell(card, parse_variant(variant), "cpu"),
                tmp_path / "model.onnx",
                Settings(**settings),
            )
        ).result, seen

    return run


@pytest.mark.parametrize("variant", ["int8.static", "simplify+int8.static"])
def test_a_well_calibrated_model_passes(judged: Any, variant: str) -> None:
    result, seen = judged(variant)
    assert (result.status, result.stage, result.reason) == (Status.PASS, Stage.DONE, None)
    assert len(seen) == 1
    assert [set(each) for each in seen[0]] == [{"x"}] * (4 * Settings().input_sets)


@pytest.mark.parametrize("scale", [0.02, 100.0])
def test_a_badly_calibrated_model_fails_when_it_is_compared(
    judged: Any, scale: float
) -> None:
    result, _ = judged(scale=scale)
    assert (result.status, result.stage) == (Status.FAIL, Stage.COMPARE)
    assert str(result.reason).startswith("not faithful: ")
    assert any(
        "dB above its noise, and 15 dB are asked for" in line for line in result.detail
    )


def test_what_is_calibrated_is_judged_on_other_inputs(judged: Any, tmp_path: Path) -> None:
    result, seen = judged()
    made = reference(
        Model(tmp_path / "model.onnx"),
        card_for(tmp_path / "model.model.toml"),
        Settings(),
        Cache.temporary(),
    )
    for calibrated in seen[0]:
        assert not any(
            np.array_equal(calibrated["x"], each.values["x"]) for each in made.sets
        )
    assert not any("calibrated" in note for note in result.notes)


def test_a_recorded_set_that_calibrates_and_judges_is_told(
    judged: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "model.npz", x=np.ones((2, 4), np.float32))
    result, seen = judged(input_sets=1)
    np.testing.assert_array_equal(seen[0][0]["x"], np.ones((2, 4)))
    (note,) = [note for note in result.notes if "calibrated" in note]
    assert note.startswith("int8.static was calibrated on 1 of the ")


def test_what_was_calibrated_on_other_samples_is_made_again(judged: Any) -> None:
    assert [len(judged(seed=seed)[1]) for seed in (0, 0, 1, 0)] == [1, 0, 1, 0]


def test_what_lies_beyond_the_calibrated_range_is_cut_off_by_the_ideal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of few values the judged sets have larger ones, and the greatest is nearly all of a sum."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    model = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["" : 13]>
        g (float[b,n] x) => (float[b] y) <float ten = {10}> {
            k = Mul(x, ten)  y = ReduceLogSumExp<axes = [1], keepdims = 0>(k)
        }""")
    card = card_for(save(model, tmp_path / "model.onnx"))
    cell = Cell(card, parse_variant("int8.static"), "cpu")
    result = judge(Task(cell, card.path, Settings())).result
    assert result.status is Status.PASS, result.reason
    monkeypatch.setattr(artifacts, "_calibration", lambda *_: [])
    samples = calibration_sets(Model(card.path), card, Settings(), Cache(tmp_path / "cache"))
    monkeypatch.setattr(artifacts, "_calibrating", lambda *_: samples)
    result = judge(Task(cell, card.path, Settings())).result
    assert result.reason is not None
    assert "not faithful" in result.reason
