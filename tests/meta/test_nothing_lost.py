"""Whatever ends a run, what it had finished is there: killed at any moment, on a full disk, with a
clock that steps.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.report.table import ModelHeader
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.recorder import Entry, Recorder
from onnx_harness.results.store import ResultsWriter, read_results
from onnx_harness.results.verdicts import VerdictFiles
from onnx_harness.run.account import Account
from tests.models import linear, save, two_outputs
from tests.plugin.running import read_cells, run_pytest, start_pytest
from tests.unit.results_examples import RUN, cell

KILLS = int(os.environ.get("ONNX_HARNESS_KILLS", "6"))
"""``make scale`` asks for 200."""

REAL_KILLS = int(os.environ.get("ONNX_HARNESS_REAL_KILLS", "1"))
"""Of runs that judge models; ``make scale`` asks for 20."""

# Says an id once everything about the cell has been kept; never stops.
WRITER = """
import hashlib, itertools, sys
from dataclasses import replace
from pathlib import Path
from onnx_harness.results.recorder import Entry, Recorder
from tests.unit.results_examples import RUN, cell, latency

recorder = Recorder(Path(sys.argv[1]), replace(RUN, id=sys.argv[2]))
for number in range(int(sys.argv[3])) if sys.argv[3:] else itertools.count():
    made = cell(model=f"m{number}")
    key = hashlib.sha256(f"{sys.argv[2]}{number}".encode()).hexdigest()
    recorder.put(made, Entry(key))
    if number % 2:
        recorder.put(replace(made, latency=latency()), Entry(key, "timing"))
    print(made.id, flush=True)
"""


def killed_run(folder: Path, run_id: str, seconds: float) -> list[str]:
    """The cells that a run said it had kept before it was killed, ``seconds`` after the first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    command = [sys.executable, "-c", WRITER, str(folder), run_id]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    said = (first + rest).splitlines()
    return said if (first + rest).endswith("\n") else said[:-1]


def integrity(folder: Path) -> str:
    with sqlite3.connect(folder / FILE_NAME) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def test_a_run_that_is_killed_at_any_moment_has_lost_nothing(tmp_path: Path) -> None:
    draw = random.Random(0)
    for kill in range(KILLS):
        run_id = f"20260102t0304{kill // 60:02}{kill % 60:02}z-{kill:08x}"
        said = killed_run(tmp_path, run_id, draw.uniform(0, 0.3))
        assert said, "the run was killed before its first cell"
        assert {each.id for each in read_results(tmp_path).cells} >= set(said)
        assert {each.id for each in VerdictFiles(tmp_path).read_run(run_id)[1]} >= set(said)
        assert integrity(tmp_path) == "ok"
        Recorder(tmp_path, replace(RUN, id=f"z{kill:08}")).finish()
        with History(tmp_path / FILE_NAME) as past:
            kept = [each.id for each in past.cells(run_id)]
        assert set(kept) >= set(said)
        assert len(kept) == len(set(kept))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("writer", "step"),
    [(VerdictFiles, "put"), (ResultsWriter, "put_all"), (History, "put_all")],
    ids=["file", "results.json", "history"],
)
def test_ctrl_c_amid_the_writing_of_a_cell_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: type, step: str
) -> None:
    write = getattr(writer, step)

    def interrupted(*args: Any, **named: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*args, **named)

    account = Account(tmp_path, RUN)
    monkeypatch.setattr(writer, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        account.put(cell(), ModelHeader("MIT", 1, 17), entry=Entry("ab" * 32))
    account.finish()
    kept = (cell(),)
    assert tuple(account.cells) == read_results(tmp_path).cells == kept
    assert VerdictFiles(tmp_path).read_run(RUN.id)[1] == kept
    with History(tmp_path / FILE_NAME) as past:
        assert past.cells(RUN.id) == kept
    with pytest.raises(KeyboardInterrupt):  # from here on it isn't held back
        signal.raise_signal(signal.SIGINT)


REAL = (
    *("zoo", "--variant=original", "--variant=simplify", "--variant=optimize"),
    *("--variant=fp16.io32", "-k=accuracy", "--report-dir=reports", "--resume"),
)


def verdicts_in(folder: Path) -> dict[Path, bytes]:
    return {
        file: file.read_bytes() for file in (folder / "reports/verdicts").glob("*/*.json")
    }


def test_a_real_run_that_is_killed_judges_nothing_twice(tmp_path: Path) -> None:
    """Pytest on two models, killed at a random moment after its first verdict, then resumed."""
    draw = random.Random(0)
    for kill in range(REAL_KILLS):
        folder = tmp_path / str(kill)
        save(linear(), folder / "zoo" / "a.onnx")
        save(two_outputs(), folder / "zoo" / "b.onnx")
        with start_pytest(folder, *REAL) as run:
            while not read_cells(folder) and run.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.5))
            shown = set(read_cells(folder))
            run.kill()
        kept = verdicts_in(folder)
        assert shown
        assert {json.loads(text)["cell"]["id"] for text in kept.values()} >= shown
        ended = run_pytest(folder, *REAL)
        assert ended.code == pytest.ExitCode.OK, ended.told
        assert len(ended.cells) == 8
        after = verdicts_in(folder)
        assert len(after) == 8
        # A cell that is judged again has other seconds.
        assert all(after[file] == text for file, text in kept.items())
        assert integrity(folder / "reports") == "ok"
        with History(folder / "reports" / FILE_NAME) as past:
            for of_run in past.runs():
                ids = [each.id for each in past.cells(of_run.id)]
                assert len(ids) == len(set(ids))
            assert {each.id for each in past.cells(past.runs()[0].id)} >= shown


