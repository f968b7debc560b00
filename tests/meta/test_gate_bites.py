"""Sabotage of runs beside the pinned reference: each ends with a code other than 0 and a reason."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.cli import main
from onnx_harness.cli.gate import INCONCLUSIVE, INVALID
from onnx_harness.gate.verdicts import PART_PAIRS
from onnx_harness.latency.profiled import PAIRS as PROFILED_PAIRS
from onnx_harness.results import history
from onnx_harness.results.levels import FOLDER, read_levels, write_levels
from onnx_harness.results.store import read_results
from tests.models import linear, save
from tests.plugin.running import Ended, made_reference, read_cells, run_pytest, start_pytest

FAIL = 1


def made_project(folder: Path) -> Path:
    """A small model in ``folder``, and a reference environment that is this one."""
    save(linear(), folder / "net.onnx")
    made_reference(folder / "reference")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return made_project(tmp_path)


OPTIONS = (
    "net.onnx",
    "--variant",
    "original",
    "--report-dir",
    "reports",
    "--latency-budget",
    "0.1",
)


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run beside the reference, accepted: made once, since its pairs of fresh processes take
    long.
    """
    folder = made_project(tmp_path_factory.mktemp("accepted"))
    ended = run_pytest(folder, *OPTIONS, "--gate-reference", "reference")
    assert ended.code == 0, ended.told
    assert (
        main(
            [
                "gate",
                "accept",
                "--all",
                "--why",
                "right",
                "--report-dir",
                str(folder / "reports"),
            ]
        )
        == 0
    )
    return ended


# A pair starts two processes. Eight are the fewest whose verdict can be certain (2**-8 < 0.01).
FEWER_PAIRS = """
from dataclasses import replace

from onnx_harness.gate import slower, verdicts

chosen = verdicts.lockstep_pairs
verdicts.lockstep_pairs = lambda cells: replace(chosen(cells), pairs=8)
verdicts.CONFIRMING_PAIRS, verdicts.PART_PAIRS = 8, 4
slower.profile_cell.__defaults__ = (4,)
"""


@pytest.fixture
def accepted_project(first_night: Ended, tmp_path: Path) -> Path:
    project = shutil.copytree(first_night.folder, tmp_path / "accepted")
    (project / "conftest.py").write_text(FEWER_PAIRS, "utf-8")
    return project


def test_a_run_beside_the_reference_is_accepted_and_gated(
    first_night: Ended, accepted_project: Path
) -> None:
    told = first_night.told
    assert (
        "beside the pinned reference: 16 pairs for the cell, about 0.2 minutes: with a spread of"
        in told
    )
    record = first_night.cells["net-original-cpu"]["pinned"]
    assert (record["status"], len(record["log_ratios"]), record["samples"] > 0) == (
        "pass",
        16,
        True,
    )
    assert record["verdict"] is None  # nothing was accepted yet
    assert main(["gate", "--report-dir", str(accepted_project / "reports")]) == 0


