"""Accuracy against latency: the geometry of one small plot for each model and provider."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnx_harness.report import figures
from onnx_harness.report.figures import Block
from onnx_harness.results.cells import CellResult

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34

LEAST_SHARE = 1e-6
"""An error below this share of the tolerance, and an exact output, lie on the plot's lower edge."""

LETTER_WIDTH = 6.2
"""At most, in the plot's own units."""

MOST_LABELS = 10
"""Of more points only those on the front are named; each has a tooltip."""


@dataclass(frozen=True, slots=True)
class Point:
    """A cell in the plot; ``x`` and ``y`` in the plot's own units.

    Attributes:
        place: of the cell among the run's.
        anchor: which end of its label is at the point: ``start`` or ``end``.
        front: no other cell is both faster and closer to the reference.
    """

    place: int
    cell: CellResult
    x: float
    y: float
    label: str
    anchor: str
    front: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, in the plot's own units, with its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """The plot of one model on one provider.

    Latency to the right, error of the tolerance upwards, both logarithmic.
    """

    model: str
    provider: str
    points: tuple[Point, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    front: str
    bound: float


def scatters(cells: Sequence[CellResult]) -> list[Scatter]:
    """Return a plot for each model and provider of which two cells or more were timed."""
    places = {cell.id: place for place, cell in enumerate(cells)}
    plots = []
    for block in figures.blocks(cells):
        timed = [cell for cell in block.cells if _is_plotted(cell)]
        if len(timed) > 1:
            plots.append(_scatter(block, timed, places))
    return plots


def _is_plotted(cell: CellResult) -> bool:
    if cell.latency is None or _share(cell) is None:
        return False
    return cell.latency.median_ms > 0


def _share(cell: CellResult) -> float | None:
    return figures.tolerance_share(cell)


def _scatter(block: Block, timed: Sequence[CellResult], places: dict[str, int]) -> Scatter:
    times = [cell.latency.median_ms for cell in timed if cell.latency]
    low, high = min(times) / 1.12, max(times) * 1.12
    shares = [max(_share(cell) or 0.0, LEAST_SHARE) for cell in timed]
    floor = 10.0 ** math.floor(math.log10(min(*shares, 0.1)))
    ceiling = max(*shares, 1.0) * 2

    def across(value: float) -> float:
        return LEFT + _within(value, low, high) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return (
            HEIGHT - BOTTOM - _within(value, floor / 1.5, ceiling) * (HEIGHT - TOP - BOTTOM)
        )

    front = _front(times, shares)
    points = []
    for place, cell in enumerate(timed):
        x, y = across(times[place]), up(shares[place])
        on_front = place in front
        named = on_front or len(timed) <= MOST_LABELS
        label = cell.variant if named else ""
        anchor = "end" if x > WIDTH * 0.55 else "start"
        points.append(Point(places[cell.id], cell, x, y, label, anchor, on_front))
    return Scatter(
        model=block.model,
        provider=block.provider,
        points=_apart(points),
        across=_ends(times, across),
        up=tuple(Tick(up(value), _decade(value)) for value in _decades(floor, ceiling)),
        front=" ".join(f"{points[place].x:.0f},{points[place].y:.0f}" for place in front),
        bound=up(1.0),
    )


def _ends(times: Sequence[float], across: Callable[[float], float]) -> tuple[Tick, ...]:
    """Return a tick for the least time and one for the greatest, or one for both if they touch.

    Of two, the first begins at its place and the second ends there; one is in the middle of it.
    """
    ticks = [
        Tick(across(value), figures.milliseconds(value))
        for value in (min(times), max(times))
    ]
    (start, first), (end, last) = ((tick.at, tick.text) for tick in ticks)
    if first == last:
        return (ticks[0],)
    if end - start > LETTER_WIDTH * (len(first) + len(last) + 1):
        return tuple(ticks)
    return (Tick((start + end) / 2, f"{first} to {last}"),)


def _within(value: float, low: float, high: float) -> float:
    """Return where a value lies between two others on a logarithmic scale, 0 to 1."""
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _front(times: Sequence[float], shares: Sequence[float]) -> list[int]:
    """Return the places of the Pareto front, the fastest first."""
    front: list[int] = []
    for place in sorted(range(len(times)), key=lambda place: (times[place], shares[place])):
        if not front or shares[place] < shares[front[-1]]:
            front.append(place)
    return front


def _decades(floor: float, ceiling: float) -> list[float]:
    first = round(math.log10(floor))
    last = math.floor(math.log10(ceiling))
    step = max(1, (last - first + 3) // 4)
    return [10.0**exponent for exponent in range(last, first - 1, -step)]


def _decade(value: float) -> str:
    return f"{value * 100:g}%"


def _apart(points: Sequence[Point]) -> tuple[Point, ...]:
    """Keep the labels that cover neither a point nor another label; the front's come first."""
    boxes = [(point.x - 6, point.x + 6, point.y) for point in points]
    labelled: dict[int, Point] = {}
    for point in sorted(points, key=lambda point: not point.front):
        labelled[point.place] = replace(point, label="")
        for anchor in (point.anchor, "start", "end"):
            box = _label_box(point, anchor)
            if point.label and _is_free(box, boxes):
                boxes.append(box)
                labelled[point.place] = replace(point, anchor=anchor)
                break
    return tuple(labelled[point.place] for point in points)


def _label_box(point: Point, anchor: str) -> tuple[float, float, float]:
    """Return the two ends of a label, and its height in the plot."""
    width = LETTER_WIDTH * len(point.label)
    if anchor == "end":
        return (point.x - 8 - width, point.x - 8, point.y)
    return (point.x + 8, point.x + 8 + width, point.y)


def _is_free(
    box: tuple[float, float, float], boxes: Sequence[tuple[float, float, float]]
) -> bool:
    start, end, _ = box
    if start < LEFT or end > WIDTH:
        return False
    return not any(_overlap(box, present) for present in boxes)


def _overlap(first: tuple[float, float, float], second: tuple[float, float, float]) -> bool:
    first_start, first_end, first_y = first
    second_start, second_end, second_y = second
    if first_start >= second_end or second_start >= first_end:
        return False
    return abs(first_y - second_y) < 10
