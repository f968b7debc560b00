"""Remove from a cache what was least recently used, and what crashed writers left."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from onnx_harness.results.locks import lock

_STALE_SECONDS = 60.0


def prune(
    root: Path,
    unfinished: Path,
    limit_bytes: int,
    in_use_seconds: float,
    warn: Callable[[str], None],
) -> int:
    """Remove least recently used entries above the size limit, and what crashed writers left.

    Args:
        root: folder of the entries: kind, beginning of the key, key.
        unfinished: folder of entries that are being written.
        limit_bytes: that the entries together may take.
        in_use_seconds: an entry that was used this recently stays.
        warn: takes a sentence on an entry that can't be removed.

    Returns:
        Bytes removed.
    """
    remove_stale(subfolders(unfinished))
    entries = sorted(_entries(root, unfinished), key=lambda entry: entry.used)
    excess = sum(entry.size for entry in entries) - limit_bytes
    removed = 0
    for entry in entries:
        if removed >= excess or time.time() - entry.used < in_use_seconds:
            break
        try:
            # Renamed first, so that it vanishes at once and a reader never meets half an entry.
            doomed = unfinished / f"doomed-{os.getpid()}-{entry.path.name}"
            unfinished.mkdir(exist_ok=True)
            entry.path.rename(doomed)
            shutil.rmtree(doomed)
        except FileNotFoundError:
            continue  # Another run prunes too.
        except OSError as error:
            warn(f"The cache entry {entry.path} can't be removed: {error.strerror}.")
            break
        removed += entry.size
    return removed


def remove_stale(folders: Iterable[Path]) -> None:
    """Remove folders whose owner is gone: its lock is free, and it isn't about to take it."""
    for folder in folders:
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if (
                status.st_uid != os.getuid()
                or time.time() - status.st_mtime < _STALE_SECONDS
            ):
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                lock(handle, wait=False)
                shutil.rmtree(folder)
            finally:
                os.close(handle)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder; none where it can't be read."""
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _entries(root: Path, unfinished: Path) -> Iterator[_Entry]:
    for kind in subfolders(root):
        if kind == unfinished:
            continue
        for shelf in subfolders(kind):
            for entry in subfolders(shelf):
                with contextlib.suppress(OSError):
                    size = sum(path.lstat().st_size for path in entry.rglob("*"))
                    yield _Entry(entry, entry.stat().st_mtime, size)


class _Entry(NamedTuple):
    path: Path
    used: float
    size: int
