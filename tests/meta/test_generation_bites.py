"""A fault that no single run shows, and greedy decoding does: a wrong slot of the cache, later on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.decoders import static_cache
from tests.models import save

# Input sets at the beginning of the cache alone, as a person writes them who tries a few positions.
INPUTS = "[inputs.position]\nvalues = [0, 2, 3, 4]\n"
GENERATE = "[generate]\nprompt = [7, 11]\nsteps = 16\n"


def one_slot_after_step_five(model: onnx.ModelProto) -> onnx.ModelProto:
    """From position 6 on, everything is written over the last slot."""
    slot = next(node for node in model.graph.node if node.output[0] == "slot")
    model.graph.initializer.append(numpy_helper.from_array(np.array([6], np.int64), "most"))
    slot.CopyFrom(helper.make_node("Min", ["position", "most"], ["slot"]))
    return model


def judged(folder: Path, card: str, variant: str) -> CellResult:
    path = save(static_cache(), folder / "decoder.onnx")
    card_file = folder / "decoder.model.toml"
    card_file.write_text(card)
    cell = Cell(card_for(card_file), parse_variant(variant), "cpu")
    return judge(Task(cell, path, Settings())).result


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    transform = Transform("a planted fault", one_slot_after_step_five, {"planted": {}})
    registry = cast("dict[str, Transform]", transforms.registry())
    monkeypatch.setitem(registry, "planted", transform)


@pytest.mark.usefixtures("planted")
def test_a_wrong_slot_of_the_cache_is_seen_by_generation_alone(tmp_path: Path) -> None:
    single = judged(tmp_path, INPUTS, "planted")
    assert (single.status, single.generation) == (Status.PASS, None)
    result = judged(tmp_path, INPUTS + GENERATE, "planted")
    assert (result.status, result.stage) == (Status.FAIL, Stage.COMPARE)
    assert result.symptom is Symptom.WRONG_VALUES
    assert "generation departs at step" in (result.reason or "")
    record = result.generation
    assert record is not None
    assert record.noise is not None
    assert record.first_divergence is not None
    assert record.first_divergence > 5
    assert record.behind is not None
    assert record.behind > record.noise
    assert record.agreement < 1


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("variant", ["original", "simplify", "fp16.io32"])
def test_an_honest_variant_generates_the_same(tmp_path: Path, variant: str) -> None:
    result = judged(tmp_path, INPUTS + GENERATE, variant)
    assert result.status is Status.PASS, result.reason
    record = result.generation
    assert record is not None
    assert (record.steps, record.cache) == (16, "static")
    assert record.first_token_ms > 0
    assert (record.per_token_ms or 0) > 0
