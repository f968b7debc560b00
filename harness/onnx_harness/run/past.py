"""Earlier runs in the report folder.

A run with ``--resume`` needn't find out again what they have left.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx_harness.cards import fetch
from onnx_harness.cell.content import (
    Machine,
    content_key,
    model_digest,
    this_machine,
    timing_key,
)
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import HarnessError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.recorder import Entry
from onnx_harness.results.verdicts import Verdict, VerdictFiles
from onnx_harness.settings import Settings


class Past:
    """The verdicts of earlier runs by the content of cells.

    Attributes:
        machines: whose verdicts count: this one's, and with a cluster those of its workers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = (
            VerdictFiles(settings.report_dir) if settings.report_dir is not None else None
        )
        self.machines: list[Machine] = []
        self._judged_on: dict[str, tuple[Machine, int]] = {}
        self._keys: dict[tuple[str, str, int], str] = {}
        self._verdicts: dict[str, tuple[Verdict, Machine] | None] = {}
        self._timings: dict[str, str] = {}
        self._models: dict[Path, tuple[Path, str]] = {}

    def key(self, cell: Cell, machine: Machine | None = None, limit: int = 0) -> str:
        """The content key of a cell, judged on a machine: this one, where none is named.

        Empty where its model can't be had or read, or where nothing is written.

        Args:
            cell: judged.
            machine: that judged it.
            limit: bytes of memory that the verdict hangs on; 0: it doesn't, or on the run's own.
        """
        if self._files is None:
            return ""
        name = (cell.id, "" if machine is None else machine.fingerprint, limit)
        if name not in self._keys:
            settings = (
                replace(self._settings, cell_memory=limit) if limit else self._settings
            )
            try:
                model, digest = self._model(cell)
                key = content_key(cell, model, settings, machine, digest)
            except (HarnessError, OSError):
                # The cell's own verdict will say what is wrong with it.
                key = ""
            self._keys[name] = key
        return self._keys[name]

    def _model(self, cell: Cell) -> tuple[Path, str]:
        """Return the file of a cell's model and its digest.

        A run that resumes asks for all keys before it judges anything, and for each model once.
        """
        path = cell.card.path
        if path not in self._models:
            file = fetch.materialize(cell.card)
            self._models[path] = file, model_digest(cell, file)
        model = self._models[path]
        if not self._settings.resume:  # a model may change between its cells
            del self._models[path]
        return model

    def judged_on(self, cell: Cell, machine: Machine, limit: int = 0) -> None:
        """Note that a cell of this run was judged on another machine.

        Its file is called by that, and by the limit of memory that the verdict hangs on.
        """
        _, before = self._judged_on.get(cell.id, (None, 0))  # times come after the verdict
        self._judged_on[cell.id] = machine, limit or before

    def verdict(self, cell: Cell) -> CellResult | None:
        """Return what an earlier run found of the cell up to ``compare``.

        None without ``--resume``, or where none did.
        """
        stored = self._stored(cell)
        return None if stored is None else stored[0].cell

    def timed(self, cell: Cell) -> CellResult | None:
        """As :meth:`verdict`, with the latency, where that was taken under the same conditions."""
        stored = self._stored(cell)
        if stored is None or stored[0].cell.latency is None:
            return None
        verdict, machine = stored
        return verdict.cell if verdict.timing == self._timing(machine) else None

    def line(self, cell: Cell) -> str:
        """Return the verdict of :meth:`verdict` as its file has it; empty where there is none."""
        stored = self._stored(cell)
        return "" if stored is None else stored[0].line

    def entry(self, cell: Cell, *, reused: bool) -> Entry:
        """Return what the file of the cell's verdict is called by."""
        stored = self._stored(cell) if reused else None
        judged_on = self._judged_on.get(cell.id, (None, 0))
        machine, limit = (stored[1], 0) if stored is not None else judged_on
        timing = self._timing(machine or this_machine())
        return Entry(self.key(cell, machine, limit), timing, reused)

    def _timing(self, machine: Machine) -> str:
        """The key of what a latency depends on beyond the content of its cell."""
        name = machine.fingerprint
        if name not in self._timings:
            self._timings[name] = timing_key(self._settings, machine)
        return self._timings[name]

    def _stored(self, cell: Cell) -> tuple[Verdict, Machine] | None:
        if not self._settings.resume or self._files is None:
            return None
        if cell.id not in self._verdicts:
            self._verdicts[cell.id] = self._find(cell, self._files)
        return self._verdicts[cell.id]

    def _find(self, cell: Cell, files: VerdictFiles) -> tuple[Verdict, Machine] | None:
        for machine in self.machines or [this_machine()]:
            key = self.key(cell, machine)
            if key and (verdict := files.get(key)) is not None:
                return verdict, machine
        return None
