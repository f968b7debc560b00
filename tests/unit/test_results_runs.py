"""What is kept of runs: their lists, their nights, and what goes on when a part can't be written."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results import codec, history, store, verdicts
from onnx_harness.results import recorder as recording
from onnx_harness.results.cache import IN_USE_SECONDS, Cache
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.results.history import History
from onnx_harness.results.recorder import Entry, Recorder
from onnx_harness.results.store import read_results
from onnx_harness.results.verdicts import VerdictFiles
from onnx_harness.results.workbench import Workbench
from tests.nights import night, pinned, timed
from tests.unit.results_examples import RUN, cell, latency

KEY, OTHER = "ab" * 32, "cd" * 32


def test_nights_are_a_run_s_and_those_entered_before_it(tmp_path: Path) -> None:
    host = replace(RUN.host, cpu="Elsewhere")
    runs = [night(tmp_path, [timed("original", ratio)]) for ratio in (1.0, 1.1)]
    runs.append(
        night(
            tmp_path,
            [
                timed("original", 1.2, latency=latency(5.0, 1.5, (1.4, 1.6)), machine=host),
                cell("simplify", status=Status.FAIL, latency=latency(ci95=None)),
            ],
        )
    )
    night(tmp_path)
    with History(tmp_path / "history.sqlite") as past:
        [first, last, other] = past.nights(runs[2], last=2)
        assert len(tuple(past.nights(runs[2], last=9))) == 4
        assert tuple(past.nights("no such run", last=9)) == ()
        measured = past.measured()
    assert (first.run.id, last.run.id, other.run.id) == (runs[1], runs[2], runs[2])
    assert (last.median_ms, last.speedup, last.speedup_ci95) == (5.0, 1.5, (1.4, 1.6))
    assert last.pinned is not None
    assert last.pinned.ratio == pytest.approx(1.2)
    assert last.machine == host
    assert (other.status, other.speedup_ci95, other.pinned, other.machine) == (
        Status.FAIL,
        None,
        None,
        None,
    )
    assert (other.median_ms, other.speedup) == (28.4, 1.02)
    assert measured["net-original-cpu"].seconds == 0.25
    assert cell(machine=host).processor(RUN.host) == "Elsewhere"
    devices = replace(host, devices={"cuda": "A GPU"})
    assert cell(provider="cuda", machine=devices).processor(RUN.host) == "Elsewhere, A GPU"
    assert cell(machine=devices).processor(RUN.host) == "Elsewhere"
    assert cell().processor(RUN.host) == RUN.host.cpu


def begun(folder: Path, name: str) -> VerdictFiles:
    files = VerdictFiles(folder)
    files.begin(replace(RUN, id=name))
    return files


def test_runs_come_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for name in ("zeta", "beta", "alpha"):
        begun(folder, name).close()
    (folder / "verdicts").mkdir(exist_ok=True)
    files = VerdictFiles(folder)
    assert files.runs() == ["zeta", "beta", "alpha"]
    [log] = folder.rglob("alpha.jsonl")
    log.with_name("none.jsonl").write_text("")
    log.with_name("odd.jsonl").write_text('{"number": "9"}\n')
    log.with_name("notes.txt").write_text("")
    assert files.runs() == ["none", "odd", "zeta", "beta", "alpha"]
    files.finish("beta")
    assert files.unfinished() == ["alpha", "none", "odd", "zeta"]
    assert VerdictFiles(tmp_path / "nowhere").runs() == []


def test_a_verdict_has_no_timing_unless_it_was_timed(tmp_path: Path) -> None:
    files = VerdictFiles(tmp_path)
    files.put(cell(), KEY)
    stored = files.get(KEY)
    assert stored is not None
    assert stored.timing == ""


def test_what_cannot_be_written_of_a_run_is_named_with_its_option(tmp_path: Path) -> None:
    files = begun(tmp_path, "run")
    for folder in ("verdicts", "runs"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        (tmp_path / folder).write_text("a file")
    with pytest.raises(
        ResultsError, match=r"^A verdict can't be .*verdicts.*\(--report-dir\)"
    ):
        files.put(cell(), KEY)
    lists = r"^The list of the run's cells can't be written.*run\.jsonl.*\(--report-dir\)"
    with pytest.raises(ResultsError, match=lists):
        files.finish("run")
    with pytest.raises(ResultsError, match=lists):
        begun(tmp_path, "run")
    assert files._log is not None
    os.close(files._log)
    with pytest.raises(ResultsError, match=lists):
        files.note(cell(), KEY)


def test_a_line_that_a_full_disk_cuts_short_ends_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = begun(tmp_path, "run")
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    with pytest.raises(ResultsError, match=r"5 of .* bytes were written"):
        files.put(cell("simplify"), "")
    monkeypatch.undo()
    files.put(cell(), KEY)
    files.close()
    files.close()
    run, cells = VerdictFiles(tmp_path).read_run("run")
    assert (run.id, cells) == ("run", (cell(),))


def test_a_list_without_its_head_is_no_list(tmp_path: Path) -> None:
    begun(tmp_path, "run").close()
    [log] = tmp_path.rglob("run.jsonl")
    for text in ("", '{"schema": 99}\n', "[]\n"):
        log.write_text(text)
        with pytest.raises(ResultsError, match="isn't the list of a run's cells"):
            VerdictFiles(tmp_path).read_run("run")


def test_a_cell_s_newer_state_and_another_s_verdict_are_told_apart(tmp_path: Path) -> None:
    files = begun(tmp_path, "run")
    files.put(cell(), KEY)
    files.put(cell("simplify"), "")
    files.note(cell("simplify"), KEY)  # the file is of another cell
    files.note(cell("optimize"), OTHER)  # there is no file
    files.put(cell(latency=latency()), KEY, "t")
    files.close()
    _, cells = VerdictFiles(tmp_path).read_run("run")
    assert cells == (cell(latency=latency()), cell("simplify"))


def counted(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cells each write of results.json brings."""
    counts: list[int] = []
    puts = recorder._writer.put_all

    def put_all(cells: Any, lines: Any = ()) -> None:
        counts.append(len(cells))
        puts(cells, lines)

    monkeypatch.setattr(recorder._writer, "put_all", put_all)
    return counts


