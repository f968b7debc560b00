"""Earlier runs in the report folder.

A run with ``--resume`` needn't find out again what they have left.
"""

from __future__ import annotations

from onnx_harness.cards import fetch
from onnx_harness.cell.content import content_key, timing_key
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import HarnessError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.recorder import Entry
from onnx_harness.results.verdicts import Verdict, VerdictFiles
from onnx_harness.settings import Settings


class Past:
    """The verdicts of earlier runs by the content of cells."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = VerdictFiles(settings.report_dir) if settings.report_dir is not None else None
        self._keys: dict[str, str] = {}
        self._verdicts: dict[str, Verdict | None] = {}
        self._timing = ""

    def key(self, cell: Cell) -> str:
        """The content key of a cell.

        Empty where its model can't be had or read, or where nothing is written.
        """
        if self._files is None:
            return ""
        if cell.id not in self._keys:
            try:
                key = content_key(cell, fetch.materialize(cell.card), self._settings)
            except (HarnessError, OSError):  # the cell's own verdict will say what is wrong with it
                key = ""
            self._keys[cell.id] = key
        return self._keys[cell.id]

    def verdict(self, cell: Cell) -> CellResult | None:
        """Return what an earlier run found of the cell up to ``compare``.

        None without ``--resume``, or where none did.
        """
        stored = self._stored(cell)
        return None if stored is None else stored.cell

    def timed(self, cell: Cell) -> CellResult | None:
        """As :meth:`verdict`, with the latency, where that was taken under the same conditions."""
        stored = self._stored(cell)
        if stored is None or stored.cell.latency is None or stored.timing != self.timing():
            return None
        return stored.cell

    def entry(self, cell: Cell, *, reused: bool) -> Entry:
        """Return what the file of the cell's verdict is called by."""
        return Entry(self.key(cell), self.timing(), reused)

    def timing(self) -> str:
        """The key of what a latency depends on beyond the content of its cell."""
        self._timing = self._timing or timing_key(self._settings)
        return self._timing

    def _stored(self, cell: Cell) -> Verdict | None:
        if not self._settings.resume or self._files is None:
            return None
        if cell.id not in self._verdicts:
            key = self.key(cell)
            self._verdicts[cell.id] = self._files.get(key) if key else None
        return self._verdicts[cell.id]
