"""The gate's decision on the latest run, straight from a history: findings in full, and notes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.errors import UsageError
from onnx_harness.gate import decide, drift
from onnx_harness.gate.decide import MAX_AGE, gate
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.gated import GatedCell, GateReport
from onnx_harness.results.history import History
from onnx_harness.results.levels import Key, Level, trimmed
from onnx_harness.results.operators import OperatorRecord, SlowerOperator
from onnx_harness.results.outcome import Outcome
from tests.nights import night, pinned, timed
from tests.unit.results_examples import RUN

NOW = datetime(2026, 3, 10, 3, tzinfo=UTC)
PROCESSOR = RUN.host.processor_of("cpu")
Said = list[tuple[Outcome, str, str]]


def levels(*cells: CellResult, processor: str = PROCESSOR, **more: Any) -> dict[Key, Level]:
    """Levels of ``cells``, accepted in the first night with the command that all runs here have."""
    made = {}
    for cell in cells:
        level = Level(
            *(
                trimmed(cell),
                processor,
                RUN.seed,
                "night0000",
                "2026-02-01T03:00:00",
                "w",
                "y",
            ),
            selection=(RUN.command,),
        )
        level = replace(level, **more)
        made[level.key] = level
    return made


def judged(folder: Path, accepted: dict[Key, Level], **more: Any) -> GateReport:
    with History(folder / "history.sqlite") as history:
        return gate(history, accepted, **{"now": NOW, **more})


def enter(
    folder: Path, *cells: CellResult, ago: timedelta = timedelta(0), **more: Any
) -> str:
    return night(folder, cells, started=NOW - ago, **more)


def of_run(report: GateReport) -> Said:
    return [(found.outcome, found.what, found.reason) for found in report.findings]


def of_cell(cell: GatedCell) -> Said:
    return [(found.outcome, found.what, found.reason) for found in cell.findings]


ORIGINAL, SIMPLIFY = timed("original"), timed("simplify")
GPU = timed("original", provider="cuda")


def test_a_history_without_a_run(tmp_path: Path) -> None:
    report = judged(tmp_path, levels(ORIGINAL))
    assert of_run(report) == [
        (Outcome.INVALID, "run", "the history holds no run: nothing was judged")
    ]
    assert (report.outcome, report.run, report.cells) == (Outcome.INVALID, None, ())


def test_a_name_that_is_no_provider_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'cuda'"):
        judged(tmp_path, {}, only=("cpu", "kuda"))


@pytest.mark.parametrize("available", [True, False])
def test_a_night_as_accepted(
    available: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "available", lambda: available)
    name = enter(tmp_path, SIMPLIFY, ORIGINAL)
    report = judged(tmp_path, levels(ORIGINAL, SIMPLIFY))
    assert (report.outcome, report.findings) == (Outcome.PASS, ())
    assert report.run is not None
    assert report.run.id == name
    assert report.notes == (() if available else (drift.MISSING,))
    assert [(cell.id, cell.outcome, cell.notes) for cell in report.cells] == [
        (ORIGINAL.id, Outcome.PASS, ()),
        (SIMPLIFY.id, Outcome.PASS, ()),
    ]
    assert report.cells[0].nights is not None
    assert report.cells[0].operators is None


def test_a_run_of_one_provider_is_judged_by_that_ones_levels(tmp_path: Path) -> None:
    failed = replace(GPU, status=Status.FAIL, stage=Stage.RUN, reason="no kernel")
    enter(tmp_path, ORIGINAL, failed)
    accepted = levels(ORIGINAL, timed("gone", provider="cuda"))
    alone = judged(tmp_path, accepted, only=("cpu",))
    assert (alone.outcome, [cell.id for cell in alone.cells]) == (
        Outcome.PASS,
        [ORIGINAL.id],
    )
    both = judged(tmp_path, accepted, only=("cpu", "cuda"))
    assert both.outcome is Outcome.FAIL
    assert len(both.cells) == 3
    assert len(judged(tmp_path, accepted).cells) == 3


@pytest.mark.parametrize(
    ("ago", "when"),
    [
        (MAX_AGE, None),
        (-MAX_AGE, None),
        (MAX_AGE + timedelta(seconds=1), "20 hours ago"),
        (-MAX_AGE - timedelta(seconds=1), "20 hours in the future"),
        (timedelta(hours=47.6), "48 hours ago"),
    ],
)
def test_the_age_of_a_run(ago: timedelta, when: str | None, tmp_path: Path) -> None:
    enter(tmp_path, ORIGINAL, ago=ago)
    findings = of_run(judged(tmp_path, levels(ORIGINAL)))
    if when is None:
        assert findings == []
    else:
        [(outcome, what, reason)] = findings
        assert (outcome, what) == (Outcome.INVALID, "run")
        assert reason.startswith(
            f"the latest run in the history started {when}, and nothing"
        )


def test_a_run_may_be_as_old_as_is_asked(tmp_path: Path) -> None:
    enter(tmp_path, ORIGINAL, ago=timedelta(hours=30))
    assert of_run(judged(tmp_path, levels(ORIGINAL), max_age=timedelta(hours=30))) == []
    assert judged(tmp_path, levels(ORIGINAL), max_age=timedelta(hours=29)).outcome is (
        Outcome.INVALID
    )


def test_without_a_time_it_is_now(tmp_path: Path) -> None:
    night(tmp_path, [ORIGINAL], started=datetime.now(UTC) - timedelta(hours=19.9))
    assert of_run(judged(tmp_path, levels(ORIGINAL), now=None)) == []
    night(tmp_path, [ORIGINAL], started=datetime.now(UTC) + timedelta(hours=20.1))
    assert len(of_run(judged(tmp_path, levels(ORIGINAL), now=None))) == 1


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    enter(tmp_path, ORIGINAL)
    enter(tmp_path, ORIGINAL)
    assert of_run(judged(tmp_path, levels(ORIGINAL))) == []
    enter(tmp_path, ORIGINAL, ago=timedelta(seconds=1))
    [(outcome, what, reason)] = of_run(judged(tmp_path, levels(ORIGINAL)))
    assert (outcome, what) == (Outcome.INVALID, "clock")
    assert f"({(NOW - timedelta(seconds=1)).isoformat()}, {NOW.isoformat()})" in reason
    enter(tmp_path, ORIGINAL, ago=timedelta(seconds=1))
    assert of_run(judged(tmp_path, levels(ORIGINAL))) == []


def test_a_time_that_cannot_be_read(tmp_path: Path) -> None:
    run = replace(RUN, id="odd", started="yesterday")
    with History(tmp_path / "history.sqlite") as history:
        history.begin(run)
        history.put(ORIGINAL)
    assert of_run(judged(tmp_path, levels(ORIGINAL))) == [
        (Outcome.INVALID, "clock", "the run odd has no time that can be read ('yesterday')")
    ]
    enter(tmp_path, ORIGINAL)
    assert of_run(judged(tmp_path, levels(ORIGINAL))) == []


def test_a_run_without_cells_of_its_providers(tmp_path: Path) -> None:
    enter(tmp_path, GPU)
    report = judged(tmp_path, levels(ORIGINAL), only=("cpu",))
    [(outcome, what, reason)] = of_run(report)
    assert (outcome, what, report.cells) == (Outcome.INVALID, "run", ())
    assert reason.startswith("the run holds no cell of these providers")


def test_a_run_before_any_level(tmp_path: Path) -> None:
    enter(tmp_path, ORIGINAL)
    report = judged(tmp_path, {})
    [(outcome, what, reason)] = of_run(report)
    assert (outcome, what) == (Outcome.INVALID, "run")
    assert reason.startswith("no level was ever accepted")
    [cell] = report.cells
    mend = f'accept it: onnx-harness gate accept {ORIGINAL.id} --why "…"'
    unknown = (Outcome.INVALID, "cell", f"has no accepted level. Where it's right, {mend}")
    assert (cell.outcome, of_cell(cell)) == (Outcome.INVALID, [unknown])


def test_a_part_of_a_run(tmp_path: Path) -> None:
    enter(tmp_path, ORIGINAL, GPU, planned=3)
    accepted = levels(ORIGINAL, SIMPLIFY, timed("v3")) | levels(
        SIMPLIFY, processor="Another"
    )
    report = judged(tmp_path, accepted, only=("cpu",))
    [(outcome, what, reason)] = of_run(report)
    assert (outcome, what) == (Outcome.INVALID, "run")
    assert reason.startswith(
        "the run had 1 of 3 accepted cells: it ended after 2 of its own 3. "
    )
    assert [cell.id for cell in report.cells] == [ORIGINAL.id]


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (timed("simplified"), True),
        (timed("simplify", model="other"), True),
        (timed("simplified", model="other"), False),
        (timed("simplify", provider="cuda"), False),
        (replace(timed("simplified"), model_sha256="cd" * 32), False),
    ],
)
def test_a_cell_that_vanished_and_its_successor(
    there: CellResult, named: bool, tmp_path: Path
) -> None:
    enter(tmp_path, ORIGINAL, there)
    report = judged(tmp_path, levels(ORIGINAL, SIMPLIFY))
    vanished = report.cells[0]
    assert (vanished.id, vanished.outcome, report.outcome) == (
        *(SIMPLIFY.id, Outcome.FAIL),
        Outcome.FAIL,
    )
    [(outcome, what, reason)] = of_cell(vanished)
    advice = (
        f"Perhaps its id is {there.id} now, which is judged anew: ids are history's keys."
        if named
        else "A run that was for some providers only names them: --provider."
    )
    assert (outcome, what) == (Outcome.FAIL, "cell")
    assert reason == f"accepted on 2026-02-01, and not in this run. {advice}"


def test_a_cell_that_was_accepted_itself_is_no_successor(tmp_path: Path) -> None:
    same_work = timed("simplified")
    enter(tmp_path, ORIGINAL, same_work)
    report = judged(tmp_path, levels(ORIGINAL, SIMPLIFY, same_work))
    [(_, _, reason)] = of_cell(report.cells[0])
    assert "Perhaps" not in reason


def test_a_cell_on_another_processor(tmp_path: Path) -> None:
    enter(tmp_path, ORIGINAL)
    accepted = levels(ORIGINAL, processor="Q") | levels(ORIGINAL, SIMPLIFY, processor="B")
    cells = judged(tmp_path, accepted).cells
    [(outcome, what, reason)] = of_cell(cells[-1])
    assert (outcome, what) == (Outcome.INVALID, "processor")
    assert reason == (
        f"ran on {PROCESSOR}, and was accepted on B, Q only. Where it's right here too, accept it: "
        f'onnx-harness gate accept {ORIGINAL.id} --why "…"'
    )


SLOWER = OperatorRecord((SlowerOperator("GRU_3", "GRU", 1.4, 2.1, (1.47, 1.53), 0.97),), 16)


def slow(ratio: float = 1.1) -> CellResult:
    return timed("original", pinned=pinned(ratio, operators=SLOWER))


@pytest.mark.parametrize(
    ("between", "outcome"),
    [
        ({}, Outcome.FAIL),
        ({"between_nights": timedelta(hours=5)}, Outcome.FAIL),
        ({"between_nights": timedelta(hours=5, seconds=1)}, Outcome.INCONCLUSIVE),
    ],
)
def test_nights_are_as_far_apart_as_is_asked_and_operators_come_first(
    between: dict[str, Any],
    outcome: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "available", lambda: True)
    asked: list[list[float]] = []

    def points(ratios: list[float]) -> list[int]:
        asked.append(ratios)
        return [0]

    monkeypatch.setattr(drift, "change_points", points)
    enter(tmp_path, ORIGINAL, ago=timedelta(days=2))
    enter(tmp_path, slow(1.2), ago=timedelta(hours=5))
    last = enter(tmp_path, slow(1.1))
    report = judged(tmp_path, levels(ORIGINAL), **between)
    [cell] = report.cells
    assert (report.outcome, cell.outcome, cell.operators) == (outcome, outcome, SLOWER)
    counted = [1.2, 1.1] if outcome is Outcome.FAIL else [1.1]
    first = "night0001" if outcome is Outcome.FAIL else last
    [ratios] = asked
    assert ratios == pytest.approx(counted)
    assert cell.notes[0] == str(SLOWER)
    assert cell.notes[-1] == (
        f"its level seems to have moved in the night of 2026-03-{'09' if '1' in first else '10'} "
        f"(run {first})"
    )
    assert len(cell.notes) == (2 if outcome is Outcome.FAIL else 3)


def test_a_quiet_cell_names_neither_operators_nor_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "change_points", lambda _: [0])
    enter(tmp_path, ORIGINAL, ago=timedelta(days=1))
    enter(tmp_path, slow(1.0))
    [cell] = judged(tmp_path, levels(ORIGINAL)).cells
    assert (cell.outcome, cell.operators, cell.notes) == (Outcome.PASS, None, ())


def test_without_the_library_a_slow_cell_has_no_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "available", lambda: False)
    monkeypatch.setattr(drift, "change_points", lambda _: [0])
    enter(tmp_path, ORIGINAL, ago=timedelta(days=1))
    enter(tmp_path, timed("original", 1.1))
    [cell] = judged(tmp_path, levels(ORIGINAL)).cells
    assert (cell.outcome, cell.operators, cell.notes) == (Outcome.INCONCLUSIVE, None, ())


def test_the_latency_of_a_cell_that_ends_otherwise_is_not_judged(tmp_path: Path) -> None:
    failed = replace(slow(), status=Status.FAIL, stage=Stage.RUN, reason="no kernel")
    enter(tmp_path, failed)
    [cell] = judged(tmp_path, levels(ORIGINAL)).cells
    assert (cell.nights, cell.operators) == (None, None)
    assert [what for _, what, _ in of_cell(cell)] == ["status"]


def test_nights_from_before_the_most_that_count_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (3, 2, 1, 0):
        enter(tmp_path, ORIGINAL, ago=timedelta(days=day))
    [cell] = judged(tmp_path, levels(ORIGINAL)).cells
    assert cell.nights is not None
    assert cell.nights.count == 4
    monkeypatch.setattr(decide, "MOST_NIGHTS", 2)
    [cell] = judged(tmp_path, levels(ORIGINAL, accepted="2026-03-09T02:00:00")).cells
    assert cell.nights is not None
    assert cell.nights.count == 3
