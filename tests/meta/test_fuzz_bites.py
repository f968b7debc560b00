"""The search for bytes that break a reader finds them, and says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests import fuzz

FUZZER = fuzz.ROOT / "build" / "fuzz"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None and not (FUZZER / "atheris").is_dir(),
    reason="`make build/fuzz/.made` installs atheris",
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FUZZER))
    monkeypatch.setenv("ONNX_HARNESS_FUZZING", str(tmp_path))


def test_a_reader_that_breaks_is_found_and_its_bytes_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuzz.main(["planted", "--seconds", "10"]) == 1
    shown = capsys.readouterr().out
    assert "planted: it ended early" in shown
    assert "more than three bytes" in shown
    assert list((tmp_path / "planted").glob("broke-*"))


def test_a_reader_that_does_not_break_is_searched_for_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fuzz.main(["answer", "--seconds", "3"]) == 0
    assert "answer: Done " in capsys.readouterr().out
