"""Judging in several processes at once; here a judge only sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell.matrix import Cell
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult
from onnx_harness.run import jobs as jobs_room
from onnx_harness.run.jobs import Jobs, job_count
from onnx_harness.run.schedule import LEAST_BYTES, Group
from tests.unit.results_examples import cell as result_of

VARIANTS = ("original", "optimize", "simplify", "fp16", "fp16.io32", "simplify+fp16")


def group(model: str, count: int = 3, peak_bytes: int = 1) -> Group:
    card = Card(Path(f"{model}.onnx"), model, PathSource(Path(f"{model}.onnx")))
    cells = tuple(Cell(card, parse_variant(variant), "cpu") for variant in VARIANTS[:count])
    return Group(cells, 1.0, peak_bytes)


class Sleeper:
    """Takes some time for each cell, and says who took which."""

    def __init__(self, log: list[tuple[str, int]], seconds: float = 0.0) -> None:
        self._log, self._seconds = log, seconds
        self.closed = threading.Event()

    def judge(self, cell: Cell) -> CellResult:
        self._log.append((cell.id, threading.get_ident()))
        self.closed.wait(self._seconds)
        return result_of()

    def close(self) -> None:
        self.closed.set()


def sleepers(seconds: float = 0.0) -> tuple[list[tuple[str, int]], Callable[[], Sleeper]]:
    log: list[tuple[str, int]] = []
    return log, lambda: Sleeper(log, seconds)


def test_each_cell_is_judged_once_and_a_model_by_one_process() -> None:
    log, make = sleepers(0.01)
    groups = [group(f"m{number}") for number in range(6)]
    jobs = Jobs(groups, 2, make)
    jobs.join()
    assert sorted(cell for cell, _ in log) == sorted(
        cell.id for each in groups for cell in each.cells
    )
    for each in groups[:4]:  # the last ones may be shared by whoever is idle
        ids = {cell.id for cell in each.cells}
        assert len({worker for cell, worker in log if cell in ids}) == 1


def test_four_processes_on_sleeping_cells_are_nearly_four_times_as_fast() -> None:
    log, make = sleepers(0.05)
    groups = [group(f"m{number}", 1 + number % 6) for number in range(30)]
    started = time.monotonic()
    jobs = Jobs(groups, 4, make)
    jobs.join()
    ideal = len(log) * 0.05 / 4
    assert ideal / (time.monotonic() - started) > 0.8


def test_idle_processes_help_with_the_longest_group_that_is_left() -> None:
    log, make = sleepers(0.05)
    jobs = Jobs([group("only", 6)], 3, make)
    jobs.join()
    assert len({worker for _, worker in log}) > 1
    assert len(log) == 6


def test_who_is_idle_helps_where_most_is_left() -> None:
    log: list[str] = []
    ended, may_help, may_go_on = threading.Semaphore(0), threading.Event(), threading.Event()
    made: list[int] = []

    class Judge(Sleeper):
        def judge(self, cell: Cell) -> CellResult:
            log.append(cell.id)
            if not may_help.is_set() and cell.variant.id == "optimize":
                ended.release()  # it has judged the first, and takes its time for this one
                may_go_on.wait(20)
            return result_of()

    def make() -> Judge:
        made.append(1)
        if len(made) == 3:
            may_help.wait(20)
        elif len(made) == 4:
            pytest.fail("three were asked for")
        return Judge([])

    short, long = group("short", 4), group("long", 6)
    jobs = Jobs([short, long], 3, make)
    for _ in (short, long):
        assert ended.acquire(timeout=20)
    begun = len(log)
    may_help.set()
    jobs.judge_of(long.cells[-1])
    may_go_on.set()
    jobs.join()
    assert log[begun] == long.cells[-1].id
    assert sorted(log) == sorted(cell.id for each in (short, long) for cell in each.cells)


def test_what_shares_a_model_waits_until_its_first_cell_has_ended() -> None:
    log, make = sleepers(0.1)
    started = time.monotonic()
    Jobs([group("only", 2)], 2, make).join()
    assert time.monotonic() - started >= 0.2
    assert len(log) == 2


def test_groups_that_dont_fit_in_memory_together_run_one_after_another() -> None:
    running, most = [0], [0]

    class Watcher(Sleeper):
        def judge(self, _cell: Cell) -> CellResult:
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.02)
            running[0] -= 1
            return result_of()

    for count in (1, 3):  # of groups; what is idle doesn't help where it has no room
        big = [group(f"m{number}", 4, peak_bytes=60) for number in range(count)]
        Jobs(big, 3, lambda: Watcher([]), memory_bytes=100).join()
        assert most == [1]
    Jobs(big, 3, lambda: Watcher([]), memory_bytes=120).join()
    assert most[0] <= 2
    most[0] = 0
    alone = group("one", 6, peak_bytes=60)
    Jobs([alone], 3, lambda: Watcher([]), memory_bytes=130).join()
    assert most[0] <= 2  # whoever helps holds as much
    Jobs(
        [group("larger than all", 2, peak_bytes=600)],
        3,
        lambda: Watcher([]),
        memory_bytes=100,
    ).join()


def test_closing_ends_what_runs_and_tells_who_waits() -> None:
    log, make = sleepers(60)
    waited = group("m")
    jobs = Jobs([waited], 1, make)
    time.sleep(0.05)
    started = time.monotonic()
    jobs.close()
    assert time.monotonic() - started < 5
    with pytest.raises(CancelledError):
        jobs.judge_of(waited.cells[2])
    assert [cell for cell, _ in log] == [waited.cells[0].id]  # and none after it


def test_there_are_no_more_processes_than_cells_and_none_is_left() -> None:
    made: list[Sleeper] = []

    def make() -> Sleeper:
        made.append(Sleeper([]))
        return made[-1]

    Jobs([group("m", 2)], 5, make).join()
    assert len(made) == 2
    assert all(judge.closed.is_set() for judge in made)


@pytest.mark.parametrize("error", [OSError("no process"), SystemExit("no process")])
def test_a_process_that_cant_be_made_is_told_to_who_waits(error: BaseException) -> None:
    def broken() -> Sleeper:
        raise error

    waited, raised = group("m"), []

    def wait() -> None:
        try:
            Jobs([waited], 2, broken).judge_of(waited.cells[0])
        except BaseException as fault:
            raised.append(fault)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(20)
    assert raised == [error]


@pytest.mark.parametrize(
    ("cores", "limit_workers", "free_workers", "count"),
    [(8, 99, 99, 8), (8, 3, 99, 3), (8, 99, 5, 5), (2, 0, 0, 1)],
)
def test_auto_is_as_many_as_there_are_cores_and_memory_for(
    cores: int,
    limit_workers: int,
    free_workers: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = SimpleNamespace(cores=cores)
    free = SimpleNamespace(available=free_workers * LEAST_BYTES)
    monkeypatch.setattr(jobs_room, "this_host", lambda: host)
    monkeypatch.setattr(
        jobs_room, "default_memory_bytes", lambda: limit_workers * LEAST_BYTES
    )
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert job_count(0) == count
    assert job_count(3) == 3
