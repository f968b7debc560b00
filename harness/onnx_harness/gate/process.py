"""The client of `onnx_harness.gate.side`: starts a process in an environment, and asks it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

import onnx_harness
from onnx_harness.errors import GateError, SideDied, UsageError
from onnx_harness.gate.side import BOOTSTRAP
from onnx_harness.isolate import Limits
from onnx_harness.isolate.own_folder import OwnFolder

_WATCH_SECONDS = 0.05
# Of the environment under test: another one must not import what these bring.
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def python_of(environment: Path) -> Path:
    """Return the interpreter of a virtual environment.

    Raises:
        UsageError: there is none.
    """
    python = environment / "bin" / "python"
    if not python.is_file():
        raise UsageError(
            f"there is no virtual environment in {environment} (no bin/python). Make it from the "
            f"accepted versions: onnx-harness gate reference {environment}"
        )
    return python


class EnvironmentProcess:
    """A process in one of the environments. It's ended by `close`, or when this process ends.

    Args:
        python: the environment's interpreter.
        limits: of each request.
        environment: variables for it.
        apart: it isn't this process's own environment.
    """

    def __init__(
        self, python: Path, limits: Limits, environment: Mapping[str, str], *, apart: bool
    ) -> None:
        self._limits = limits
        try:
            self._folder = OwnFolder()
        except OSError as error:
            raise GateError(
                f"the process's temporary folder can't be made: {error}"
            ) from error
        self._log = self._folder.log.open("w+b")
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        inherited = dict(os.environ)
        if apart:
            for name in _NOT_INHERITED:
                inherited.pop(name, None)
        folder = str(Path(onnx_harness.__file__).parent)
        # -P: the folder that happens to be the current one isn't imported from.
        command = [str(python), "-P", "-c", BOOTSTRAP, folder, str(theirs.fileno())]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    env={**inherited, **environment, **self._folder.variables},
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    pass_fds=[theirs.fileno()],
                )
        except OSError as error:
            self._pipe.close()
            self._forget()
            raise GateError(f"{python} can't be started: {error.strerror}") from error

    def send(self, name: str, *args: Any) -> None:
        """Send a request without waiting for the answer.

        Raises:
            GateError: the process is gone.
        """
        try:
            self._pipe.send((name, args))
        except OSError:
            raise self._gone() from None

    def receive(self) -> Any:
        """Return the answer to the last request.

        Raises:
            GateError: it's an error, the process died, or it used up its time or its memory.
        """
        ends = time.monotonic() + self._limits.seconds
        try:
            while not self._pipe.poll(_WATCH_SECONDS):
                if time.monotonic() > ends:
                    late = (
                        f"did not answer within {self._limits.seconds:g} s (--cell-timeout)"
                    )
                    raise SideDied(late, self._noted(), late=True)
                if self._memory_bytes() > self._limits.memory_bytes:
                    raise GateError("used more memory than --cell-memory allows")
            succeeded, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if not succeeded:
            raise GateError(answer)
        return answer

    def ask(self, name: str, *args: Any) -> Any:
        """Send a request and return its answer."""
        self.send(name, *args)
        return self.receive()

    def take_notes(self) -> None:
        """Have the process note what it is doing: `SideDied` says at what it ended."""
        self.ask("note_in", self._notes)

    def close(self) -> None:
        """End the process, whatever it's doing."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._forget()

    def __enter__(self) -> EnvironmentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        self._log.close()
        self._folder.remove()

    def _memory_bytes(self) -> int:
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0  # it has ended, which reading its answer will show

    @property
    def _notes(self) -> Path:
        return self._folder.path / "notes"

    def _noted(self) -> str:
        """Return what the process last noted; empty where it takes no notes."""
        with contextlib.suppress(OSError):
            return self._notes.read_bytes().decode(errors="replace")
        return ""

    def _gone(self) -> GateError:
        """Say how the process ended, with the last line that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        ended = f"the process {_manner(code)}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        if lines:
            ended = f"{ended}; it last said: {lines[-1].strip()}"
        if code is None or code >= 0:  # it left by itself: it couldn't be started, for one
            return GateError(ended)
        return SideDied(ended, self._noted())


def _manner(code: int | None) -> str:
    """Put a return code of `subprocess.Popen` into words."""
    if code is None:
        return "hung up"
    if code < 0:
        return f"died of signal {-code}"
    return f"left with exit code {code}"
