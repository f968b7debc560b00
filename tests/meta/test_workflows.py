"""The nightly workflow: it parses, calls what exists, and its verdicts can fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.mutants.__main__ import read_rooms

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
KNOWN_ACTIONS = {
    "actions/checkout",
    "actions/setup-python",
    "actions/cache",
    "actions/cache/restore",
    "actions/cache/save",
    "actions/upload-artifact",
}


def read(name: str) -> dict[Any, Any]:
    made = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    assert isinstance(made, dict)
    return made


def steps() -> list[dict[str, Any]]:
    return list(read("night.yml")["jobs"]["night"]["steps"])


def all_steps() -> list[dict[str, Any]]:
    """The steps of every workflow."""
    jobs = [job for path in WORKFLOWS for job in read(path.name)["jobs"].values()]
    return [
        *(step for job in jobs for step in job.get("steps", ())),
        *ACTION["runs"]["steps"],
    ]


def targets() -> set[str]:
    text = "\n".join(
        (ROOT / name).read_text("utf-8")
        for name in ("Makefile", "tests/providers/environments.mk")
    )
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def called(script: str) -> set[str]:
    """The targets of every ``make`` in a step's script."""
    return set(re.findall(r"\bmake (?:--\S+ )*([a-z-]+)", script))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_parses_and_says_what_it_may_do(path: Path) -> None:
    made = read(path.name)
    assert made["permissions"] == {"contents": "read"}
    assert made["jobs"]
    assert True in made  # YAML 1.1 reads the key `on` as a boolean; GitHub doesn't


def test_every_make_target_that_a_step_calls_exists() -> None:
    wanted = set().union(*(called(step.get("run", "")) for step in all_steps()))
    assert wanted >= {"nightly", "mutants"}
    assert wanted <= targets()


def test_mutants_are_tried_on_changed_lines_of_a_change_and_in_every_room_at_night() -> None:
    made = read("mutants.yml")
    assert made[True].keys() >= {"pull_request", "schedule"}
    changed, whole = made["jobs"]["changed"], made["jobs"]["whole"]
    assert (changed["if"], whole["if"]) == tuple(
        f"github.event_name {relation} 'pull_request'" for relation in ("==", "!=")
    )
    assert whole["strategy"]["matrix"]["room"] == [room.name for room in read_rooms()]
    # A pipe hides how make ended, unless the shell is told otherwise.
    assert all(
        step["shell"] == "bash" for step in all_steps() if "| tee" in step.get("run", "")
    )


def test_what_every_change_checks_in_part_runs_in_full_every_night() -> None:
    made = read("tests.yml")
    assert made[True].keys() >= {"pull_request", "schedule"}
    change, night = made["jobs"]["change"], made["jobs"]["night"]
    assert any(step.get("run") == ".ci/run" for step in change["steps"])
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert called(script) <= targets()
    in_part = set(re.findall(r"make ([a-z-]+) (?:ROWS=.* )?ARGS=", script))
    # With a fixed seed: by night the properties draw anew.
    assert in_part == {"operators", "selftest", "causes", "test"}
    assert set(night["strategy"]["matrix"]["target"]) >= in_part | {"nightly-tests"}
    # A workflow can't tell which targets a matrix names; that they exist is checked here.
    assert set(night["strategy"]["matrix"]["target"]) <= targets()


