"""Verdicts as files: whole or not there, one for a content key.

Runs and histories are made from them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.cli import main
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.recorder import Entry, Recorder
from onnx_harness.results.store import read_results
from onnx_harness.results.verdicts import VerdictFiles, reusable
from tests.unit.results_examples import RUN, cell, full_latency

KEY = "ab" * 32
LATER = replace(RUN, id="20260103t030405z-0a1b2c3d")


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    files = VerdictFiles(tmp_path)
    files.put(cell(latency=full_latency()), KEY, "timing")
    stored = VerdictFiles(tmp_path).get(KEY)
    assert stored is not None
    assert (stored.key, stored.timing, stored.cell) == (
        KEY,
        "timing",
        cell(latency=full_latency()),
    )


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff" * 100])
def test_a_damaged_verdict_is_none(tmp_path: Path, damage: bytes) -> None:
    files = VerdictFiles(tmp_path)
    files.put(cell(), KEY)
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(damage)
    assert files.get(KEY) is None


def test_a_verdict_under_another_key_is_none(tmp_path: Path) -> None:
    files = VerdictFiles(tmp_path)
    files.put(cell(), KEY)
    (file,) = tmp_path.rglob("*.json")
    other = "cd" * 32
    (tmp_path / "verdicts" / "cd").mkdir()
    file.rename(tmp_path / "verdicts" / "cd" / f"{other}.json")
    assert files.get(other) is None


def test_a_run_is_its_list_and_the_files(tmp_path: Path) -> None:
    files = VerdictFiles(tmp_path)
    files.begin(RUN)
    error = cell(
        "simplify", status=Status.ERROR, stage=Stage.LOAD, symptom=Symptom.ENVIRONMENT
    )
    files.put(cell(), KEY)
    files.put(error, "")
    files.close()
    assert files.read_run(RUN.id) == (RUN, (cell(), error))


def test_a_line_that_was_cut_short_costs_that_line_alone(tmp_path: Path) -> None:
    files = VerdictFiles(tmp_path)
    files.begin(RUN)
    files.put(cell(), KEY)
    files.close()
    with (tmp_path / "runs" / f"{RUN.id}.jsonl").open("a") as log:
        log.write('{"id": "net-simp')
    assert files.read_run(RUN.id) == (RUN, (cell(),))


def test_a_key_of_a_list_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    files = VerdictFiles(tmp_path)
    files.begin(RUN)
    with (tmp_path / "runs" / f"{RUN.id}.jsonl").open("a") as log:
        log.write(json.dumps({"id": "net-original-cpu", "key": "../../secret"}) + "\n")
    assert files.read_run(RUN.id) == (RUN, ())


def test_what_the_machine_did_is_no_verdict() -> None:
    assert reusable(cell(status=Status.FAIL, stage=Stage.RUN))
    assert not reusable(
        cell(status=Status.ERROR, stage=Stage.LOAD, symptom=Symptom.ENVIRONMENT)
    )


def test_the_history_gets_what_a_killed_run_had_only_in_its_files(tmp_path: Path) -> None:
    killed = VerdictFiles(tmp_path)
    killed.begin(RUN)
    killed.put(cell(), KEY)
    for _ in range(2):  # once, however often one looks
        Recorder(
            tmp_path, LATER if _ == 0 else replace(LATER, id="20260104t030405z-0a1b2c3d")
        ).finish()
    with History(tmp_path / FILE_NAME) as past:
        assert past.cells(RUN.id) == (cell(),)
        assert [run.id for run in past.runs()].count(RUN.id) == 1


def test_what_is_taken_over_is_entered_in_one_commit_and_lost_by_no_kill(
    tmp_path: Path,
) -> None:
    VerdictFiles(tmp_path).put(cell(), KEY)
    recorder = Recorder(tmp_path, RUN)
    commits: list[int] = []
    assert recorder._history is not None

    def put_all(cells: Sequence[CellResult], lines: Sequence[str] = ()) -> None:  # noqa: ARG001
        commits.append(len(cells))

    recorder._history.put_all = put_all  # type: ignore[method-assign]
    for _ in range(3):
        recorder.put(cell(), Entry(KEY, reused=True))
    assert commits == []
    recorder.put(cell("simplify"), Entry("cd" * 32))  # what is judged now is kept at once
    assert commits == [4]
    recorder.put(cell(), Entry(KEY, reused=True))
    if recorder._files is not None:
        recorder._files.close()  # as a kill leaves it: the last one is in its file alone
    recorder._writer.close()
    Recorder(tmp_path, LATER).finish()
    with History(tmp_path / FILE_NAME) as past:
        assert {entry.id for entry in past.cells(RUN.id)} == {
            "net-original-cpu",
            "net-simplify-cpu",
        }


def test_lost_results_are_made_again_by_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(tmp_path / "reports", RUN)
    recorder.put(cell(), Entry(KEY))
    recorder.put(cell("simplify"), Entry("cd" * 32))
    recorder.finish()
    before = (tmp_path / "reports" / "results.json").read_bytes()
    (tmp_path / "reports" / "results.json").write_text('{"schema": 1, "run"')
    assert main(["report"]) == 0
    assert (tmp_path / "reports" / "results.json").read_bytes() == before
    assert len(read_results(tmp_path / "reports").cells) == 2


def test_a_folder_that_cant_be_written_costs_the_files_and_not_the_run(
    tmp_path: Path,
) -> None:
    (tmp_path / "runs").write_text("in the way")
    recorder = Recorder(tmp_path, RUN)
    recorder.put(cell(), Entry(KEY))
    recorder.finish()
    assert recorder.incomplete is None
    assert any("--resume" in warning for warning in recorder.warnings)
    assert len(read_results(tmp_path).cells) == 1
