"""`onnx-harness gate init`: the first files of a gate, whole or not at all."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from onnx_harness.cli import USAGE, main
from onnx_harness.gate.environment import read_lock
from onnx_harness.gate.scaffold import GITHUB_FILE, GITLAB_FILE, MOST_LINES, lock_text

LOCK = Path("reports/baselines/requirements.lock")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "models").mkdir()
    return tmp_path


def runs() -> list[str]:
    workflow = yaml.safe_load(GITHUB_FILE.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    steps: list[dict[str, Any]] = workflow["jobs"]["onnx-gate"]["steps"]
    return [step["run"] for step in steps if "run" in step]


def test_it_writes_the_lock_and_a_workflow_and_says_the_three_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["gate", "init"]) == 0
    said = capsys.readouterr().out
    for command in (
        "  onnx-harness gate reference .reference --report-dir reports\n",
        "  pytest models --provider cpu --report-dir reports --gate-reference .reference\n",
        "  onnx-harness gate --provider cpu --report-dir reports\n",
    ):
        assert command in said
        assert any(run.startswith(command.strip()) for run in runs())
    assert "numpy==" in read_lock(LOCK)
    assert "onnx-harness==" not in read_lock(LOCK)
    assert len(GITHUB_FILE.read_text("utf-8").splitlines()) <= MOST_LINES


def test_a_pipeline_for_gitlab_warns_of_a_first_slow_night() -> None:
    assert main(["gate", "init", "--gitlab"]) == 0
    text = GITLAB_FILE.read_text("utf-8")
    job = yaml.safe_load(text)["onnx-gate"]
    assert job["allow_failure"] == {"exit_codes": 3}
    assert len(job["script"]) == 4
    assert job["cache"]["paths"] == ["reports/history.sqlite", ".reference"]
    assert len(text.splitlines()) <= MOST_LINES
    assert not GITHUB_FILE.exists()


@pytest.mark.parametrize("there", [LOCK, GITHUB_FILE])
def test_nothing_is_overwritten(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there.parent.mkdir(parents=True)
    there.write_text("mine", "utf-8")
    assert main(["gate", "init"]) == USAGE
    assert f"{there} exists, and isn't overwritten" in capsys.readouterr().err
    assert there.read_text("utf-8") == "mine"
    assert [path for path in (LOCK, GITHUB_FILE) if path.exists()] == [there]


def test_what_cannot_be_written_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".github").write_text("a file", "utf-8")
    assert main(["gate", "init"]) == 5
    said = capsys.readouterr().err
    assert "a file of the gate can't be written at" in said
    assert "choose another folder (--report-dir)" in said
    assert not LOCK.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no nowhere here"),
        (["--provider", "kuda"], "Did you mean 'cuda'?"),
        (["--report-dir", "../reports"], "lie outside"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "init", *words]) == USAGE
    assert said in capsys.readouterr().err
    assert not LOCK.exists()


@pytest.mark.parametrize(
    "name", ["a b", "x'; rm -rf y", 'q"uote', "# no comment", "a: b", "$(reboot)", "ünï"]
)
def test_a_folder_of_any_name_stays_one_word(name: str) -> None:
    import shlex

    Path(name).mkdir()
    assert main(["gate", "init", name]) == 0
    [matrix] = [run for run in runs() if run.startswith("pytest")]
    assert shlex.split(matrix)[1] == name


def test_an_expression_of_the_workflow_is_refused() -> None:
    Path("${{ secrets.X }}").mkdir()
    assert main(["gate", "init", "${{ secrets.X }}"]) == USAGE


class Installed(Distribution):
    """A distribution that isn't."""

    def __init__(self, name: str, address: str | None = None) -> None:
        self._name, self._address = name, address

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: 1.0\n"
        return self._address if filename == "direct_url.json" else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


def test_what_comes_from_a_folder_is_left_out_of_the_lock_file_and_named() -> None:
    text, omitted = lock_text(
        [Installed("b_C"), Installed("mine", '{"url": "file:///x"}'), Installed("pip")]
    )
    assert text.splitlines()[1:] == ["b-c==1.0"]
    assert omitted == ("mine",)
