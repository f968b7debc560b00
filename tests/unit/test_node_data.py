"""Figures of a cell node by node, as Model Explorer reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cli import main
from onnx_harness.diagnose.node_data import CANDIDATE, FIGURES, ORIGINAL, write_node_data
from onnx_harness.results.cells import Status
from onnx_harness.results.store import ResultsWriter
from onnx_harness.settings import Settings
from tests.models import model, save
from tests.unit.results_examples import RUN, cell

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
    return {
        name: json.loads((folder / "out" / f"{name}.json").read_text()) for name in FIGURES
    }


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


def test_a_cell_that_passes_has_its_figures_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    original = save(scaled(2), tmp_path / "net.onnx")
    words = [
        "view",
        str(original),
        "--variant",
        "fp16.io32",
        "--node-data",
        "--report-dir",
        "out",
    ]
    assert main(words) == 0
    folder = Path("out/node_data/net-fp16.io32-cpu")
    assert str(folder) in capsys.readouterr().out
    assert {path.stem for path in folder.glob("*.json")} == set(FIGURES)
    types = {node.op_type for node in onnx.load(folder / CANDIDATE).graph.node}
    assert "Cast" in types
    assert main(["view", str(original), "--provider", "cpu", "--node-data"]) == 2


def test_a_report_writes_them_for_each_failure_whose_models_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failure = {"status": Status.FAIL, "reason": "off"}
    cells = [
        cell("fp16", **failure),
        cell("simplify", **failure),
        cell("optimize"),
    ]
    writer = ResultsWriter(tmp_path / "reports", RUN)
    writer.put_all(cells)
    writer.finish()
    writer.close()
    kept = tmp_path / "reports/repro/net-fp16-cpu"
    save(scaled(1), kept / "model.onnx")
    save(scaled(2), kept / "transformed/model.onnx")
    assert main(["report", "--node-data"]) == 0
    assert {path.stem for path in (kept / "node_data").glob("*.json")} == set(FIGURES)
    own = json.loads((kept / "node_data/own_error.json").read_text())["results"]
    assert own["s"]["value"] == pytest.approx(1)
    assert "of 1 cell with a failure no models were kept" in capsys.readouterr().err
    assert not (tmp_path / "reports/node_data").exists()


def test_the_files_have_the_form_of_model_explorers_node_data(tmp_path: Path) -> None:
    fields = {"name", "results", "thresholds", "gradient", "showExpandedSummaryOnGroupNode"}
    for data in written(tmp_path, float("inf")).values():
        assert data.keys() <= fields
        for result in data["results"].values():
            assert result.keys() <= {"value", "bgColor"}
            assert isinstance(result["value"], float | str)
