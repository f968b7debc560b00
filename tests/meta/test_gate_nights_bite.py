"""Sabotage: whatever is wrong with a night in the history, the gate ends with a code other than 0
and a reason, and spoils nothing.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.cli import main
from onnx_harness.cli.gate import INCONCLUSIVE, INVALID
from onnx_harness.results import history
from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    GraphChange,
    PlacementRecord,
    Stage,
    Status,
)
from onnx_harness.results.levels import FOLDER, read_levels
from onnx_harness.results.operators import OperatorRecord, SlowerOperator
from tests.nights import NAMES, night, pinned, rows_digest, timed
from tests.unit.results_examples import latency, output

PASS, FAIL = 0, 1
QUIET = 8
SLOWER = SlowerOperator("GRU_3", "GRU", 1.4, 2.1, (1.47, 1.53), 0.97)
"""Nights before each sabotage."""


@pytest.fixture(scope="module")
def quiet_nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports with a history of quiet nights, the first of which was accepted."""
    folder = tmp_path_factory.mktemp("quiet")
    night(folder)
    assert gate(folder, "accept", "--all", "--why", "as it should be", "--by", "a test") == 0
    for _ in range(QUIET - 1):
        night(folder)
    return folder


@pytest.fixture
def folder(quiet_nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of those reports, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return shutil.copytree(quiet_nights, tmp_path, dirs_exist_ok=True)


@pytest.fixture(autouse=True)
def _nothing_spoilt(request: pytest.FixtureRequest) -> Iterator[None]:
    """The rows of earlier nights are what they were."""
    if "folder" not in request.fixturenames:
        yield
        return
    where = request.getfixturevalue("folder")
    before = rows_digest(where, QUIET)
    saved = (where / FOLDER / "levels.jsonl").read_bytes()
    yield
    if "damaged" not in request.keywords:
        assert rows_digest(where, QUIET) == before
    if "levels" not in request.keywords:
        assert (where / FOLDER / "levels.jsonl").read_bytes() == saved


def gate(folder: Path, *words: str) -> int:
    command, *rest = words or ("--same-night",)
    return main(["gate", command, "--report-dir", str(folder), *rest])


def judged(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["gate", "--same-night", "--report-dir", str(folder), *words])
    return code, capsys.readouterr().out


def test_a_night_as_accepted_passes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder)
    code, said = judged(folder, capsys, "--all")
    assert code == 0, said
    assert said.count("PASS") == len(NAMES) + 1
    assert "ruptures" not in said


