"""A cell's nights as the report draws them: the unit, the figures that count, the level in force."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from onnx_harness.gate import drift
from onnx_harness.gate.trends import trends
from onnx_harness.report.trends import BASELINE, MILLISECONDS, PINNED, Trend
from onnx_harness.results.cells import CellResult, PinnedRecord, Status
from onnx_harness.results.history_rows import NightFigures
from onnx_harness.results.levels import Level, trimmed
from onnx_harness.results.outcome import Outcome
from tests.nights import pinned, timed
from tests.unit.results_examples import RUN

CELL = timed("simplify")


def a_night(
    day: int, ratio: float | None = None, cell: CellResult = CELL, **more: Any
) -> NightFigures:
    run = replace(RUN, id=f"night{day}", started=f"2026-01-{day:02}T03:00:00+00:00")
    record = None if ratio is None else bare(ratio)
    figures = NightFigures(run, cell.id, Status.PASS, 8.0, 2.0, (1.6, 2.5), record)
    return replace(figures, **more)


def bare(ratio: float, **more: Any) -> PinnedRecord:
    """A reference's record without a verdict."""
    return replace(PinnedRecord({}, Status.PASS), ratio=ratio, **more)


def level(run_id: str, accepted: str, ratio: float | None, **more: Any) -> Level:
    record = None if ratio is None else bare(ratio)
    cell = replace(trimmed(CELL), pinned=record)
    made = Level(cell, RUN.host.processor_of("cpu"), RUN.seed, run_id, accepted, "w", "y")
    return replace(made, **more)


def drawn(nights: list[NightFigures], levels: list[Level] | None = None) -> Trend:
    [trend] = trends(nights, {CELL.id: CELL}, levels or [])
    return trend


def test_each_cell_of_the_run_has_its_nights_and_no_other_cell_has() -> None:
    other = timed("other")
    nights = [
        a_night(1, cell=other),
        a_night(3, cell=other),
        a_night(2, cell=timed("gone")),
        a_night(1, median_ms=1.0),
        a_night(2, median_ms=2.0),
    ]
    found = trends(nights, {CELL.id: CELL, other.id: other}, [])
    days = [(trend.cell_id, [night.run.id for night in trend.nights]) for trend in found]
    assert days == [(other.id, ["night1", "night3"]), (CELL.id, ["night1", "night2"])]


def test_nights_are_those_on_the_processor_that_the_latest_was_on_for_this_provider() -> (
    None
):
    cell = timed("simplify", provider="cuda")
    hosts = [
        replace(RUN.host, devices={"cuda": device, "cpu": str(place)})
        for place, device in enumerate(("G1", "G2", "G1"))
    ]
    nights = [
        a_night(day, cell=cell, run=replace(RUN, id=str(day), host=host))
        for day, host in enumerate(hosts)
    ]
    [trend] = trends(nights, {cell.id: cell}, [])
    assert [night.run.id for night in trend.nights] == ["0", "2"]


@pytest.mark.parametrize(
    ("timed_in_reference", "variant", "unit", "value"),
    [
        (3, "simplify", PINNED, 1.1),
        (2, "simplify", BASELINE, 0.5),
        (3, "original", PINNED, 1.1),
        (2, "original", MILLISECONDS, 8.0),
    ],
)
def test_the_unit_is_the_reference_where_enough_nights_have_one(
    timed_in_reference: int, variant: str, unit: str, value: float
) -> None:
    cell = timed(variant)
    nights = [
        a_night(day, 1.1 if day <= timed_in_reference else None, cell) for day in range(1, 5)
    ]
    [trend] = trends(nights, {cell.id: cell}, [level("night1", RUN.started, 1.0)])
    assert trend.unit == unit
    assert trend.nights[0].value == value
    assert [night.status for night in trend.nights] == [Status.PASS] * 4


VOID = pinned(spread=0.0).verdict


@pytest.mark.parametrize(
    ("record", "value", "interval"),
    [
        (None, None, None),
        (bare(1.2, ratio_ci95=(1.1, 1.3)), 1.2, (1.1, 1.3)),
        (bare(1.2), 1.2, None),
        (bare(1.2, ratio_ci95=(0.0, 1.3)), 1.2, None),
        (bare(1.2, ratio_ci95=(1.1, math.inf)), 1.2, None),
        (bare(0.0), None, None),
        (bare(-1.0), None, None),
        (bare(math.nan), None, None),
        (bare(math.inf), None, None),
        (bare(1.2, verdict=VOID), None, None),
    ],
)
def test_a_nights_figure_beside_the_reference(
    record: PinnedRecord | None, value: float | None, interval: tuple[float, float] | None
) -> None:
    assert VOID is not None
    assert VOID.outcome is Outcome.INVALID
    nights = [*(a_night(day, 1.0) for day in range(1, 4)), a_night(4, pinned=record)]
    last = drawn(nights).nights[-1]
    assert (last.value, last.interval) == (value, interval)


