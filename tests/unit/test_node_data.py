"""Figures of a cell node by node, as Model Explorer reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.diagnose.node_data import CANDIDATE, FIGURES, ORIGINAL, write_node_data
from onnx_harness.settings import Settings
from tests.models import model, save

TEXT = "(float[n,4] x) => (float[n,4] y) { h = MatMul(x, w) s = Mul(h, c) y = Tanh(s) }"


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def scaled(factor: float) -> onnx.ModelProto:
    made = model(TEXT)
    for name, value in (("w", np.eye(4)), ("c", np.array(factor))):
        made.graph.initializer.append(numpy_helper.from_array(value.astype("f4"), name))
    return made


def written(folder: Path, factor: float) -> dict[str, Any]:
    a, b = save(scaled(1), folder / "a.onnx"), save(scaled(factor), folder / "b.onnx")
    assert write_node_data(a, b, folder / "out", "cpu", Settings(input_sets=1)) == []
    return {name: json.loads((folder / "out" / f"{name}.json").read_text()) for name in FIGURES}


def test_the_node_that_departs_is_the_one_with_an_error_of_its_own(tmp_path: Path) -> None:
    data = written(tmp_path, 1.5)
    own = {name: result["value"] for name, result in data["own_error"]["results"].items()}
    whole = {name: result["value"] for name, result in data["error"]["results"].items()}
    assert own["s"] == pytest.approx(0.5)
    assert (own["h"], own["y"]) == (0, 0)
    assert whole["s"] == pytest.approx(0.5)
    assert whole["y"] > 0.01


def test_each_node_says_where_it_ran_how_long_and_in_what(tmp_path: Path) -> None:
    data = written(tmp_path, 2)
    for name in (ORIGINAL, CANDIDATE):
        nodes = {node.name for node in onnx.load(tmp_path / "out" / name).graph.node}
        assert nodes == {"h", "s", "y"}
    assert {each["value"] for each in data["placement"]["results"].values()} == {
        "CPUExecutionProvider"
    }
    assert {each["value"] for each in data["precision"]["results"].values()} == {"float32"}
    # ONNX Runtime fuses the product with a scalar into the MatMul.
    assert {"y"} <= data["time_us"]["results"].keys() < data["error"]["results"].keys()


def test_the_files_have_the_form_of_model_explorers_node_data(tmp_path: Path) -> None:
    fields = {"name", "results", "thresholds", "gradient", "showExpandedSummaryOnGroupNode"}
    for data in written(tmp_path, float("inf")).values():
        assert data.keys() <= fields
        for result in data["results"].values():
            assert result.keys() <= {"value", "bgColor"}
            assert isinstance(result["value"], float | str)
