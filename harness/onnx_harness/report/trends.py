"""Nights: how a cell's time went from run to run, as a small plot, a line of blocks, a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnx_harness.report import changes, figures
from onnx_harness.report.figures import BAD
from onnx_harness.results.cells import Status
from onnx_harness.results.run import RunInfo

WIDTH, HEIGHT = 340, 124
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 32

FEWEST = 3
"""Nights with a figure that make a trend."""

PINNED = "time, of the pinned reference's"
BASELINE = "time, of the baseline's"
MILLISECONDS = "median time in ms"

MOST_BLOCKS = 12
"""Nights that a terminal shows."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_Up = Callable[[float], float]
_FLAT = math.log(1.02)
"""Nights within 2% of one another are a flat line: alignment and memory layout are worth that."""


@dataclass(frozen=True, slots=True)
class Night:
    """A cell in one run.

    Attributes:
        value: its time as the trend counts it; None where it wasn't timed.
        interval: the 95% interval of `value`; None where there is none.
        level: the accepted level in force; None where there was none.
    """

    run: RunInfo
    status: Status
    value: float | None = None
    interval: tuple[float, float] | None = None
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Trend:
    """The nights of a cell, oldest first.

    Attributes:
        unit: what the values are: `PINNED`, `BASELINE` or `MILLISECONDS`; more is slower.
        nights: all runs that have the cell; none where none has a figure.
        moved: positions in `nights` at which the level seems to have moved.
        standing: since when the cell ends as it does, by `standing`.
    """

    cell_id: str
    unit: str
    nights: tuple[Night, ...]
    moved: tuple[int, ...] = ()
    standing: str = ""

    @property
    def values(self) -> list[float]:
        """The times that there are."""
        return [night.value for night in self.nights if night.value is not None]

    @property
    def is_drawn(self) -> bool:
        """Decide whether there are enough figures for a plot."""
        return len(self.values) >= FEWEST

    @property
    def sentence(self) -> str:
        """Say what the latest night is beside the level, or beside the nights before."""
        values = self.values
        if not values:
            return ""
        level = self.nights[-1].level
        if level is not None:
            return f"{values[-1] / level - 1:+.1%} beside the accepted level"
        usual = sorted(values)[len(values) // 2]
        return f"{values[-1] / usual - 1:+.1%} beside the median night"

    @property
    def moves(self) -> list[str]:
        """Name the nights at which the level moved."""
        return [moment(self.nights[place].run) for place in self.moved]


def moment(run: RunInfo) -> str:
    """Return ``2026-01-02 03:04``."""
    return run.started[:16].replace("T", " ")


def gravity(trend: Trend) -> tuple[bool, float]:
    """Order trends: those whose level moved last, among them the slowest beside the usual."""
    values = trend.values
    usual = trend.nights[-1].level or sorted(values)[len(values) // 2]
    return bool(trend.moved), values[-1] / usual


def sparklines(trends: Iterable[Trend]) -> dict[str, str]:
    """Return the latest nights of each cell that has enough of them, by its id."""
    drawn = [trend for trend in trends if trend.is_drawn]
    return {trend.cell_id: sparkline(trend.values[-MOST_BLOCKS:]) for trend in drawn}


def sparkline(values: Sequence[float]) -> str:
    """Return a line of blocks, one a night; logarithmic, higher is slower."""
    if not values:
        return ""
    logs = [math.log(value) for value in values]
    low, high = min(logs), max(logs)
    middle = (low + high) / 2
    # A block is worth 2% at least, and the middle of the range lies within one.
    step = max((high - low) / len(_BLOCKS), _FLAT)
    places = [int((value - middle) / step + len(_BLOCKS) / 2 + 0.5) for value in logs]
    return "".join(_BLOCKS[min(place, len(_BLOCKS) - 1)] for place in places)


@dataclass(frozen=True, slots=True)
class Mark:
    """A night in the plot, in the plot's own units.

    Attributes:
        y: of its value; the lower edge where it has none.
        low: of its interval's ends, the lower on the screen; None without an interval.
        title: what a tooltip says.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    status: Status
    timed: bool
    title: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """The geometry of a trend's plot.

    Attributes:
        line: points of the polyline through the nights.
        level: path of the accepted levels.
        moved: places of change points on the axis of time.
        ticks: places and texts of the axis of values.
    """

    marks: tuple[Mark, ...]
    line: str
    level: str
    moved: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def draw(trend: Trend) -> Drawing:
    """Return the plot of a trend; the axis of values is logarithmic."""
    count = max(len(trend.nights) - 1, 1)
    across = (WIDTH - LEFT - RIGHT) / count
    low, high = _range(trend)
    floor = HEIGHT - BOTTOM

    def up(value: float) -> float:
        share = (math.log(value) - low) / (high - low)
        return floor - share * (floor - TOP)

    marks = []
    for place, night in enumerate(trend.nights):
        ends = night.interval
        marks.append(
            Mark(
                LEFT + place * across,
                floor if night.value is None else up(night.value),
                None if ends is None else up(ends[0]),
                None if ends is None else up(ends[1]),
                night.status,
                night.value is not None,
                _title(night, trend.unit),
            )
        )
    line = " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in marks if mark.timed)
    steps = _steps([night.level for night in trend.nights], across, up)
    moved = tuple(LEFT + (place - 0.5) * across for place in trend.moved)
    ends = (math.exp(low), math.exp(high))
    ticks = tuple((up(value), f"{value:.3g}") for value in ends)
    return Drawing(tuple(marks), line, steps, moved, ticks)


def _range(trend: Trend) -> tuple[float, float]:
    """Return the logarithms between which everything lies, at least 2% either side apart."""
    values = trend.values
    for night in trend.nights:
        values += night.interval or ()
        values += [night.level] if night.level is not None else []
    low = math.log(min(values))
    high = math.log(max(values))
    pad = max((high - low) * 0.08, (2 * _FLAT - (high - low)) / 2)
    return low - pad, high + pad


def _steps(levels: Sequence[float | None], across: float, up: _Up) -> str:
    """Return the path of the levels: a step where one was accepted."""
    path = ""
    for place, level in enumerate(levels):
        if level is None:
            continue
        x, y = LEFT + place * across, up(level)
        begins = not path or levels[place - 1] is None
        path += f"M{x:.1f} {y:.1f}" if begins else f"V{y:.1f}"
        if place + 1 < len(levels):
            path += f"H{x + across:.1f}"
    return path


def _title(night: Night, unit: str) -> str:
    when = f"{moment(night.run)}: "
    if night.value is None:
        return f"{when}{figures.SHORT[night.status]}"
    interval = "" if night.interval is None else " [{:.3g}, {:.3g}]".format(*night.interval)
    return f"{when}{night.value:.4g}{interval}, {unit}; {figures.SHORT[night.status]}"


def standing(nights: Sequence[Night]) -> str:
    """Say since when a cell ends as it does, and what differed then; empty for a first run."""
    if len(nights) < 2:
        return ""
    now = nights[-1].status
    same = len(nights)
    while same > 0 and _alike(nights[same - 1].status, now):
        same -= 1
    word = _WORDS[now]
    if same == 0:
        first = moment(nights[0].run)
        return f"{word} in all {len(nights):,} runs that the history has, since {first}"
    now_run, before = nights[same].run, nights[same - 1]
    runs = figures.counted(len(nights) - same, "run")
    moved = changes.moved(before.run, now_run)
    said = f"{word} since {moment(now_run)} ({runs}); before, {_was(before)}"
    if not moved:
        return (
            f"{said}. Versions, processor and seed are the same: the machine isn't to blame"
        )
    return f"{said}. What differs: {'; '.join(moved)}"


_WORDS = {
    Status.PASS: "passes",
    Status.FAIL: "fails",
    Status.ERROR: "ends in an error",
    Status.KNOWN_FAILURE: "is a known failure",
    Status.NOT_APPLICABLE: "isn't applicable",
}


def _was(night: Night) -> str:
    return f"on {moment(night.run)}, it was: {figures.SHORT[night.status]}"


def _alike(first: Status, second: Status) -> bool:
    return first is second or (first in BAD and second in BAD)
