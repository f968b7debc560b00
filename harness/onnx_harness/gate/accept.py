"""Saying that things are as they should be: moving levels, and keeping who moved them when and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.gate.latency import invalid_times
from onnx_harness.results.history import History
from onnx_harness.results.levels import Level, read_levels, sole_writer, trimmed, write_levels


def accept(
    history: History, folder: Path, cells: Sequence[str], *, who: str, why: str, only: Sequence[str] = ()
) -> list[Level]:
    """Make the latest run's state of ``cells`` their accepted level on this processor.

    Args:
        history: with that run in it; the moves are kept there.
        folder: of the levels.
        cells: ids; empty takes every cell of the run, and forgets the levels of cells that it doesn't have.
        who: moves them.
        why: a reason for those who come after.
        only: with no ``cells``: the names of the providers that the run was for.

    Returns:
        The new levels.

    Raises:
        UsageError: the latest run doesn't have a cell, its times can't be times, or there's no reason given.
        ResultsError: the history or the levels can't be read or written; the levels are as they were.
    """
    if not why.strip():
        raise UsageError('say why, for those who come after: --why "…"')
    runs = history.runs()
    if not runs:
        raise UsageError("the history holds no run: run the cells first, and look at them")
    run = runs[-1]
    there = {cell.id: cell for cell in history.cells(run.id) if not only or cell.provider in only}
    if not there:
        raise UsageError(f"the latest run ({run.id}) holds no cell: run the cells first, and look at them")
    for cell_id in cells:
        if cell_id not in there:
            raise UsageError(
                f"there is no cell '{cell_id}' in the latest run ({run.id}). {did_you_mean(cell_id, there)}"
            )
    moment = datetime.now(UTC).replace(microsecond=0).isoformat()
    moved = []
    for cell_id in cells or sorted(there):
        fault = invalid_times(there[cell_id])
        if fault is not None:
            raise UsageError(f"{cell_id} can't be accepted: {fault}")
        cell = trimmed(there[cell_id])
        where = run.host.processor_of(cell.provider)
        moved.append(Level(cell, where, run.seed, run.id, moment, who, " ".join(why.split())))
    with sole_writer(folder):
        levels = read_levels(folder)
        if not cells:
            levels = {
                key: level
                for key, level in levels.items()
                if level.cell.id in there or (only and level.cell.provider not in only)
            }
        levels |= {level.key: level for level in moved}
        # First the journal: a level without its reason would be worse than a reason without its level.
        history.note_accepted(moved)
        write_levels(folder, levels)
    return moved
