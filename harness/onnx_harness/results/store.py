"""results.json: one run, readable and whole at every moment of it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import decode, line_of
from onnx_harness.results.files import cannot_write
from onnx_harness.results.locks import lock, unlock
from onnx_harness.results.run import HostInfo, RunInfo

__all__ = [
    "FILE_NAME",
    "SCHEMA",
    "HostInfo",
    "Results",
    "ResultsWriter",
    "RunInfo",
    "read_results",
]

FILE_NAME = "results.json"
SCHEMA = 1

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_TAIL = b"\n]}\n"
_SPARE = 1200
"""Spaces kept after a cell of which more is to come, so that the figures fit in when they arrive.
"""


@dataclass(frozen=True, slots=True)
class Results:
    """The content of a results.json. Cells are in the order in which they first ended."""

    run: RunInfo
    cells: tuple[CellResult, ...]


class ResultsWriter:
    """Writes ``results.json`` cell by cell.

    Whoever reads it finds valid JSON with every finished cell.

    A write that is more than a page long isn't atomic, not even against ``kill -9``. So there are
    two files: the next state is written into the one that isn't called ``results.json``, and then
    takes over the name. Each is one cell behind the other, so that a cell costs two lines, and not
    the whole file again.

    Args:
        report_dir: made if need be. One run at a time may write there.
        run: the head of the file.

    Raises:
        ResultsError: the folder can't be written, or another run is writing there.
    """

    def __init__(self, report_dir: Path, run: RunInfo) -> None:
        self._folder = report_dir
        self._path = report_dir / FILE_NAME
        self._head = f'{{"schema": {SCHEMA}, "run": {line_of(run)}, "cells": ['.encode(
            "ascii"
        )
        self._places: dict[str, int] = {}
        self._lines: list[bytes] = []
        self._twins: list[_Twin] = []
        self._lock: int | None = None
        try:
            report_dir.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            for leftover in report_dir.glob(
                ".results-*.json"
            ):  # Of runs that were killed: we hold the lock.
                leftover.unlink()
            self._twins = [_Twin(report_dir / f".results-{letter}.json") for letter in "ab"]
            # The last run's, which stays until this one has a verdict.
            if self._path.is_file():
                self._twins[0].update(self._head, self._lines)
            else:
                self._publish()
        except OSError as error:
            self.close()
            raise self._cannot_write(error) from error

    def put(self, cell: CellResult) -> None:
        """Add a cell, or replace the one of the same id. When this returns, results.json holds it.

        Raises:
            ResultsError: it can't be written. results.json is still whole; the cell is kept for the
                next try.
        """
        self._set(cell, line_of(cell))
        try:
            self._publish()
        except OSError as error:
            raise self._cannot_write(error) from error

    def put_all(self, cells: Sequence[CellResult], lines: Sequence[str] = ()) -> None:
        """Add or replace many cells, of results that are there already, in one step.

        Args:
            cells: added or replaced.
            lines: each by `codec.line_of`, where those were asked before.

        Raises:
            ResultsError: as for :meth:`put`.
        """
        for cell, line in zip(cells, lines or map(line_of, cells), strict=True):
            self._set(cell, line)
        try:
            self._publish()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _set(self, cell: CellResult, text: str) -> None:
        line = _roomy(cell, text.encode("ascii"))
        place = self._places.get(cell.id)
        if place is None:
            self._places[cell.id] = len(self._lines)
            self._lines.append(line)
        elif len(line) <= len(self._lines[place]):
            self._lines[place] = line.ljust(len(self._lines[place]))
            for twin in self._twins:
                twin.stale.add(place)
        else:  # It has outgrown its room, and moves everything behind it.
            self._lines[place] = line
            for twin in self._twins:
                twin.forget_from(place)

    def finish(self) -> None:
        """The run has ended: leave results.json alone in the folder, without the spare room.

        Raises:
            ResultsError: it can't be written. results.json is still whole.
        """
        if not self._twins:
            return
        if not self._lines:
            self.close()
            return
        self._lines = [line.rstrip() for line in self._lines]
        self._twins[0].forget_from(0)
        try:
            self._publish()
        except OSError as error:
            raise self._cannot_write(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Give up the folder; results.json stays as it is."""
        for twin in self._twins:
            twin.close()
        self._twins = []
        if self._lock is not None:
            with contextlib.suppress(OSError):
                unlock(self._lock)
            os.close(self._lock)
            self._lock = None

    def _publish(self) -> None:
        """Bring the hidden twin up to date, and give it the name.

        The other becomes the hidden one.
        """
        hidden = self._twins[0]
        hidden.update(self._head, self._lines)
        hidden.take_name(self._path)
        self._twins.reverse()

    def _locked(self) -> int | None:
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            lock(handle, wait=False)
        except BlockingIOError:
            os.close(handle)
            raise ResultsError(
                f"another run is writing its results in {self._folder}: wait for it, or name "
                f"another folder "
                "with --report-dir"
            ) from None
        except OSError:
            os.close(handle)  # A file system without locks.
            return None
        return handle

    def _cannot_write(self, error: OSError) -> ResultsError:
        return cannot_write(FILE_NAME, self._path, error, "--report-dir")


