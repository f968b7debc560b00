"""Reading what a report tells beside its run from the history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx_harness.errors import ResultsError
from onnx_harness.gate.trends import trends
from onnx_harness.report.background import NOTHING, Background
from onnx_harness.results import history
from onnx_harness.results.cells import CellResult
from onnx_harness.results.history import History
from onnx_harness.results.levels import FOLDER, read_levels
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import Results

MOST_RUNS = 60
"""Runs that are looked back at: two months of nights."""


def background(report_dir: Path, run: RunInfo, cells: Sequence[CellResult]) -> Background:
    """Return what the history beside a report tells of the runs before; nothing where it can't.

    Args:
        report_dir: the folder with the history.
        run: that the report is about.
        cells: its cells.
    """
    database = report_dir / history.FILE_NAME
    if not database.is_file():
        return NOTHING
    by_id = {cell.id: cell for cell in cells}
    try:
        with History(database, checked=False) as past:
            levels = [*past.accepted(), *read_levels(report_dir / FOLDER).values()]
            drawn = tuple(trends(past.nights(run.id, last=MOST_RUNS), by_id, levels))
            before = past.run_before(run.id)
            results = None if before is None else Results(before, past.cells(before.id))
    except ResultsError:
        # A report without a past is better than none; the run said what is wrong.
        return NOTHING
    return Background(results, drawn)
