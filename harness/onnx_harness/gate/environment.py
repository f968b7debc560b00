"""Making the pinned reference environment from its lock file."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from onnx_harness.errors import GateError, UsageError
from onnx_harness.results.files import cannot_write, replace_text

MARK = "onnx-harness-lock"
"""File in the environment with the hash of the lock file that it was made from."""
_MAKING_SECONDS = 3600
_ADDRESS = re.compile(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)\b|://|(^|\s)file:", re.M)


def make(environment: Path, lock: Path) -> bool:
    """Make the environment, unless it was made from the same lock file already.

    It's an ordinary one: ``python -m venv`` and ``pip install -r``. This package isn't installed in it.

    Returns:
        Whether it was made now.

    Raises:
        UsageError: there's no lock file, or something that wasn't made here lies where the environment should.
        GateError: Python or pip can't make it.
    """
    wanted = hashlib.sha256(read_lock(lock).encode()).hexdigest()
    mark = environment / MARK
    if mark.is_file() and mark.read_text("utf-8").strip() == wanted and _runs(environment / "bin" / "python"):
        return False
    if environment.exists() and not mark.is_file():
        raise UsageError(
            f"{environment} is there already, and wasn't made by this command, which would empty it: name another "
            "folder, or remove it yourself"
        )
    # --clear would also remove the models that accepted levels refer to.
    for part in ("lib", "lib64", "bin", "include"):
        old = environment / part
        if old.is_symlink() or not old.is_dir():
            old.unlink(missing_ok=True)
        else:
            shutil.rmtree(old, ignore_errors=True)
    _write(mark, "being made\n")
    _run([sys.executable, "-m", "venv", str(environment)], "the virtual environment can't be made", environment)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(lock)]
    _run(install, f"pip can't install what {lock} lists", environment)
    _write(mark, f"{wanted}\n")
    return True


def keep_lock(source: Path, folder: Path) -> Path:
    """Copy a lock file to the accepted levels, under its own name.

    Raises:
        UsageError: it can't be read, or names an index or an address: where packages come from is up to each
            machine.
        ResultsError: it can't be written.
    """
    text = read_lock(source)
    copy = folder / source.name
    try:
        replace_text(copy, text)
    except OSError as error:
        raise cannot_write("the lock file", copy, error, "--report-dir") from error
    return copy


def read_lock(lock: Path) -> str:
    """The text of a lock file.

    Raises:
        UsageError: it can't be read, or names an index or an address.
    """
    try:
        text = lock.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it isn't text"
        raise UsageError(
            f"the lock file {lock} can't be read: {what}. Accept one: "
            'onnx-harness gate accept --lock requirements.lock --why "…"'
        ) from error
    bare = "\n".join(line.partition(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = _ADDRESS.search(bare)
    if found:
        raise UsageError(
            f"the lock file {lock} names an index or an address ('{found[0].strip()}'): take it out, pip's own "
            "configuration says where packages come from on each machine"
        )
    return text


def _runs(python: Path) -> bool:
    """Whether the interpreter is still there: the environment only links to it."""
    try:
        return subprocess.run([str(python), "-c", ""], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _write(mark: Path, text: str) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        replace_text(mark, text)
    except OSError as error:
        raise cannot_write("the reference environment", mark, error, "its path") from error


def _run(command: list[str], what: str, environment: Path) -> None:
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MAKING_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise GateError(f"{what}: {command[0]} did not end within {_MAKING_SECONDS} s") from None
    except OSError as error:
        raise GateError(f"{what}: {error.strerror}") from error
    if ended.returncode != 0:
        lines = [line for line in (ended.stderr or ended.stdout).strip().splitlines() if "WARNING" not in line]
        said = " ".join(line.strip() for line in lines[-3:]) or "it said nothing"
        raise GateError(
            f"{what} ({environment}): {said}. Mend: where pip has no index, let PIP_FIND_LINKS name a folder of wheels "
            "and set PIP_NO_INDEX=1, or make the environment elsewhere alike and name it"
        )
