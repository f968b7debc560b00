"""Making the reference environment, with commands that are noted and not run; a side's notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_harness.errors import GateError
from onnx_harness.gate import environment
from onnx_harness.gate.process import EnvironmentProcess

Ran = list[tuple[list[str], dict[str, Any]]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The commands, which all end with 0."""
    commands: Ran = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append((command, options))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_an_environment_is_made_by_venv_and_pip(tmp_path: Path, ran: Ran) -> None:
    lock, place = tmp_path / "requirements.lock", tmp_path / "there"
    lock.write_text("onnx==1.23.2\n", "utf-8")
    assert environment.make(place, lock)
    python = str(place / "bin" / "python")
    quiet = ["--quiet", "--disable-pip-version-check"]
    assert [command for command, _ in ran] == [
        [sys.executable, "-m", "venv", str(place)],
        [python, "-m", "pip", "install", *quiet, "-r", str(lock)],
    ]
    for _, options in ran:
        assert options == {
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": 3600,
            "check": False,
        }
    ran.clear()
    assert not environment.make(place, lock)
    [(command, options)] = ran
    assert command == [python, "-c", ""]
    assert options == {"capture_output": True, "timeout": 60, "check": False}
    lock.write_text("onnx==1.24.0\n", "utf-8")
    assert environment.make(place, lock)


def test_an_environment_that_was_not_finished_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, place = tmp_path / "requirements.lock", tmp_path / "there"
    lock.write_text("onnx==1.23.2\n", "utf-8")
    (place / "lib").mkdir(parents=True)
    (place / "mine").mkdir()
    (place / environment.MARK).touch()

    def late(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", late)
    words = f"can't be made: {sys.executable} did not end within 3600 s"
    with pytest.raises(GateError, match=words):
        environment.make(place, lock)
    assert (place / environment.MARK).read_text("utf-8") == "being made\n"
    assert [path.name for path in place.iterdir() if path.is_dir()] == ["mine"]


def test_a_note_that_is_no_text_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    note = tmp_path / "notes"
    side: Any = SimpleNamespace(_notes=note)
    assert EnvironmentProcess._noted(side) == ""
    note.write_bytes(b"a \xff")
    assert EnvironmentProcess._noted(side) == "a �"


@pytest.mark.parametrize(
    ("fails", "what"), [(0, "the virtual environment"), (1, "pip can't inst")]
)
def test_a_command_that_fails_is_told_with_its_place_and_last_lines(
    fails: int, what: str, tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, place = tmp_path / "requirements.lock", tmp_path / "there"
    lock.write_text("onnx==1.23.2\n", "utf-8")

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        ran.append((command, options))
        said = "one\n two\nWARNING: old\nthree\nfour\n"
        return SimpleNamespace(returncode=len(ran) - 1 == fails, stdout="out", stderr=said)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(GateError, match=f"^{what}") as told:
        environment.make(place, lock)
    assert f" ({place}): two three four. Mend: " in str(told.value)
    assert len(ran) == fails + 1
