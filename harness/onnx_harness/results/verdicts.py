"""Verdicts as files: one for each content key, and for each run a list of the cells that it had.

``results.json``, the history and the reports of a run can be made from them. A file is written
aside, brought to the disk and then renamed, so that it is there whole or not at all, whenever the
power goes; the folders of two machines are merged by copying one into the other.

    verdicts/3f/3f2a….json    one verdict
    runs/20261104t…-9f3a.jsonl    the run's head, then a line for each cell as it ended
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult, Symptom
from onnx_harness.results.codec import decode, encode, line_of
from onnx_harness.results.files import cannot_write
from onnx_harness.results.run import RunInfo

VERDICTS, RUNS = "verdicts", "runs"
_SCHEMA = 1
_END = b'{"end": true}\n'
_CELL = ', "cell": '
_KEY_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The content of a verdict's file.

    Attributes:
        key: of the content that the verdict depends on.
        cell: with its latency where that was taken.
        timing: the key of what the latency depends on beyond that.
        line: the cell as the file has it; it decides nothing.
    """

    key: str
    cell: CellResult
    timing: str = ""
    line: str = field(default="", compare=False, repr=False)


class VerdictFiles:
    """The verdicts in a report folder.

    Args:
        report_dir: made when something is written.
    """

    def __init__(self, report_dir: Path) -> None:
        self._folder = report_dir
        self._log: int | None = None
        self._log_path = report_dir / RUNS

    def begin(self, run: RunInfo) -> None:
        """Start the list of a run's cells.

        Raises:
            ResultsError: it can't be written.
        """
        self._log_path = self._folder / RUNS / f"{run.id}.jsonl"
        try:
            _make_folder(self._log_path.parent)
            self._log = os.open(
                self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666
            )
            number = sum(1 for _ in self._log_path.parent.glob("*.jsonl"))
            self._append({"schema": _SCHEMA, "number": number, "run": encode(run)})
            os.fsync(self._log)
            _sync_folder(self._log_path.parent)
        except OSError as error:
            raise cannot_write(
                "The list of the run's cells", self._log_path, error, "--report-dir"
            ) from error

    def put(self, cell: CellResult, key: str, timing: str = "", line: str = "") -> None:
        """Keep a verdict, or its newer state, and note that the run begun has it.

        Args:
            cell: as it ended.
            key: of its content; empty where it has none, or where its end wasn't decided by that.
            timing: the key of its latency.
            line: the cell by `codec.line_of`, where that was asked before.

        Raises:
            ResultsError: it can't be written; what was there before is whole.
        """
        line = line or line_of(cell)
        try:
            if key:
                head = json.dumps({"schema": _SCHEMA, "key": key, "timing": timing})
                text = f"{head[:-1]}{_CELL}{line}}}"
                _write_durably(self._path(key), text.encode("ascii"))
            if self._log is not None:
                self._append(
                    {"id": cell.id, "key": key} | ({} if key else {"cell": encode(cell)})
                )
                os.fsync(self._log)
        except OSError as error:
            raise cannot_write(
                "A verdict", self._folder / VERDICTS, error, "--report-dir"
            ) from error

    def note(self, cell: CellResult, key: str) -> None:
        """Note that the run begun has a cell whose verdict is there already.

        Raises:
            ResultsError: it can't be written.
        """
        try:
            if self._log is not None:
                self._append({"id": cell.id, "key": key})
        except OSError as error:
            raise cannot_write(
                "The list of the run's cells", self._log_path, error, "--report-dir"
            ) from error

    def get(self, key: str) -> Verdict | None:
        """Return the verdict of that key.

        None when there is none, or a damaged one, which is then made anew.
        """
        try:
            # In two parts: what comes behind the head is the line that other files have of it.
            head, _, rest = self._path(key).read_text("ascii").partition(_CELL)
            about, line = json.loads(head + "}"), rest.removesuffix("}")
            if about["schema"] != _SCHEMA or about["key"] != key:
                return None
            cell = decode(CellResult, json.loads(line), "cell")
            return Verdict(key, cell, str(about["timing"]), line)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ResultsError):
            return None

    def holds(self, key: str, cell: CellResult) -> bool:
        """Return whether the file of a key has that verdict, by its bytes."""
        end = f"{_CELL}{line_of(cell)}}}"
        try:
            return self._path(key).read_bytes().endswith(end.encode("ascii"))
        except OSError:
            return False

    def runs(self) -> list[str]:
        """Return the ids of the runs that have a list here.

        They come in the order in which they began, whatever the clock did.
        """
        numbered = []
        for path in (self._folder / RUNS).glob("*.jsonl"):
            head = next(_lines(path), {})
            number = head.get("number")
            numbered.append((number if isinstance(number, int) else 0, path.stem))
        return [run_id for _, run_id in sorted(numbered)]

    def unfinished(self) -> list[str]:
        """The ids of the runs whose list has no end.

        They were killed, and may be in their files alone.
        """
        stems = []
        for path in (self._folder / RUNS).glob("*.jsonl"):
            if not _has_end(path):
                stems.append(path.stem)
        return sorted(stems)

    def finish(self, run_id: str) -> None:
        """Note that all of a run's cells are in the history too.

        Raises:
            ResultsError: it can't be written.
        """
        path = self._folder / RUNS / f"{run_id}.jsonl"
        try:
            with path.open("ab") as log:
                log.write(b"\n" + _END)  # the last line may have been cut short
        except OSError as error:
            raise cannot_write(
                "The list of the run's cells", path, error, "--report-dir"
            ) from error

    def read_run(self, run_id: str) -> tuple[RunInfo, tuple[CellResult, ...]]:
        """Read a run from its list and the files of its verdicts.

        Cells come in the order in which they first ended.

        A line that a kill cut short, and a verdict whose file is damaged, are left out.

        Raises:
            ResultsError: the list has no head that can be read.
        """
        path = self._folder / RUNS / f"{run_id}.jsonl"
        lines = _lines(path)
        head = next(lines, None)
        if head is None or head.get("schema") != _SCHEMA:
            raise ResultsError(
                f"{path} isn't the list of a run's cells, or was cut short before its first one"
            )
        run = decode(RunInfo, head.get("run"), "run")
        cells: dict[str, CellResult] = {}
        for line in lines:
            cell = self._of_line(line)
            if cell is not None:
                cells[cell.id] = cell
        return run, tuple(cells.values())

    def keys(self, run_id: str) -> dict[str, str]:
        """Return the keys of a run's verdicts by cell id; nothing where it has no list here."""
        keys = {}
        for line in _lines(self._folder / RUNS / f"{run_id}.jsonl"):
            cell_id = line.get("id")
            key = line.get("key")
            if not isinstance(cell_id, str) or not isinstance(key, str):
                continue
            if _is_key(key):
                keys[cell_id] = key
        return keys

    def close(self) -> None:
        """Give up the list of the run."""
        if self._log is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._log)
            os.close(self._log)
            self._log = None

    def _of_line(self, line: dict[str, Any]) -> CellResult | None:
        if "cell" in line:
            with contextlib.suppress(ResultsError):
                return decode(CellResult, line["cell"], "cell")
            return None
        key = line.get("key")
        if not isinstance(key, str) or not _is_key(key):
            return None
        verdict = self.get(key)
        return None if verdict is None or verdict.cell.id != line.get("id") else verdict.cell

    def _path(self, key: str) -> Path:
        return self._folder / VERDICTS / key[:2] / f"{key}.json"

    def _append(self, line: dict[str, Any]) -> None:
        # A line that a full disk cut short ends here, and not in the middle of the next one.
        data = f"{_as_line(line)}\n".encode("ascii")
        assert self._log is not None
        if (written := os.write(self._log, data)) < len(data):
            os.write(self._log, b"\n")
            raise OSError(28, f"{written} of {len(data)} bytes were written")


