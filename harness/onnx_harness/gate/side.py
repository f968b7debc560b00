"""The process in each of the two environments of a lockstep: it answers one request at a time.

The reference environment needn't have this package: the other process tells it where the source
lies. Nothing of weight is imported before it's asked for, so that a fresh process for each pair of
sessions is cheap.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import named

if TYPE_CHECKING:
    from onnx_harness.cell.state import Judged, Task
    from onnx_harness.latency.profiled import ProfiledSession
    from onnx_harness.providers.profile_runs import RunProfiles

BOOTSTRAP = """
import importlib.util, sys
folder, handle = sys.argv[1], int(sys.argv[2])
spec = importlib.util.spec_from_file_location(
    "onnx_harness", folder + "/__init__.py", submodule_search_locations=[folder]
)
package = sys.modules["onnx_harness"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from onnx_harness.gate.side import serve
serve(handle)
"""
"""Run with the folder of this package and a handle.

The environment takes the package from there, whatever it has installed.
"""

_running: list[Callable[[], object]] = []
_profiled: list[ProfiledSession] = []


def serve(handle: int) -> None:
    """Answer requests until the other end hangs up.

    A request is the name of one of ``_ANSWERS`` with its arguments; an answer is True and the
    result, or False and what went wrong, in words: the other environment might not have the
    exception's type.
    """
    with contextlib.suppress(EOFError, ConnectionError), Connection(handle) as pipe:
        while True:
            name, args = pipe.recv()
            try:
                answer = (True, _ANSWERS[name](*args))
            except Exception as error:
                answer = (False, named(error))
            pipe.send(answer)


class _NoteFile:
    """A file of notes, which outlives the process that writes them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value = b""

    @property
    def value(self) -> bytes:
        return self._value

    @value.setter
    def value(self, note: bytes) -> None:
        self._value = note
        self._path.write_bytes(note)


def note_in(file: Path) -> None:
    """Write to a file, from now on, what is being done: it's read when this process dies."""
    from onnx_harness.isolate.notes import take_notes

    take_notes(_NoteFile(file), ())


def versions() -> dict[str, str]:
    """Return the versions that are installed here."""
    from onnx_harness.results.run import gather

    return gather("", 0).versions


def judge(task: Task, accepted: str, store: Path) -> Judged:
    """Judge a cell with the versions that are installed here.

    The model is the one that the cell's level was accepted on.

    Args:
        task: the cell, with the model under test.
        accepted: hash of the accepted model.
        store: folder where it lies.
    """
    from onnx_harness.cell import pipeline
    from onnx_harness.gate.models import reference_model

    model, sha256 = reference_model(task.model, accepted, store)
    judged = pipeline.judge(replace(task, model=model))
    return replace(judged, result=replace(judged.result, model_sha256=sha256))


def open_model(
    model: Path,
    level: str,
    provider: str,
    threads: int,
    values: Mapping[str, Any],
    core: int | None,
) -> float:
    """Open a session for timing and run it once.

    Args:
        model: what to time.
        level: ONNX Runtime's optimization level.
        provider: its name.
        threads: intra-op threads.
        values: the inputs.
        core: the processor to stay on; None leaves that to the system.

    Returns:
        Seconds of a second run, about as long as any other takes.
    """
    from onnx_harness import providers
    from onnx_harness.latency.sessions import timed_session

    if core is not None:
        os.sched_setaffinity(0, {core})
    session = timed_session(
        model, providers.get(provider), [values], level=level, threads=threads
    )
    _running[:] = session.runs
    gc.collect()
    gc.disable()
    # The first run allocates memory and isn't typical.
    [elapsed_ns] = run_block(1, 1)
    return elapsed_ns / 1e9


def run_block(untimed: int, timed: int) -> list[int]:
    """Run the open model ``untimed`` + ``timed`` times; nanoseconds of each of the latter.

    The time is taken here, around the run alone: what it takes to ask for it isn't in it.
    """
    [run] = _running
    for _ in range(untimed):
        run()
    clock = time.perf_counter_ns
    times = []
    for _ in range(timed):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def open_profiled(
    model: Path,
    level: str,
    provider: str,
    threads: int,
    values: Mapping[str, Any],
    core: int | None,
) -> float:
    """Open a session whose runs are profiled, and run it twice; arguments as in `open_model`.

    Returns:
        Seconds of the second run.
    """
    from onnx_harness import providers
    from onnx_harness.latency.profiled import ProfiledSession

    if core is not None:
        os.sched_setaffinity(0, {core})
    session = ProfiledSession(
        model, providers.get(provider), values, level=level, threads=threads
    )
    _profiled[:] = [session]
    _running[:] = [session.run]
    [elapsed_ns] = run_block(1, 1)
    return elapsed_ns / 1e9


def finish_profile() -> RunProfiles:
    """End the profiled session, and return the profiles of its runs."""
    [session] = _profiled
    return session.finish()


_ANSWERS: Mapping[str, Callable[..., object]] = {
    "note_in": note_in,
    "versions": versions,
    "judge": judge,
    "open_model": open_model,
    "run_block": run_block,
    "open_profiled": open_profiled,
    "finish_profile": finish_profile,
}
