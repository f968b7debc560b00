"""Everything that a run keeps, behind one door that never stops the run."""

from __future__ import annotations

import contextlib
from pathlib import Path

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.history import FILE_NAME as HISTORY
from onnx_harness.results.history import History
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import ResultsWriter


class Recorder:
    """Puts each cell into results.json and into the history as it ends.

    Args:
        report_dir: where both are.
        run: the run that starts.

    Raises:
        ResultsError: results.json can't be begun. (A history that can't be opened is only a warning.)

    Attributes:
        warnings: what went wrong with the history; the verdicts of the run stand.
        incomplete: why results.json lacks a cell at present; None when it has all of them. A run that ends with a
            reason here mustn't end as a success.
    """

    def __init__(self, report_dir: Path, run: RunInfo) -> None:
        self.warnings: list[str] = []
        self.incomplete: str | None = None
        self._writer = ResultsWriter(report_dir, run)
        self._history: History | None = None
        try:
            self._history = History(report_dir / HISTORY)
            self._history.begin(run)
        except ResultsError as error:
            self._give_up_history(error)

    def put(self, cell: CellResult) -> None:
        """Keep a cell, or the newer state of one. Raises nothing that the disk or the database does."""
        try:
            self._writer.put(cell)
            self.incomplete = None  # A later write brings what an earlier one couldn't.
        except ResultsError as error:
            self.incomplete = str(error)
        if self._history is not None:
            try:
                self._history.put(cell)
            except ResultsError as error:
                self._give_up_history(error)

    def finish(self) -> None:
        """The run has ended, in whatever way."""
        try:
            self._writer.finish()
        except ResultsError as error:
            self.incomplete = self.incomplete or str(error)
        if self._history is not None:
            self._history.close()
            self._history = None

    def _give_up_history(self, error: ResultsError) -> None:
        self.warnings.append(f"This run isn't in the history from here on: {error}")
        if self._history is not None:
            with contextlib.suppress(ResultsError):
                self._history.close()
            self._history = None
