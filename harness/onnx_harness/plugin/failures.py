"""The failures of a run in pytest's own section: each cause once, with the cells that have it."""

from __future__ import annotations

import copy
import json
from collections.abc import Generator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onnx_harness.report.failures import Told
    from onnx_harness.results.cells import CellResult


class Failures:
    """Shows each cause of failing cells once: pytest would show it for each of them."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, object, object]:
        """Have pytest's own sections see a report for each cause.

        What it counts are all of them.
        """
        failed = terminalreporter.stats.get("failed", [])
        if not any(_cells_of(report) for report in failed):
            return (yield)
        from onnx_harness.report.failures import told

        width = terminalreporter._tw.fullwidth
        cells = {}
        for report in failed:
            for cell in _cells_of(report):
                cells[cell.id] = (cell, report)
        verbose = terminalreporter.verbosity > 0
        groups = (
            [[cell] for cell, _ in cells.values()]
            if verbose
            else [[cell for cell, _ in cells.values()]]
        )
        shown = []
        for group in groups:
            shown += told(group, width, whole=verbose)
        terminalreporter.stats["failed"] = [
            *(_shown(cells[cause.cell.id][1], cause) for cause in shown),
            *(report for report in failed if not _cells_of(report)),
        ]
        try:
            return (yield)
        finally:
            terminalreporter.stats["failed"] = failed


class _Said:
    """A report's text, as pytest's terminal takes it."""

    def __init__(self, cause: Told) -> None:
        self._cause = cause
        self.reprcrash = SimpleNamespace(message=cause.summary)

    def toterminal(self, writer: Any) -> None:
        """Write the lines."""
        from onnx_harness.report.github import inert

        for line in self._cause.lines:
            writer.line(inert(line))


def _shown(report: pytest.TestReport, cause: Told) -> pytest.TestReport:
    shown = copy.copy(report)
    shown.longrepr = _Said(cause)  # type: ignore[assignment]
    shown.location = (report.location[0], report.location[1], cause.title)
    return shown


def _cells_of(report: pytest.TestReport) -> list[CellResult]:
    """Return the failing cells that a report carries."""
    lines = [*getattr(report, "onnx_own_results", ())]
    if hasattr(report, "onnx_result"):
        lines.append(report.onnx_result)
    if not lines:
        return []
    from onnx_harness.report.figures import BAD
    from onnx_harness.results.cells import CellResult
    from onnx_harness.results.codec import decode

    cells = [decode(CellResult, json.loads(line), report.nodeid) for line in lines]
    return [cell for cell in cells if cell.status in BAD]
