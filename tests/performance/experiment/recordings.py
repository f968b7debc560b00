"""What the experiment has measured: taken here, appended to a file, and never changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any
from zlib import crc32

from onnx_harness import providers
from onnx_harness.gate.verdicts import confirming_pairs
from onnx_harness.latency import collect
from onnx_harness.latency.conditions import undisturbed
from onnx_harness.latency.plan import fixed_plan
from onnx_harness.latency.sessions import timed_session
from onnx_harness.latency.statistics import decide_run, log_ratio, needs_confirmation
from onnx_harness.results.run import gather
from tests.performance.experiment.subjects import Subject

FAMILY = 100
"""Cells of the run that each trial is taken to be part of."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of one cell.

    Attributes:
        row: what it was taken for: ``aa``, ``work 5%``, ``busy work 5%``, ``spread 1`` …
        trial: counts within the row; the confirmation of a trial has its number.
        confirming: whether it's of the second measurement, which is taken in several parts.
        pairs: for each session pair, [baseline, variant] of each iteration, nanoseconds.
        seconds: that it took, the start of its process included.
        rows: of the products that were put in; 0 for none.
    """

    row: str
    model: str
    trial: int
    confirming: bool
    pairs: list[list[list[int]]]
    seconds: float
    unsettled: int
    rows: int = 0
    host: str = ""
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def log_ratios(self) -> list[float]:
        return [
            log_ratio([(baseline, variant) for baseline, variant in pair])
            for pair in self.pairs
        ]


class Recordings:
    """A file of one measurement a line. What a killed run left half-written is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Measured] = []
        elsewhere = 0
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    measured = Measured(**json.loads(line))
                except (json.JSONDecodeError, TypeError):
                    continue
                if measured.host == host():
                    self.all.append(measured)
                else:
                    elsewhere += 1
        if elsewhere:
            print(
                f"{elsewhere} recordings of another machine or other versions in {path} don't "
                f"count here"
            )

    def add(self, measured: Measured) -> None:
        self.all.append(measured)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = self.path.read_bytes()[-1:] if self.path.is_file() else b"\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if text == b"\n" else "\n") + json.dumps(asdict(measured)) + "\n")

    def of(self, row: str, *, confirming: bool = False) -> list[Measured]:
        return [
            each for each in self.all if each.row == row and each.confirming is confirming
        ]

    def trials(self, row: str) -> list[tuple[Measured, Measured | None]]:
        """First measurements with their confirmations.

        A trial that still lacks its confirmation is left out.
        """
        parts: dict[tuple[str, int], list[Measured]] = defaultdict(list)
        for each in self.of(row, confirming=True):
            parts[each.model, each.trial].append(each)
        found: list[tuple[Measured, Measured | None]] = []
        for first in self.of(row):
            taken = parts[first.model, first.trial]
            if sum(len(each.pairs) for each in taken) >= confirming_pairs(len(first.pairs)):
                found.append((first, together(taken)))
            elif not undecided(first):
                found.append((first, None))
        return found


def together(parts: list[Measured]) -> Measured:
    """The measurement that was taken in ``parts``."""
    pairs = [pair for each in parts for pair in each.pairs]
    seconds, unsettled = (
        sum(each.seconds for each in parts),
        sum(each.unsettled for each in parts),
    )
    return replace(
        parts[0], pairs=pairs, seconds=seconds, unsettled=unsettled, conditions={}
    )


def undecided(first: Measured) -> bool:
    """Whether the gate would measure this cell again."""
    return needs_confirmation(decide_run({0: first.log_ratios}, family=FAMILY)[0])


@cache
def host() -> str:
    run = gather("", 0)
    return f"{run.host.cpu}, {run.host.cores} cores, onnxruntime {run.versions.get('onnxruntime')}"


def measure(
    row: str,
    subject: Subject,
    trial: int,
    *,
    variant: bytes | None = None,
    pairs: int,
    rows: int = 0,
    confirming: bool = False,
    part: int = 0,
    threads: int = 1,
) -> Measured:
    """Measure a cell: ``variant`` against the subject itself, or the subject against itself.

    In a process of its own. In one that had made thousands of sessions before, the spread over
    pairs was found to be about twice what it was in a young one minutes later: a pair gets what
    memory is left between earlier sessions.
    """
    seed = crc32(f"{row} {subject.name} {trial} {confirming} {part}".encode())
    started = time.perf_counter()
    with ProcessPoolExecutor(1, _context()) as fresh:
        taken, unsettled, conditions = fresh.submit(
            _take, subject, variant, pairs, threads, seed
        ).result()
    seconds = time.perf_counter() - started
    return Measured(
        row,
        subject.name,
        trial,
        confirming,
        taken,
        seconds,
        unsettled,
        rows,
        host(),
        conditions,
    )


@cache
def _context() -> BaseContext:
    """Of fresh processes: each is forked from one that has made no session."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _take(
    subject: Subject, variant: bytes | None, pairs: int, threads: int, seed: int
) -> tuple[list[list[list[int]]], int, dict[str, Any]]:
    cpu = providers.get("cpu")
    with undisturbed(threads) as watch:
        recording = collect(
            baseline=lambda: timed_session(
                subject.model, cpu, subject.sets, threads=threads
            ),
            variant=lambda: timed_session(
                variant or subject.model, cpu, subject.sets, threads=threads
            ),
            planner=lambda pilot: fixed_plan(pilot, pairs=pairs),
            seed=seed,
        )
    conditions = asdict(watch.record) if watch.record is not None else {}
    taken = [[[baseline, other] for baseline, other in pair] for pair in recording.readings]
    return taken, recording.unsettled, conditions


def in_fresh_processes(row: str, subject: Subject, threads: int, pairs: int) -> Measured:
    """A measurement whose pairs live in a process each."""
    each = [measure(row, subject, index, pairs=1, threads=threads) for index in range(pairs)]
    taken, seconds = [one.pairs[0] for one in each], sum(one.seconds for one in each)
    return Measured(
        row,
        subject.name,
        0,
        False,
        taken,
        seconds,
        sum(one.unsettled for one in each),
        0,
        host(),
    )


_NEIGHBOUR = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})
import numpy as np
square = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
print("busy", flush=True)
while True:
    square = np.tanh(square @ square)
"""


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Something else computes meanwhile, on the first core: the measurement will find that another
    is idler.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    neighbour = subprocess.Popen(
        [sys.executable, "-c", _NEIGHBOUR, str(core)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert neighbour.stdout is not None
        neighbour.stdout.readline()
        yield
    finally:
        neighbour.kill()
        neighbour.wait()
