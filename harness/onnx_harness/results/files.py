"""Writing files whole or not at all, and saying why one can't be written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from onnx_harness.errors import ResultsError

_MENDS = {
    errno.ENOSPC: "free some space there, or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space there, or choose another folder",
    errno.EFBIG: "a file-size limit (ulimit -f) is in the way: raise it, or choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "mend its permissions, or choose another folder",
    errno.EPERM: "mend its permissions, or choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed: move it away, or choose another folder",
    errno.EIO: "the disk reports an error: choose a folder on another one",
}


def cannot_write(what: str, path: Path, error: OSError, how: str) -> ResultsError:
    """The error for ``path`` that can't be written: what happened, the space left, what to do.

    Args:
        what: what ``path`` holds, such as ``results.json``.
        path: what was being written.
        error: the system's answer.
        how: the option or variable that chooses another folder.
    """
    words = error.strerror or f"{error}"
    mend = _MENDS.get(error.errno or 0, "choose another folder")
    if isinstance(error, shutil.Error):
        words, mend = _of_many(error)
    return ResultsError(
        f"{what} can't be written at {path}: {words}{_free_space(path)}. Mend: {mend} ({how})."
    )


def _of_many(error: shutil.Error) -> tuple[str, str]:
    """Return the first words of an error that lists those of many files, and the mend.

    shutil keeps each file's error as text: it names two paths, and the system's words.
    """
    text = f"{error.args[0][0][-1] if isinstance(error.args[0], list) else error}"
    for number, mend in _MENDS.items():
        if os.strerror(number) in text:
            return os.strerror(number), mend
    return text.splitlines()[0] if text else "files can't be copied", "choose another folder"


def _free_space(path: Path) -> str:
    """`` (12 MB free)`` for the file system that holds the nearest existing parent of ``path``."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free there)"
    return ""


def move_folder(source: Path, target: Path) -> None:
    """Move a folder, perhaps from another file system: it appears whole or not at all.

    Raises:
        ResultsError: it can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".", dir=target.parent, ignore_cleanup_errors=True
        ) as scratch:
            moved = Path(scratch, target.name)
            shutil.move(source, moved)
            moved.rename(target)
    except OSError as error:
        raise cannot_write("a failing cell", target, error, "--report-dir") from error


def replace_text(path: Path, text: str) -> None:
    """Put ``text`` into ``path`` as UTF-8: a reader, or a kill, sees the old file or the new one.

    Raises:
        OSError: it can't be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        # Not NamedTemporaryFile, which makes private files: a report is as readable as the user's
        # other files.
        with temporary.open(
            "x", encoding="utf-8", errors="backslashreplace", newline="\n"
        ) as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
