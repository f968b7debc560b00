"""Read a report's background: the run before, and the nights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_harness.report import changes, figures
from onnx_harness.report.changes import Change
from onnx_harness.report.trends import Trend
from onnx_harness.results.cells import CellResult
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import Results

MOST_NAMED = 8
"""Cells of a kind that the first screen names."""

_KINDS = {
    "worse": ("no longer passes", "no longer pass"),
    "better": ("passes now", "pass now"),
    "other": ("ends otherwise", "end otherwise"),
    "speed": ("has another speedup", "have another speedup"),
    "new": ("is new", "are new"),
    "gone": ("wasn't run", "weren't run"),
}
"""The words for cells by kind of change, singular and plural; in this order."""


@dataclass(frozen=True, slots=True)
class Background:
    """The background of a run.

    Attributes:
        before: the latest earlier run that has a cell in common, or None.
        trends: the nights of the run's cells.
    """

    before: Results | None = None
    trends: tuple[Trend, ...] = ()


NOTHING = Background()


@dataclass(frozen=True, slots=True)
class Since:
    """The changes since the run before.

    Attributes:
        run: the run before.
        sentence: what has changed.
        named: the cells that changed by kind, a few of each kind.
        moved: what else differs between the runs, a sentence each.
    """

    run: RunInfo
    sentence: str
    named: dict[str, list[Change]]
    moved: list[str]


def since(background: Background, run: RunInfo, cells: Sequence[CellResult]) -> Since | None:
    """Return the changes since the run before; None without one."""
    before = background.before
    if before is None:
        return None
    grouped = changes.changes(before, Results(run, tuple(cells)))
    named = {}
    for kind in _KINDS:
        if kind in grouped and kind not in {"gone", "new"}:
            named[_words(kind, len(grouped[kind]))] = grouped[kind][:MOST_NAMED]
    return Since(before.run, _sentence(grouped), named, changes.moved(before.run, run))


def standings(background: Background) -> dict[str, str]:
    """Return since when each cell ends as it does, by id; nothing of cells without a past."""
    return {trend.cell_id: trend.standing for trend in background.trends if trend.standing}


def _sentence(grouped: dict[str, list[Change]]) -> str:
    parts = [_words(kind, len(grouped[kind])) for kind in _KINDS if kind in grouped]
    return ", ".join(parts) or "no cell ends otherwise"


def _words(kind: str, number: int) -> str:
    singular, plural = _KINDS[kind]
    return f"{figures.counted(number, 'cell')} {singular if number == 1 else plural}"
