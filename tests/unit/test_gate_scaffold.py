"""`onnx-harness gate init`: the first files of a gate, whole or not at all."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from onnx_harness.cli import USAGE, main
from onnx_harness.errors import ResultsError, UsageError
from onnx_harness.gate.environment import read_lock
from onnx_harness.gate.scaffold import (
    GITHUB_FILE,
    GITLAB_FILE,
    MOST_LINES,
    Commands,
    Scaffold,
    lock_text,
    plan,
    write,
)

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


KEY = "onnx-gate-${{ github.run_id }}-${{ github.run_attempt }}"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("provider", "runner"),
    [("cpu", "ubuntu-24.04"), ("cuda", ["self-hosted", "linux", "cuda"])],
)
@pytest.mark.parametrize("listed", [True, False])
def test_the_workflow_in_full(
    provider: str, runner: str | list[str], listed: bool, repository: Path
) -> None:
    if listed:
        (repository / "requirements.txt").touch()
    made = plan(["models", "a b"], provider, Path("out/r"), gitlab=False, root=repository)
    assert list(made.files) == [
        Path("out/r/baselines/requirements.lock"),
        repository / GITHUB_FILE,
    ]
    options = f"--provider {provider} --report-dir out/r"
    matrix = f"pytest models 'a b' {options} --gate-reference .reference"
    gate = f"onnx-harness gate {options}"
    assert made.commands == Commands(
        reference="onnx-harness gate reference .reference --report-dir out/r",
        matrix=matrix,
        gate=gate,
        accept=f"onnx-harness gate accept --all {options}",
    )
    workflow = yaml.safe_load(made.files[repository / GITHUB_FILE])
    job = workflow["jobs"]["onnx-gate"]
    assert job["runs-on"] == runner
    install = f'pip install "onnx-harness[{provider}]"'
    cached = {"path": "out/r/history.sqlite\n.reference", "key": KEY}
    assert job["steps"] == [
        {"uses": "actions/checkout@v4"},
        {"uses": "actions/setup-python@v5", "with": {"python-version": PYTHON}},
        {
            "uses": "actions/cache/restore@v4",
            "with": {**cached, "restore-keys": "onnx-gate-"},
        },
        {"run": f"{install} -r requirements.txt" if listed else install},
        {"run": made.commands.reference},
        {"run": f"{matrix} || [ $? -eq 1 ]"},
        {
            "run": f'{gate} --summary "$GITHUB_STEP_SUMMARY" --issue out/r/issue.md || [ $? -eq 3 ]'
        },
        {"uses": "actions/cache/save@v4", "if": "always()", "with": cached},
        {
            "uses": "actions/upload-artifact@v4",
            "if": "always()",
            "with": {"name": "onnx", "path": "out/r"},
        },
    ]


def test_the_pipeline_in_full(repository: Path) -> None:
    made = plan(["models"], "cpu", Path("out/r"), gitlab=True, root=repository)
    assert list(made.files)[1] == repository / GITLAB_FILE
    assert yaml.safe_load(made.files[repository / GITLAB_FILE]) == {
        "onnx-gate": {
            "image": f"python:{PYTHON}",
            "rules": [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}],
            "cache": {
                "key": "onnx-gate",
                "when": "always",
                "paths": ["out/r/history.sqlite", ".reference"],
            },
            "script": [
                'pip install "onnx-harness[cpu]"',
                made.commands.reference,
                f"{made.commands.matrix} || [ $? -eq 1 ]",
                f"{made.commands.gate} --issue out/r/issue.md",
            ],
            "allow_failure": {"exit_codes": 3},
            "artifacts": {"when": "always", "paths": ["out/r/"]},
        }
    }


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("../out", "^the reports .* lie outside "),
        ("a b", "^the folder a b can't stand in a work"),
    ],
)
def test_a_place_that_no_workflow_can_name_is_refused(
    place: str, words: str, repository: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        plan(["models"], "cpu", repository / place, gitlab=False, root=repository)


def test_a_file_that_cannot_be_written_takes_the_others_with_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = {
        tmp_path / "a" / "b": "one",
        tmp_path / "c": "two",
        tmp_path / "file" / "d": "three",
    }
    scaffold = Scaffold(files, Commands("", "", "", ""), ())
    with pytest.raises(ResultsError, match=r"a file of the gate can't .*\(--report-dir\)"):
        write(scaffold)
    assert not (tmp_path / "a" / "b").exists()
    assert not (tmp_path / "c").exists()
    (tmp_path / "file").unlink()
    write(scaffold)
    assert [path.read_text("utf-8") for path in files] == ["one", "two", "three"]


def test_a_link_to_nowhere_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="link exists, and isn't overwritten"):
        write(Scaffold({tmp_path / "link": "x"}, Commands("", "", "", ""), ()))


def test_names_in_a_lock_file_are_normal_sorted_and_there_once() -> None:
    text, omitted = lock_text(
        [
            *map(
                Installed,
                ("Zeta", "", "a.-_B", "A-b", "setuptools", "wheel", "ONNX_harness"),
            ),
            *(Installed(name, "{}") for name in ("Mine", "her.s", "mine")),
            *map(Installed, ("mine", "last")),
            Installed("zeta", "{}"),
        ]
    )
    assert text == (
        "# The versions that the gate's pinned reference is made of: onnx-harness gate reference.\n"
        "a-b==1.0\nlast==1.0\nzeta==1.0\n"
    )
    assert omitted == ("her-s", "mine")
