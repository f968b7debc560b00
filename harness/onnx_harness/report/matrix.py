"""The heat map: models by variants, a status and five figures a cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnx_harness.names import ORIGINAL
from onnx_harness.report import figures
from onnx_harness.results.cells import CellResult, Status

LEVELS = 6
"""Shades run from 0 (worst) to this (best); the middle one is neutral."""

MANY = 9
"""With so many columns their heads are turned, so that the columns stay narrow."""


@dataclass(frozen=True, slots=True)
class Heat:
    """One figure of a cell.

    Attributes:
        text: as it is written; empty where the figure doesn't exist.
        level: of its shade, 0 to `LEVELS`; None for no shade.
    """

    text: str
    level: int | None


NOTHING = Heat("", None)


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of one provider as a table.

    Attributes:
        corner: what the rows are.
        rows: their titles.
        columns: their titles.
        cells: by row, one for each column; None where the combination wasn't run.
    """

    provider: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[int | None, ...], ...]

    @property
    def turned(self) -> bool:
        """Decide whether the heads of the columns are turned."""
        return len(self.columns) >= MANY


def grids(cells: Sequence[CellResult]) -> list[Grid]:
    """Return one grid for each provider, with places in ``cells`` for the cells."""
    places: dict[str, dict[tuple[str, str], int]] = {}
    for place, cell in enumerate(cells):
        places.setdefault(cell.provider, {})[cell.model, cell.variant] = place
    return [_grid(provider, by_names) for provider, by_names in places.items()]


def _grid(provider: str, places: Mapping[tuple[str, str], int]) -> Grid:
    models = tuple(dict.fromkeys(model for model, _ in places))
    variants = tuple(dict.fromkeys(variant for _, variant in places))
    # One model with sixty variants is a list; nobody reads a row of sixty columns.
    if len(models) <= 3 and len(variants) > MANY:
        rows = tuple(
            tuple(places.get((model, name)) for model in models) for name in variants
        )
        return Grid(provider, "variant", variants, models, rows)
    rows = tuple(
        tuple(places.get((name, variant)) for variant in variants) for name in models
    )
    return Grid(provider, "model", models, variants, rows)


def _speedup(cell: CellResult) -> Heat:
    if cell.latency is None:
        return NOTHING
    if cell.variant == ORIGINAL:
        return Heat("baseline", None)
    speedup = cell.latency.speedup
    if not speedup > 0:
        return NOTHING
    # A third of an octave is a shade: 1.26 times, 1.6 times, twice as fast.
    return Heat(f"{speedup:.2f}x", _level(LEVELS / 2 + 3 * math.log2(speedup)))


def _error(cell: CellResult) -> Heat:
    worst = figures.worst_output(cell)
    if worst is None:
        return NOTHING
    if worst[1].nonfinite:
        return Heat(f"{worst[1].nonfinite:,} NaN/inf", 0)
    share = figures.tolerance_share(cell)
    if share is None:
        return NOTHING
    if share == 0:
        return Heat("exact", LEVELS)
    # A decade below the tolerance is two shades.
    return Heat(_share(share), _level(1 - 2 * math.log10(share)))


def _share(share: float) -> str:
    if share >= 0.1:
        return f"{share:.0%}" if share < 10 else f"{share:,.0f}x"
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _size(cell: CellResult) -> Heat:
    if cell.graph is None or not cell.graph.bytes_before or not cell.graph.bytes_after:
        return NOTHING
    ratio = cell.graph.bytes_after / cell.graph.bytes_before
    return Heat(
        figures.size(cell.graph.bytes_after), _level(LEVELS / 2 - 3 * math.log2(ratio))
    )


def _placement(cell: CellResult) -> Heat:
    if cell.placement is None or math.isnan(cell.placement.share):
        return NOTHING
    return Heat(f"{cell.placement.share:.0%}", _level(LEVELS * cell.placement.share))


def _sensitivity(cell: CellResult) -> Heat:
    if cell.sensitivity is None or cell.sensitivity.score is None:
        return NOTHING
    score = cell.sensitivity.score
    return Heat(f"{score:.0%}", _level(LEVELS * (2 * score - 1)))


def _level(value: float) -> int:
    return max(0, min(LEVELS, round(value)))


MEASURES: Mapping[str, tuple[str, Callable[[CellResult], Heat]]] = {
    "speedup": ("speedup", _speedup),
    "error": ("error, of the tolerance", _error),
    "size": ("size", _size),
    "placement": ("share on the provider", _placement),
    "sensitivity": ("sensitivity", _sensitivity),
}
"""The figures that a cell of the heat map can show.

Each has its name in the address, its title, and where it comes from.
"""


def heat(cell: CellResult) -> dict[str, Heat]:
    """Return the figures of a cell by measure; of what wasn't judged there are none."""
    if cell.status is Status.NOT_APPLICABLE:
        return dict.fromkeys(MEASURES, NOTHING)
    return {name: measure(cell) for name, (_, measure) in MEASURES.items()}


def measures(heats: Sequence[Mapping[str, Heat]]) -> list[str]:
    """Return the measures that some cell has, in order; the first is shown first."""
    names: list[str] = []
    for name in MEASURES:
        if any(figures_of[name].text for figures_of in heats):
            names.append(name)
    return names
