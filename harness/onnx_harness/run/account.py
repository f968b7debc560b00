"""The account of a run: every verdict kept as it comes, and shown at the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from onnx_harness.errors import ResultsError
from onnx_harness.report import backend_suite
from onnx_harness.report.background import NOTHING
from onnx_harness.report.escape import printable
from onnx_harness.report.failures import wrapped
from onnx_harness.report.table import Line, ModelHeader, lines
from onnx_harness.report.trends import sparklines
from onnx_harness.report.write import SUMMARY, write_reports
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.recorder import NO_ENTRY, Entry, Recorder
from onnx_harness.results.run import RunInfo
from onnx_harness.run.background import background


class Account:
    """The findings of a run, for reports/ and for the terminal.

    Attributes:
        run: what is known of the run as a whole.
        models: what is said about each model, by its name.
        incomplete: why reports/ lacks something that it should hold, or None.
    """

    def __init__(self, report_dir: Path | None, run: RunInfo) -> None:
        """Begin to write at once.

        So a run that can't be recorded is known before it costs anything.

        Raises:
            ResultsError: the folder can't be written.
        """
        self.run = run
        self._dir = report_dir
        self._recorder = Recorder(report_dir, run) if report_dir is not None else None
        self._cells: dict[str, CellResult] = {}
        self.models: dict[str, ModelHeader] = {}
        self._entries: dict[str, Entry] = {}
        self._cases: set[str] = set()  # of a suite: they are counted, not listed
        self._past = NOTHING
        self.incomplete: str | None = None

    @property
    def cells(self) -> list[CellResult]:
        """The verdicts, in the order in which they came."""
        return list(self._cells.values())

    def put(
        self,
        cell: CellResult,
        model: ModelHeader,
        *,
        suite: str = "",
        entry: Entry = NO_ENTRY,
        line: str = "",
    ) -> None:
        """Keep a verdict, or the newer state of one.

        Args:
            cell: as it ended.
            model: what is said about its model.
            suite: the one that its model is a case of.
            entry: what the file of the verdict is called by.
            line: the cell by `codec.line_of`, where that was asked before.
        """
        if suite:
            self._cases.add(cell.id)
        self.models[cell.model] = model
        self._entries[cell.id] = entry
        self.update(cell, line)

    def update(self, cell: CellResult, line: str = "") -> None:
        """Keep the newer state of a cell that was put before.

        Ctrl-C waits for it, or the cell would be in one of the files and not in the next.
        """
        with _interrupted_after():
            self._cells[cell.id] = cell
            if self._recorder is not None:
                self._recorder.put(cell, self._entries.get(cell.id, NO_ENTRY), line)

    def finish(self) -> None:
        """Write the summaries.

        Raises:
            KeyboardInterrupt: it was interrupted; `incomplete` says so.
        """
        if self._recorder is None or self._dir is None:
            return
        try:
            self._finish(self._recorder, self._dir)
        except KeyboardInterrupt:
            where = os.path.relpath(self._dir)
            self.incomplete = (
                "The writing of the reports was interrupted. Every verdict is kept: write them by "
                f"onnx-harness report {shlex.quote(where)}"
            )
            raise

    def _finish(self, recorder: Recorder, folder: Path) -> None:
        recorder.finish()
        self.incomplete = recorder.incomplete
        if not self._cells and (folder / SUMMARY).is_file():
            return  # nothing was judged: the last run's report stays
        try:
            cells = list(self._cells.values())
            self._past = background(folder, self.run, cells)
            write_reports(folder, self.run, cells, self.models, self._past)
            if self._cases:
                backend_suite.write(folder, self.run.versions, self._of_suite())
        except ResultsError as error:
            self.incomplete = self.incomplete or str(error)

    def unjudged(self) -> dict[str, CellResult]:
        """Return the models of which no cell was judged, each with the first cell that says why."""
        by_model: dict[str, list[CellResult]] = {}
        for cell in self._cells.values():
            if cell.id not in self._cases:
                by_model.setdefault(cell.model, []).append(cell)
        cells_by_model: dict[str, CellResult] = {}
        for model, cells in by_model.items():
            if all(cell.status is Status.NOT_APPLICABLE for cell in cells):
                cells_by_model[model] = cells[0]
        return cells_by_model

    def lines(
        self, *, width: int, quiet: bool, details: bool = True, worst_first: bool = False
    ) -> Iterator[Line]:
        """The table, the summary line and what went wrong with the keeping.

        Args:
            width: of the terminal, in columns.
            quiet: the summary line, and failures where details are asked for.
            details: what is said of a failure is in the table.
            worst_first: the table begins with what failed.
        """
        where = os.path.relpath(self._dir / SUMMARY) if self._dir is not None else ""
        cells = []
        for cell in self._cells.values():
            if cell.id not in self._cases:
                cells.append(cell)
        if cells or not self._cases:
            yield from lines(
                self.run,
                cells,
                width=width,
                models=self.models,
                quiet=quiet,
                where=where,
                details=details,
                worst_first=worst_first,
                nights=sparklines(self._past.trends),
            )
        for model, cell in self.unjudged().items():
            reason = f": {cell.reason}" if cell.reason else ""
            text = f"{model}: no cell was judged, so the run isn't a success{reason}"
            yield from (Line(line, "red") for line in wrapped(printable(text), width))
        if self._cases:
            of_suite = self._of_suite()
            yield from lines(
                self.run,
                of_suite,
                width=width,
                models=self.models,
                quiet=True,
                where=where,
                details=details,
            )
            named = (
                os.path.relpath(self._dir / backend_suite.FILE)
                if self._dir is not None
                else ""
            )
            yield from backend_suite.lines(of_suite, width=width, where=named)
        for warning in self._recorder.warnings if self._recorder is not None else []:
            yield Line(warning, "yellow")
        if self.incomplete is not None:
            yield Line(self.incomplete, "red")

    def _of_suite(self) -> list[CellResult]:
        return [cell for cell in self._cells.values() if cell.id in self._cases]


@contextlib.contextmanager
def _interrupted_after() -> Iterator[None]:
    """Have a Ctrl-C that comes meanwhile take effect at the end.

    Blocking the signal wouldn't do: another thread would take it, and the main one hear of it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])