@pytest.mark.parametrize("day", ["001", "008", "366"])
def test_each_day_draws_a_third_of_the_operators(day: str, tmp_path: Path) -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    [line] = [line for line in script.splitlines() if line.startswith("make operators")]
    for name, body in (("date", f"echo {day}"), ("make", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euc", line],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"operators ARGS=--shard={int(day) % 3 + 1}/3\n"


def test_bytecode_is_written_whatever_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(
        f"include {ROOT / 'tests/providers/environments.mk'}\n"
        "shown:\n\t@echo $${PYTHONDONTWRITEBYTECODE-unset}\n",
        "utf-8",
    )
    ended = subprocess.run(
        ["make", "-s", "shown"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "unset\n"


def test_a_target_that_does_not_exist_would_be_seen() -> None:
    assert called("make nightly\nmake night-ly PROVIDER=cpu") - targets() == {"night-ly"}


def test_actions_are_of_a_major_version_or_a_whole_commit() -> None:
    for step in all_steps():
        if "uses" in step:
            name, _, version = step["uses"].partition("@")
            assert name in KNOWN_ACTIONS
            assert re.fullmatch(r"v\d+|[0-9a-f]{40}", version)


def test_every_night_calls_the_one_workflow_with_labels_that_parse() -> None:
    jobs = read("nightly.yml")["jobs"]
    assert set(jobs) == {"cpu", "cuda", "tensorrt"}
    inputs = read("night.yml")[True]["workflow_call"]["inputs"]
    for name, job in jobs.items():
        assert job["uses"] == "./.github/workflows/night.yml"
        assert job["with"].keys() == inputs.keys()
        assert job["with"]["provider"] == name
        assert json.loads(job["with"]["runner"])
        hosted = "self-hosted" not in job["with"]["runner"]
        assert ("if" not in job) == hosted, (
            "a machine that isn't there would be waited for, every night"
        )


def test_no_text_of_an_event_reaches_a_shell() -> None:
    for step in all_steps():
        assert "${{" not in step.get("run", "")


def test_the_history_is_kept_whatever_the_verdict() -> None:
    saved = [
        step
        for step in steps()
        if step.get("uses", "").startswith(("actions/cache/save", "actions/upload"))
    ]
    assert len(saved) == 2
    assert all(step["if"] == "always()" for step in saved)
    [restored] = [
        step for step in steps() if step.get("uses", "").startswith("actions/cache/restore")
    ]
    assert saved[0]["with"]["key"] == restored["with"]["key"]
    assert restored["with"]["key"].startswith(restored["with"]["restore-keys"])


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        ("inconclusive", 0, "::warning"),
        ("fail", 1, "::error title=Nightly gate::fail"),
        ("invalid", 1, "::error title=Nightly gate::invalid"),
        (None, 1, "::error title=Nightly gate::none"),
    ],
)
def test_the_verdicts_step_is_red_for_all_but_a_first_slow_night(
    outcome: str | None, code: int, said: str, tmp_path: Path
) -> None:
    [verdict] = [step for step in steps() if step.get("name") == "The verdict"]
    assert verdict["if"] == "steps.night.outcome != 'success'"
    if outcome is not None:
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / "gate.json").write_text(
            json.dumps({"outcome": outcome}), "utf-8"
        )
    ended = subprocess.run(
        ["bash", "-e", "-c", verdict["run"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, said in ended.stdout) == (code, True), ended.stdout


def action_step(name: str) -> dict[str, Any]:
    [step] = [step for step in ACTION["runs"]["steps"] if step["name"] == name]
    return dict(step)


def run_action_step(
    name: str, folder: Path, code: int = 0, **environment: str
) -> tuple[int, list[str]]:
    """Run a step of the action beside programs that write their arguments down.

    Its exit code, and the arguments.
    """
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for program in ("python", "gh"):
        script = f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/arguments"\nexit {code}\n'
        (programs / program).write_text(script, "utf-8")
        (programs / program).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    given = {
        "GITHUB_OUTPUT": str(folder / "output"),
        "RUNNER_TEMP": str(folder),
        "GITHUB_REPOSITORY": "a/b",
    }
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", action_step(name)["run"]],
        cwd=folder,
        env={**os.environ, **given, **environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    arguments = folder / "arguments"
    return ended.returncode, arguments.read_text(
        "utf-8"
    ).splitlines() if arguments.exists() else []


def test_the_action_judges_and_its_code_is_pytests(tmp_path: Path) -> None:
    words = {
        "MODELS": "models more/$(reboot).onnx",
        "PROVIDER": "cpu",
        "REPORTS": "my reports",
        "ARGS": "",
    }
    code, arguments = run_action_step("Judge", tmp_path, code=1, **words)
    assert code == 0
    assert arguments == [
        "-m",
        "pytest",
        *words["MODELS"].split(),
        "--provider",
        "cpu",
        "--report-dir",
        "my reports",
    ]
    assert (tmp_path / "output").read_text("utf-8") == "code=1\n"
    words["ARGS"] = "--variant simplify"
    code, arguments = run_action_step("Judge", tmp_path, code=0, **words)
    assert (code, arguments[-2:]) == (0, ["--variant", "simplify"])
    assert run_action_step("The verdict", tmp_path, CODE="4")[0] == 4
    assert run_action_step("The verdict", tmp_path, CODE="0")[0] == 0


def test_the_action_comments_what_a_comment_can_hold(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "summary.md").write_text("é" * 70_000, "utf-8")
    code, arguments = run_action_step("Comment", tmp_path, PULL="7", REPORTS="reports")
    assert (code, arguments[:3]) == (0, ["pr", "comment", "7"])
    assert len((tmp_path / "onnx-harness.md").read_text("utf-8")) < 65_536
    assert action_step("Comment")["continue-on-error"] is True


def test_the_action_passes_each_input_by_the_environment() -> None:
    used = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text("utf-8")))
    assert used == ACTION["inputs"].keys()
    assert action_step("Upload the report")["if"] == "always()"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The Makefile in a folder with an environment that notes what it's asked.

    Pytest ends as the file `code` says.
    """
    for name in ("Makefile", "tests/providers/environments.mk"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    made = tmp_path / ".venv" / "bin"
    made.mkdir(parents=True)
    for name in ("python", "onnx-harness"):
        (made / name).write_text(
            (
                f'#!/bin/sh\necho "{name} $*" >> asked\n[ "$2" = pytest ] && exit "$(cat code)"\n'
                f"exit "
                f"0\n"
            ),
            "utf-8",
        )
        (made / name).chmod(0o755)
    (tmp_path / ".venv" / ".made").touch()
    return tmp_path


def make_nightly(tree: Path, code: int) -> tuple[int, list[str]]:
    (tree / "code").write_text(str(code), "utf-8")
    (tree / "asked").unlink(missing_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS"))
    }
    ended = subprocess.run(
        ["make", "nightly", "GATE_ARGS=--issue x"],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, (tree / "asked").read_text("utf-8").splitlines()


def test_make_nightly_runs_the_matrix_beside_the_reference_and_then_the_gate(
    tree: Path,
) -> None:
    for pytest_code in (0, 1):  # a cell that fails as accepted is the gate's matter
        code, asked = make_nightly(tree, pytest_code)
        assert code == 0
        assert [line.split()[:3] for line in asked] == [
            ["onnx-harness", "gate", "reference"],
            ["onnx-harness", "zoo", "fetch"],
            ["python", "-m", "pytest"],
            ["onnx-harness", "gate", "--provider"],
        ]
        assert "--gate-reference .venv-reference-cpu" in asked[2]
        assert asked[3].endswith("--provider cpu --issue x")


@pytest.mark.parametrize("pytest_code", [2, 3, 4, 5])
def test_a_night_that_recorded_nothing_ends_before_the_gate_sees_the_one_before(
    pytest_code: int, tree: Path
) -> None:
    code, asked = make_nightly(tree, pytest_code)
    assert code != 0
    assert asked[-1].startswith("python -m pytest")
