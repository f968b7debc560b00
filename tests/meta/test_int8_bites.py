"""A badly calibrated model is caught when it is compared; other samples are another model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import onnx
import pytest

from harness import transforms
from harness.matrix import Cell, card_for
from harness.names import parse_variant
from harness.pipeline import Task, judge
from harness.results.cells import CellResult, Stage, Status
from harness.settings import Settings
from harness.transforms import Transform, int8
from tests.models import linear, save

Samples = list[dict[str, Any]]
Seen = list[Samples]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[CellResult, Seen]]:
    """Judges ``linear`` with int8.static, its samples scaled; what its transform got is given as well."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    card = card_for(save(linear(), tmp_path / "model.onnx"))

    def run(variant: str = "int8.static", scale: float = 1.0, **settings: Any) -> tuple[CellResult, Seen]:
        seen: Seen = []

        def apply(model: onnx.ModelProto, samples: Samples, **options: Any) -> onnx.ModelProto:
            seen.append([dict(each) for each in samples])
            scaled = [{name: (scale * value).astype("f4") for name, value in each.items()} for each in samples]
            return int8.quantize_static(model, scaled, **options)

        ours = next(each for each in int8.TRANSFORM if each.calibrated)
        registry = cast("dict[str, Transform]", transforms.registry())
        monkeypatch.setitem(registry, "int8.static", replace(ours, apply=apply))
        return judge(Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings(**settings))).result, seen

    return run


@pytest.mark.parametrize("variant", ["int8.static", "simplify+int8.static"])
def test_a_well_calibrated_model_passes(judged: Any, variant: str) -> None:
    result, seen = judged(variant)
    assert (result.status, result.stage, result.reason) == (Status.PASS, Stage.DONE, None)
    assert len(seen) == 1
    assert [set(each) for each in seen[0]] == [{"x"}] * Settings().input_sets


@pytest.mark.parametrize("scale", [0.02, 100.0])
def test_a_badly_calibrated_model_fails_when_it_is_compared(judged: Any, scale: float) -> None:
    result, _ = judged(scale=scale)
    assert (result.status, result.stage) == (Status.FAIL, Stage.COMPARE)
    assert "dB above its noise, and 15 dB are asked for" in str(result.reason)


def test_what_was_calibrated_on_other_samples_is_made_again(judged: Any) -> None:
    assert [len(judged(seed=seed)[1]) for seed in (0, 0, 1, 0)] == [1, 0, 1, 0]
