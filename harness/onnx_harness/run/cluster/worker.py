"""The program of a worker of Dask: it starts the ordinary cell process, and parses no model."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from onnx_harness.cell import timing
from onnx_harness.cell.content import machine_of
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import is_of_the_machine
from onnx_harness.errors import HarnessError, ResultsError, WorkerNotStarted, named
from onnx_harness.isolate import default_memory_bytes
from onnx_harness.isolate.answers import pack, unpack
from onnx_harness.results.cache import source_digest
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.results.run import this_host
from onnx_harness.run.cluster.messages import (
    DESCRIBED,
    REPLY,
    VERDICT,
    Described,
    RemoteVerdict,
    Reply,
    Request,
)
from onnx_harness.run.cluster.parcels import Store, unpacked
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings

_BOOT = Path("/proc/sys/kernel/random/boot_id")

_idle: list[tuple[tuple[Settings, int | None], Runner]] = []
_guard = threading.Lock()
_usable: set[str] = set()


def describe() -> bytes:
    """Return what the coordinator has to know of this worker."""
    described = Described(
        machine_of(this_host()),
        _boot(),
        limit=default_memory_bytes(),
    )
    return DESCRIBED.dumps(described)


def probe_provider(name: str) -> bytes:
    """Try a provider in a cell process here; the packed `Availability`."""
    with _runner(Settings(provider=(name,)), None) as runner:
        return pack(runner.probe(name))


def receive(digest: str, offset: int, data: bytes, size: int) -> bool:
    """Take a piece of a file, as `Store.receive` does."""
    return Store().receive(digest, offset, data, size)


def judge_group(message: bytes) -> bytes:
    """Judge the cells of a request, each told as an event when it has its verdict.

    Args:
        message: a packed `Request`.

    Returns:
        A `Reply` as JSON.
    """
    return _serve(message, timed=False)


def time_group(message: bytes) -> bytes:
    """Time the cells of a request, which passed, as :func:`judge_group` judges them."""
    return _serve(message, timed=True)


def _serve(message: bytes, *, timed: bool) -> bytes:
    request = unpack(message)
    if not isinstance(request, Request):
        return REPLY.dumps(Reply(refusal="what came isn't a request"))
    if request.source != source_digest():
        words = "its onnx-harness is another state of the code than the coordinator's"
        return REPLY.dumps(Reply(refusal=words))
    store = Store()
    if missing := store.missing(request.parcel, request.inline):
        return REPLY.dumps(Reply(missing=missing))
    cells, settings = unpacked(
        request.cells, request.settings, store.lay_out(request.parcel, request.inline)
    )
    cores = this_host().cores
    threads = None if timed else max(1, cores // request.sharing)
    verdicts = []
    with _runner(_local(settings, cells[0].provider), threads) as runner:
        if refusal := _refusal(runner, cells[0].provider):
            return REPLY.dumps(Reply(refusal=refusal))
        for place, cell in enumerate(cells):
            if not _is_awaited():
                break
            if timed:
                verdict = _timed(runner, cell, request.results[place])
            else:
                runner.forget(cell)  # the runner may be an earlier run's
                runner.judge(cell)
                verdict = runner.told_elsewhere(cell)
            verdicts.append(VERDICT.dumps(replace(verdict, boot=_boot())).decode("ascii"))
            _tell(request.topic, verdicts[-1])
    return REPLY.dumps(Reply(tuple(verdicts)))


def _refusal(runner: Runner, provider: str) -> str:
    """Return why a provider can't be used on this machine; empty where it can.

    What has once worked isn't tried again: a driver that goes away is the verdict's to tell.
    """
    if provider in _usable:
        return ""
    availability = runner.probe(provider)
    if availability.usable:
        _usable.add(provider)
        return ""
    return f"provider '{provider}' can't be used there: {availability.reason}"


def _boot() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return this_host().os


def _timed(runner: Runner, cell: Cell, accurate: CellResult) -> RemoteVerdict:
    machine = machine_of(this_host(runner.devices))
    try:
        record = runner.call(timing.time_by_itself, runner.task(cell), accurate)
        result = replace(accurate, latency=record, machine=machine.host)
    except Exception as error:  # whatever a model does, the others are timed
        of_the_machine = isinstance(error, WorkerNotStarted | ResultsError)
        result = replace(
            accurate,
            status=Status.ERROR,
            stage=Stage.LATENCY,
            reason=f"can't be timed: {named(error)}",
            symptom=Symptom.ENVIRONMENT
            if of_the_machine or is_of_the_machine(error)
            else None,
        )
    return RemoteVerdict(result, machine)


def _local(settings: Settings, provider: str) -> Settings:
    """Return the settings of the run as this machine follows them: it keeps no results."""
    return replace(
        settings,
        provider=(provider,),
        cell_memory=min(settings.cell_memory, default_memory_bytes()),
        report_dir=None,
        gate_reference=None,
        sarif=None,
        resume=False,
        cluster="",
        jobs=1,
        shard=None,
        shard_times=None,
    )


@contextlib.contextmanager
def _runner(settings: Settings, threads: int | None) -> Iterator[Runner]:
    """Lend a runner whose cell process is up already, where one is idle."""
    # Dask marks its workers as daemons, which may start no process; ours leaves with its parent.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    key_wanted = (settings, threads)
    with _guard:
        place = next((at for at, (key, _) in enumerate(_idle) if key == key_wanted), None)
        runner = _idle.pop(place)[1] if place is not None else None
        others = [] if runner is not None else [idle_runner for _, idle_runner in _idle]
        if others:
            _idle.clear()
    # Of other settings: its process holds memory that this one needs.
    for idle_runner in others:
        idle_runner.close()
    # What fails for this machine's sake is tried on another one: the coordinator counts.
    runner = runner or Runner(settings, threads=threads, machine_retries=0)
    try:
        yield runner
    except BaseException:
        runner.close()
        raise
    with _guard:
        _idle.append((key_wanted, runner))


def _is_awaited() -> bool:
    """Return whether the coordinator still waits for this task.

    It may have been killed, or have given the cells to another worker.
    """
    try:
        from distributed import get_worker
        from distributed.worker import thread_state

        task = get_worker().state.tasks.get(thread_state.key)
    except (ImportError, ValueError, AttributeError):
        # No worker of Dask: a test's own process.
        return True
    return task is not None and task.state not in ("cancelled", "released", "forgotten")


def _tell(topic: str, verdict: str) -> None:
    try:
        from distributed import get_worker

        get_worker().log_event(topic, verdict)
    except (ImportError, ValueError, HarnessError):
        return  # the reply has it too
