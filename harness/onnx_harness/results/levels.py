"""The accepted levels: what each cell was when somebody last said that it is as it should be.

Text in ``reports/baselines/``, a line a cell, so that a change of level is a change that can be
reviewed. The history keeps who moved which level when and why; these lines are what the gate goes
by.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import decode, encode
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.results.locks import lock

FOLDER = "baselines"
FILE_NAME = "levels.jsonl"
LOCK_NAME = "requirements.lock"
"""Beside the levels: the versions that the pinned reference environment is made of."""

Key = tuple[str, str]
"""Id of the cell and name of the processor."""


@dataclass(frozen=True, slots=True)
class Level:
    """An accepted level.

    Attributes:
        cell: the cell as it was then, without what differs from run to run.
        processor: where.
        seed: of the run.
        run_id: the run in which it was so.
        accepted: when it was accepted; ISO 8601, UTC.
        who: by whom.
        why: the reason that was given.
        selection: what chose the cells of that run; empty where that isn't known.
    """

    cell: CellResult
    processor: str
    seed: int
    run_id: str
    accepted: str
    who: str
    why: str
    selection: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Return what it's looked up by."""
        return self.cell.id, self.processor


def trimmed(cell: CellResult) -> CellResult:
    """A cell without what differs from run to run though nothing has changed.

    Its ratio is the night's figure.
    """
    pinned = cell.pinned and replace(
        cell.pinned,
        ratio=cell.pinned.night_ratio,
        ratio_ci95=cell.pinned.night_ci95,
        log_ratios=(),
        samples=0,
        graph=None,
        accuracy=None,
        reason=None,
        verdict=None,
        confirming_log_ratios=(),
        operators=None,
    )
    graph = cell.graph and replace(cell.graph, transform_seconds=0.0)
    return replace(
        cell, detail=(), notes=(), seconds={}, latency=None, graph=graph, pinned=pinned
    )


def read_levels(folder: Path) -> dict[Key, Level]:
    """The levels in ``folder``; none when there is no such file.

    Raises:
        ResultsError: it can't be read, or a line isn't a level: it was cut short, edited or badly
            merged.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"the accepted levels {path} can't be read: {error}. Restore them from git."
        ) from error
    if text and not text.endswith("\n"):
        raise ResultsError(
            f"the accepted levels {path} are cut short: restore them from git"
        )
    levels: dict[Key, Level] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            level = decode(Level, json.loads(line), "level")
        except (ValueError, RecursionError, ResultsError) as error:
            raise ResultsError(
                f"the accepted levels {path}, line {number}: {error}. Restore the file from git, "
                f"or accept again."
            ) from error
        if level.key in levels:
            raise ResultsError(
                f"the accepted levels {path} have two of {level.cell.id} on {level.processor}: "
                f"keep one of them"
            )
        levels[level.key] = level
    return levels


def write_levels(folder: Path, levels: Mapping[Key, Level]) -> None:
    """Write the levels, whole or not at all.

    Raises:
        ResultsError: they can't be written; the older file is untouched.
    """
    lines = []
    for _, level in sorted(levels.items()):
        lines.append(json.dumps(encode(level), ensure_ascii=True, separators=(", ", ": ")))
    try:
        replace_text(folder / FILE_NAME, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise cannot_write(
            "the accepted levels", folder / FILE_NAME, error, "--report-dir"
        ) from error


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make ``folder`` if need be, and wait for whoever else changes levels in it.

    Raises:
        ResultsError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise cannot_write("the accepted levels", folder, error, "--report-dir") from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            lock(handle, wait=True)
        yield
    finally:
        os.close(handle)
