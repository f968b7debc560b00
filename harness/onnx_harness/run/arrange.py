"""Choose the order of the tests when several processes judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import ResultsError
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.history_rows import Measured
from onnx_harness.run.schedule import Group, grouped, longest_first

if TYPE_CHECKING:  # it imports onnx, which collection doesn't
    from onnx_harness.run.past import Past

LATENCY = "test_latency"


def cell_of(item: pytest.Item) -> Cell:
    """The cell that a test of the suite is for."""
    cell: Cell = item.callspec.params["onnx_cell"]  # type: ignore[attr-defined]
    return cell


def measured_in(report_dir: Path | None) -> dict[str, Measured]:
    """Return what earlier runs took, by cell id.

    Nothing where there is no history, or none that can be read.
    """
    if report_dir is None or not (report_dir / FILE_NAME).is_file():
        return {}
    try:
        with History(report_dir / FILE_NAME, checked=False) as past:
            return past.measured()
    except ResultsError:  # the run says so when it wants to add to it
        return {}


def in_order_of_jobs(
    tests: Sequence[pytest.Item], report_dir: Path | None
) -> list[pytest.Item]:
    """Order the tests: those of accuracy, then those of latency in the order that they had.

    Of the first, the model that takes longest comes first.

    That is the order in which processes begin them, so that a verdict is told about when it is
    there.
    """
    groups = longest_first(
        grouped((cell_of(item) for item in tests), measured_in(report_dir))
    )
    rank = {group.cells[0].card.path: place for place, group in enumerate(groups)}
    accuracy = [item for item in tests if not is_latency(item)]
    accuracy.sort(key=lambda item: rank[cell_of(item).card.path])
    return [*accuracy, *filter(is_latency, tests)]


def groups_to_judge(
    tests: Sequence[pytest.Item],
    past: Past,
    report_dir: Path | None,
    *,
    by_provider: bool = False,
) -> list[Group]:
    """Return what is left to judge of the tests' cells, in their order.

    Args:
        tests: of the run.
        past: what earlier runs found.
        report_dir: where the history is.
        by_provider: whether a group is a model on one provider, instead of a model.
    """
    unjudged = cells_to_judge(tests, past)
    return grouped(unjudged, measured_in(report_dir), by_provider=by_provider)


def cells_to_judge(tests: Sequence[pytest.Item], past: Past) -> list[Cell]:
    """Return the tests' cells that no earlier run has judged, in their order.

    Args:
        tests: of the run.
        past: what earlier runs found.
    """
    cells = {cell_of(item).id: cell_of(item) for item in tests}
    return [cell for cell in cells.values() if past.verdict(cell) is None]


def is_latency(item: pytest.Item) -> bool:
    """Return whether a test of the suite takes times."""
    return getattr(item, "originalname", "") == LATENCY
