"""``--jobs`` and ``--shard``: the same verdicts, each test reported once, in order.

Latency alone, afterwards.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from onnx_harness.cli import main
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.store import read_results
from tests.models import linear, save, two_outputs
from tests.plugin.running import install, read_cells, run_pytest, start_pytest
from tests.plugin.test_plugin_interruption import SLEEPY, left, wait_until

pytestmark = pytest.mark.usefixtures("unconfined")  # their transforms write files

VARIANTS = ("--variant=original", "--variant=simplify")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save(linear(), tmp_path / "lin.onnx")
    save(two_outputs(), tmp_path / "two.onnx")
    (tmp_path / "broken.onnx").write_text("this is no model")
    return tmp_path


def reported(told: str) -> list[str]:
    return re.findall(r"^(\S+::test_\S+\]) (?:PASSED|FAILED|SKIPPED)", told, re.MULTILINE)


def test_each_test_is_reported_once_and_latency_comes_last(models: Path) -> None:
    names = ["lin.onnx", "broken.onnx", "two.onnx"]
    ended = run_pytest(
        models,
        *names,
        *VARIANTS,
        "--report-dir=reports",
        "--jobs=2",
        "-v",
        "--latency-budget=0.2",
    )
    tests = reported(ended.told)
    assert len(tests) == len(set(tests)) == 12
    assert ["latency" in test for test in tests] == [False] * 6 + [True] * 6
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    statuses = {key: cell["status"] for key, cell in ended.cells.items()}
    assert statuses == {
        f"{model}-{variant}-cpu": "fail" if model == "broken" else "pass"
        for model in ("lin", "two", "broken")
        for variant in ("original", "simplify")
    }
    assert all(
        cell["latency"] for key, cell in ended.cells.items() if not key.startswith("broken")
    )


NOTES_AHEAD = """
from pathlib import Path
from onnx_harness.run.runner import Runner

judge_ahead = Runner.judge_ahead

def noted(runner, cells):
    Path("ahead").write_text(" ".join(cell.id for cell in cells))
    judge_ahead(runner, cells)

Runner.judge_ahead = noted
"""


@pytest.mark.parametrize(
    ("options", "ahead"),
    [
        (["-k=accuracy"], True),
        (["--benchmark-skip"], True),
        (["--benchmark-disable"], True),
        (["--latency-budget=0.2"], False),
        (["--jobs=2", "-k=accuracy"], False),
    ],
)
def test_the_next_cell_is_judged_ahead_unless_one_is_timed(
    models: Path, options: list[str], ahead: bool
) -> None:
    (models / "conftest.py").write_text(NOTES_AHEAD)
    ended = run_pytest(
        models, "lin.onnx", "broken.onnx", *VARIANTS, "--report-dir=reports", *options
    )
    statuses = {key: cell["status"] for key, cell in ended.cells.items()}
    expected = [
        f"{model}-{name[10:]}-cpu" for model in ("lin", "broken") for name in VARIANTS
    ]
    assert statuses == dict(zip(expected, ["pass", "pass", "fail", "fail"], strict=True))
    note = models / "ahead"
    assert (note.read_text().split() if note.exists() else []) == (expected if ahead else [])


NOTES_STARTS = """
from onnx_harness.isolate.worker import Worker

start = Worker._start

def noted(worker):
    with open("starts", "a") as notes:
        notes.write("x")
    start(worker)