def test_parts_are_measured_as_one_run_and_merged_for_the_gate(
    accepted_project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each part decides for as many cells as the whole run times: here two, of which it has one."""
    monkeypatch.chdir(accepted_project)
    shutil.copy("net.onnx", "more.onnx")
    for part in "12":
        shutil.copytree(Path("reports") / FOLDER, Path(f"part{part}") / FOLDER)
        options = (*OPTIONS, "more.onnx", "--gate-reference=reference", f"--shard={part}/2")
        ended = run_pytest(accepted_project, *options, f"--report-dir=part{part}")
        assert ended.code == 0, ended.told
        assert "pairs for each of 2 cells" in ended.told
        assert "This part times 1 of the 2 cells of the whole run" in ended.told
        assert "no accepted levels" not in ended.told
    assert main(["report", "--merge", "part1", "part2", "-o", "merged"]) == 0
    pinned = {cell.id: cell.pinned for cell in read_results(Path("merged")).cells}
    record = pinned["net-original-cpu"]
    assert record is not None
    assert record.verdict is not None
    assert (record.verdict.pairs, len(record.log_ratios)) == (8, 8)
    shutil.copytree(Path("reports") / FOLDER, Path("merged") / FOLDER)
    capsys.readouterr()
    # The copy has no accepted level.
    assert main(["gate", "--report-dir", "merged"]) == INVALID
    assert "1 invalid; latency gated in 1" in capsys.readouterr().out


@pytest.mark.nightly
def test_a_model_that_changed_is_timed_beside_the_accepted_one(
    accepted_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = accepted_project / "reports"
    accepted = json.loads((reports / FOLDER / "levels.jsonl").read_text("utf-8"))["cell"][
        "model_sha256"
    ]
    slower = linear()
    slower.graph.node.add(op_type="Identity", input=["product"], output=["again"])
    slower.graph.node.add(op_type="Identity", input=["again"], output=["more"])
    save(slower, accepted_project / "net.onnx")
    ended = run_pytest(accepted_project, *OPTIONS, "--gate-reference", "reference")
    found = ended.cells["net-original-cpu"]
    assert found["pinned"]["model_sha256"] == accepted != found["model_sha256"]
    capsys.readouterr()
    assert main(["gate", "--report-dir", str(reports)]) == FAIL
    assert (
        "nodes: 4 nodes (2 with the pinned versions), and 2 were accepted"
        in capsys.readouterr().out
    )


@pytest.fixture
def slowed(accepted_project: Path) -> Path:
    """A project with a level that says that the cell took half of the time when it was accepted."""
    reports = accepted_project / "reports"
    [level] = read_levels(reports / FOLDER).values()
    assert level.cell.pinned is not None
    faster = replace(
        level, cell=replace(level.cell, pinned=replace(level.cell.pinned, ratio=0.5))
    )
    write_levels(reports / FOLDER, {faster.key: faster})
    return accepted_project


@pytest.mark.parametrize(
    ("first", "second", "part", "profiled"),
    [
        (8, 8, 4, 4),
        pytest.param(16, 32, PART_PAIRS, PROFILED_PAIRS, marks=pytest.mark.nightly),
    ],
)
def test_a_slower_cell_is_measured_again_in_the_run(
    slowed: Path,
    capsys: pytest.CaptureFixture[str],
    first: int,
    second: int,
    part: int,
    profiled: int,
) -> None:
    if first == 16:  # as users have it
        (slowed / "conftest.py").unlink()
    ended = run_pytest(slowed, *OPTIONS, "--gate-reference", "reference")
    assert ended.code == 0, ended.told
    told = (
        "doubtful latencies measured again, on fresh pairs in turn, 0 of 1 settled: "
        "net-original-cpu, turn "
    )
    for turn in range(1, math.ceil(second / part) + 1):
        assert f"{told}{turn}\n" in ended.told
    assert (
        "latency compared with the accepted levels: 1 fail, 1 of them measured again"
        in ended.told
    )
    record = ended.cells["net-original-cpu"]["pinned"]
    verdict = record["verdict"]
    assert (verdict["outcome"], verdict["reason"]) == (
        "fail",
        "fail, then fail on fresh pairs",
    )
    assert (verdict["pairs"], verdict["accepted"], verdict["p"] < 0.01) == (
        second,
        0.5,
        True,
    )
    assert verdict["ratio"] == pytest.approx(2.0, rel=0.3)
    assert verdict["ratio_ci95"][0] <= verdict["ratio"] <= verdict["ratio_ci95"][1]
    assert (len(record["log_ratios"]), len(record["confirming_log_ratios"])) == (
        first,
        second,
    )
    assert not set(record["log_ratios"]) & set(record["confirming_log_ratios"])
    assert (record["operators"]["pairs"], record["operators"]["reason"]) == (profiled, None)
    with history.History(slowed / "reports" / "history.sqlite") as past:
        kept = past.past("net-original-cpu")[-1].cell.pinned
    assert kept is not None
    assert list(kept.confirming_log_ratios) == record["confirming_log_ratios"]
    capsys.readouterr()
    assert main(["gate", "--report-dir", str(slowed / "reports")]) == INCONCLUSIVE
    shown = capsys.readouterr().out
    assert "A second night in a row would fail it" in shown
    assert (
        f"note: no operator stands out in {profiled} pairs" in shown
        or "slower operators: " in shown
    )


def until_measured_again(folder: Path) -> subprocess.Popen[str]:
    """A run that has begun to measure its cell a second time."""
    run = start_pytest(folder, *OPTIONS, "--gate-reference", "reference")
    assert run.stdout is not None
    assert any("measured again" in line for line in run.stdout), (
        "no second measurement was begun"
    )
    return run


@pytest.mark.nightly
def test_a_run_killed_before_its_second_measurement_keeps_the_first(
    slowed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with until_measured_again(slowed) as run:
        run.kill()
    record = read_cells(slowed)["net-original-cpu"]["pinned"]
    assert (record["verdict"]["outcome"], record["confirming_log_ratios"]) == ("fail", [])
    capsys.readouterr()
    assert main(["gate", "--report-dir", str(slowed / "reports")]) == INVALID
    assert "the run ended before the second" in capsys.readouterr().out


@pytest.mark.nightly
def test_a_reference_that_breaks_before_the_second_measurement_leaves_no_verdict(
    slowed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with until_measured_again(slowed) as run:
        (slowed / "reference" / "bin" / "python").write_text(
            "#!/bin/sh\necho out of order >&2\nexit 3\n", "utf-8"
        )
        told, _ = run.communicate(timeout=120)
    assert run.returncode == 0, told
    verdict = read_cells(slowed)["net-original-cpu"]["pinned"]["verdict"]
    assert verdict["outcome"] == "invalid"
    assert verdict["reason"].startswith("fail, and couldn't be measured again: GateError: ")
    capsys.readouterr()
    assert main(["gate", "--report-dir", str(slowed / "reports")]) == INVALID
    assert "couldn't be measured again" in capsys.readouterr().out


def test_no_verdict_is_recorded_under_xdist(
    slowed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where the reference is named in pyproject.toml, and the models stand among other tests."""
    settings = (
        'gate_reference = "reference"\nreport_dir = "reports"\nvariant = ["original"]\n'
    )
    (slowed / "pyproject.toml").write_text(f"[tool.onnx-harness]\n{settings}", "utf-8")
    (slowed / "test_other.py").write_text("def test_other():\n    pass\n", "utf-8")
    ended = run_pytest(slowed, "net.onnx", "test_other.py", "-n", "2")
    assert ended.code == 0, ended.told
    assert ended.cells["net-original-cpu"]["pinned"] is None
    capsys.readouterr()
    assert main(["gate", "--report-dir", str(slowed / "reports")]) == INVALID
    assert (
        "wasn't timed with the pinned reference: the run named none"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("-n", "2"), "-n (xdist) can't"),
        (("--provider", "cuda"), "provider 'cuda' was asked for"),
        (("--gate-reference", "nowhere"), "there is no virtual environment in nowhere"),
    ],
)
def test_what_cannot_be_timed_is_refused_and_not_recorded(
    more: tuple[str, ...], said: str, project: Path
) -> None:
    ended = run_pytest(project, *OPTIONS, "--gate-reference", "reference", *more)
    assert (ended.code, said in ended.told) == (4, True), ended.told
    assert not (project / "reports" / "history.sqlite").exists()


def test_a_reference_without_onnx_runtime_is_refused(project: Path) -> None:
    python = project / "reference" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n', "utf-8")
    ended = run_pytest(project, *OPTIONS, "--gate-reference", "reference")
    assert ended.code == 4, ended.told
    assert "the reference environment has no ONNX Runtime" in ended.told
    python.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n", "utf-8")
    ended = run_pytest(project, *OPTIONS, "--gate-reference", "reference")
    assert ended.code == 4, ended.told
    assert "left with exit code 3; it last said: out of order" in ended.told


@pytest.mark.nightly
def test_the_second_of_two_runs_at_once_is_refused(project: Path) -> None:
    (project / "conftest.py").write_text(FEWER_PAIRS, "utf-8")
    arguments = (*OPTIONS, "--gate-reference", "reference", "--latency-budget", "2")
    with start_pytest(project, *arguments) as first:
        file = project / "reports" / "history.sqlite"
        while not file.exists() and first.poll() is None:
            time.sleep(0.01)
        second = run_pytest(project, *arguments)
        told, _ = first.communicate(timeout=120)
    assert (second.code, first.returncode) == (4, 0), told
    assert "another run is writing its results" in second.told
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