# Each a change to the night's `original`, the verdict's code, and a part of the reason.
CHANGES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a failed cell": (
        {
            "status": Status.FAIL,
            "stage": Stage.COMPARE,
            "reason": "the outputs differ",
            "accuracy": None,
        },
        FAIL,
        "status: was accepted as pass, and is fail at compare: the outputs differ",
    ),
    "a cell that the environment breaks": (
        {"status": Status.ERROR, "stage": Stage.LOAD, "reason": "no such wheel"},
        INVALID,
        "status: couldn't be judged, error at load: no such wheel",
    ),
    "a known failure that a card now hides": (
        {"status": Status.KNOWN_FAILURE, "stage": Stage.RUN, "reason": "known"},
        FAIL,
        "accepted as pass, and is known_failure",
    ),
    "a fallback to another provider": (
        {
            "placement": PlacementRecord(
                "CUDAExecutionProvider",
                {"CPUExecutionProvider": 331},
                {"Conv": 20, "Relu": 311},
                0.0,
            )
        },
        FAIL,
        "placement: asked for CUDAExecutionProvider, and accepted on CPUExecutionProvider",
    ),
    "a fallback of some nodes": (
        {
            "placement": PlacementRecord(
                "CPUExecutionProvider", {"CPUExecutionProvider": 300}, {"Conv": 31}, 0.91
            )
        },
        FAIL,
        (
            "placement: 91.0% of its nodes run on CPUExecutionProvider, and 100.0% were accepted; "
            "elsewhere: Conv"
        ),
    ),
    "a placement that isn't known": (
        {"placement": None},
        INVALID,
        "placement: it isn't known where its nodes ran",
    ),
    "a run without the reference, as under xdist": (
        {"pinned": None, "latency": None},
        INVALID,
        "latency: it wasn't timed with the pinned reference: the run named none",
    ),
    "a reference that died": (
        {"pinned": pinned(ratio=1.0, log_ratios=()), "latency": None},
        INVALID,
        "latency: it wasn't timed with the pinned reference: the process died of signal 11",
    ),
    "a NaN for a time": (
        {"latency": latency(math.nan)},
        INVALID,
        "latency: a time or a ratio of it is nan",
    ),
    "a zero for a time": (
        {"latency": latency(0.0)},
        INVALID,
        "latency: a time or a ratio of it is 0",
    ),
    "a zero in the reference": (
        {"pinned": pinned(pinned_median_ms=0.0)},
        INVALID,
        "latency: a time or a ratio of it is 0",
    ),
    "a negative ratio": (
        {"pinned": replace(pinned(), ratio=-1.0)},
        INVALID,
        "latency: a time or a ratio of it is -1",
    ),
    "another thread setting": (
        {"pinned": pinned(threads=2)},
        INVALID,
        "threads: timed on 2 threads, and accepted on 1",
    ),
    "another reference": (
        {
            "pinned": pinned(
                versions={"python": "3.11.7", "onnx": "1.23.2", "onnxruntime": "1.32.0"}
            )
        },
        INVALID,
        "versions: the pinned reference isn't the accepted one: onnxruntime 1.31.0, now 1.32.0",
    ),
    "a reference that ran another model": (
        {"pinned": pinned(model_sha256="cd" * 32)},
        INVALID,
        "latency: the pinned reference didn't run the model that was accepted",
    ),
    "a changed card": (
        {"card_sha256": "c2"},
        INVALID,
        "card: its card says other things about inputs, tolerances",
    ),
    "other inputs": (
        {"inputs_sha256": "i2"},
        INVALID,
        "inputs: it was judged on other inputs than the accepted ones",
    ),
    "more nodes": (
        {"graph": GraphChange(672, 340, 4_700_000, 4_600_000, 0.5)},
        FAIL,
        "nodes: 340 nodes, and 331 were accepted",
    ),
    "a larger model": (
        {"graph": GraphChange(672, 331, 4_700_000, 4_700_000, 0.5)},
        FAIL,
        "size: 4,700,000 bytes, and 4,600,000 were accepted",
    ),
    "a lesser accuracy": (
        {"accuracy": AccuracyRecord(4, {"y": output(9e-6)})},
        FAIL,
        "accuracy: y: smallest tolerance that would pass 9e-06, and 1.1e-06 was accepted",
    ),
    "a greater error within the tolerance": (
        {"accuracy": AccuracyRecord(4, {"y": output(rel_l2=5e-5)})},
        FAIL,
        "accuracy: y: relative L2 error 5e-05, and 1e-05 was accepted",
    ),
    "new NaN": (
        {"accuracy": AccuracyRecord(4, {"y": output(nonfinite=3)})},
        FAIL,
        "accuracy: y: 3 values are NaN or infinite",
    ),
    "an output that is gone": (
        {"accuracy": AccuracyRecord(4, {"z": output()})},
        FAIL,
        "accuracy: its outputs y are gone",
    ),
    "no comparison": ({"accuracy": None}, INVALID, "accuracy: its outputs weren't compared"),
    "a looser tolerance": (
        {"accuracy": AccuracyRecord(4, {"y": output(rtol=1e-2)})},
        INVALID,
        "accuracy: y: the tolerance is looser (rtol 0.01",
    ),
    "an absolute tolerance that is looser": (
        {"accuracy": AccuracyRecord(4, {"y": replace(output(), atol=2e-5)})},
        INVALID,
        "accuracy: y: the tolerance is looser (rtol 0.0001, atol 2e-05)",
    ),
    "a comparison that can't fail any more": (
        {"accuracy": AccuracyRecord(4, {"y": output(vacuous="the same for every input")})},
        INVALID,
        "the comparison can't fail any more: the same for every input",
    ),
    "slower for one night": (
        {"pinned": pinned(1.10)},
        INCONCLUSIVE,
        "; measured again, +10.0% at first). A second night in a row would fail it",
    ),
    "slower for one night by an operator that is known": (
        {"pinned": pinned(1.10, operators=OperatorRecord((SLOWER,), 16))},
        INCONCLUSIVE,
        "note: slower operators: GRU_3: 1.4 -> 2.1 ms [+47%, +53%], 97% of the slowdown",
    ),
    "slower than the fresh pairs of the same night": (
        {"pinned": pinned(1.10, again=1.0)},
        PASS,
        "note: +10.0% at first, and +0.0% when measured again on fresh pairs: not a suspect night",
    ),
    "slower on the fresh pairs alone": (
        {"pinned": pinned(1.005, again=1.10, spread=0.06)},
        PASS,
        (
            "note: +10.0% when measured again, which the first measurement (+0.5%) doesn't show: "
            "not "
            "a suspect night"
        ),
    ),
    "a confirmation that was never run": (
        {"pinned": pinned(1.10, confirming_log_ratios=())},
        INVALID,
        (
            "tonight's first measurement is fail, and the run ended before the second, which that "
            "requires: run again"
        ),
    ),
    "a doubt that was never settled": (
        {"pinned": pinned(1.02, spread=0.06, confirming_log_ratios=())},
        INVALID,
        "tonight's first measurement is inconclusive, and the run ended before the second",
    ),
    "no verdict": (
        {"pinned": pinned(verdict=None)},
        INVALID,
        "the run ended before it was compared with its accepted",
    ),
    "so few pairs that they couldn't fail": (
        {"pinned": pinned(1.10, pairs=6)},
        INVALID,
        (
            "tonight's readings can't be used: 6 pairs can't fail at 0.01 whatever they show: it "
            "takes 7"
        ),
    ),
    "readings that were replayed": (
        {"pinned": pinned(spread=0.0)},
        INVALID,
        "only 1 of 16 pairs differ from one another: readings were replayed",
    ),
    "a NaN among the fresh pairs": (
        {"pinned": pinned(1.10, confirming_log_ratios=(0.1, math.nan))},
        INVALID,
        "latency: a time or a ratio of it is nan",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_night_with(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, wanted, reason = CHANGES[name]
    broken = timed("original", **change)
    if name == "a reference that died":
        assert broken.pinned is not None
        broken = replace(
            broken,
            pinned=replace(
                broken.pinned, ratio=None, reason="the process died of signal 11"
            ),
        )
    night(folder, [broken, timed("simplify")])
    code, said = judged(folder, capsys)
    assert (code, reason in said) == (wanted, True), said
    assert "simplify" not in said


def test_slower_for_two_nights_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, [timed("original", 1.06), timed("simplify")])
    assert judged(folder, capsys)[0] == INCONCLUSIVE
    night(folder, [timed("original", 1.06), timed("simplify")])
    code, said = judged(folder, capsys)
    assert code == FAIL
    assert (
        "latency: 1.060 times the pinned reference's time, and 1.000 was accepted: +6.0%, two "
        "nights in a row" in said
    )


@pytest.mark.parametrize("unconfirmed", [0, 1])
def test_two_slow_nights_of_which_one_was_not_confirmed_do_not_fail(
    unconfirmed: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        again = 1.0 if number == unconfirmed else None
        night(
            folder, [timed("original", pinned=pinned(1.06, again=again)), timed("simplify")]
        )
    assert judged(folder, capsys)[0] == (PASS if unconfirmed == 1 else INCONCLUSIVE)


@pytest.mark.parametrize(
    "void", [{"spread": 0.0}, {"confirming_log_ratios": ()}], ids=["replayed", "killed"]
)
def test_a_night_without_a_valid_verdict_is_no_night_to_be_slow_in(
    void: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its readings couldn't be rested upon that night; they don't make the next one the second."""
    night(folder, [timed("original", pinned=pinned(1.06, **void)), timed("simplify")])
    assert judged(folder, capsys)[0] == INVALID
    night(folder, [timed("original", 1.06), timed("simplify")])
    assert judged(folder, capsys)[0] == INCONCLUSIVE


@pytest.mark.levels
def test_what_is_accepted_of_a_night_that_was_measured_again_is_the_second(
    folder: Path,
) -> None:
    night(folder, [timed("original", pinned=pinned(1.10, again=1.04)), timed("simplify")])
    assert gate(folder, "accept", "net-original-cpu", "--why", "the fresh pairs") == 0
    [level] = [
        level
        for level in read_levels(folder / FOLDER).values()
        if level.cell.variant == "original"
    ]
    assert level.cell.pinned is not None
    assert level.cell.pinned.ratio == pytest.approx(1.04)
    assert level.cell.pinned.ratio_ci95 is not None
    assert level.cell.pinned.ratio_ci95[0] < 1.04 < level.cell.pinned.ratio_ci95[1] < 1.06
    assert gate(folder) == PASS


def test_the_level_does_not_follow_what_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(12):
        night(folder, [timed("original", 1.06), timed("simplify")])
    code, said = judged(folder, capsys)
    assert code == FAIL
    assert "and 1.000 was accepted" in said


def test_a_cell_that_vanished_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, [timed("original")])
    code, said = judged(folder, capsys)
    assert (code, "net-simplify-cpu" in said, "not in this run" in said) == (
        FAIL,
        True,
        True,
    )


def test_a_renamed_cell_is_one_that_vanished_and_one_without_a_level(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, [timed("original"), timed("simplified")])
    code, said = judged(folder, capsys)
    assert code == FAIL
    assert "cell: accepted on " in said
    assert "Perhaps its id is net-simplified-cpu now" in said
    assert "cell: has no accepted level" in said


@pytest.mark.parametrize(
    "other",
    [
        replace(timed("simplified"), model_sha256="cd" * 32),
        timed("simplified", provider="cuda"),
        timed("simplified", model="other"),
    ],
    ids=["another model", "another provider", "neither its model's name nor its variant"],
)
def test_a_cell_of_other_work_is_no_successor(
    other: CellResult, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, [timed("original"), other])
    code, said = judged(folder, capsys)
    assert code == FAIL
    assert "Perhaps its id is" not in said
    assert "only names them: --provider." in said


def test_an_empty_run_is_invalid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    night(folder, [])
    code, said = judged(folder, capsys)
    assert code == INVALID
    assert "run: the run holds no cell of these providers" in said
    assert "not in this run" not in said


@pytest.mark.parametrize(
    ("of_run", "reason"),
    [
        (
            {"selection": ("models", "--variant original")},
            "it was chosen by 'models --variant original'",
        ),
        ({"planned": 2}, "it ended after 1 of its own 2"),
        ({"shards": ("1/2 3f2a9c00d1e2",)}, "it is shard 1/2 3f2a9c00d1e2"),
    ],
)
def test_a_partial_run_is_invalid(
    of_run: dict[str, Any], reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, [timed("original")], **of_run)
    code, said = judged(folder, capsys)
    assert (code, f"run: the run had 1 of 2 accepted cells: {reason}" in said) == (
        INVALID,
        True,
    ), said
    assert "not in this run" not in said


@pytest.mark.parametrize("minutes", [1, 239])
def test_two_slow_runs_of_one_night_are_one_slow_night(
    minutes: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [timed("original", 1.2), timed("simplify")]
    now = datetime.now(UTC)
    night(folder, cells, started=now - timedelta(minutes=minutes))
    night(folder, cells, started=now)
    assert main(["gate", "--report-dir", str(folder)]) == INCONCLUSIVE
    assert "are one night, of which the latest counts" in capsys.readouterr().out
    assert main(["gate", "--report-dir", str(folder), "--same-night"]) == FAIL


def test_two_slow_runs_hours_apart_are_two_nights(folder: Path) -> None:
    cells = [timed("original", 1.2), timed("simplify")]
    now = datetime.now(UTC)
    night(folder, cells, started=now - timedelta(hours=5))
    night(folder, cells, started=now)
    assert main(["gate", "--report-dir", str(folder)]) == FAIL


def test_another_processor_is_invalid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, cpu="Another Processor")
    code, said = judged(folder, capsys)
    assert code == INVALID
    assert (
        "processor: ran on Another Processor, and was accepted on A Processor only" in said
    )


def test_another_device_beside_the_same_processor_is_invalid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, devices={"cpu": "A GPU"})
    code, said = judged(folder, capsys)
    assert code == INVALID
    assert "ran on A Processor, A GPU, and was accepted on A Processor only" in said
    night(folder, devices={"cuda": "A GPU"})
    code, _ = judged(folder, capsys)
    assert code == PASS, "what another provider runs on is none of this cell's business"


def test_a_changed_seed_is_invalid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    night(folder, seed=8)
    code, said = judged(folder, capsys)
    assert (
        code,
        "seed: the run's seed is 8, and the level was accepted with 7" in said,
    ) == (
        INVALID,
        True,
    )


def test_a_night_that_left_nothing_is_not_the_night_before(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = judged(folder, capsys, "--max-age", "0.1")
    assert (
        code,
        "run: the latest run in the history started 1 hours ago, and nothing was" in said,
    ) == (INVALID, True)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (timedelta(hours=-3), "clock: the run says that it started before the one"),
        (
            timedelta(days=2),
            "run: the latest run in the history started 48 hours in the future",
        ),
        (timedelta(days=-2), "run: the latest run in the history started 48 hours ago"),
    ],
)
def test_a_clock_step_is_invalid(
    by: timedelta, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(folder, started=datetime.now(UTC) + by)
    code, told = judged(folder, capsys)
    assert (code, said in told) == (INVALID, True), told


def test_nights_count_in_the_order_of_their_entry_whatever_the_clock_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two slow nights in a row, of which the second says that it was long before all others."""
    now = datetime.now(UTC)
    night(
        folder,
        [timed("original", 1.1), timed("simplify")],
        started=now - timedelta(minutes=5),
    )
    night(
        folder,
        [timed("original", 1.1), timed("simplify")],
        started=now - timedelta(hours=19),
    )
    code, said = judged(folder, capsys)
    assert code == FAIL
    assert "two nights in a row" in said


@pytest.mark.damaged
@pytest.mark.parametrize("length", [0, 0.3, 0.7])
def test_a_truncated_history_is_invalid_and_left_as_it_is(
    length: float, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "history.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * length)])
    cut = file.read_bytes()
    code, said = judged(folder, capsys)
    assert (code, "history" in said) == (INVALID, True)
    assert "is damaged" in said or "is empty" in said or "isn't a database" in said
    assert gate(folder, "accept", "--all", "--why", "no") != 0
    assert file.read_bytes() == cut


@pytest.mark.damaged
def test_a_history_that_is_something_else_is_invalid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "history.sqlite").write_text("a page of prose\n" * 500, "utf-8")
    code, said = judged(folder, capsys)
    assert (code, "isn't a database" in said) == (INVALID, True)


def test_no_history_is_invalid_and_none_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = judged(folder / "elsewhere", capsys)
    assert (code, "there is no history" in said) == (INVALID, True)
    assert not (folder / "elsewhere").exists()


def test_a_history_without_a_run_is_invalid(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    history.History(tmp_path / "empty" / "history.sqlite").close()
    code, said = judged(folder / "empty", capsys)
    assert (code, "run: the history holds no run: nothing was judged" in said) == (
        INVALID,
        True,
    )


def test_a_locked_history_is_invalid(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(folder / "history.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        code, said = judged(folder, capsys)
        assert (code, "is locked by another process" in said) == (INVALID, True)
        assert gate(folder, "accept", "--all", "--why", "no") != 0
        other.execute("ROLLBACK")


@pytest.mark.levels
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[: len(text) // 3], "are cut short"),
        (lambda text: text + "<<<<<<< ours\n", "line 3"),
        (lambda text: text + text.splitlines()[0] + "\n", "have two of net-original-cpu"),
        (
            lambda text: text.replace('"card_sha256"', '"card"').replace('"id"', '"name"'),
            "is missing",
        ),
    ],
)
def test_spoilt_levels_are_invalid_and_left_as_they_are(
    spoil: Callable[[str], str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / FOLDER / "levels.jsonl"
    file.write_text(spoil(file.read_text("utf-8")), "utf-8")
    spoilt = file.read_bytes()
    night(folder)
    code, told = judged(folder, capsys)
    assert (code, said in told) == (INVALID, True), told
    assert gate(folder, "accept", "--all", "--why", "no") != 0
    assert file.read_bytes() == spoilt


@pytest.mark.levels
def test_lost_levels_are_invalid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / FOLDER / "levels.jsonl").unlink()
    night(folder)
    code, said = judged(folder, capsys)
    assert (code, "no level was ever accepted" in said) == (INVALID, True)


@pytest.mark.levels
def test_two_who_accept_at_once_lose_no_level(folder: Path) -> None:
    names = [f"v{number}" for number in range(6)]
    night(folder, [timed(name) for name in (*NAMES, *names)])
    script = "import sys; from onnx_harness.cli import main; sys.exit(main())"
    runs = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                script,
                "gate",
                "accept",
                f"net-{name}-cpu",
                "--why",
                name,
                "--report-dir",
                str(folder),
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "harness")},
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [run.wait(60) for run in runs] == [0] * len(runs)
    assert {level.why for level in read_levels(folder / FOLDER).values()} == {
        "as it should be",
        *names,
    }
    with history.History(folder / "history.sqlite") as past:
        assert sorted(level.why for level in past.accepted())[-6:] == names


def test_accepting_without_a_reason_or_a_run_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        gate(folder, "accept", "--all")
    assert end.value.code == 2
    assert gate(folder, "accept", "--all", "--why", " ") == 2
    assert gate(folder, "accept", "net-simplfy-cpu", "--why", "x") == 2
    assert "Did you mean 'net-simplify-cpu'?" in capsys.readouterr().err
    night(folder, [])
    assert gate(folder, "accept", "--all", "--why", "x") == 2


def test_a_time_that_is_none_cannot_be_accepted(folder: Path) -> None:
    night(folder, [timed("original", latency=latency(0.0)), timed("simplify")])
    assert gate(folder, "accept", "--all", "--why", "x") == 2


def test_two_slow_nights_fail_and_the_issue_names_the_operators(folder: Path) -> None:
    slow = pinned(1.10, operators=OperatorRecord((SLOWER,), 16))
    for _ in range(2):
        night(folder, [timed("original", pinned=slow), timed("simplify")])

    text = folder / "issue.md"
    assert (
        main(["gate", "--same-night", "--report-dir", str(folder), "--issue", str(text)])
        == FAIL
    )

    assert "GRU\\_3: 1.4 -&gt; 2.1 ms" in text.read_text("utf-8")
    verdict = json.loads((folder / "gate.json").read_text("utf-8"))
    [cell] = [cell for cell in verdict["cells"] if cell["id"] == "net-original-cpu"]
    assert cell["operators"]["slower"][0]["name"] == "GRU_3"
