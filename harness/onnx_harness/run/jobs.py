"""Several processes that judge at once, each the cells of one model after another."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Protocol

import psutil

from onnx_harness.cell.matrix import Cell
from onnx_harness.isolate import default_memory_bytes
from onnx_harness.results.cells import CellResult
from onnx_harness.results.run import this_host
from onnx_harness.run.schedule import LEAST_BYTES, Group

_LAST_SECONDS = 10.0


class Judge(Protocol):
    """A runner, which judges cells in a process of its own."""

    def judge(self, cell: Cell) -> CellResult:
        """Return the verdict."""

    def close(self) -> None:
        """End the process, whatever it is doing."""


def job_count(requested: int) -> int:
    """Return how many processes judge at once.

    Args:
        requested: by ``--jobs``; 0 stands for as many as there are cores, and memory for.
    """
    if requested:
        return requested
    available = min(default_memory_bytes(), int(psutil.virtual_memory().available))
    return max(1, min(this_host().cores, available // LEAST_BYTES))


class Jobs:
    """Judges groups of cells in the background; whoever wants a verdict waits for it.

    A group is begun when there is a process for it, and memory beside those that run. When no group
    is left to begin, an idle process takes cells from the end of the group that has most of them
    left.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        count: int,
        judge: Callable[[], Judge],
        *,
        memory_bytes: int | None = None,
    ) -> None:
        """Begin at once.

        Args:
            groups: in the order in which they are to be begun.
            count: of processes.
            judge: makes what judges in one of them; called in the thread that will use it.
            memory_bytes: that all of them together may hold; None: what cells may here.
        """
        self._waiting = deque(groups)
        self._running: list[_Begun] = []
        self._memory = default_memory_bytes() if memory_bytes is None else memory_bytes
        self._make = judge
        self._judges: list[Judge] = []
        self._ended = False
        self._changed = threading.Condition()
        futures: dict[str, Future[Judge]] = {}
        for group in groups:
            for cell in group.cells:
                futures[cell.id] = Future()
        self._verdicts = futures
        threads = []
        for number in range(min(count, len(self._verdicts))):
            threads.append(
                threading.Thread(
                    target=self._work, name=f"onnx-harness-job-{number + 1}", daemon=True
                )
            )
        self._threads = threads
        for thread in self._threads:
            thread.start()

    def __contains__(self, cell: Cell) -> bool:
        """Return whether the cell is among those that are judged here."""
        return cell.id in self._verdicts

    def judge_of(self, cell: Cell) -> Judge:
        """Return what has judged the cell, as soon as it has.

        Raises:
            CancelledError: it was closed before that.
            Exception: what making a judge raised.
        """
        return self._verdicts[cell.id].result()

    def join(self) -> None:
        """Wait until every cell is judged, and end the processes.

        What follows is alone on the machine.
        """
        for thread in self._threads:
            thread.join()
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            judges = list(self._judges)
            self._changed.notify_all()
        for judge in judges:
            judge.close()
        for verdict in self._verdicts.values():
            verdict.cancel()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_LAST_SECONDS)

    def _work(self) -> None:
        try:
            judge = self._make()
            with self._changed:
                self._judges.append(judge)
            while (share := self._next()) is not None:
                self._judge_all(judge, *share)
        except BaseException as error:  # whoever waits for a verdict has to hear of it
            for verdict in self._verdicts.values():
                if not verdict.done():
                    verdict.set_exception(error)

    def _judge_all(self, judge: Judge, begun: _Begun, helps: bool) -> None:
        while (cell := self._take(begun, helps)) is not None:
            judge.judge(cell)
            with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
                self._verdicts[cell.id].set_result(judge)
            with self._changed:
                begun.prepared = True
                self._changed.notify_all()
        with self._changed:
            begun.processes -= 1
            if begun.processes == 0:
                self._running.remove(begun)
            self._changed.notify_all()

    def _take(self, begun: _Begun, helps: bool) -> Cell | None:
        with self._changed:
            if self._ended or not begun.cells:
                return None
            return begun.cells.pop() if helps else begun.cells.popleft()

    def _next(self) -> tuple[_Begun, bool] | None:
        """Take the next group, or a share in one that runs and whether it is one.

        None when there is nothing left.
        """
        with self._changed:
            while not self._ended:
                helps = not self._waiting
                begun = self._share() if helps else self._begin()
                if begun is not None:
                    return begun, helps
                if not self._waiting and not any(job.cells for job in self._running):
                    return None
                self._changed.wait(1)
        return None

    def _begin(self) -> _Begun | None:
        used = sum(job.group.peak_bytes * job.processes for job in self._running)
        for group in self._waiting:  # a smaller one may fit where the next doesn't
            if not self._running or used + group.peak_bytes <= self._memory:
                self._waiting.remove(group)
                begun = _Begun(group)
                self._running.append(begun)
                return begun
        return None

    def _share(self) -> _Begun | None:
        used = sum(job.group.peak_bytes * job.processes for job in self._running)
        room = self._memory - used
        able = [
            job
            for job in self._running
            if job.prepared and job.cells and job.group.peak_bytes <= room
        ]
        if not able:
            return None
        most = max(able, key=lambda job: len(job.cells))
        most.processes += 1
        return most


class _Begun:
    """A group that is being judged.

    Attributes:
        cells: that nobody has begun.
        processes: that judge it.
        prepared: a cell has ended, so that what all of them share is in the cache.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.cells = deque(group.cells)
        self.processes = 1
        self.prepared = False
