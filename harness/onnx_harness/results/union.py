"""Unite the files of verdicts of several report folders: a set union by content key.

The merged folder then has what a run of its own would have left there: ``--resume`` finds each
verdict, and its results can be made from the files again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnx_harness.results.cells import CellResult
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.results.store import Results
from onnx_harness.results.verdicts import RUNS, VERDICTS, VerdictFiles, run_list


def unite_verdicts(target: Path, merged: Results, parts: Sequence[tuple[Path, str]]) -> None:
    """Put the verdicts of report folders into that of their merger, with the list of its cells.

    Of two verdicts under one key the greater by its bytes stays, so that no order matters.

    Args:
        target: the folder of the merger.
        merged: its results.
        parts: report folders, each with the id of the run that was merged.

    Raises:
        ResultsError: they can't be written.
    """
    sources: dict[str, list[Path]] = {}
    for folder, _ in parts:
        present = (folder / VERDICTS).glob("??/*.json")
        for file in present:
            sources.setdefault(file.name, []).append(file)
    try:
        for name, files in sources.items():
            _place(_greatest(files), target / VERDICTS / name[:2] / name)
        path = target / RUNS / f"{merged.run.id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, run_list(merged.run, _entries(target, merged, parts)))
    except OSError as error:
        raise cannot_write("The verdicts", target / VERDICTS, error, "--output") from error


def _greatest(files: Sequence[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    return max(files, key=lambda file: file.read_bytes())


def _place(source: Path, target: Path) -> None:
    """Let a file have another name, or copy it.

    It may be the same file by two names: verdicts are never changed, only replaced.
    """
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _entries(
    target: Path, merged: Results, parts: Sequence[tuple[Path, str]]
) -> Iterator[tuple[CellResult, str]]:
    """Yield each merged cell with its key, which is empty where no file has that verdict."""
    keys: dict[str, set[str]] = {}
    for folder, run_id in parts:
        run_keys = VerdictFiles(folder).keys(run_id)
        for cell_id, key in run_keys.items():
            keys.setdefault(cell_id, set()).add(key)
    united = VerdictFiles(target)
    for cell in merged.cells:
        matching = ""
        for key in sorted(keys.get(cell.id, ())):
            if united.holds(key, cell):
                matching = key
        yield cell, matching
