"""The worker process as its parent sees it: started, asked, watched and replaced."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.sharedctypes import RawArray
from typing import Any, TypeVar, cast

import psutil

from onnx_harness.errors import (
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    WorkerOutOfMemory,
    WorkerTimedOut,
)
from onnx_harness.isolate.answers import UnreadableAnswer, unpack
from onnx_harness.isolate.files import Files, pickled
from onnx_harness.isolate.limits import Limits
from onnx_harness.isolate.notes import RISK, STAGE_BYTES
from onnx_harness.isolate.own_folder import OwnFolder
from onnx_harness.isolate.serve import serve

_MEND = (
    "Mend: free memory or processes on this machine, and see that its Python starts: "
    "onnx-harness doctor"
)
Result = TypeVar("Result")

_START_SECONDS = 120
_WATCH_SECONDS = 0.05
_LEAST_WATCH_SECONDS = 0.001
# A second: so fast do the threads of one process make their memory resident.
_FASTEST_BYTES = 4 << 30
# A process that has closed its pipe is about to end: a busy machine takes its time.
_REAPED_SECONDS = 10
_LAST_WORDS_BYTES = 2000
_TRACEBACK_CHARACTERS = 20_000


class Worker:
    """One process that runs one call at a time, and is replaced when it dies.

    A call that crashes the process, hangs, or eats its memory raises; the next call gets a fresh
    process. It belongs to one thread: calls from two at once would read each other's answers;
    closing it from another ends the call. Close it; the end of the interpreter does.

    Attributes:
        peak_bytes: of resident memory, the most that was seen during the last call.
        folder: the worker's own, which goes with it; the temporary files of its processes lie
            there.
    """

    # Not a pool of pebble or concurrent.futures: those share locks and pipes between a process and
    # its replacement, so one that dies idle, in the middle of an answer or with exit code 0 leaves
    # them broken or waiting for ever.

    def __init__(
        self,
        limits: Limits,
        environment: Mapping[str, str] | None = None,
        *,
        preload: Sequence[str] = (),
        files: Files | None = None,
    ) -> None:
        """Start the process in the background.

        Args:
            limits: on every call.
            environment: variables set in the process before it imports anything of weight.
            preload: modules that it imports while nobody waits for it; one that can't be imported
                is left out.
            files: what it may open; None: everything.

        Raises:
            WorkerNotStarted: the system gives no process, or no folder for it.
        """
        self._limits = limits
        self._environment = dict(environment or {})
        self._preload = tuple(preload)
        self._died_of: tuple[str, ...] = ()
        self.peak_bytes = 0
        self._closed = False
        self._up = False  # whether there is a process that hasn't been ended
        self._context = multiprocessing.get_context("spawn")
        # Shared memory outlives a crash: it says what the process was doing when it died.
        self._stage = RawArray("c", STAGE_BYTES)
        try:
            self.folder = OwnFolder()
        except OSError as error:
            raise WorkerNotStarted(
                f"the worker's temporary folder can't be made: {error}. Mend: set $TMPDIR to a "
                f"folder with room"
            ) from error
        self._log = self.folder.log
        self._files = files
        if files is not None:
            files.change(self.folder.path)
        # multiprocessing waits for its children when the interpreter ends; this comes before it.
        atexit.register(self.close)
        try:
            self._start()
        except WorkerNotStarted:
            self.close()
            raise

    def limit(self, seconds: float) -> None:
        """Let calls from now on have so many seconds."""
        self._limits = Limits(seconds, self._limits.memory_bytes)

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run ``function(*args)`` in the process.

        The call travels by pickle; what comes back is data (`onnx_harness.isolate.answers`), since
        the process has opened an untrusted model by then.

        Raises:
            ValueError: the worker is closed.
            WorkerDied: a subclass says how; its ``stage`` is what the process last noted.
            WorkerNotStarted: there is no process, and none comes up; the next call tries again.
            Exception: whatever ``function`` raised, with a note of where; an exception that isn't
                Python's or this package's as a RuntimeError of its name. TypeError, AttributeError
                or pickle.PicklingError for what can't travel.
        """
        if self._closed:
            raise ValueError("the worker is closed")
        task, paths, modules = pickled((function, args))
        if self._files is not None and self._files.include(paths, modules):
            self._end()  # what is confined stays so
        self._make_ready()
        self._stage.value = b""
        self.peak_bytes = 0
        heard = self._log.stat().st_size
        try:
            answer = self._answer(task, heard)
        except (
            BaseException
        ):  # Ctrl-C too: the answer to this call must not become the answer to the next
            self._replace()
            raise
        if isinstance(answer, _Raised):
            answer.error.add_note(f"In the worker process:\n{answer.where.rstrip()}")
            raise answer.error
        return cast("Result", answer)

    @property
    def doing(self) -> str:
        """Return what the process noted last: may be asked while a call runs."""
        noted: bytes = self._stage.value
        return noted.decode(errors="replace")

    def close(self) -> None:
        """End the process, whatever it's doing."""
        self._closed = True
        self._end()
        self.folder.remove()
        atexit.unregister(self.close)

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        # The kernel ends a process with the *thread* that started it, so only the main one may be
        # tied to.
        parent = os.getpid(), threading.current_thread() is threading.main_thread()
        self._process = self._context.Process(
            target=serve,
            args=(
                theirs,
                self._stage,
                self._died_of,
                str(self._log),
                {**self._environment, **self.folder.variables},
                self._preload,
                self._limits,
                None if self._files is None else self._files.rules(),
                *parent,
            ),
            name="onnx-harness-worker",
        )
        self._ready = False
        try:
            # A terminal sends Ctrl-C to the process too, which isn't ready to ignore it and would
            # answer with a traceback. One that is begun now inherits the mask. The tracker goes
            # first: starting it later would take the mask off.
            with warnings.catch_warnings():
                # Of a tracker that died, as where no interpreter can be started.
                warnings.simplefilter("ignore")
                if os.name == "posix":
                    resource_tracker.ensure_running()
            with _interrupts_blocked(), _without_main():
                self._process.start()
                self._up = True
        except OSError as error:
            self._pipe.close()
            raise WorkerNotStarted(
                f"the worker process can't be started: {error}. {_MEND}"
            ) from error
        finally:
            theirs.close()

    def _replace(self) -> None:
        """End the process and start another; where none comes up, the next call will say so."""
        self._end()
        if self._closed:  # by another thread, to end this call
            return
        with contextlib.suppress(WorkerNotStarted):
            self._start()

    def _make_ready(self) -> None:
        # It died after its last answer, and that call isn't at fault; or none came up the last
        # time.
        if not self._up or (self._ready and not self._process.is_alive()):
            self._end()
            self._start()
        if self._ready:
            return
        try:
            if not self._pipe.poll(_START_SECONDS):
                raise EOFError
            self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._process.join(_WATCH_SECONDS)
            manner = _manner(self._process.exitcode)
            self._end()
            why = f"the worker process can't be started: {manner}{self._last_words(0)}"
            raise WorkerNotStarted(f"{why}. {_MEND}") from None
        self._ready = True

    def _answer(self, task: bytes, heard: int) -> object:
        """The result, or what was raised instead; raises WorkerDied."""
        ends = time.monotonic() + self._limits.seconds
        try:
            process = psutil.Process(self._process.pid)
            self._pipe.send_bytes(task)
            resident = _resident_bytes(process)
            while not self._pipe.poll(self._unwatched_seconds(resident)):
                resident = _resident_bytes(process)
                self.peak_bytes = max(self.peak_bytes, resident)
                if resident > self._limits.memory_bytes:
                    raise self._died(
                        WorkerOutOfMemory,
                        f"used {_gib(resident)} of memory, more than the limit of "
                        f"{_gib(self._limits.memory_bytes)} "
                        "(--cell-memory)",
                    )
                if time.monotonic() > ends:
                    raise self._died(
                        WorkerTimedOut,
                        f"did not end within {self._limits.seconds:g} s (--cell-timeout)",
                    )
                if (
                    not self._process.is_alive() and not self._pipe.poll()
                ):  # its children may hold the pipe open
                    raise EOFError
            self.peak_bytes = max(self.peak_bytes, _resident_bytes(process))
            return self._read(self._pipe.recv_bytes(self._limits.memory_bytes))
        except UnreadableAnswer as error:
            raise self._died(WorkerCrashed, str(error)) from None
        except (EOFError, OSError, psutil.NoSuchProcess):
            self._process.join(_REAPED_SECONDS)
            manner = _manner(self._process.exitcode) + self._last_words(heard)
            raise self._died(WorkerCrashed, manner) from None

    def _unwatched_seconds(self, resident: int) -> float:
        """Return how long a process needn't be looked at: less, the nearer it is to its limit."""
        spare = (self._limits.memory_bytes - resident) / _FASTEST_BYTES
        return min(max(spare, _LEAST_WATCH_SECONDS), _WATCH_SECONDS)

    def _read(self, data: bytes) -> object:
        answer = unpack(data)
        if not (isinstance(answer, list) and len(answer) in (1, 2)):
            raise UnreadableAnswer("the worker's answer is neither a result nor an error")
        if len(answer) == 1:
            return answer[0]
        error, where = answer
        if not isinstance(error, Exception):
            raise UnreadableAnswer("the worker raised something that is no error")
        return _Raised(error, str(where)[:_TRACEBACK_CHARACTERS])

    def _died(self, how: type[WorkerDied], what: str) -> WorkerDied:
        stage = self.doing
        if how is WorkerCrashed and stage.startswith(RISK):
            self._died_of += (stage,)
        return how(what, stage)

    def _end(self) -> None:
        if not self._up:
            return
        self._up = False
        if self._process.is_alive():
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(self._process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        child.kill()
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self.folder.empty()

    def _last_words(self, heard: int) -> str:
        with self._log.open("rb") as log:
            log.seek(max(heard, self._log.stat().st_size - _LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"; it last said: {lines[-1].strip()}" if lines else ""


@dataclass(frozen=True, slots=True)
class _Raised:
    """An exception of the process, and its traceback there."""

    error: Exception
    where: str


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


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back from this thread and from the processes that it starts (not on Windows)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that doesn't import the user's script.

    multiprocessing has a new process run the main module again, for functions that were defined
    there. None of those is sent here, and a script that asks for a verdict at its top level would
    ask again in every process.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _gib(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"