def _roomy(cell: CellResult, line: bytes) -> bytes:
    """Its line, with room for the latency, or for the verdict on it at the end of the run."""
    undecided = (
        cell.pinned is not None
        and cell.pinned.ratio is not None
        and cell.pinned.verdict is None
    )
    return line + b" " * (_SPARE if cell.latency is None or undecided else 0)


@dataclass(slots=True)
class _Twin:
    """One of the two files, and what is in it.

    Attributes:
        stale: places of the lines that it holds an old version of.
        ends: offset behind each line that it holds.
    """

    path: Path
    stale: set[int] = field(default_factory=set)
    ends: list[int] = field(default_factory=list)
    bytes_written: int = 0

    def forget_from(self, place: int) -> None:
        """Take the cells from ``place`` on as not written."""
        del self.ends[place:]

    def update(self, head: bytes, lines: list[bytes]) -> None:
        """Make it the file of ``lines``.

        Nobody reads it meanwhile, so the order of writes doesn't matter.

        When a write fails, what is marked as stale or missing is written at the next try.
        """
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            for place in sorted(place for place in self.stale if place < len(self.ends)):
                start = self.ends[place] - len(lines[place])
                self._write(handle, lines[place], start)
            start = self.ends[-1] if self.ends else 0
            pieces = [] if self.ends else [head]
            at, ends = start + sum(map(len, pieces)), []
            for place in range(len(self.ends), len(lines)):
                pieces.append((b",\n" if place else b"\n") + lines[place])
                at += len(pieces[-1])
                ends.append(at)
            chunk = b"".join([*pieces, _TAIL])
            self._write(handle, chunk, start)
            os.ftruncate(handle, start + len(chunk))
            self.ends += ends
            self.stale.clear()
        finally:
            os.close(handle)

    def take_name(self, path: Path) -> None:
        """Call it ``path`` too, in one step that replaces whatever had that name."""
        second = self.path.with_name(f"{self.path.stem}-link.json")
        second.unlink(missing_ok=True)
        try:
            try:
                os.link(self.path, second)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(self.path, second)
            second.replace(path)
        finally:
            second.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove its hidden name."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _write(self, handle: int, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(handle, data, offset)
            self.bytes_written += written
            data, offset = data[written:], offset + written


def read_results(path: Path) -> Results:
    """Read a results.json, or the one in a report folder.

    Raises:
        ResultsError: it can't be read, is cut short, isn't a results file, or has a schema that
            isn't known.
    """
    if path.is_dir():
        path = path / FILE_NAME
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it isn't text"
        raise ResultsError(
            f"{path} can't be read: {what}. Name the folder or the file that a run wrote."
        ) from error
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultsError(
            f"{path} isn't whole JSON ({error}): it was cut short or edited. Run again, or take "
            f"an older copy."
        ) from error
    if not isinstance(value, dict) or not {"schema", "run", "cells"} <= value.keys():
        raise ResultsError(
            f"{path} isn't a results file: it lacks 'schema', 'run' or 'cells'"
        )
    if value["schema"] != SCHEMA:
        raise ResultsError(
            f"{path} has schema {value['schema']!r}, and this version of onnx-harness reads "
            f"{SCHEMA}: "
            "read it with the version that wrote it"
        )
    if not isinstance(value["cells"], list):
        raise ResultsError(f"{path}: cells should be a list")
    try:
        run = decode(RunInfo, value["run"], "run")
        records = []
        for index, cell in enumerate(value["cells"]):
            records.append(decode(CellResult, cell, f"cells[{index}]"))
        cells = tuple(records)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None
    return Results(run, cells)