Worker._start = noted
"""


def test_no_more_processes_are_started_than_there_are_cells(models: Path) -> None:
    (models / "conftest.py").write_text(NOTES_STARTS)
    ended = run_pytest(models, "lin.onnx", *VARIANTS, "--jobs=8", "-k=accuracy")
    assert ended.code == pytest.ExitCode.OK, ended.told
    assert (models / "starts").read_text() == "xx"


def test_the_first_failure_ends_the_run_under_x(models: Path) -> None:
    ended = run_pytest(
        models, "broken.onnx", "lin.onnx", *VARIANTS, "--jobs=2", "-x", "-v", "-k=accuracy"
    )
    assert reported(ended.told)[-1].startswith("broken.onnx")
    assert "stopping after 1 failures" in ended.told


def test_jobs_and_xdist_exclude_each_other(models: Path) -> None:
    ended = run_pytest(models, "lin.onnx", "--jobs=2", "-n2")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "--jobs" in ended.told


@pytest.mark.parametrize("word", ["0", "-1", "many", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused(models: Path, word: str) -> None:
    assert (
        run_pytest(models, "lin.onnx", f"--jobs={word}").code == pytest.ExitCode.USAGE_ERROR
    )


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_every_process_and_keeps_what_was_judged(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    install(tmp_path, SLEEPY)
    cells = [
        "lin.onnx",
        "--variant=original",
        "--variant=sleepy",
        "-k",
        "accuracy",
        "--report-dir=reports",
        "--jobs=2",
    ]
    process = start_pytest(tmp_path, *cells, start_new_session=True)
    assert wait_until(
        lambda: (tmp_path / "asleep").exists() and bool(read_cells(tmp_path)), 120
    )
    below = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, told
    assert time.monotonic() - started < 30
    assert left(below) == []
    assert list(read_cells(tmp_path)) == ["lin-original-cpu"]


def test_shards_together_are_the_whole_run_in_any_order(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(models)
    for part in (1, 2):
        run_pytest(
            models,
            "lin.onnx",
            "two.onnx",
            *VARIANTS,
            "-k=accuracy",
            f"--shard={part}/2",
            f"--report-dir=part{part}",
        )
        assert len(read_results(models / f"part{part}").cells) == 2
    assert main(["report", "--merge", "part1", "part2", "-o", "one"]) == 0
    assert main(["report", "--merge", "part2", "part1", "-o", "other"]) == 0
    names = ("results.json", "summary.md", "report.html")
    assert [(models / "one" / name).read_bytes() for name in names] == [
        (models / "other" / name).read_bytes() for name in names
    ]
    merged = read_results(models / "one")
    assert len(merged.cells) == 4
    assert [shard.partition(" ")[0] for shard in merged.run.shards] == ["1/2", "2/2"]
    with History(models / "one" / FILE_NAME) as past:
        [run] = past.runs()
        assert len(past.cells(run.id)) == 4
    main(["gate", "--report-dir", "one"])
    told = capsys.readouterr()
    assert "there is no history" not in told.out + told.err
    assert "4 cells" in told.out + told.err


def test_a_part_without_a_cell_is_no_missing_part(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    for part in (1, 2):
        ended = run_pytest(
            models,
            *("lin.onnx", "--variant=original", "-k=accuracy"),
            *(f"--shard={part}/2", f"--report-dir=part{part}"),
        )
    assert ended.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "no cell falls to this part, 2/2" in ended.told
    assert read_results(models / "part2").cells == ()
    assert main(["report", "--merge", "part1", "part2", "-o", "whole"]) == 0
    whole = read_results(models / "whole")
    assert [cell.id for cell in whole.cells] == ["lin-original-cpu"]
    assert [shard[:3] for shard in whole.run.shards] == ["1/2", "2/2"]
    # Of a run that selects nothing, nothing is written: the last report stays.
    before = (models / "part1" / "results.json").read_bytes()
    nothing = ("lin.onnx", "-k=no_such_test", "--shard=1/2", "--report-dir=part1")
    assert run_pytest(models, *nothing).code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert (models / "part1" / "results.json").read_bytes() == before


@pytest.mark.parametrize("word", ["0/2", "3/2", "2", "a/b", "/"])
def test_a_shard_that_is_none_is_refused(models: Path, word: str) -> None:
    assert (
        run_pytest(models, "lin.onnx", f"--shard={word}").code == pytest.ExitCode.USAGE_ERROR
    )


def _run_part(models: Path, part: int, *words: str) -> None:
    names = ["lin.onnx", "two.onnx", "third.onnx"]
    few = (*VARIANTS, "-k=accuracy", f"--shard={part}/3", f"--report-dir=part{part}", *words)
    run_pytest(models, *names, *few)


def test_a_second_night_and_a_restart_lose_no_cell(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(linear(), models / "third.onnx")
    monkeypatch.chdir(models)
    parts = ["part1", "part2", "part3"]
    for night in ("first", "second"):
        for part in (1, 2, 3):
            _run_part(models, part)
        assert main(["report", "--merge", *parts, "-o", night]) == 0
        assert len(read_results(models / night).cells) == 6
    before = read_results(models / "part2").run.shards
    _run_part(models, 2, "--resume", "--shard-times=first")
    assert read_results(models / "part2").run.shards == before
    assert main(["report", "part1", "part2", "-o", "lacking"]) == 1


def test_times_that_are_nowhere_are_refused(models: Path) -> None:
    ended = run_pytest(models, "lin.onnx", "--shard=1/2", "--shard-times=nowhere")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "there is no file or folder" in ended.told
