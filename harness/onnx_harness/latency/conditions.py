"""Conditions of a measurement: made quiet where that's possible, recorded where it isn't."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from onnx_harness.results.timings import ConditionsRecord

# Long enough for psutil to tell busy cores from idle ones, short beside a cell's budget of 1.5 s.
_LOOK_S = 0.05


@dataclass(slots=True)
class Watch:
    """Filled when the measurement is over."""

    record: ConditionsRecord | None = None


@contextlib.contextmanager
def undisturbed(cores: int | None) -> Iterator[Watch]:
    """Switch garbage collection and tracing off, choose cores, and record what disturbed the runs.

    Tracing goes because pytest-benchmark pauses it for its target, and so for one side only.

    Args:
        cores: how many of the allowed cores this thread, and threads that it starts, stay on; None
            leaves it alone.
    """
    collecting, tracer, profiler = gc.isenabled(), sys.gettrace(), sys.getprofile()
    watch = Watch()
    before = _counters()
    load = _load()
    with _pinned(cores) as affinity:
        gc.disable()
        sys.settrace(None)
        sys.setprofile(None)
        try:
            yield watch
        finally:
            sys.setprofile(profiler)
            sys.settrace(tracer)
            if collecting:
                gc.enable()
            after = _counters()
            elapsed = after.total - before.total
            watch.record = ConditionsRecord(
                affinity=affinity,
                load=load,
                steal_share=(after.steal - before.steal) / elapsed if elapsed > 0 else 0.0,
                involuntary_switches=after.switches - before.switches,
            )


@contextlib.contextmanager
def _pinned(cores: int | None) -> Iterator[tuple[int, ...] | None]:
    """Keep to the ``cores`` idlest allowed cores: other processes may be measuring here too."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    busy = dict(enumerate(psutil.cpu_percent(interval=_LOOK_S, percpu=True)))
    # Of equally idle cores the last: systems put their own work on the first ones.
    idlest_first = sorted(allowed, key=lambda core: (busy.get(core, 0.0), -core))
    chosen = sorted(idlest_first[:cores])
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:  # a sandbox may forbid it
        yield None
        return
    try:
        yield tuple(chosen)
    finally:
        os.sched_setaffinity(0, allowed)


@dataclass(frozen=True, slots=True)
class _Counters:
    """CPU seconds of the machine and those its host took from it; turns this process lost.

    psutil reads them from /proc/stat and from getrusage; a system that doesn't count steal has
    none.
    """

    total: float
    steal: float
    switches: int


def _counters() -> _Counters:
    times = psutil.cpu_times()
    switches = psutil.Process().num_ctx_switches()
    return _Counters(sum(times), getattr(times, "steal", 0.0), switches.involuntary)


def _load() -> float | None:
    with contextlib.suppress(OSError):
        return float(psutil.getloadavg()[0])
    return None
