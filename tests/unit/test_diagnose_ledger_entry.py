"""A diagnosis writes the entry of the ledger that a card takes as it is."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from onnx_harness.cards.card import KnownFailure, read
from onnx_harness.cards.ledger import as_toml
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.cli import main
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.ledger_entry import FILE, entry_of, text_of
from onnx_harness.diagnose.search import diagnose
from onnx_harness.names import parse_variant
from onnx_harness.settings import Settings

DEFECT = Path(__file__).parents[1] / "data" / "defects" / "83_ort_rmsnorm_keepdims0.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(DEFECT, tmp_path / "net.onnx"))


def cell_of(path: Path, variant: str) -> Cell:
    return Cell(card_for(path), parse_variant(variant), "cpu")


def test_the_entry_beside_the_smallest_model_is_read_by_the_card(model: Path) -> None:
    folder = model.parent / "reports" / "repro" / "net-ort.all-cpu"
    task = Task(cell_of(model, "ort.all"), model, Settings(input_sets=1))
    diagnosis = diagnose(task, folder=folder)
    assert diagnosis.smallest is not None, diagnosis

    text = (folder / FILE).read_text("utf-8")
    assert text.startswith("# for net.model.toml\n")
    (model.parent / "net.model.toml").write_text(text, encoding="utf-8")

    entry = cell_of(model, "ort.all").known_failure
    assert entry is not None
    assert (entry.stage, entry.cause) == ("compare", diagnosis.sentence)
    assert entry.repro == "reports/repro/net-ort.all-cpu"
    assert entry.versions == {"onnxruntime": version("onnxruntime")}
    assert cell_of(model, "ort.basic").known_failure is None


def test_an_entry_that_the_card_has_keeps_what_it_says(model: Path) -> None:
    known = KnownFailure(
        "compare", "a norm loses an axis", {"onnxruntime": "<99"}, ("ort.all",)
    )
    (model.parent / "net.model.toml").write_text(as_toml(known), encoding="utf-8")
    cell = cell_of(model, "ort.all")
    findings = Findings(failure="output y departs", stage="compare")

    entry = entry_of(
        cell, findings, "`RMSNormFusion`: wrong.", model.parent / "repro" / "net"
    )

    assert (entry.reason, entry.versions) == ("a norm loses an axis", {"onnxruntime": "<99"})
    assert (entry.cause, entry.repro) == ("`RMSNormFusion`: wrong.", "repro/net")
    assert text_of(cell, entry).startswith("# in the place of the entry in net.model.toml\n")


def test_a_library_s_defect_is_entered_with_its_version(model: Path) -> None:
    entry = entry_of(
        cell_of(model, "simplify+onnxslim"), Findings(stage="check"), "It.", None
    )

    assert entry.versions == {"onnxslim": version("onnxslim")}
    assert entry.variants == ("simplify+onnxslim",)


def test_whatever_a_sentence_holds_arrives(tmp_path: Path) -> None:
    text = 'a "quoted" \\ path, a tab\t, an é, a 😀 and \x7f'
    card = tmp_path / "net.model.toml"
    card.write_text(as_toml(KnownFailure("run", text, {"a.b": "1"}, cause=text)), "utf-8")

    [entry] = read(card).known_failures
    assert (entry.reason, entry.cause, entry.versions) == (text, text, {"a.b": "1"})


def test_the_command_shows_the_entry_or_its_file(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model.parent)
    words = ["diagnose", "net.onnx", "--variant", "ort.all", "--input-sets", "1"]

    main([*words, "--no-repro"])
    assert "[[known_failure]]" in capsys.readouterr().out
    main([*words, "--repro", "shown"])
    assert f"known failure: shown/{FILE}" in capsys.readouterr().out
    main([*words, "--repro", "public", "--public"])
    assert not (model.parent / "public" / FILE).exists()
