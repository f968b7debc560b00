"""The content key of a cell changes with all that its verdict depends on, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_harness.cell import content
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.names import parse_variant
from onnx_harness.settings import Settings
from tests.models import linear, save, with_external_data

DEFAULTS = Settings()


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_models", {})


def key(path: Path, variant: str = "simplify", settings: Settings = DEFAULTS) -> str:
    content._models.clear()
    return content.content_key(
        Cell(card_for(path), parse_variant(variant), "cpu"), path, settings
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(linear(), tmp_path / "lin.onnx")


def test_the_key_is_the_same_twice_and_wherever_the_file_lies(
    model: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "lin.onnx"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(model.read_bytes())
    assert key(model) == key(model) == key(elsewhere)


def _another_weight(model: Path) -> None:
    changed = onnx.load(model)
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    onnx.save(changed, model)


def _a_card(model: Path) -> None:
    model.with_name("lin.model.toml").write_text("[inputs.x]\nhigh = 1.0\n")


def _recorded_inputs(model: Path) -> None:
    np.savez(model.with_suffix(".npz"), x=np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("change", [_another_weight, _a_card, _recorded_inputs])
def test_what_lies_on_the_disk_changes_it(
    model: Path, change: Callable[[Path], None]
) -> None:
    before = key(model)
    change(model)
    assert key(model) != before


def test_external_data_changes_it(tmp_path: Path) -> None:
    model = with_external_data(tmp_path / "ext.onnx", "weights.bin")
    before = key(model)
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert key(model) != before


DECIDING = {
    "input_sets": 2,
    "seed": 1,
    "rtol": 0.1,
    "atol": 0.1,
    "min_placement": 0.5,
    "cell_timeout": 1.0,
    "cell_memory": 1,
    "allow_read": (Path("a"),),
    "trust_models": True,
    "sensitivity": True,
    "diagnose": True,
    "diagnose_budget": 1.0,
}


@pytest.mark.parametrize("name", DECIDING)
def test_settings_that_decide_change_it(model: Path, name: str) -> None:
    bounds = {"rtol": 0.5, "atol": 0.5} if name in ("rtol", "atol") else {}
    before = Settings(**bounds)  # type: ignore[arg-type]
    after = replace(before, **{name: DECIDING[name]})  # type: ignore[arg-type]
    assert key(model, settings=after) != key(model, settings=before)


def test_each_folder_that_may_be_read_changes_it(model: Path) -> None:
    folders = ((), (Path("a"),), (Path("b"),), (Path("a"), Path("b")))
    keys = {key(model, settings=Settings(allow_read=paths)) for paths in folders}
    assert len(keys) == len(folders)


def test_settings_that_decide_nothing_dont(model: Path, tmp_path: Path) -> None:
    chosen = replace(
        Settings(),
        variant=("simplify",),
        report_dir=tmp_path,
        resume=True,
        latency_budget=9.0,
    )
    assert key(model, settings=chosen) == key(model)


def test_the_steps_their_options_and_the_id_change_it(model: Path) -> None:
    assert (
        len(
            {
                key(model, variant)
                for variant in ("original", "simplify", "fp16.io32", "optimize")
            }
        )
        == 4
    )
    assert key(model, "fp16.io32(max_finite_val=9.0)") != key(model, "fp16.io32")


def test_the_provider_changes_it(model: Path) -> None:
    keys = set()
    for provider in ("cpu", "cuda", "openvino"):
        cell = Cell(card_for(model), parse_variant("simplify"), provider)
        keys.add(content.content_key(cell, model, DEFAULTS))
    assert len(keys) == 3


def test_another_source_or_version_changes_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(model)
    other = replace(content.this_machine(), source="another state of this package")
    monkeypatch.setattr(content, "this_machine", lambda: other)
    assert key(model) != before
    monkeypatch.undo()
    monkeypatch.setattr(
        content, "_of_parts", lambda _steps, _provider: ["another transform"]
    )
    assert key(model) != before


def test_every_setting_decides_or_is_known_not_to() -> None:
    """A new setting is part of the key unless somebody says otherwise."""
    assert Settings.__dataclass_fields__.keys() == content._NOT_DECIDING | DECIDING.keys()
    assert not content._NOT_DECIDING & DECIDING.keys()
