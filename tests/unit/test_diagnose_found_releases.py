"""A first bad release that was searched for is named by the diagnosis of the same failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Judged, Task
from onnx_harness.diagnose import found_releases, handout, releases
from onnx_harness.diagnose.found_releases import found_release, remember
from onnx_harness.diagnose.search import diagnose
from onnx_harness.diagnose.trials import Outcome
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Transform
from onnx_harness.transforms.variant import bind_variant
from tests.models import linear, save

WRONG = Outcome(Status.FAIL, Stage.COMPARE, "output y: 3 of 6", Symptom.WRONG_VALUES)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    path = save(linear(), tmp_path / "m.onnx")
    cell = Cell(card_for(path), parse_variant("original"), "cpu")
    return Task(cell, path, Settings(input_sets=1))


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
    return model


def test_the_sentence_and_the_issue_end_with_the_release(task: Task, tmp_path: Path) -> None:
    remember(task, "onnx", "1.2.3", WRONG)
    bound = bind_variant(task.cell.variant)
    bound = replace(bound, steps=(BoundStep("planted", Transform("", doubled, {}), {}),))

    diagnosis = diagnose(task, bound=bound, folder=tmp_path / "repro")

    assert diagnosis.cause.release == "onnx 1.2.3"
    assert diagnosis.sentence.endswith("since onnx 1.2.3).")
    assert "since onnx 1.2.3)." in (tmp_path / "repro" / handout.ISSUE).read_text("utf-8")


def test_another_failure_or_another_cell_has_no_such_release(task: Task) -> None:
    remember(task, "onnx", "1.2.3", WRONG)

    assert found_release(task, replace(WRONG, reason="other figures")) == "onnx 1.2.3"
    assert found_release(task, replace(WRONG, stage=Stage.SESSION)) is None
    assert found_release(task, replace(WRONG, symptom=Symptom.CRASH)) is None
    other = replace(task, cell=replace(task.cell, variant=parse_variant("simplify")))
    assert found_release(other, WRONG) is None


def test_a_release_is_forgotten_with_the_version_that_was_installed(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(task, "onnx", "1.2.3", WRONG)
    monkeypatch.setattr(found_releases, "version", lambda _: "999")
    assert found_release(task, WRONG) is None


def test_packages_are_remembered_side_by_side(task: Task) -> None:
    remember(task, "onnx", "1.2.3", WRONG)
    crash = replace(WRONG, symptom=Symptom.CRASH, reason="the process died of signal 11")
    remember(task, "onnxruntime", "1.24.0", crash)

    assert found_release(task, WRONG) == "onnx 1.2.3"
    assert found_release(task, crash) == "onnxruntime 1.24.0"


def test_a_search_over_releases_is_remembered(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(_: Task, environment: Path) -> Judged:
        right = CellResult("m", "m", "", "original", "cpu", Status.PASS, Stage.DONE)
        wrong = replace(right, status=WRONG.status, stage=WRONG.stage, reason=WRONG.reason)
        wrong = replace(wrong, symptom=WRONG.symptom)
        return Judged(right if environment.name == "1.0" else wrong)

    monkeypatch.setattr(releases, "environment_of", lambda _, release: Path(release))
    monkeypatch.setattr(releases, "judged_with", judged)
    releases.bisect(task, "onnx", ["1.0", "1.1", "1.2"])

    assert found_release(task, WRONG) == "onnx 1.1"
