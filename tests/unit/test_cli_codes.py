"""Exit code 1 of `compare` and `gate` is a verdict, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_harness.cli import NEGATIVE, UNDONE, USAGE, main
from tests.models import linear, save
from tests.nights import night


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(linear(), tmp_path / "a.onnx")
    return tmp_path


@pytest.mark.parametrize("content", [b"", b"no model at all", None])
def test_an_unreadable_model_does_not_depart(
    content: bytes | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (folder / "b.onnx").write_bytes(content)
    assert main(["compare", "a.onnx", "b.onnx"]) == UNDONE
    assert "departs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "a.onnx"],
        ["diagnose", "b.onnx", "--variant", "simplify"],
        ["diagnose", "a.onnx", "b.onnx"],
        ["bisect", "b.onnx", "--variant", "simplify", "--package", "onnxruntime"],
        ["compare", "a.onnx", "a.onnx", "--provider", "kuda"],
        ["gate", "--max-age", "soon"],
        ["gate", "--report-dir", "reports", "--provider", "kuda"],
        ["gate", "accept", "--report-dir", "reports", "--why", "x"],
    ],
)
def test_usage_is_2(words: list[str], folder: Path) -> None:
    night(folder / "reports")
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == USAGE


@pytest.mark.parametrize("option", ["--issue", "--summary"])
def test_a_file_that_cannot_be_written_is_no_verdict(
    option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder / "reports")
    words = ["gate", "--report-dir", "reports", option, "nowhere/at/all.md"]
    assert main(words) == UNDONE
    assert "can't be written" in capsys.readouterr().err


def test_a_defect_of_the_gate_is_no_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    night(folder / "reports")
    monkeypatch.setattr("onnx_harness.cli.gate.gate", broken)
    assert main(["gate", "--report-dir", "reports"]) == UNDONE
    assert "RuntimeError: a defect" in capsys.readouterr().err


def test_the_codes_differ() -> None:
    from onnx_harness.cli.gate import INCONCLUSIVE, INVALID

    assert len({0, NEGATIVE, USAGE, INCONCLUSIVE, INVALID, UNDONE}) == 6
