"""What a report tells beside its run: what has changed since the run before."""

from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from onnx_harness.cli import main
from onnx_harness.report import html, summary
from onnx_harness.report.background import MOST_NAMED, Background, since
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import Results, ResultsWriter
from onnx_harness.run.account import Account
from onnx_harness.run.background import background
from tests.unit.results_examples import RUN, cell, latency
from tests.unit.test_report import HOSTILE, Page

LATER = replace(
    RUN,
    id="20260103t030405z-0a1b2c3d",
    started="2026-01-03T03:04:05+00:00",
    versions={"onnx": "1.24.0"},
)
FAILED = cell("fp16", status=Status.FAIL, stage=Stage.COMPARE, reason="it is off")
BEFORE = Background(Results(RUN, (cell(), cell("fp16"), cell("gone"))))


def enter(folder: Path, run: RunInfo, cells: Sequence[CellResult]) -> None:
    with History(folder / FILE_NAME) as past:
        past.begin(run)
        for each in cells:
            past.put(each)


def test_the_first_screen_says_what_changed() -> None:
    page = html.page(LATER, [cell(), FAILED, cell("new")], {}, BEFORE)
    header = unescape(page.partition("<main")[0])
    assert (
        "Since 2026-01-02 03:04: 1 cell no longer passes, 1 cell is new, 1 cell wasn't run."
        in header
    )
    assert "onnx: 1.23.2 → 1.24.0" in header
    assert "1 cell no longer passes" in header
    assert '<a href="#cell=net-fp16-cpu">net-fp16-cpu</a>' in page.partition("<main")[0]
    assert "Since 2026-01-02 03:04: 1 cell no longer passes" in summary.page(
        LATER, [FAILED], {}, BEFORE
    )


def test_an_unchanged_run_says_so_and_a_first_run_says_nothing() -> None:
    same = since(BEFORE, replace(RUN, id="b"), [cell(), cell("fp16"), cell("gone")])
    assert same is not None
    assert (same.sentence, same.named, same.moved) == ("no cell ends otherwise", {}, [])
    assert since(Background(), RUN, [cell()]) is None
    assert 'id="since"' not in html.page(RUN, [cell()], {})


def test_of_many_that_changed_a_few_are_named_and_all_are_counted() -> None:
    names = [f"m{number:02}" for number in range(MOST_NAMED + 3)]
    before = Results(RUN, tuple(cell(model=name) for name in names[1:]))
    after = [replace(cell(model=name), status=Status.FAIL) for name in names[:-1]]
    changed = since(Background(before), LATER, after)
    assert changed is not None
    many = MOST_NAMED + 1
    assert changed.sentence == (
        f"{many} cells no longer pass, 1 cell is new, 1 cell wasn't run"
    )
    assert {words: len(cells) for words, cells in changed.named.items()} == {
        f"{many} cells no longer pass": MOST_NAMED
    }
    assert since(Background(before), LATER, after[1:2]).named.keys() == {  # type: ignore[union-attr]
        "1 cell no longer passes"
    }


def test_hostile_names_of_changed_cells_stay_text() -> None:
    hostile = Background(
        Results(replace(RUN, started=HOSTILE, versions={HOSTILE: HOSTILE}), (cell(HOSTILE),))
    )
    page = Page(html.page(LATER, [replace(cell(HOSTILE), status=Status.FAIL)], {}, hostile))
    assert page.open == []
    assert "img" not in page.tags
    assert "<img" not in summary.page(
        LATER, [replace(cell(HOSTILE), status=Status.FAIL)], {}, hostile
    )


def test_the_run_before_is_the_latest_earlier_one_with_a_cell_in_common(
    tmp_path: Path,
) -> None:
    other, between = replace(RUN, id="other"), replace(RUN, id="between")
    for run, cells in (
        (RUN, [cell()]),
        (between, [cell(), FAILED]),
        (other, [cell(model="else")]),
        (LATER, [FAILED]),
    ):
        enter(tmp_path, run, cells)
    before = background(tmp_path, LATER, [FAILED]).before
    assert before is not None
    assert before.run.id == "between"
    assert [each.id for each in before.cells] == ["net-fp16-cpu", "net-original-cpu"]
    assert background(tmp_path, RUN, [cell()]).before is None
    assert background(tmp_path, replace(RUN, id="unknown"), [cell()]).before is None


def test_a_report_without_a_usable_history_has_no_past(tmp_path: Path) -> None:
    assert background(tmp_path, RUN, [cell()]) == Background()
    (tmp_path / FILE_NAME).write_bytes(b"no database")
    assert background(tmp_path, RUN, [cell()]) == Background()


def test_a_run_and_a_rebuilt_report_both_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    enter(Path("reports"), RUN, [cell("fp16")])
    account = Account(Path("reports"), LATER)
    account.update(FAILED)
    account.finish()
    report = Path("reports/report.html")
    assert "1 cell no longer passes" in report.read_text("utf-8")
    report.unlink()
    assert main(["report"]) == 0
    assert "1 cell no longer passes" in report.read_text("utf-8")


def test_the_figures_of_nights_come_in_the_order_of_the_runs(tmp_path: Path) -> None:
    timed = replace(FAILED, latency=latency(20.0, 1.5, (1.4, 1.6)))
    enter(tmp_path, RUN, [timed, cell("simplify")])
    enter(tmp_path, LATER, [FAILED])
    with History(tmp_path / FILE_NAME) as past:
        first, second = past.nights(LATER.id, last=10)
        assert [night.run for night in past.nights(LATER.id, last=1)] == [LATER]
    assert (first.run, first.median_ms, first.speedup, first.speedup_ci95) == (
        RUN,
        20.0,
        1.5,
        (1.4, 1.6),
    )
    assert (second.cell_id, second.status, second.median_ms, second.pinned) == (
        FAILED.id,
        Status.FAIL,
        None,
        None,
    )


def test_a_results_folder_without_a_history_is_rebuilt(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(cell())
    writer.finish()
    writer.close()
    assert main(["report", str(tmp_path)]) == 0
    assert not (tmp_path / FILE_NAME).exists()


def test_the_terminal_shows_the_nights_of_a_run(tmp_path: Path) -> None:
    timed = cell("simplify", latency=latency())
    for number in range(3):
        enter(tmp_path, replace(RUN, id=f"night{number}"), [timed])
    account = Account(tmp_path, LATER)
    account.update(timed)
    account.finish()
    assert any("▅▅▅▅" in line.text for line in account.lines(width=120, quiet=False))
