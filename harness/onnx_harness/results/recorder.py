"""Everything that a run keeps, behind one door that never stops the run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import line_of
from onnx_harness.results.history import FILE_NAME as HISTORY
from onnx_harness.results.history import History
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import ResultsWriter
from onnx_harness.results.verdicts import VerdictFiles, reusable


@dataclass(frozen=True, slots=True)
class Entry:
    """The key by which the file of a verdict is called.

    Attributes:
        key: of the content that the verdict depends on; empty where there is none.
        timing: of what its latency depends on beyond that.
        reused: the file is there already, from an earlier run.
    """

    key: str = ""
    timing: str = ""
    reused: bool = False


NO_ENTRY = Entry()

MOST_PENDING = 500
"""So many cells of an earlier run are written at once, when nothing else comes between."""


class Recorder:
    """Puts each cell into a file of its own as it ends.

    From there it goes into results.json and the history.

    What a killed run had put into its files and not yet into the history gets there when the next
    run starts.

    Args:
        report_dir: where both are.
        run: the run that starts.

    Raises:
        ResultsError: results.json can't be begun. (A history that can't be opened is only a
            warning.)

    Attributes:
        warnings: what went wrong with the history; the verdicts of the run stand.
        incomplete: why results.json lacks a cell at present; None when it has all of them. A run
            that ends with a reason here mustn't end as a success.
    """

    def __init__(self, report_dir: Path, run: RunInfo) -> None:
        self.warnings: list[str] = []
        self.incomplete: str | None = None
        self._run_id = run.id
        # It holds the folder's lock from here on.
        self._writer = ResultsWriter(report_dir, run)
        self._pending: list[tuple[CellResult, str]] = []
        self._files: VerdictFiles | None = VerdictFiles(report_dir)
        self._history: History | None = None
        try:
            self._history = History(report_dir / HISTORY)
            self._mend_history()
            self._history.begin(run)
        except ResultsError as error:
            self._give_up_history(error)
        try:
            self._files.begin(run)
        except ResultsError as error:
            self._give_up_files(error)

    def put(self, cell: CellResult, entry: Entry = NO_ENTRY, line: str = "") -> None:
        """Keep a cell, or the newer state of one.

        Raises nothing that the disk or the database does.

        Args:
            cell: as it ended.
            entry: what its file is called by.
            line: the cell by `codec.line_of`, where that was asked before.
        """
        line = line or line_of(cell)
        self._put_file(cell, entry, line)
        self._pending.append((cell, line))
        # What an earlier run found is in its file: of many such cells, a kill loses none.
        if not entry.reused or self._files is None or len(self._pending) >= MOST_PENDING:
            self._flush()

    def _flush(self) -> None:
        """Bring what has come since the last time into results.json and the history."""
        cells = [cell for cell, _ in self._pending]
        lines = [line for _, line in self._pending]
        self._pending = []
        if not cells:
            return
        try:
            self._writer.put_all(cells, lines)
            self.incomplete = None  # A later write brings what an earlier one couldn't.
        except ResultsError as error:
            self.incomplete = str(error)
        if self._history is not None:
            try:
                self._history.put_all(cells, lines)
            except ResultsError as error:
                self._give_up_history(error)

    def finish(self) -> None:
        """The run has ended, in whatever way."""
        self._flush()
        try:
            self._writer.finish()
        except ResultsError as error:
            self.incomplete = self.incomplete or str(error)
        if self._files is not None:
            self._files.close()
        if self._history is not None:
            if self._files is not None:
                with contextlib.suppress(ResultsError):
                    self._files.finish(self._run_id)
            self._history.close()
            self._history = None

    def _put_file(self, cell: CellResult, entry: Entry, line: str) -> None:
        if self._files is None:
            return
        try:
            if entry.reused:
                self._files.note(cell, entry.key)
            else:
                key = entry.key if reusable(cell) else ""
                timing = entry.timing if cell.latency is not None else ""
                self._files.put(cell, key, timing, line)
        except ResultsError as error:
            self._give_up_files(error)

    def _mend_history(self) -> None:
        """Enter what the files of earlier runs have and the history lacks.

        A kill came between the two.
        """
        assert self._files is not None
        assert self._history is not None
        for run_id in self._files.unfinished():
            try:
                run, cells = self._files.read_run(run_id)
            except ResultsError:  # its list has no head: no cell of it had ended
                run, cells = None, ()
            if run is not None:
                self._history.adopt(run, cells)
            with contextlib.suppress(ResultsError):
                self._files.finish(run_id)

    def _give_up_files(self, error: ResultsError) -> None:
        self.warnings.append(
            f"Verdicts have no files of their own from here on, for --resume: {error}"
        )
        if self._files is not None:
            self._files.close()
            self._files = None

    def _give_up_history(self, error: ResultsError) -> None:
        self.warnings.append(f"This run isn't in the history from here on: {error}")
        if self._history is not None:
            self._history.close()
            self._history = None
