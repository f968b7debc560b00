"""Rows of ``make scale`` that other measurements print: whole runs, killed ones, lost workers."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import Cell
from onnx_harness.results.cells import CellResult
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.run.cluster import coordinator
from onnx_harness.run.cluster.coordinator import Cluster
from onnx_harness.run.schedule import grouped
from tests.models import linear, save
from tests.unit.results_examples import RUN, cell
from tests.unit.test_cluster import CLUSTER, Workers, cells_of, passed

Row = tuple[str, str, str]

ROOT = Path(__file__).parents[2]
NOTHING_LOST = "tests/meta/test_nothing_lost.py"
WHOLE_RUN = "tests/performance/test_whole_run.py"
LOST_WORKER = (
    "tests/providers/test_cluster.py::"
    "test_a_lost_worker_and_a_restarted_coordinator_lose_no_cell_and_judge_none_twice"
)


def kills(simulated: int, real: int) -> Iterator[Row]:
    """The tests of killed runs, with as many kills: of what writes alone, and of real runs."""
    for what, count, name, test in (
        (
            "moments",
            simulated,
            "KILLS",
            "test_a_run_that_is_killed_at_any_moment_has_lost_nothing",
        ),
        (
            "runs of models",
            real,
            "REAL_KILLS",
            "test_a_real_run_that_is_killed_judges_nothing_twice",
        ),
    ):
        environment = {**os.environ, f"ONNX_HARNESS_{name}": str(count)}
        code, _ = run_pytest(sys.executable, f"{NOTHING_LOST}::{test}", env=environment)
        told = "0" if code == 0 else "SOME"
        yield f"kill -9 at {count} {what}: cells lost or judged twice", told, "0"


def lost_workers(count: int) -> Iterator[Row]:
    """Workers that are lost while they judge, as the coordinator sees them: threads here."""
    draw = random.Random(0)
    unjudged, twice = 0, 0
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setenv("ONNX_HARNESS_CACHE", f"{folder}/cache")
            log, cells, verdicts = one_lost(Path(folder), patch, draw.randrange(12))
        unjudged += sum(verdict.reason is not None for verdict in verdicts)
        ids = [cell_id for _, cell_id, _ in log]
        twice += len(ids) - len(cells) - 1  # the one in hand is begun again
    told = f"{unjudged} lost, {twice} judged twice"
    yield f"{count} workers lost in mid-run (simulated)", told, "0, 0"


def one_lost(
    folder: Path, patch: pytest.MonkeyPatch, place: int
) -> tuple[list[tuple[str, str, bool]], list[Cell], list[CellResult]]:
    """Lose the worker of the ``place``-th of twelve cells; return what was judged, and how."""
    workers = Workers(offers={name: {"ep:cpu": 1} for name in "abc"})
    patch.setattr(coordinator, "connected", lambda *_: contextlib.nullcontext(workers))
    patch.setattr(coordinator, "_TICK_SECONDS", 0.02)
    paths = [save(linear(), folder / "zoo" / f"m{number}.onnx") for number in range(4)]
    cells = [
        each for path in paths for each in cells_of(path, "original", "simplify", "optimize")
    ]

    def judge(address: str, cell: Cell) -> CellResult:
        if cell.id == cells[place].id and not workers.lost:
            workers.lost.add(address)
        return passed(address, cell)

    workers.judge = judge
    cluster = Cluster(CLUSTER, 1)
    cluster.start(grouped(cells, {}, by_provider=True), [], lambda cell: cell.card.path)
    verdicts = [cluster.verdict(each).result for each in cells]
    cluster.close()
    return workers.log, cells, verdicts


def lost_processes(count: int) -> Iterator[Row]:
    """Worker processes of Dask that are killed or cut off, and the coordinator after them."""
    python = ROOT / ".venv-cluster/bin/python"
    what = f"{count} workers of Dask killed or cut off, coordinators restarted"
    if not python.is_file():
        yield what, "not measured: make test-cluster", "0 lost, 0 twice"
        return
    failed = 0
    for number in range(count):
        how = "killed" if number % 2 else "cut off"
        code, _ = run_pytest(str(python), "-m", "providers", f"{LOST_WORKER}[{how}]")
        failed += code != 0
    yield (
        what,
        f"{failed} runs lost some" if failed else "0 lost, 0 twice",
        "0 lost, 0 twice",
    )


def beside_others() -> Iterator[Row]:
    """The accuracy of the zoo beside ONNX Runtime's own time, and beside Polygraphy."""
    for what, test, wanted in (
        (
            "accuracy alone beside ONNX Runtime's own, beyond 3 s",
            "test_the_default_matrix_costs_little_beside_onnx_runtime_itself[accuracy alone]",
            "1.3x",
        ),
        *(
            (
                f"zoo under two levels: polygraphy's time beside ours, --jobs {jobs}",
                "test_one_run_over_the_zoo_is_five_times_faster_than_polygraphy_model_by_model"
                f"[{jobs}]",
                "5x",
            )
            for jobs in ("1", "auto")
        ),
    ):
        _, said = run_pytest(
            sys.executable, "-s", "-m", "performance", f"{WHOLE_RUN}::{test}"
        )
        ratios = sorted(float(ratio) for ratio in re.findall(r": ([\d.]+)x", said))
        median = f"{ratios[len(ratios) // 2]:.2f}x" if ratios else "not measured: it failed"
        yield what, median, wanted


def run_pytest(
    python: str, *words: str, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run tests of this repository; return pytest's exit code and what it printed."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    ended = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout


NIGHTS = 60
_LOOK_BACK = """
import resource, sys, time
from pathlib import Path
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.run.background import background

folder = Path(sys.argv[1])
with History(folder / FILE_NAME) as past:
    run = past.runs()[-1]
    cells = past.cells(run.id)
started = time.perf_counter()
found = background(folder, run, cells)
seconds = time.perf_counter() - started
assert len(found.trends) == len(cells)
print(f"{seconds:.1f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MB")
"""


def nights(count: int) -> Iterator[Row]:
    """What a report asks of the history of two months, and what that takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with History(folder / FILE_NAME) as past:
            for number in range(NIGHTS):
                past.begin(replace(RUN, id=f"night{number:02}"))
                past.put_all([cell(f"v{place}") for place in range(count)])
        size = (folder / FILE_NAME).stat().st_size / NIGHTS / 1e6
        yield f"history: {count:,} cells, a night's share of the file", f"{size:.0f} MB", ""
        done = subprocess.run(
            [sys.executable, "-c", _LOOK_BACK, name],
            capture_output=True,
            text=True,
            check=True,
        )
        yield f"  {NIGHTS} nights, looked back at by a report", done.stdout.strip(), ""
