"""Choose the tests of a shard, by a plan that is the same for every part of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import UsageError
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.history_rows import Measured
from onnx_harness.results.shard_plan import read_plan, write_plan
from onnx_harness.results.store import read_results
from onnx_harness.run.arrange import cell_of, is_latency
from onnx_harness.run.schedule import plan_digest, shards
from onnx_harness.settings import Settings

Parts = list[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the tests.

    Attributes:
        label: for the head of the run's results, such as ``2/5 3f2a9c00d1e2``.
        left_out: the tests of other parts.
        timed: how many cells the whole run times.
    """

    label: str
    left_out: tuple[pytest.Item, ...]
    timed: int


def shard_of(
    tests: Sequence[pytest.Item],
    part: int,
    count: int,
    times: Path | None,
    report_dir: Path | None,
    *,
    resume: bool = False,
    keep: bool = True,
) -> Shard:
    """Return the ``part``-th of ``count`` parts of the tests.

    Args:
        tests: of the whole run.
        part: from 1.
        count: of parts.
        times: results, history or report folder of an earlier run; None: each cell counts alike.
            Never the part's own history: each part has another one, and cells would be lost.
        report_dir: of this part, which keeps the plan.
        resume: whether the plan in there stands, where it is one of these cells.
        keep: whether the plan is written.

    Raises:
        UsageError: there are no times where they were said to be.
        ResultsError: they can't be read, or the plan can't be written.
    """
    cells = list({cell_of(item).id: cell_of(item) for item in tests}.values())
    parts = _planned(cells, count, report_dir) if resume else None
    if parts is None:
        parts = shards(cells, recorded_times(times), count)
    if keep and report_dir is not None:
        ids = [[cell.id for cell in part] for part in parts]
        write_plan(report_dir, plan_digest(parts), ids)
    own = {cell.id for cell in parts[part - 1]}
    left_out = tuple(item for item in tests if cell_of(item).id not in own)
    return Shard(
        f"{part}/{count} {plan_digest(parts)}", left_out, sum(map(is_latency, tests))
    )


def own_shard(tests: Sequence[pytest.Item], settings: Settings, *, keep: bool) -> Shard:
    """Return the part that the settings ask for; see `shard_of`."""
    assert settings.shard is not None
    times, folder = settings.shard_times, settings.report_dir
    return shard_of(tests, *settings.shard, times, folder, resume=settings.resume, keep=keep)


def recorded_times(source: Path | None) -> dict[str, Measured]:
    """Return what the cells of an earlier run took, by cell id; none without a source.

    Raises:
        UsageError: there is no such file or folder.
        ResultsError: it can't be read.
    """
    if source is None:
        return {}
    if not source.exists():
        raise UsageError(f"--shard-times: there is no file or folder {source}")
    database = source / FILE_NAME if source.is_dir() else source
    if database.name == FILE_NAME and database.is_file():
        with History(database, checked=False) as past:
            return past.measured()
    times = {}
    for cell in read_results(source).cells:
        times[cell.id] = Measured(sum(cell.seconds.values()), cell.peak_bytes)
    return times


def _planned(cells: Sequence[Cell], count: int, report_dir: Path | None) -> Parts | None:
    """Return the plan that the folder keeps; None where it is none of these cells."""
    if report_dir is None:
        return None
    plan = read_plan(report_dir)
    by_id = {cell.id: cell for cell in cells}
    if plan is None or not plan.cells <= by_id.keys():
        return None
    parts = [tuple(by_id[cell_id] for cell_id in part) for part in plan.parts]
    planned = [cell.id for part in parts for cell in part]
    whole = len(parts) == count and sorted(planned) == sorted(by_id)
    return parts if whole else None
