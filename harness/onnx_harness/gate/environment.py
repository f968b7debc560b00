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
_OPTIONS = "-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host"
_ADDRESS = re.compile(rf"^\s*({_OPTIONS})\b|://|(^|\s)file:", re.M)
_OWN_FOLDERS = ("lib", "lib64", "bin", "include")
_PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r")


def make(environment: Path, lock: Path) -> bool:
    """Make the environment, unless it was made from the same lock file already.

    It's an ordinary one: ``python -m venv`` and ``pip install -r``. This package isn't installed in
    it.

    Returns:
        True where it was made now.

    Raises:
        UsageError: there's no lock file, or something that wasn't made here lies where the
            environment should.
        GateError: Python or pip can't make it.
    """
    lock_sha256 = hashlib.sha256(read_lock(lock).encode()).hexdigest()
    mark = environment / MARK
    if _is_made_from(environment, lock_sha256):
        return False
    if environment.exists() and not mark.is_file():
        raise UsageError(
            f"{environment} exists, and wasn't made by this command, which would empty it: name "
            "another folder, or remove it yourself"
        )
    # --clear would also remove the models that accepted levels refer to.
    for folder in _OWN_FOLDERS:
        _remove(environment / folder)
    _write(mark, "being made\n")
    create = [sys.executable, "-m", "venv", str(environment)]
    _run(create, "the virtual environment can't be made", environment)
    install = [str(_python(environment)), *_PIP_INSTALL, str(lock)]
    _run(install, f"pip can't install what {lock} lists", environment)
    _write(mark, f"{lock_sha256}\n")
    return True


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _is_made_from(environment: Path, lock_sha256: str) -> bool:
    mark = environment / MARK
    if not mark.is_file() or mark.read_text("utf-8").strip() != lock_sha256:
        return False
    return _runs(_python(environment))


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def keep_lock(source: Path, folder: Path) -> Path:
    """Copy a lock file to the accepted levels, under its own name.

    Raises:
        UsageError: it can't be read, or names an index or an address: where packages come from is
            up to each machine.
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
    """Return the text of a lock file.

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
    address = _ADDRESS.search(_without_comments(text))
    if address:
        raise UsageError(
            f"the lock file {lock} names an index or an address ('{address[0].strip()}'): take it "
            "out, pip's own configuration says where packages come from on each machine"
        )
    return text


def _without_comments(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            lines.append(line)
    return "\n".join(line.partition(" #")[0] for line in lines)


def _runs(python: Path) -> bool:
    """Try the interpreter: the environment only links to it, and it may have been removed."""
    command = [str(python), "-c", ""]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def _write(mark: Path, text: str) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        replace_text(mark, text)
    except OSError as error:
        raise cannot_write("the reference environment", mark, error, "its path") from error


def _run(command: list[str], what: str, environment: Path) -> None:
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MAKING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GateError(
            f"{what}: {command[0]} did not end within {_MAKING_SECONDS} s"
        ) from None
    except OSError as error:
        raise GateError(f"{what}: {error.strerror}") from error
    if ended.returncode != 0:
        output = (ended.stderr or ended.stdout).strip()
        lines = []
        for line in output.splitlines():
            if "WARNING" not in line:
                lines.append(line.strip())
        message = " ".join(lines[-3:]) or "it printed nothing"
        raise GateError(
            f"{what} ({environment}): {message}. Mend: where pip has no index, let PIP_FIND_LINKS "
            "name a folder of wheels and set PIP_NO_INDEX=1, or make the same environment "
            "elsewhere and name it"
        )
