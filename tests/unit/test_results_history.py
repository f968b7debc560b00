"""history.sqlite: runs side by side, old files, broken files."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results import history
from onnx_harness.results.cells import AccuracyRecord, Status
from onnx_harness.results.history import History
from onnx_harness.results.history_rows import PastCell
from onnx_harness.results.recorder import Recorder
from onnx_harness.results.run import gather
from onnx_harness.results.store import read_results
from tests.unit.results_examples import RUN, cell, latency, output

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from onnx_harness.results.history import History
from onnx_harness.results.run import gather
from tests.unit.results_examples import cell, latency
with History(Path(sys.argv[1])) as past:
    past.begin(gather("pytest", 0))
    for number in range(int(sys.argv[2])):
        past.put(cell(f"v{number}", latency=latency()))
        print(number, flush=True)
"""


def query(path: Path, text: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(text).fetchall()
    finally:
        database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history with one cell of one run."""
    with History(tmp_path / "history.sqlite") as past:
        past.begin(RUN)
        past.put(cell(latency=latency()))
    return tmp_path / "history.sqlite"


def test_a_cell_is_read_back_with_the_run_that_it_was_in(path: Path) -> None:
    with History(path) as past:
        assert past.runs() == (RUN,)
        assert past.past("net-original-cpu") == (PastCell(RUN, cell(latency=latency())),)
        assert past.past("net-other-cpu") == ()


def test_the_columns_hold_what_gates_ask_for(path: Path) -> None:
    columns = (
        "model_sha256, status, stage, minimum_tolerance, nonfinite, share, nodes_after, "
        "bytes_after, threads"
    )
    assert query(path, f"SELECT {columns} FROM cells") == [
        ("ab" * 32, "pass", "done", 1.1e-6, 0, 1.0, 331, 4_600_000, 2)
    ]
    columns = "median_ms, baseline_median_ms, speedup, speedup_low, speedup_high"
    assert query(path, f"SELECT {columns} FROM cells") == [(28.4, 29.0, 1.02, 1.01, 1.03)]
    assert query(path, "SELECT run_id, seed, cpu, cores, versions FROM runs") == [
        (RUN.id, 7, "A Processor", 2, '{"python":"3.11.7","onnx":"1.23.2"}')
    ]


def test_the_worst_output_counts_and_one_beyond_any_tolerance_is_null(
    tmp_path: Path,
) -> None:
    with History(tmp_path / "history.sqlite") as past:
        past.begin(RUN)
        past.put(
            cell("two", accuracy=AccuracyRecord(1, {"a": output(0.5), "b": output(0.25)}))
        )
        past.put(
            cell("none", accuracy=AccuracyRecord(1, {"a": output(None), "b": output(0.25)}))
        )
    rows = query(
        tmp_path / "history.sqlite",
        "SELECT variant, minimum_tolerance FROM cells ORDER BY variant DESC",
    )
    assert rows == [("two", 0.5), ("none", None)]


def test_a_cell_put_again_in_a_run_replaces_the_first(path: Path) -> None:
    with History(path) as past:
        run = gather("pytest", 1)
        past.begin(run)
        past.put(cell())
        past.put(cell(status=Status.FAIL))
        assert [
            (each.run.id, each.cell.status) for each in past.past("net-original-cpu")
        ] == [
            (RUN.id, Status.PASS),
            (run.id, Status.FAIL),
        ]


def test_the_latest_runs_are_given_oldest_first_whatever_the_clock_said(
    tmp_path: Path,
) -> None:
    with History(tmp_path / "history.sqlite") as past:
        runs = [gather("pytest", seed) for seed in range(3)]
        for run in reversed(runs):
            past.begin(run)
            past.put(cell())
        assert [each.run.seed for each in past.past("net-original-cpu", last=2)] == [1, 0]


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    command = [sys.executable, "-c", WRITER, str(path), "60"]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0, 0]
    assert query(path, "SELECT count(*) FROM cells GROUP BY run_id") == [(60,)] * 3
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_killed_run_leaves_every_cell_that_it_had_entered(tmp_path: Path) -> None:
    for attempt in range(5):
        path = tmp_path / f"{attempt}.sqlite"
        command = [sys.executable, "-c", WRITER, str(path), "100000"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(0.02 * attempt)
            run.send_signal(signal.SIGKILL)
            entered = 1 + len(run.stdout.read().splitlines())
        with History(path) as past:
            past.begin(gather("pytest", 0))
        [(count,)] = query(path, "SELECT count(*) FROM cells")
        assert count in {entered, entered + 1}


def test_a_history_locked_by_something_else_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(
            ResultsError,
            match=r"history .* is locked by another process .*wait for the other run",
        ):
            History(path)
    finally:
        other.close()


def test_noise_instead_of_a_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(ResultsError, match=r"isn't a database .*move it away"):
        History(path)
    assert path.read_bytes() == b"not a database, by any means" * 100


def test_a_truncated_history_is_found_before_anything_is_added(path: Path) -> None:
    with History(path) as past:
        past.begin(gather("pytest", 0))
        for number in range(60):
            past.put(cell(f"v{number}"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"is damaged .*restore a copy, or move it away"):
        History(path)
    assert path.read_bytes() == before


def test_pages_overwritten_with_noise_are_found(path: Path) -> None:
    with History(path) as past:
        past.begin(gather("pytest", 0))
        for number in range(60):
            past.put(cell(f"v{number}"))
    content = bytearray(path.read_bytes())
    content[8192:16384] = os.urandom(8192)
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="is damaged"):
        History(path)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.commit()
    other.close()
    with pytest.raises(ResultsError, match="is a database of something else"):
        History(path)
    assert query(path, "SELECT name FROM sqlite_master") == [("songs",)]


def test_a_newer_history_asks_for_a_newer_harness(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with pytest.raises(
        ResultsError, match=r"written by a newer onnx-harness \(history version 99.*upgrade"
    ):
        History(path)


def test_an_older_history_is_brought_up_to_date_with_its_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = "ALTER TABLE cells ADD COLUMN mood TEXT;\nUPDATE cells SET mood = 'good'"
    monkeypatch.setattr(history, "MIGRATIONS", (*history.MIGRATIONS, migration))
    with History(path) as past:
        assert len(past.past("net-original-cpu")) == 1
    assert query(path, "SELECT mood FROM cells") == [("good",)]
    assert query(path, "PRAGMA user_version") == [(len(history.MIGRATIONS),)]


def test_the_machines_of_an_older_history_are_found_in_its_cells(tmp_path: Path) -> None:
    path, host = tmp_path / "history.sqlite", replace(RUN.host, cpu="Elsewhere")
    with History(path) as past:
        past.begin(RUN)
        past.put_all([cell("original"), cell("simplify", machine=host)])
    back_to_version_2(path)
    with History(path) as past:
        machines = [night.machine for night in past.nights(RUN.id, last=1)]
    assert machines == [None, host]


def back_to_version_2(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP INDEX cells_by_cell")
        database.execute("ALTER TABLE cells DROP COLUMN machine")
        database.execute("CREATE INDEX cells_by_cell ON cells (cell_id, run_id)")
        database.execute("PRAGMA user_version = 2")
    database.close()


def test_an_older_history_that_cannot_be_changed_is_read_and_stays_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI hands it on to the parts of a run, which want its times alone."""
    back_to_version_2(path)
    before, connect = path.read_bytes(), sqlite3.connect

    def read_only(name: Path | str, **options: Any) -> Any:
        return connect(f"file:{name}?mode=ro" if name else "", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with History(path, checked=False) as past:
        assert list(past.measured()) == ["net-original-cpu"]
        assert len(list(past.nights(RUN.id, last=1))) == 1
    assert path.read_bytes() == before
    with pytest.raises(ResultsError, match="is read-only"):
        History(path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE cells SET status = 'pasB'",
        "UPDATE cells SET json = CAST(x'ff' AS TEXT)",
        "UPDATE cells SET json = '{\"id'",
        "UPDATE runs SET json = '{\"id'",
        "UPDATE runs SET json = CAST(x'ff' AS TEXT)",
        """PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = CAST(x'ff' AS TEXT) WHERE name = 'cells'""",
    ],
)
def test_a_damaged_text_within_a_sound_file_is_told_as_damage(
    path: Path, damage: str
) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(damage)
    database.close()
    told = []
    for read in (
        lambda past: past.cells(RUN.id),
        lambda past: past.past("net-original-cpu"),
        lambda past: list(past.nights(RUN.id, last=3)),
        lambda past: past.runs(),
    ):
        try:
            with History(path) as past:
                read(past)
        except ResultsError as error:
            told.append(str(error))
    assert told
    assert all(re.search(r"the history \S+ is damaged .*Mend: ", words) for words in told)


def test_months_of_nights_are_read_without_the_json_of_their_cells(path: Path) -> None:
    """Of 60 nights of 10,000 cells that is two gigabytes."""
    asked: list[str] = []
    with History(path) as past:
        past._database.set_trace_callback(asked.append)
        list(past.nights(past.runs()[0].id, last=60))
        past._database.set_trace_callback(None)
        plan = past._database.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()
    steps = [row[-1] for row in plan]
    assert any("night USING COVERING INDEX cells_by_cell" in step for step in steps), steps


def test_who_only_reads_a_history_does_not_read_it_whole_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(History, "_check_whole", lambda _: pytest.fail("it was read whole"))
    with History(path, checked=False) as past:
        assert len(past.runs()) == 1
    with pytest.raises(pytest.fail.Exception):
        History(path)


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = "ALTER TABLE cells ADD COLUMN mood TEXT;\nUPDATE nothing SET mood = 'good'"
    monkeypatch.setattr(history, "MIGRATIONS", (*history.MIGRATIONS, migration))
    with pytest.raises(ResultsError):
        History(path)
    assert query(path, "PRAGMA user_version") == [(len(history.MIGRATIONS) - 1,)]
    assert ("mood",) not in query(path, "SELECT name FROM pragma_table_info('cells')")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_history_is_an_error_that_says_so(path: Path) -> None:
    path.chmod(0o444)
    with pytest.raises(ResultsError, match="is read-only"), History(path) as past:
        past.begin(gather("pytest", 0))


def test_a_folder_where_the_history_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").mkdir()
    with pytest.raises(ResultsError, match="can't be opened"):
        History(tmp_path / "history.sqlite")


def test_a_recorder_goes_on_without_a_history_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").write_text("noise" * 1000)
    recorder = Recorder(tmp_path, RUN)
    for number in range(3):
        recorder.put(cell(f"v{number}"))
    recorder.finish()
    assert len(read_results(tmp_path).cells) == 3
    [warning] = recorder.warnings
    assert "isn't in the history from here on" in warning
    assert recorder.incomplete is None


def test_a_recorder_whose_history_vanishes_midway_goes_on(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    recorder.put(cell("v0"))
    with sqlite3.connect(tmp_path / "history.sqlite") as other:
        other.execute("DROP TABLE cells")
    other.close()
    recorder.put(cell("v1"))
    recorder.put(cell("v2"))
    recorder.finish()
    assert [each.variant for each in read_results(tmp_path).cells] == ["v0", "v1", "v2"]
    assert len(recorder.warnings) == 1


def test_a_recorder_that_cannot_write_results_says_that_they_are_incomplete(
    tmp_path: Path,
) -> None:
    recorder = Recorder(tmp_path / "reports", RUN)
    recorder.put(cell("v0"))
    shutil.rmtree(tmp_path / "reports")
    recorder.put(cell("v1"))
    assert recorder.incomplete is not None
    assert "results.json can't be written" in recorder.incomplete
    recorder.finish()
