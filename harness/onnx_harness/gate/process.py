"""The other end of `onnx_harness.gate.side`: starting a process in an environment, and asking it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

import onnx_harness
from onnx_harness.errors import GateError, UsageError
from onnx_harness.gate.side import BOOTSTRAP
from onnx_harness.isolate import Limits

_WATCH_SECONDS = 0.05
# Of the environment under test: another one must not import what these bring.
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment.

    Raises:
        UsageError: there is none.
    """
    python = environment / "bin" / "python"
    if not python.is_file():
        raise UsageError(
            f"there is no virtual environment in {environment} (no bin/python). Make it from the accepted versions: "
            f"onnx-harness gate reference {environment}"
        )
    return python


class Side:
    """A process in one of the environments. It's ended by `close`, or when this process ends.

    Args:
        python: the environment's interpreter.
        limits: of each request.
        environment: variables for it.
        apart: it isn't this process's own environment.
    """

    def __init__(self, python: Path, limits: Limits, environment: Mapping[str, str], *, apart: bool) -> None:
        self._limits = limits
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        inherited = {name: value for name, value in os.environ.items() if not (apart and name in _NOT_INHERITED)}
        folder = str(Path(onnx_harness.__file__).parent)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    # -P: the folder that happens to be the current one isn't imported from.
                    [str(python), "-P", "-c", BOOTSTRAP, folder, str(theirs.fileno())],
                    env={**inherited, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    pass_fds=[theirs.fileno()],
                )
        except OSError as error:
            self._pipe.close()
            self._log.close()
            raise GateError(f"{python} can't be started: {error.strerror}") from error

    def tell(self, name: str, *args: Any) -> None:
        """Send a request without waiting for the answer.

        Raises:
            GateError: the process is gone.
        """
        try:
            self._pipe.send((name, args))
        except OSError:
            raise GateError(self._gone()) from None

    def hear(self) -> Any:
        """The answer to the last request.

        Raises:
            GateError: it's an error, the process died, or it used up its time or its memory.
        """
        ends = time.monotonic() + self._limits.seconds
        try:
            while not self._pipe.poll(_WATCH_SECONDS):
                if time.monotonic() > ends:
                    raise GateError(f"did not answer within {self._limits.seconds:g} s (--cell-timeout)")
                with contextlib.suppress(psutil.Error):
                    if psutil.Process(self._process.pid).memory_info().rss > self._limits.memory_bytes:
                        raise GateError("used more memory than --cell-memory allows")
            right, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise GateError(self._gone()) from None
        if not right:
            raise GateError(answer)
        return answer

    def ask(self, name: str, *args: Any) -> Any:
        """`tell` and `hear`."""
        self.tell(name, *args)
        return self.hear()

    def close(self) -> None:
        """End the process, whatever it's doing."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._log.close()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gone(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        manner = (
            "hung up" if code is None else f"left with exit code {code}" if code >= 0 else f"died of signal {-code}"
        )
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process {manner}{f'; it last said: {lines[-1].strip()}' if lines else ''}"
