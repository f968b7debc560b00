"""Rows of the history, lists of runs and their mergers, where a part is damaged or late."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import PinnedRecord, Status, Symptom
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.history_rows import BUSY_SECONDS
from onnx_harness.results.levels import Level
from onnx_harness.results.recorder import Entry, Recorder
from onnx_harness.results.run import are_all_shards
from onnx_harness.results.store import Results
from onnx_harness.results.union import unite_verdicts
from onnx_harness.results.verdicts import VerdictFiles
from tests.unit.results_examples import RUN, cell, latency

KEY, OTHER = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("runs", "run.id is missing"),
        ("cells", "cell.id is missing"),
        ("accepted", "level.cell is missing"),
    ],
)
def test_a_row_that_says_nothing_is_named(tmp_path: Path, table: str, words: str) -> None:
    with History(tmp_path / FILE_NAME) as past:
        past.begin(RUN)
        past.put(cell())
        past.note_accepted([Level(cell(), "A", 7, "night", "2026-11-29", "me", "why", ())])
        past._database.execute(f"UPDATE {table} SET json = '{{}}'")
        readers: dict[str, list[Callable[[], object]]] = {
            "runs": [
                past.runs,
                lambda: past.past(cell().id),
                lambda: tuple(past.nights(RUN.id, last=1)),
            ],
            "accepted": [past.accepted],
            "cells": [lambda: past.past(cell().id), lambda: past.cells(RUN.id)],
        }
        for read in readers[table]:
            with pytest.raises(ResultsError) as told:
                read()
            assert str(told.value) == words


@pytest.mark.parametrize("part", ["pinned", "machine"])
def test_a_part_of_a_row_that_says_nothing_is_named(tmp_path: Path, part: str) -> None:
    with History(tmp_path / FILE_NAME) as past:
        past.begin(RUN)
        past.put(cell())
        text = f'{{"{part}":{{"x":1}}}}'
        machine = '{"x":1}' if part == "machine" else None
        change = "UPDATE cells SET pinned_ratio = 1, json = ?, machine = ?"
        past._database.execute(change, (text, machine))
        with pytest.raises(ResultsError, match=rf"^{part}\.\w+ is missing"):
            tuple(past.nights(RUN.id, last=1))


def test_a_night_names_its_cells_and_no_figure_of_them_is_nan(tmp_path: Path) -> None:
    with History(tmp_path / FILE_NAME) as past:
        assert past._database.isolation_level is None
        [wait] = past._database.execute("PRAGMA busy_timeout").fetchone()
        assert wait == BUSY_SECONDS * 1000
        past.begin(RUN)
        gpu = replace(RUN.host, cpu="Another", devices={"cuda": "A GPU"})
        past.put(cell(latency=latency(), machine=gpu))
        ratios = {"simplify": None, "fp16": math.nan, "optimize": 1.5, "wide": math.inf}
        for name, ratio in ratios.items():
            record = PinnedRecord({}, Status.PASS, None, "ab", ratio=ratio)
            past.put(cell(name, accuracy=None, pinned=record))
        rows = past._database.execute("SELECT variant, pinned_ratio FROM cells").fetchall()
        assert dict(rows) == {
            "original": None,
            "simplify": None,
            "fp16": None,
            "optimize": 1.5,
            "wide": None,
        }
        nights = tuple(past.nights(RUN.id, last=1))
        with pytest.raises(sqlite3.IntegrityError):
            past._database.execute("UPDATE cells SET run_id = 'no such run'")
    assert nights[2].processor("cuda") == "Another, A GPU"
    assert nights[0].processor("cuda") == RUN.host.cpu
    assert [night.cell_id for night in nights] == [
        f"net-{name}-cpu" for name in ("fp16", "optimize", "original", "simplify", "wide")
    ]


def test_cells_of_another_run_are_entered_where_they_lack(tmp_path: Path) -> None:
    with History(tmp_path / FILE_NAME) as past, History(tmp_path / FILE_NAME) as beside:
        past.begin(RUN)
        past.put(cell())
        read = past._database

        class Late:
            """Another process enters the cell between the question and the answer."""

            def execute(self, *words: Any) -> Any:
                rows: Any = read.execute(*words)
                if words[0].startswith("SELECT cell_id"):
                    rows = rows.fetchall()
                    beside._run_id = RUN.id
                    beside.put(cell("simplify", detail=("theirs",)))
                return rows

            def __getattr__(self, name: str) -> Any:
                return getattr(read, name)

        past._database = Late()  # type: ignore[assignment]
        assert past.adopt(RUN, [cell(), cell("simplify")]) == 1
        assert [each.detail for each in past.cells(RUN.id)] == [cell().detail, ("theirs",)]


@pytest.mark.parametrize(
    ("labels", "whole"),
    [
        (("1/2 ab", "2/2 ab"), True),
        (("1/1 a/b",), True),
        (("1/2 a/b", "2/2 a/b"), True),
        (("1/2 a/b", "2/2 c/b"), False),
        (("1/2 ab",), False),
        (("1/2 ab", "1/2 ab"), False),
        (("1/2 ab", "2/2 cd"), False),
        ((), False),
    ],
)
def test_shards_are_all_parts_of_one_plan(labels: tuple[str, ...], whole: bool) -> None:
    assert are_all_shards(labels) is whole


def test_a_recorder_says_why_it_goes_on_without_a_part(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    recorder = Recorder(tmp_path, RUN)
    assert "can't be opened" in recorder.warnings[0]
    recorder._writer.finish = _full  # type: ignore[method-assign]
    recorder.finish()
    assert recorder.incomplete == "the disk is full"


def test_a_recorder_keeps_what_the_machine_did_in_its_list_alone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    broken = cell("fp16", status=Status.ERROR, symptom=Symptom.ENVIRONMENT)
    recorder.put(broken, Entry(OTHER, "timing"))
    recorder.put(cell(), Entry(KEY))
    assert VerdictFiles(tmp_path).read_run(RUN.id)[1] == (broken, cell())
    lines = [
        json.loads(line)
        for line in (tmp_path / "runs" / f"{RUN.id}.jsonl").read_text().splitlines()
    ]
    assert [sorted(line) for line in lines[1:]] == [["cell", "id", "key"], ["id", "key"]]
    assert recorder._history is not None
    recorder._history.put_all = _full  # type: ignore[method-assign, assignment]
    recorder.put(cell("simplify"))
    assert recorder.warnings == [
        "This run isn't in the history from here on: the disk is full"
    ]
    recorder.finish()
    recorder.finish()
    assert recorder.incomplete is None


def _full(*_: object) -> None:
    raise ResultsError("the disk is full")


def a_verdict(folder: Path, key: str, record: Any = None) -> Path:
    kept = VerdictFiles(folder)
    kept.begin(RUN)
    kept.put(record or cell(), key)
    kept.close()
    return folder


def test_of_two_verdicts_the_greater_by_its_bytes_is_united(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greater = cell(seconds={"run": 2.0})
    one = a_verdict(tmp_path / "z", KEY, cell(seconds={"run": 1.0}))
    two = a_verdict(tmp_path / "a", KEY, greater)
    monkeypatch.setattr(os, "link", _no_links)
    for number, parts in enumerate(([one, two], [two, one])):
        target = tmp_path / f"merged{number}"
        unite_verdicts(target, Results(RUN, (greater,)), [(part, RUN.id) for part in parts])
        stored = VerdictFiles(target).get(KEY)
        assert stored is not None
        assert stored.cell == greater
        assert VerdictFiles(target).keys(RUN.id) == {cell().id: KEY}
        other = replace(RUN, id="another")
        unite_verdicts(
            target, Results(other, (cell("fp16"),)), [(part, RUN.id) for part in parts]
        )
        assert VerdictFiles(target).keys("another") == {}
    (tmp_path / "file").touch()
    words = r"^The verdicts can't be written at .*file.verdicts: .*\(--output\)"
    with pytest.raises(ResultsError, match=words):
        unite_verdicts(tmp_path / "file", Results(RUN, ()), [(one, RUN.id)])


def _no_links(*_: object) -> None:
    raise OSError(95, "no links here")


def test_a_list_is_read_past_lines_of_another_kind(tmp_path: Path) -> None:
    folder = a_verdict(tmp_path, KEY)
    [log] = folder.rglob("*.jsonl")
    lines = [{"id": 1, "key": OTHER}, {"id": "a", "key": 2}, {"id": "b", "key": "../x"}]
    lines += [{"id": "c", "key": ""}, {"id": "d", "key": OTHER}, {"id": "e", "cell": {}}]
    log.write_text(log.read_text() + "".join(json.dumps(line) + "\n" for line in lines))
    assert VerdictFiles(folder).keys(RUN.id) == {cell().id: KEY, "d": OTHER}
    assert VerdictFiles(folder).read_run(RUN.id)[1] == (cell(),)
    assert VerdictFiles(folder).keys("no such run") == {}
    assert not VerdictFiles(folder).holds(OTHER, cell())
    log.write_text('{"schema": 1, "run": {}}\n')
    with pytest.raises(ResultsError, match=r"^run\.id is missing"):
        VerdictFiles(folder).read_run(RUN.id)
    assert log.stat().st_mode & 0o777 & ~0o666 == 0


def test_a_list_that_cannot_be_opened_counts_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_verdict(tmp_path, KEY)
    assert VerdictFiles(tmp_path).unfinished() == [RUN.id]
    monkeypatch.setattr(Path, "open", _no_links)
    assert VerdictFiles(tmp_path).unfinished() == []


def test_a_cut_line_is_an_error_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = VerdictFiles(tmp_path)
    kept.begin(RUN)
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(ResultsError, match="free some space there"):
        kept.put(cell(), "")
    monkeypatch.undo()
    kept.close()
    shutil.rmtree(tmp_path / "runs")