def test_a_full_disk_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: each file is whole up to where it was full."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    script = f"{limit}\n{WRITER}\nrecorder.finish()"
    command = [sys.executable, "-c", script, str(tmp_path), RUN.id, "60"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    whole = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert 0 < len(whole["cells"]) < 60
    assert integrity(tmp_path) == "ok"
    # Small files, for which there was room.
    kept = VerdictFiles(tmp_path).read_run(RUN.id)[1]
    assert len(kept) == 60
    Recorder(tmp_path, replace(RUN, id="z")).finish()
    with History(tmp_path / FILE_NAME) as past:
        assert {each.id for each in past.cells(RUN.id)} == {each.id for each in kept}


def test_two_runs_on_one_history_both_have_all_their_cells(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = """
import sys
from dataclasses import replace
from pathlib import Path
from onnx_harness.results.history import History
from tests.unit.results_examples import RUN, cell
with History(Path(sys.argv[1])) as past:
    past.begin(replace(RUN, id=sys.argv[2]))
    for number in range(40):
        past.put(cell(model=f"m{number}"))
"""
    database = tmp_path / FILE_NAME
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(database), name], env=environment
        )
        for name in ("a", "b")
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert integrity(tmp_path) == "ok"
    with History(database) as past:
        assert [len(past.cells(name)) for name in ("a", "b")] == [40, 40]


def test_a_clock_that_steps_back_hides_no_run(tmp_path: Path) -> None:
    for run_id in ("20270101t000000z-00000000", "20260101t000000z-00000000"):
        recorder = Recorder(tmp_path, replace(RUN, id=run_id))
        recorder.put(cell(), Entry("ab" * 32))
        recorder.finish()
    assert VerdictFiles(tmp_path).runs()[-1].startswith("2026")
    killed = VerdictFiles(tmp_path)
    killed.begin(replace(RUN, id="20250101t000000z-00000000"))
    killed.put(cell("simplify"), "cd" * 32)
    Recorder(tmp_path, RUN).finish()
    with History(tmp_path / FILE_NAME) as past:
        assert [run.id[:4] for run in past.runs()][:3] == ["2027", "2026", "2025"]
        assert len(past.cells("20250101t000000z-00000000")) == 1


def test_a_loss_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the files not written first, a kill between them and the history would lose a cell."""
    monkeypatch.setattr(Recorder, "_put_file", lambda *_: None)
    recorder = Recorder(tmp_path, RUN)
    monkeypatch.setattr(History, "put", lambda *_: None)
    recorder.put(cell(), Entry("ab" * 32))
    assert VerdictFiles(tmp_path).read_run(RUN.id)[1] == ()