def run_list(run: RunInfo, entries: Iterable[tuple[CellResult, str]]) -> str:
    """Return the list of a run that has ended, as a file.

    Args:
        run: the run.
        entries: its cells, each with its key; one of an empty key is written out.
    """
    head = {
        "schema": _SCHEMA,
        "number": 1,
        "run": encode(run),
    }
    lines = [_as_line(head)]
    for cell, key in entries:
        line = {"id": cell.id, "key": key}
        if not key:
            line["cell"] = encode(cell)
        lines.append(_as_line(line))
    lines.append(_END.decode("ascii"))
    return "\n".join(lines)


def reusable(cell: CellResult) -> bool:
    """Decide whether a verdict came from the cell's content, not from the state of the machine."""
    return cell.symptom is not Symptom.ENVIRONMENT


def _is_key(word: str) -> bool:
    return bool(word) and _KEY_DIGITS.issuperset(word)


def _as_line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True)


def _has_end(path: Path) -> bool:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - len(_END)))
            return log.read() == _END
    except OSError:
        return True


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_bytes()
    except OSError:
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value


def _write_durably(path: Path, data: bytes) -> None:
    """Put ``data`` into ``path``.

    On the disk before it has the name, so that a power cut leaves no half of it.
    """
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each on the disk before something is put into it."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the system has a way to."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
