"""Nights: what a trend is made of, how it is drawn, and since when a cell ends as it does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnx_harness.gate.trends import trends
from onnx_harness.report import html
from onnx_harness.report.background import Background
from onnx_harness.report.trends import (
    BASELINE,
    HEIGHT,
    MILLISECONDS,
    PINNED,
    WIDTH,
    Night,
    Trend,
    draw,
    gravity,
    sparkline,
    sparklines,
    standing,
)
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.history_rows import NightFigures
from onnx_harness.results.levels import FOLDER, Level, trimmed, write_levels
from onnx_harness.results.run import RunInfo
from onnx_harness.run.background import background
from tests.browser import runs as runs_to_look_at
from tests.nights import night, pinned, timed
from tests.unit.results_examples import RUN, cell, latency
from tests.unit.test_report import HOSTILE, Page, embedded


def runs(*statuses: Status) -> list[Night]:
    return [
        Night(replace(RUN, id=str(day), started=f"2026-01-{day:02}T03:00:00+00:00"), status)
        for day, status in enumerate(statuses, 1)
    ]


def figures(tmp_path: Path, nights: list[list[CellResult]]) -> tuple[NightFigures, ...]:
    name = ""
    for cells in nights:
        name = night(tmp_path, cells)
    with History(tmp_path / FILE_NAME) as past:
        return tuple(past.nights(name, last=100))


def test_since_when_a_cell_fails_and_what_differed_then() -> None:
    nights = runs(Status.PASS, Status.PASS, Status.FAIL, Status.ERROR)
    nights[2:] = [
        replace(each, run=replace(each.run, versions={"onnx": "1.24.0"}))
        for each in nights[2:]
    ]
    nights[:2] = [
        replace(each, run=replace(each.run, versions={"onnx": "1.23.2"}))
        for each in nights[:2]
    ]
    assert standing(nights) == (
        "ends in an error since 2026-01-03 03:00 (2 runs); before, on 2026-01-02 03:00, it was: "
        "pass. "
        "What differs: onnx: 1.23.2 → 1.24.0"
    )


def test_a_failure_on_the_same_machine_with_the_same_versions_says_so() -> None:
    assert standing(runs(Status.PASS, Status.FAIL)).endswith(
        "it was: pass. Versions, processor and seed are the same: the machine isn't to blame"
    )


def test_a_cell_that_never_was_otherwise() -> None:
    assert standing(runs(Status.FAIL, Status.FAIL)) == (
        "fails in all 2 runs that the history has, since 2026-01-01 03:00"
    )
    assert standing(runs(Status.FAIL)) == ""


def test_times_are_those_of_the_pinned_reference_with_levels_and_change_points(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(3)
    ratios = np.exp(rng.normal(scale=0.003, size=24))
    ratios[14:] *= 1.08
    nights = figures(tmp_path, [[timed("simplify", float(ratio))] for ratio in ratios])
    accepted = [_level(nights[2], 1.0), _level(nights[16], 1.08)]
    [trend] = trends(nights, {nights[0].cell_id: timed("simplify")}, accepted)
    assert trend.unit == PINNED
    assert trend.values == pytest.approx(list(ratios))
    assert [each.level for each in trend.nights] == [None] * 2 + [1.0] * 14 + [1.08] * 8
    assert trend.moved == (14,)
    last = f"{ratios[-1] / 1.08 - 1:+.1%}"
    assert trend.sentence == f"{last} beside the accepted level"


def _level(figures: NightFigures, ratio: float) -> Level:
    return _accepted(figures.run, ratio)


def _accepted(run: RunInfo, ratio: float) -> Level:
    accepted = trimmed(timed("simplify", ratio))
    return Level(accepted, run.host.cpu, run.seed, run.id, run.started, "me", "so")


def test_without_a_reference_times_are_those_of_the_baseline_or_milliseconds(
    tmp_path: Path,
) -> None:
    quick = latency(10.0, 2.0, (1.6, 2.5))
    cells = [cell("simplify", latency=quick), cell("original", latency=latency(8.0))]
    by_id = {each.id: each for each in cells}
    first, second = trends(figures(tmp_path, [cells] * 3), by_id, [])
    assert (first.unit, first.values) == (MILLISECONDS, [8.0] * 3)
    assert (second.unit, second.values) == (BASELINE, [0.5] * 3)
    assert second.nights[0].interval == pytest.approx((0.4, 0.625))
    assert second.moved == ()


def test_other_processors_and_unsound_times_are_left_out(tmp_path: Path) -> None:
    night(tmp_path, [timed("simplify", 5.0)], cpu="another")
    broken = timed("simplify", pinned=replace(pinned(1.0), ratio=-1.0))
    nights = figures(tmp_path, [[timed("simplify")]] * 3 + [[broken]])
    [trend] = trends(nights, {nights[0].cell_id: timed("simplify")}, [])
    assert [each.value for each in trend.nights] == [1.0, 1.0, 1.0, None]


@pytest.mark.parametrize(
    "values", [[1.0, 1.0, 1.0], [1e-9, 1e9, 1.0], [1.0, 1.02, 0.99, 1.5]]
)
def test_a_drawing_stays_inside_its_frame(values: list[float]) -> None:
    nights = [
        replace(each, value=value, interval=(value * 0.9, value * 1.1), level=1.0)
        for each, value in zip(runs(*[Status.PASS] * len(values)), values, strict=True)
    ]
    drawing = draw(Trend("c", PINNED, tuple(nights), (1,)))
    for mark in drawing.marks:
        assert 0 <= mark.x <= WIDTH
        assert all(0 <= y <= HEIGHT for y in (mark.y, mark.low, mark.high) if y is not None)
    assert drawing.level.startswith("M")


def nights_of(
    *values: float | None, levels: tuple[float | None, ...] = ()
) -> tuple[Night, ...]:
    return tuple(
        replace(each, value=value, level=level)
        for each, value, level in zip(
            runs(*[Status.PASS] * len(values)),
            values,
            levels or (None,) * len(values),
            strict=True,
        )
    )


def test_levels_are_steps_and_a_night_without_a_time_has_no_point() -> None:
    levels = (None, 1.0, 1.0, 1.1, None, 1.0)
    nights = nights_of(1.0, 1.0, None, 1.1, 1.0, 1.0, levels=levels)
    drawing = draw(Trend("c", PINNED, nights, (3,)))
    x = [mark.x for mark in drawing.marks]
    ys = [mark.y for mark in drawing.marks]
    points = [
        f"{across:.1f},{down:.1f}"
        for across, down in zip(x, ys, strict=True)
        if down < HEIGHT - 32
    ]
    assert len(points) == 5
    assert drawing.line == " ".join(points)
    low, high = f"{ys[0]:.1f}", f"{ys[3]:.1f}"
    assert drawing.level == (
        f"M{x[1]:.1f} {low}H{x[2]:.1f}V{low}H{x[3]:.1f}V{high}H{x[4]:.1f}M{x[5]:.1f} {low}"
    )
    assert drawing.moved == pytest.approx(((x[2] + x[3]) / 2,))


def test_what_is_slower_than_usual_comes_last_and_what_moved_after_that() -> None:
    trends_by_name = {
        "faster": Trend("c", PINNED, nights_of(1.0, 1.0, 0.9)),
        "slower": Trend("c", PINNED, nights_of(1.0, 1.0, 1.1)),
        "moved": Trend("c", PINNED, nights_of(1.0, 1.0, 0.8), (2,)),
        "above its level": Trend("c", PINNED, nights_of(1.1, 1.1, 1.1, levels=(0.5,) * 3)),
    }
    ordered = sorted(trends_by_name, key=lambda name: gravity(trends_by_name[name]))
    assert ordered == ["faster", "slower", "above its level", "moved"]


def test_the_terminal_shows_the_latest_nights() -> None:
    nights = nights_of(*[2.0] * 5, *[1.0] * 11, 1.5)
    drawn = Trend("c", PINNED, nights)
    few = Trend("few", PINNED, nights[:2])
    assert sparklines([drawn, few]) == {"c": "▁" * 11 + "█"}


def test_a_sparkline_is_flat_where_nothing_moved() -> None:
    assert sparkline([1.0, 1.0, 1.0]) == "▅▅▅"
    assert sparkline([1.0, 2.0, 1.0]) == "▁█▁"
    assert len(set(sparkline([1.0, 1.002, 0.999]))) == 1
    assert sparkline([]) == ""


def test_the_page_draws_the_nights_and_says_since_when() -> None:
    nights = tuple(
        replace(each, value=1.0) for each in runs(*[Status.PASS] * 3, Status.FAIL)
    )
    past = Background(trends=(Trend(cell().id, BASELINE, nights, (), standing(nights)),))
    page = html.page(RUN, [cell()], {}, past)
    assert page.count('<svg class="trend"') == 1
    assert embedded(page)["cells"][0]["standing"].startswith("fails since 2026-01-04")
    few = Background(trends=(Trend(cell().id, BASELINE, nights[:2]),))
    assert '<svg class="trend"' not in html.page(RUN, [cell()], {}, few)


def test_hostile_names_of_nights_stay_text() -> None:
    nights = tuple(replace(each, value=1.0) for each in runs(*[Status.PASS] * 3))
    hostile = tuple(
        replace(each, run=replace(each.run, started=HOSTILE, id=HOSTILE)) for each in nights
    )
    page = Page(
        html.page(
            RUN, [cell(HOSTILE)], {}, Background(trends=(Trend(HOSTILE, HOSTILE, hostile),))
        )
    )
    assert page.open == []
    assert "img" not in page.tags


def test_nights_come_from_the_history_beside_the_report(tmp_path: Path) -> None:
    for _ in range(3):
        night(tmp_path, [timed("simplify")])
    with History(tmp_path / FILE_NAME) as past:
        _, second, run = past.runs()
    [trend] = background(tmp_path, run, [timed("simplify")]).trends
    assert [each.level for each in trend.nights] == [None] * 3
    # Who moved a level is in the history; where that is lost, the accepted levels remain.
    noted, latest = _accepted(second, 1.1), _accepted(run, 1.2)
    with History(tmp_path / FILE_NAME) as past:
        past.note_accepted([noted])
    [trend] = background(tmp_path, run, [timed("simplify")]).trends
    assert [each.level for each in trend.nights] == [None, 1.1, 1.1]
    (tmp_path / FOLDER).mkdir()
    write_levels(tmp_path / FOLDER, {latest.key: latest})
    [trend] = background(tmp_path, run, [timed("simplify")]).trends
    assert [each.level for each in trend.nights] == [None, 1.1, 1.2]
    assert (trend.cell_id, len(trend.nights), trend.is_drawn) == (
        timed("simplify").id,
        3,
        True,
    )


@pytest.mark.nightly
def test_five_thousand_cells_with_their_nights_stay_below_three_megabytes() -> None:
    cells = runs_to_look_at.large()
    page = html.page(RUN, cells, {}, runs_to_look_at.background(cells))
    assert len(page.encode()) < 3_000_000
