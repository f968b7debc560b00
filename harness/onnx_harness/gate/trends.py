"""The nights of cells as the report draws them: figures, accepted levels, change points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from onnx_harness.gate import drift
from onnx_harness.report.trends import (
    BASELINE,
    FEWEST,
    MILLISECONDS,
    PINNED,
    Night,
    Trend,
    standing,
)
from onnx_harness.results.cells import CellResult
from onnx_harness.results.history_rows import NightFigures
from onnx_harness.results.levels import Level
from onnx_harness.results.outcome import Outcome


def trends(
    nights: Iterable[NightFigures], cells: Mapping[str, CellResult], levels: Sequence[Level]
) -> list[Trend]:
    """Return the nights of each cell of a run, on the processor that the latest was on.

    Args:
        nights: cell by cell, each in the order of the runs; the last run is the one that is
            reported.
        cells: of that run, by id.
        levels: every level that was accepted, oldest first.
    """
    accepted: dict[tuple[str, str], list[Level]] = {}
    for level in levels:
        accepted.setdefault(level.key, []).append(level)
    found = []
    for name, figures in itertools.groupby(nights, key=lambda night: night.cell_id):
        if name in cells:
            found.append(_trend(cells[name], list(figures), accepted))
    return found


def _trend(
    cell: CellResult,
    figures: Sequence[NightFigures],
    accepted: Mapping[tuple[str, str], Sequence[Level]],
) -> Trend:
    processor = figures[-1].processor(cell.provider)
    figures = [night for night in figures if night.processor(cell.provider) == processor]
    unit = _unit(cell, figures)
    levels = accepted.get((cell.id, processor), ()) if unit == PINNED else ()
    nights = []
    for night in figures:
        value, interval = _value(night, unit)
        nights.append(Night(night.run, night.status, value, interval))
    nights = _with_levels(nights, levels)
    moved = _moved(nights) if unit == PINNED else ()
    trend = Trend(cell.id, unit, tuple(nights), moved, standing(nights))
    # Of thousands of cells few are timed: the nights of the others needn't be held.
    return trend if trend.values else replace(trend, nights=())


def _unit(cell: CellResult, figures: Iterable[NightFigures]) -> str:
    pinned = sum(_value(night, PINNED)[0] is not None for night in figures)
    if pinned >= FEWEST:
        return PINNED
    # The untouched model is its own baseline.
    return MILLISECONDS if cell.variant == "original" else BASELINE


def _value(
    night: NightFigures, unit: str
) -> tuple[float | None, tuple[float, float] | None]:
    """Return a night's figure and its 95% interval; both above 0."""
    if unit == PINNED:
        record = night.pinned
        if record is None or not _sound(record.night_ratio):
            return None, None
        if record.verdict is not None and record.verdict.outcome is Outcome.INVALID:
            return None, None
        return record.night_ratio, _sound_interval(record.night_ci95)
    if unit == MILLISECONDS:
        return (night.median_ms if _sound(night.median_ms) else None), None
    if night.speedup is None or not _sound(night.speedup):
        return None, None
    ends = _sound_interval(night.speedup_ci95)
    return 1 / night.speedup, None if ends is None else (1 / ends[1], 1 / ends[0])


def _sound(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _sound_interval(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return ends if ends is not None and all(map(_sound, ends)) else None


def _with_levels(nights: Sequence[Night], levels: Sequence[Level]) -> list[Night]:
    """Give each night the level in force: the one accepted in its run or in an earlier one."""
    runs = [night.run.id for night in nights]
    starts = [night.run.started for night in nights]
    ratios: list[float | None] = [None] * len(nights)
    for level in levels:
        ratio = level.cell.pinned.night_ratio if level.cell.pinned else None
        if not _sound(ratio):
            continue
        if level.run_id in runs:
            first = runs.index(level.run_id)
        else:
            first = sum(started <= level.accepted for started in starts)
        ratios[first:] = [ratio] * (len(nights) - first)
    return [
        Night(night.run, night.status, night.value, night.interval, ratio)
        for night, ratio in zip(nights, ratios, strict=True)
    ]


def _moved(nights: Sequence[Night]) -> tuple[int, ...]:
    """Return the nights at which the level moved; none where the library isn't installed."""
    timed = [place for place, night in enumerate(nights) if night.value is not None]
    if len(timed) < drift.FEWEST_NIGHTS or not drift.available():
        return ()
    ratios = [night.value for night in nights if night.value is not None]
    return tuple(timed[position] for position in drift.change_points(ratios))
