"""The user's folder for what outlives a run."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from onnx_harness.errors import ResultsError
from onnx_harness.results.files import cannot_write

VARIABLE = "ONNX_HARNESS_CACHE"


def cache_root() -> Path:
    """The folder for what outlives a run, made on demand.

    It's ``$ONNX_HARNESS_CACHE``, else ``onnx-harness`` in ``$XDG_CACHE_HOME``, else in
    ``~/.cache``. Where that can't be written, or there is no home, it is one of the user's own in
    the temporary folder: see :func:`fallback_note`.

    Raises:
        ResultsError: neither can be written, or what the variable names is a file.
    """
    try:
        return _usable(_named_root())
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows this user's home
        if VARIABLE in os.environ and isinstance(
            error, FileExistsError | NotADirectoryError
        ):
            raise cannot_cache(_named_root(), error) from error
        root = Path(tempfile.gettempdir()) / f"onnx-harness-{_user()}"
        try:
            root = _usable(root)
        except OSError as second:
            raise cannot_cache(root, second) from error
        _fallback.append(
            f"the cache can't be written ({error}): {root} is used. Mend: set ${VARIABLE} to a "
            f"folder"
        )
        return root


_fallback: list[str] = []


def fallback_note() -> str:
    """Return why the cache is in the temporary folder, and where; empty where it isn't."""
    with contextlib.suppress(ResultsError):
        cache_root()
    return _fallback[-1] if _fallback else ""


def _named_root() -> Path:
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "onnx-harness"


def _usable(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it is read-only", str(root))
    return root.absolute()


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")


def cannot_cache(path: Path, error: OSError) -> ResultsError:
    """The error of a folder of the cache that can't be written."""
    return cannot_write("The cache", path, error, f"${VARIABLE}")
