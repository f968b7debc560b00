"""The worker process: where untrusted models are transformed and first run, with limits on time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pebble import ProcessExpired, ProcessPool

from harness.errors import WorkerCrashed, WorkerDied, WorkerOutOfMemory, WorkerTimedOut

Result = TypeVar("Result")

_WATCH_SECONDS = 0.05
_STAGE_BYTES = 64
_LAST_WORDS_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use.

    Attributes:
        seconds: of wall-clock time.
        memory_bytes: of resident memory. Address space isn't limited: CUDA reserves far more than it uses.
    """

    seconds: float
    memory_bytes: int


def default_memory_bytes() -> int:
    """Three quarters of the machine's memory."""
    return int(psutil.virtual_memory().total) * 3 // 4


class Worker:
    """One process that runs one call at a time, and is replaced when it dies.

    A call that crashes the process, hangs, or eats its memory raises; the next call gets a fresh process.
    """

    def __init__(self, limits: Limits, environment: Mapping[str, str] | None = None) -> None:
        """Start the process in the background.

        Args:
            limits: on every call.
            environment: variables set in the process before it imports anything of weight.
        """
        self._limits = limits
        context = multiprocessing.get_context("spawn")
        # Shared memory outlives a crash: it says what the process was doing when it died.
        self._stage = context.RawArray("c", _STAGE_BYTES)
        with tempfile.NamedTemporaryFile(prefix="onnx-harness-worker-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
        self._pool = ProcessPool(
            max_workers=1,
            context=context,
            initializer=_begin,
            initargs=(self._stage, str(self._log), dict(environment or {}), os.getpid()),
        )
        self._process: psutil.Process | None = None
        self._first = self._pool.schedule(os.getpid)

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run ``function(*args)`` in the process; both travel by pickle.

        Raises:
            WorkerDied: a subclass says how; its ``stage`` is what the process last noted.
            Exception: whatever ``function`` raised.
        """
        process = self._ready()
        self._stage.value = b""
        heard = self._log.stat().st_size
        future = self._pool.schedule(function, args=args)
        ends = time.monotonic() + self._limits.seconds
        ended: WorkerDied | None = None
        while not wait([future], timeout=_WATCH_SECONDS).done:
            resident = _resident_bytes(process)
            if ended is None and resident > self._limits.memory_bytes:
                ended = WorkerOutOfMemory(
                    f"used {_gib(resident)} of memory, more than the limit of {_gib(self._limits.memory_bytes)} "
                    "(--cell-memory)"
                )
            elif ended is None and time.monotonic() > ends:
                ended = WorkerTimedOut(f"did not end within {self._limits.seconds:g} s (--cell-timeout)")
            if ended is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        try:
            return future.result()
        except (ProcessExpired, FutureTimeout) as error:
            if isinstance(error, FutureTimeout) and ended is None:
                raise  # the function's own
            self._replace()
            died = ended or WorkerCrashed(_manner(getattr(error, "exitcode", None)) + self._last_words(heard))
            died.stage = self._stage.value.decode(errors="replace")
            raise died from None

    def close(self) -> None:
        """End the process, whatever it's doing."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._log.unlink(missing_ok=True)

    def _ready(self) -> psutil.Process:
        if self._process is None:
            try:
                self._process = psutil.Process(self._first.result(timeout=120))
            except (ProcessExpired, FutureTimeout, psutil.NoSuchProcess) as error:
                self._replace()
                raise WorkerCrashed(f"the worker process can't be started: {error}{self._last_words(0)}") from error
        return self._process

    def _replace(self) -> None:
        # The pool starts the next process by itself; what is needed is its number.
        self._process = None
        self._first = self._pool.schedule(os.getpid)

    def _last_words(self, heard: int) -> str:
        with self._log.open("rb") as log:
            log.seek(max(heard, self._log.stat().st_size - _LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"; it last said: {lines[-1].strip()}" if lines else ""


_noted: Any = None


def note_stage(stage: str) -> None:
    """Say, in the worker, what is being done now: it's named if the process dies of it. Elsewhere: nothing."""
    if _noted is not None:
        _noted.value = stage.encode()[: _STAGE_BYTES - 1]


def _begin(stage: Any, log: str, environment: dict[str, str], parent: int) -> None:
    global _noted
    _noted = stage
    os.environ.update(environment)
    # Libraries print; a crash's last words matter, a table torn by progress lines doesn't help anybody.
    with open(log, "ab", buffering=0) as file:  # noqa: PTH123 - a Path has nothing to add to a descriptor
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - pytest may have left others
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """Leave when the parent is gone: killed outright, it can't end its worker itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _manner(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = "a signal"
        return f"the worker process was killed by {name} (signal {-exitcode})"
    return f"the worker process left with exit code {exitcode}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
