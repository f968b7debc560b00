"""The folder in which everything lies that a worker process writes for itself.

It goes with the worker: whoever started that removes it, and the next run does so for one that was
killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import psutil

try:
    import fcntl
except ImportError:  # Windows: there the number of the process alone tells whether it lives
    fcntl = None  # type: ignore[assignment]

PREFIX = "onnx-harness-worker-"
CACHE_PREFIX = "onnx-harness-cache-"
"""Begins folders that outlive the process that made them: what could not be put into the cache."""

_YOUNG_SECONDS = 1.0  # between making a folder and taking its lock
# A free lock counts more than a number that another process may have now.
_RECYCLED_SECONDS = 60.0


class OwnFolder:
    """A folder of one worker, locked while the process lives that has the worker.

    Attributes:
        path: of it.
    """

    def __init__(self) -> None:
        """Make the folder, and remove those of killed processes.

        Raises:
            OSError: the temporary folder can't be written.
        """
        remove_leftovers()
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.log.touch()
        self.temporary.mkdir()
        self.given.mkdir()
        self._owner = os.getpid()
        self._handle: int | None = None
        if fcntl is not None:
            self._handle = os.open(self.path, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def log(self) -> Path:
        """The file that the worker prints to."""
        return self.path / "log"

    @property
    def temporary(self) -> Path:
        """The worker's folder for temporary files."""
        return self.path / "tmp"

    @property
    def given(self) -> Path:
        """The folder of files that the worker's parent makes for it."""
        return self.path / "given"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that lead temporary files there."""
        return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))

    def empty(self) -> None:
        """Remove what a process has left that ended, but for what others may go on using."""
        with contextlib.suppress(OSError):
            for entry in self.temporary.iterdir():
                if not entry.name.startswith(CACHE_PREFIX):
                    _remove(entry)

    def remove(self) -> None:
        """Remove the folder."""
        # A forked process has a copy of this object, and mustn't tidy up for everybody.
        if os.getpid() != self._owner:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def remove_leftovers() -> None:
    """Remove the folders of workers whose processes are gone."""
    with contextlib.suppress(OSError):
        for entry in Path(tempfile.gettempdir()).iterdir():
            if entry.name.startswith(PREFIX) and _is_left_over(entry):
                _remove(entry)


def _is_left_over(entry: Path) -> bool:
    try:
        status = entry.lstat()
        age = time.time() - status.st_mtime
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            return False
        if age < _YOUNG_SECONDS or not _is_unlocked(entry):
            return False
    except OSError:
        return False
    number = entry.name.removeprefix(PREFIX).partition("-")[0]
    # The lock is what counts where processes of several containers share the folder.
    return not (number.isdecimal() and psutil.pid_exists(int(number))) or (
        fcntl is not None and age > _RECYCLED_SECONDS
    )


def _is_unlocked(entry: Path) -> bool:
    """Return whether nobody has the lock of a folder, as far as the system has any."""
    if fcntl is None:
        return True
    handle = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()
