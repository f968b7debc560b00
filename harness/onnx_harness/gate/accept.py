"""Accepting a run as the new level, with a record of who did so, when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.gate.latency import invalid_times
from onnx_harness.gate.partial import selection_of
from onnx_harness.results.cells import CellResult
from onnx_harness.results.history import History
from onnx_harness.results.levels import (
    Key,
    Level,
    read_levels,
    sole_writer,
    trimmed,
    write_levels,
)
from onnx_harness.results.run import RunInfo


def accept(
    history: History,
    folder: Path,
    cells: Sequence[str],
    *,
    who: str,
    why: str,
    only: Sequence[str] = (),
) -> list[Level]:
    """Make the latest run's state of ``cells`` their accepted level on this processor.

    Args:
        history: with that run in it; the moves are kept there.
        folder: of the levels.
        cells: ids; empty takes every cell of the run, and forgets the levels of cells that it
            doesn't have.
        who: the person who accepts them.
        why: the reason, for later readers.
        only: with no ``cells``: the names of the providers that the run was for.

    Returns:
        The new levels.

    Raises:
        UsageError: the latest run doesn't have a cell, its times can't be times, or there's no
            reason given.
        ResultsError: the history or the levels can't be read or written; the levels are as they
            were.
    """
    if not why.strip():
        raise UsageError('say why, for those who come after: --why "…"')
    runs = history.runs()
    if not runs:
        raise UsageError("the history holds no run: run the cells first, and look at them")
    run = runs[-1]
    results = _results_of(history, run, cells, only)
    accepted = [results[cell_id] for cell_id in cells or sorted(results)]
    moved = _new_levels(accepted, run, who, why)
    with sole_writer(folder):
        levels = read_levels(folder)
        if not cells:
            levels = _still_current(levels, results, only)
        levels |= {level.key: level for level in moved}
        # First the journal: a level without its reason would be worse than a reason without its
        # level.
        history.note_accepted(moved)
        write_levels(folder, levels)
    return moved


def _results_of(
    history: History, run: RunInfo, cells: Sequence[str], only: Sequence[str]
) -> dict[str, CellResult]:
    """The cells of a run by id.

    Raises:
        UsageError: there is none, or one of ``cells`` isn't there.
    """
    results = {}
    for cell in history.cells(run.id):
        if not only or cell.provider in only:
            results[cell.id] = cell
    if not results:
        raise UsageError(
            f"the latest run ({run.id}) holds no cell: run the cells first, and look at them"
        )
    for cell_id in cells:
        if cell_id not in results:
            raise UsageError(
                f"there is no cell '{cell_id}' in the latest run ({run.id}). "
                f"{did_you_mean(cell_id, results)}"
            )
    return results


def _new_levels(
    cells: Sequence[CellResult], run: RunInfo, who: str, why: str
) -> list[Level]:
    moment = datetime.now(UTC).replace(microsecond=0).isoformat()
    reason = " ".join(why.split())
    levels = []
    for cell in cells:
        fault = invalid_times(cell)
        if fault is not None:
            raise UsageError(f"{cell.id} can't be accepted: {fault}")
        processor = cell.processor(run.host)
        level = Level(
            trimmed(cell),
            processor,
            run.seed,
            run.id,
            moment,
            who,
            reason,
            selection=selection_of(run),
        )
        levels.append(level)
    return levels


def _still_current(
    levels: Mapping[Key, Level], results: Mapping[str, CellResult], only: Sequence[str]
) -> dict[Key, Level]:
    """Drop the levels of cells that the run should have had, and doesn't."""
    current = {}
    for key, level in levels.items():
        not_run_for = only and level.cell.provider not in only
        if not_run_for or level.cell.id in results:
            current[key] = level
    return current