@pytest.mark.parametrize(
    ("more", "value", "interval"),
    [
        ({}, 0.5, (0.4, 0.625)),
        ({"speedup_ci95": None}, 0.5, None),
        ({"speedup_ci95": (0.0, 2.5)}, 0.5, None),
        ({"speedup": None}, None, None),
        ({"speedup": 0.0}, None, None),
        ({"speedup": math.inf}, None, None),
    ],
)
def test_a_nights_figure_beside_the_baseline(
    more: dict[str, Any], value: float | None, interval: tuple[float, float] | None
) -> None:
    last = drawn([a_night(1), a_night(2, **more)]).nights[-1]
    assert (last.value, last.interval) == (value, interval)


@pytest.mark.parametrize(("median_ms", "value"), [(8.0, 8.0), (0.0, None), (None, None)])
def test_a_nights_milliseconds(median_ms: float | None, value: float | None) -> None:
    cell = timed("original")
    nights = [a_night(1, cell=cell), a_night(2, cell=cell, median_ms=median_ms)]
    [trend] = trends(nights, {cell.id: cell}, [])
    assert [(night.value, night.interval) for night in trend.nights[1:]] == [(value, None)]


def test_of_a_cell_that_was_never_timed_only_its_standing_is_kept() -> None:
    untimed: dict[str, Any] = {"median_ms": None, "speedup": None, "speedup_ci95": None}
    nights = [a_night(1, **untimed), a_night(2, status=Status.FAIL, **untimed)]
    trend = drawn(nights)
    assert trend.nights == ()
    assert trend.standing.startswith("fails since 2026-01-02 03:00 (1 run); before, on")
    assert not trend.is_drawn


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], [None] * 4),
        ([level("night2", "2026-01-09", 1.1)], [None, 1.1, 1.1, 1.1]),
        # Accepted in a run that the history doesn't have: from the first night after that.
        ([level("gone", "2026-01-02T03:00:00+00:00", 1.1)], [None, None, 1.1, 1.1]),
        ([level("gone", "2026-01-02T02:59:59+00:00", 1.1)], [None, 1.1, 1.1, 1.1]),
        ([level("gone", "2025-12-31", 1.1), level("night3", "", 1.2)], [1.1, 1.1, 1.2, 1.2]),
        # What has no ratio moves no level, and what comes after it does.
        ([level("night1", "", None), level("night3", "", 1.2)], [None, None, 1.2, 1.2]),
        ([level("night1", "", math.nan)], [None] * 4),
        ([level("night1", "", 1.1, processor="Another")], [None] * 4),
    ],
)
def test_the_level_of_a_night_is_the_one_in_force(
    levels: list[Level], expected: list[float | None]
) -> None:
    nights = [a_night(day, 1.0) for day in range(1, 5)]
    assert [night.level for night in drawn(nights, levels).nights] == expected


def test_without_the_reference_there_is_no_level() -> None:
    trend = drawn([a_night(1, 1.0), a_night(2, 1.0)], [level("night1", "", 1.1)])
    assert [night.level for night in trend.nights] == [None, None]


Watch = Callable[[bool], list[list[float]]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """The figures that are looked at for change points, which are the first and the third."""

    def watched(available: bool) -> list[list[float]]:
        looked_at: list[list[float]] = []

        def points(ratios: list[float]) -> list[int]:
            looked_at.append(ratios)
            return [0, 2]

        monkeypatch.setattr(drift, "available", lambda: available)
        monkeypatch.setattr(drift, "change_points", points)
        return looked_at

    return watched


def test_moves_are_places_among_all_nights(watch: Watch) -> None:
    looked_at = watch(True)
    nights = [a_night(day, None if day in (1, 3) else 1.0 + day) for day in range(1, 11)]
    assert drawn(nights).moved == (1, 4)
    assert looked_at == [[3.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]]


def test_too_few_nights_another_unit_or_no_library_tell_no_moves(watch: Watch) -> None:
    looked_at = watch(True)
    assert drawn([a_night(day, 1.0) for day in range(1, drift.FEWEST_NIGHTS)]).moved == ()
    assert drawn([a_night(day) for day in range(1, 20)]).moved == ()
    watch(False)
    assert drawn([a_night(day, 1.0) for day in range(1, 20)]).moved == ()
    assert looked_at == []
