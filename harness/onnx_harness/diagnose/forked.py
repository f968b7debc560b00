"""A function in a forked process.

One that dies or hangs costs milliseconds, and ends nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CHUNK = 1 << 16

Say = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a forked process.

    Attributes:
        said: all that it wrote.
        in_time: whether it ended by itself within its time.
        status: as ``os.waitpid`` gives it.
    """

    said: bytes
    in_time: bool
    status: int


def forked(work: Callable[[Say], None], seconds: float) -> Ended:
    """Run a function in a fork of this process.

    Args:
        work: takes a function that hands bytes to the parent; what it raises ends the process with
            exit code 1.
        seconds: after which the process is killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _live(work, writing)
    os.close(writing)
    try:
        said, in_time = _read(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        if not wait_briefly(child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return Ended(said, in_time, status)


def manner_of(status: int) -> str:
    """Return in words how a process ended."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "a signal"
        return f"the process was killed by {name} (signal {number})"
    return f"the process left with exit code {os.WEXITSTATUS(status)}"


def _live(work: Callable[[Say], None], pipe: int) -> None:
    """The life of the forked process: it never returns."""
    code = 1
    try:
        die_with_parent()
        work(lambda data: _write(pipe, data))
        code = 0
    finally:
        os._exit(code)


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_briefly(child: int) -> bool:
    """Return whether a child ends by itself in a moment.

    That is the time that leaving takes after its pipe was closed.
    """
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.0005)
    return False


def _read(pipe: int, ends: float) -> tuple[bytes, bool]:
    """All that comes through the pipe until it is closed; and whether that was in time."""
    said = b""
    while True:
        remaining = ends - time.monotonic()
        if remaining <= 0 or not select.select([pipe], [], [], remaining)[0]:
            return said, False
        part = os.read(pipe, _CHUNK)
        if not part:
            return said, True
        said += part
