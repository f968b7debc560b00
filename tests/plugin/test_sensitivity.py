"""``--sensitivity`` as its users meet it: in the table, in results.json, as a reason to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.models import linear, save
from tests.plugin.running import Ended, install, run_pytest
from tests.schemas import violations
from tests.unit.test_results_store import SCHEMA

# The worker imports it with the other transforms; what the verdict lets through is then up to the
# tolerance alone.
BLINDFOLD = """
from onnx_harness.accuracy import compare
from onnx_harness.transforms import Transform
compare.check_faithful = lambda *_: None
TRANSFORM = Transform("Nothing is done", lambda model: model, {"nothing": {}})
"""


def run_one(folder: Path, *args: str) -> Ended:
    """One model whose card wants nine faults in ten caught."""
    save(linear(), folder / "net.onnx")
    (folder / "net.model.toml").write_text("[sensitivity]\nminimum = 0.9\n")
    return run_pytest(
        folder,
        "net.onnx",
        "--sensitivity",
        "--variant=simplify",
        "--latency-budget=0.1",
        "--report-dir=reports",
        *args,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run with the default verdict."""
    return run_one(tmp_path_factory.mktemp("sensitivity"))


def test_a_blind_verdict_fails_by_its_cards_minimum_and_isnt_timed(tmp_path: Path) -> None:
    install(tmp_path, BLINDFOLD)
    told = run_one(tmp_path, "--rtol=1e9", "--atol=1e9")
    assert told.code == pytest.ExitCode.TESTS_FAILED
    cell = told.cells["net-simplify-cpu"]
    assert (cell["status"], cell["stage"], cell["symptom"]) == (
        "fail",
        "compare",
        "insensitive",
    )
    # But for what no tolerance is asked about, such as NaN on unusual inputs.
    assert cell["sensitivity"]["score"] < 0.3
    assert "and the card requires 90%; one of those missed:" in cell["reason"]
    assert cell["latency"] is None


def test_a_verdict_that_bites_is_timed_and_keeps_its_score(ended: Ended) -> None:
    cell = ended.cells["net-simplify-cpu"]
    assert (cell["status"], cell["sensitivity"]["score"]) == ("pass", 1.0)
    assert cell["latency"] is not None
    found = cell["sensitivity"]
    assert 0 < found["smallest_change"] < 1e-3
    assert found["planted"] == sum(kind["planted"] for kind in found["kinds"].values())


def test_the_table_shows_the_score(ended: Ended) -> None:
    found = ended.cells["net-simplify-cpu"]["sensitivity"]
    assert (
        f"catches {found['caught']}/{found['planted'] - found['equivalent']}, from 0.0"
        in ended.told
    )


def test_results_json_follows_the_published_schema(ended: Ended) -> None:
    results = json.loads((ended.folder / "reports" / "results.json").read_text("utf-8"))
    assert violations(results, SCHEMA, SCHEMA) == []


def test_nothing_is_planted_unless_it_is_asked_for(tmp_path: Path) -> None:
    save(linear(), tmp_path / "plain.onnx")
    told = run_pytest(
        tmp_path,
        "plain.onnx",
        "--variant=original",
        "--benchmark-skip",
        "--report-dir=reports",
    )
    assert told.cells["plain-original-cpu"]["sensitivity"] is None
    assert "bites" not in told.told


def test_a_project_can_ask_for_it_too(tmp_path: Path) -> None:
    save(linear(), tmp_path / "plain.onnx")
    (tmp_path / "pyproject.toml").write_text("[tool.onnx-harness]\nsensitivity = true\n")
    told = run_pytest(
        tmp_path,
        "plain.onnx",
        "--variant=original",
        "--benchmark-skip",
        "--report-dir=reports",
        "-n2",
    )
    assert told.cells["plain-original-cpu"]["sensitivity"]["score"] == 1.0