def test_cells_of_an_earlier_run_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MOST_PENDING", 3)
    recorder = Recorder(tmp_path, RUN)
    counts = counted(recorder, monkeypatch)
    reused = Entry(KEY, reused=True)
    for number in range(4):
        recorder.put(cell(f"v{number}"), reused)
    assert counts == [3]
    recorder.put(cell())
    assert counts == [3, 2]
    recorder.put(cell("last"), reused)
    recorder.finish()
    assert counts == [3, 2, 1]
    results = read_results(tmp_path / "results.json")
    assert len(results.cells) == 6
    assert VerdictFiles(tmp_path).unfinished() == []
    with History(tmp_path / "history.sqlite") as past:
        assert len(past.cells(RUN.id)) == 6


def test_a_verdict_is_encoded_once_and_that_of_an_earlier_run_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def line_of(record: object) -> str:
        encoded.append(record)
        return codec.line_of(record)

    recorder = Recorder(tmp_path, RUN)
    for room in (recording, store, history, verdicts):
        monkeypatch.setattr(room, "line_of", line_of)
    recorder.put(cell(), Entry(KEY))
    stored = VerdictFiles(tmp_path).get(KEY)
    assert stored is not None
    assert encoded == [cell()]
    recorder.put(stored.cell, Entry(KEY, reused=True), stored.line)
    recorder.finish()
    assert encoded == [cell()]
    assert read_results(tmp_path / "results.json").cells == (cell(),)
    with History(tmp_path / "history.sqlite") as past:
        assert past.cells(RUN.id) == (cell(),)


def test_without_files_each_cell_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, RUN)
    counts = counted(recorder, monkeypatch)
    recorder._give_up_files(ResultsError("full"))
    recorder.put(cell(), Entry(KEY, reused=True))
    assert counts == [1]
    assert recorder.warnings == [
        "Verdicts have no files of their own from here on, for --resume: full"
    ]
    recorder.finish()
    assert VerdictFiles(tmp_path).unfinished() == [RUN.id]


def test_a_file_is_called_by_what_its_verdict_depends_on(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    recorder.put(cell(), Entry(KEY, "timing"))
    recorder.put(cell("simplify", latency=latency()), Entry(OTHER, "timing"))
    broken = cell("optimize", status=Status.ERROR, symptom=Symptom.ENVIRONMENT)
    recorder.put(broken, Entry("ef" * 32, "timing"))
    recorder.finish()
    files = VerdictFiles(tmp_path)
    first, second = files.get(KEY), files.get(OTHER)
    assert first is not None
    assert second is not None
    assert (first.timing, second.timing) == ("", "timing")
    assert files.get("ef" * 32) is None


def test_a_cache_for_the_moment_goes_with_its_object(tmp_path: Path) -> None:
    cache = Cache.temporary()
    entry = cache.get_or_put("kind", KEY, lambda folder: (folder / "f").write_text("x"))
    assert (entry / "f").read_text() == "x"
    assert cache.get("kind", KEY) is None or cache.get("kind", KEY) == entry
    scratch = cache._scratch
    assert scratch is not None
    assert entry.is_relative_to(scratch)
    assert cache._root == scratch / "artifacts"
    del cache
    assert not scratch.exists()
    bench = Workbench(Cache(tmp_path))
    assert isinstance(bench.cache, Cache)
    assert bench.passing_cache("a") is bench.passing_cache("a")
    assert bench.passing_cache("a") is not bench.passing_cache("b")


@pytest.mark.parametrize(("age", "due"), [(0.9, False), (1.1, True)])
def test_pruning_leaves_its_stamp_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, due: bool
) -> None:
    cache = Cache(tmp_path, limit_bytes=0)
    (tmp_path / "artifacts").mkdir()
    pruned: list[int] = []

    def prunes(_: Cache) -> int:
        pruned.append(1)
        return 5

    monkeypatch.setattr(Cache, "prune", prunes)
    assert cache.prune_if_due() == 5
    stamp = tmp_path / "artifacts" / ".pruned"
    assert cache.prune_if_due() == 0
    os.utime(stamp, (time.time() - age * IN_USE_SECONDS,) * 2)
    assert cache.prune_if_due() == (5 if due else 0)
    assert time.time() - stamp.stat().st_mtime < (60 if due else 2 * IN_USE_SECONDS)
    assert len(pruned) == 1 + due


def test_the_pinned_record_of_a_night_has_its_second_figures() -> None:
    twice = pinned(1.10, again=1.04)
    assert twice.night_ratio == pytest.approx(1.04)
    assert pinned(1.0).night_ratio == pytest.approx(1.0)
