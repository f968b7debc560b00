"""The run: what judges cells one after another, and survives every one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from onnx_harness import providers
from onnx_harness.cards import fetch
from onnx_harness.cards.seeded import judged_file
from onnx_harness.cell import pipeline, timing
from onnx_harness.cell.comparison import Pair
from onnx_harness.cell.content import machine_of
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import Judged, Task
from onnx_harness.cell.workers import cell_worker
from onnx_harness.errors import (
    HarnessError,
    ResultsError,
    WorkerDied,
    WorkerNotStarted,
    named,
)
from onnx_harness.gate import verdicts
from onnx_harness.gate.pinned import Pinned
from onnx_harness.isolate import Worker, noted
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.providers.probe import Availability, probe
from onnx_harness.providers.sessions import thread_environment
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.run import this_host
from onnx_harness.results.workbench import workbench
from onnx_harness.run.ahead import Ahead
from onnx_harness.run.attempts import MACHINE_RETRIES, Attempts, of_another_cell
from onnx_harness.run.jobs import Jobs
from onnx_harness.run.past import Past
from onnx_harness.run.schedule import Group
from onnx_harness.run.settling import settled
from onnx_harness.settings import Settings

if TYPE_CHECKING:
    from onnx_harness.run.cluster.messages import RemoteVerdict
    from onnx_harness.run.remote import Remote

Answer = TypeVar("Answer")


class Runner:
    """Judges cells in a worker process and times those that pass.

    Attributes:
        past: what earlier runs found out.
        reported: by cell, the verdict as its test of accuracy told it.
        warnings: what caches couldn't do, each once.
        devices: by provider that was probed, the name of the device that its sessions run on, where
            it has one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        plain: bool = False,
        recorded: Path | None = None,
        threads: int | None = None,
        readable: Sequence[Path] = (),
        machine_retries: int = MACHINE_RETRIES,
    ) -> None:
        """Nothing is started before it's needed.

        Args:
            settings: of the run.
            plain: judge by usual inputs and tolerances alone; for measuring what the rest costs.
            recorded: a ``.npz`` whose input sets are used instead of all others.
            threads: of the worker's sessions, where several runners share the machine.
            readable: where its models are, as far as that is known: a worker that is told of a
                folder later is replaced.
            machine_retries: as for `onnx_harness.run.attempts.Attempts`.
        """
        self.settings = settings
        self._plain = plain
        self._recorded = recorded
        self._threads = threads
        self._readable = readable if recorded is None else (*readable, recorded)
        self._jobs: Jobs | None = None
        self._helpers: list[Runner] = []  # of jobs that haven't begun
        self._ahead: Ahead | None = None
        self._cluster: Remote | None = None
        self._closed = False
        self.devices: dict[str, str] = {}
        self.warnings: dict[str, None] = {}
        self.past = Past(settings)
        self.reported: dict[str, CellResult] = {}
        self._worker: Worker | None = None
        self._peak_bytes: int | None = None  # of all calls for the cell in hand
        self._judged: dict[str, Judged] = {}
        self._paths: dict[Path, Path] = {}
        self._pinned: Pinned | None = None
        self._timed: dict[str, tuple[Cell, CellResult]] = {}  # beside the pinned reference
        self._attempts = Attempts(self.call, self.task, machine_retries)

    def start(self, jobs: int = 1, cells: int | None = None) -> None:
        """Start the workers now: they get ready while the run is still being prepared.

        Args:
            jobs: so many will judge at once.
            cells: there are no more, where that is known: none is started in vain.
        """
        if jobs > 1:
            self._threads = max(1, this_host(self.devices).cores // jobs)
            others = min(jobs, jobs if cells is None else cells) - 1
            self._helpers = [self._helper() for _ in range(others)]
        for runner in (self, *self._helpers):
            with contextlib.suppress(WorkerNotStarted):  # whoever needs it meets the error
                runner._started_worker()

    def _helper(self) -> Runner:
        """Return a runner like this one, for another process."""
        return Runner(
            self.settings,
            plain=self._plain,
            recorded=self._recorded,
            threads=self._threads,
            readable=self._readable,
        )

    @property
    def given(self) -> Path | None:
        """The folder for files that are made for the worker; None where there is no worker."""
        with contextlib.suppress(WorkerNotStarted):
            return self._started_worker().folder.given
        return None

    def start_jobs(self, groups: Sequence[Group], count: int) -> None:
        """Judge those cells in the background, in ``count`` processes.

        :meth:`judge` waits for each.
        """
        self._threads = max(1, this_host(self.devices).cores // count)
        first = self._helper()
        # It's idle from now on, unless the cause of a failure is looked for: that starts another.
        first._worker, self._worker = self._worker, None
        others = min(count, sum(len(group.cells) for group in groups)) - 1
        for helper in self._helpers[others:]:
            helper.close()
        ready = [*self._helpers[:others], first]
        self._helpers = []
        self._jobs = Jobs(groups, count, lambda: ready.pop() if ready else self._helper())

    def judge_ahead(self, cells: Sequence[Cell]) -> None:
        """Judge each cell as soon as the one before it has been asked for.

        Args:
            cells: in the order in which they will be asked for; none is timed meanwhile.
        """
        self._ahead = Ahead(cells, self._judge_here, self._is_told)

    def _is_told(self, judged: Judged) -> bool:
        """Return whether nothing further is found out about a cell of that verdict."""
        # A cell that fails is kept by itself, and its cause is looked for.
        failed = judged.result.status is Status.FAIL
        return not (failed or self.settings.sensitivity)

    def join_cluster(self, cluster: Remote) -> None:
        """Have cells judged there; its machines' verdicts count as earlier ones."""
        self._cluster = cluster
        self.past.machines = cluster.machines()

    def start_cluster(
        self, groups: Sequence[Group], timed: Sequence[Cell], say: Callable[[str], None]
    ) -> None:
        """Judge those cells on the cluster, and time some of them there.

        :meth:`judge` waits for each.
        """
        assert self._cluster is not None
        # The local worker belongs to this thread, and models are looked for in another one.
        self._cluster.start(groups, timed, lambda cell: fetch.materialize(cell.card), say)

    def timed_elsewhere(self, cell: Cell) -> bool:
        """Return whether the cluster times the cell."""
        return self._cluster is not None and self._cluster.times(cell)

    def end_jobs(self) -> None:
        """Wait for what is judged in the background.

        What is timed has to be alone on the machine.
        """
        if self._jobs is not None:
            self._jobs.join()

    def warm(self) -> None:
        """Wait until the worker is ready, so that what is timed next isn't its start."""
        self._started_worker().call(noted)

    def probe(self, provider: str) -> Availability:
        """Return whether ``provider`` can be used here, found out by using it, in the worker."""
        try:
            if self._cluster is not None:
                availability = self._cluster.probe(provider)
            else:
                availability = self._started_worker().call(probe, provider)
        except (WorkerDied, WorkerNotStarted) as error:
            why = f"trying it, {error}"
            return Availability(provider, usable=False, reason=why, mend=None)
        if availability.device:
            self.devices[provider] = availability.device
        return availability

    def judge(self, cell: Cell) -> CellResult:
        """The verdict on ``cell`` up to ``compare``; found once per run.

        Never raises for what a model does.
        """
        if cell.id not in self._judged:
            self._find(cell)
        self.warnings |= dict.fromkeys(self._judged[cell.id].warnings)
        return self._judged[cell.id].result

    def _find(self, cell: Cell) -> None:
        """Find the verdict: an earlier run's, one from elsewhere, or a new one."""
        if (earlier := self.past.verdict(cell)) is not None:
            self._judged[cell.id] = Judged(replace(earlier, latency=None))
        elif self._jobs is not None and cell in self._jobs:
            self._adopt(cell, cast("Runner", self._jobs.judge_of(cell)))
        elif self._cluster is not None and cell in self._cluster:
            self._take(cell, self._cluster.verdict(cell))
        elif self._ahead is not None:
            self._judged[cell.id] = self._ahead.take(cell)
        else:
            self._judged[cell.id] = self._judge_here(cell)

    def _judge_here(self, cell: Cell) -> Judged:
        unloadable = self._attempts.unloadable.get(cell.card.path)
        if unloadable is not None:
            return of_another_cell(unloadable, cell)
        self._peak_bytes = None
        judged = self._attempts.judge(cell)
        return replace(judged, result=replace(judged.result, peak_bytes=self._peak_bytes))

    def forget(self, cell: Cell) -> None:
        """Judge the cell anew when it is asked for again: another model may have its id now."""
        self._judged.pop(cell.id, None)
        self._attempts.forget(cell)

    def time(self, cell: Cell, benchmark: Any) -> CellResult:
        """Return the verdict on a cell that :meth:`judge` passed, with its latency or why not."""
        self.end_jobs()
        result = self.judge(cell)
        if self._cluster is not None and self._cluster.times(cell):
            return self._with_times(cell, result, self._cluster.timed(cell))
        task = self.task(cell)
        try:
            # Where its verdict is an earlier run's, the cache may be emptied.
            artifact = self._judged[cell.id].artifact
            if artifact is None or not artifact.is_file():
                path, level = self.call(pipeline.place_of_artifact, task)
                self._judged[cell.id] = Judged(result, path, level)
            sets = self.call(timing.timing_inputs, task)
            record = timing.time_cell(task, self._judged[cell.id], sets, benchmark)
        except Exception as error:
            reason = f"can't be timed: {named(error)}"
            return replace(result, status=Status.ERROR, stage=Stage.LATENCY, reason=reason)
        # pytest-benchmark was told not to measure: then neither is anything timed beside the
        # reference.
        values = None if record is None else dict(sets[0])
        result = self.beside(cell, replace(result, latency=record), values)
        self._timed[cell.id] = (cell, result)
        return result

    def check_reference(self, cells: int, family: int | None = None) -> str | None:
        """Try the pinned reference environment, and settle how many pairs each cell gets.

        Args:
            cells: how many are going to be timed.
            family: how many the whole run times, where this is a part of one: it settles the
                pairs, and the verdicts are adjusted for it.

        Returns:
            How many pairs each gets, and why; None where no environment was named.

        Raises:
            UsageError: there is none.
            GateError: it doesn't work.
            ResultsError: the accepted levels can't be read.
        """
        reference = self.settings.gate_reference
        if reference is None:
            return None
        choice = verdicts.lockstep_pairs(family or max(cells, 1))
        host = this_host(self.devices)
        self._pinned = Pinned(reference, self.settings, host, choice.pairs, family=family)
        self._pinned.check()
        if not cells:
            return None
        why = choice.why
        if family:
            why += f". This part times {cells} of the {family} cells of the whole run"
            if not self._pinned.has_levels:
                why += ". Its report folder has no accepted levels, so none gets a verdict"
        return why

    def beside(
        self, cell: Cell, result: CellResult, values: dict[str, Any] | None = None
    ) -> CellResult:
        """Add what the pinned reference makes of the cell, timed on ``values`` if there are any."""
        if self._pinned is None:
            return result
        try:
            task = self.task(cell)
        except HarnessError:  # it was told in the verdict: there is no model
            return result
        pinned = self._pinned.record(task, self._judged[cell.id], values)
        return replace(result, pinned=pinned)

    def settle(self, say: Callable[[str], None]) -> Iterator[CellResult]:
        """When all is timed: the verdicts beside the reference, doubtful ones measured again.

        Args:
            say: takes a line for each part of a measurement that is made again, before it is made.

        Yields:
            The newer state of each cell that has an accepted level; of one that is measured again,
            twice.
        """
        if self._pinned is None:
            return
        yield from settled(
            self._pinned,
            self._timed,
            lambda cell: self.call(timing.timing_inputs, self.task(cell)),
            say,
        )

    def apart(self, settings: Settings, recorded: Path | None) -> Runner:
        """Return a runner of other settings on the same worker process, which this one ends."""
        runner = Runner(settings, recorded=recorded)
        runner.warnings = self.warnings
        runner._worker = self._started_worker()
        return runner

    def call(self, function: Callable[..., Answer], *args: Any) -> Answer:
        """Return what ``function(*args)`` says, in the worker. Raises as :meth:`ask` does.

        The first argument, where it's a task or a pair, says which custom operators the sessions
        get.
        """
        subject = args[0] if args else None
        libraries = subject.custom_ops if isinstance(subject, Task | Pair) else ()
        worker = self._started_worker()
        try:
            return worker.call(WithLibraries(libraries, function), *args)
        finally:  # a cell may take several calls, each in a process of its own
            self._peak_bytes = max(self._peak_bytes or 0, worker.peak_bytes)

    def ask(self, function: Callable[..., Answer], cell: Cell, *args: Any) -> Answer:
        """Ask ``function(task, judged, *args)`` in the worker, about a cell.

        :meth:`judge` has judged it.

        Raises:
            WorkerDied: it crashed, hung or ate its memory.
            Exception: whatever it raised.
        """
        return self.call(function, self.task(cell), self._judged[cell.id], *args)

    def revise(self, result: CellResult) -> None:
        """Keep what was found out about a cell beyond its verdict.

        It's part of the verdict from now on.
        """
        self._judged[result.id] = replace(self._judged[result.id], result=result)

    def close(self) -> None:
        """End the worker and the pinned reference, and keep the cache within its limit."""
        self._closed = True
        for helper in (self._jobs, self._cluster, self._pinned, *self._helpers):
            if helper is not None:
                helper.close()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            with contextlib.suppress(ResultsError):
                workbench().cache.prune_if_due()

    def _started_worker(self) -> Worker:
        if self._ahead is not None:
            self._ahead.settle()
        if self._worker is None:
            if self._closed:
                raise WorkerNotStarted("the run has ended")
            environment = {} if self._threads is None else thread_environment(self._threads)
            for name in self.settings.provider:
                environment.update(providers.get(name).environment)
            self._worker = cell_worker(
                self.settings,
                environment,
                preload=("onnx_harness.cell.pipeline", "onnx", "onnxruntime"),
                readable=self._readable,
            )
        return self._worker

    def task(self, cell: Cell) -> Task:
        """Return what the worker is given to judge a cell; its model is fetched where need be."""
        if cell.card.path not in self._paths:
            path = fetch.materialize(cell.card)
            worker = self._started_worker()
            self._paths[cell.card.path] = worker.call(judged_file, path, cell.card)
        unusual = not self._plain and cell.card.path not in self._attempts.without_unusual
        return Task(
            cell,
            self._paths[cell.card.path],
            self.settings,
            unusual=unusual,
            explained=not self._plain,
            skipped=tuple(fatal.place for fatal in self._attempts.fatal.get(cell.id, ())),
            recorded=self._recorded,
        )

    def _adopt(self, cell: Cell, runner: Runner) -> None:
        """Take over what another runner found out about a cell, for whoever asks further."""
        self._judged[cell.id] = runner._judged[cell.id]
        self._attempts.adopt(cell, runner._attempts)

    def told_elsewhere(self, cell: Cell) -> RemoteVerdict:
        """Return what was found of a cell that :meth:`judge` has judged, for another machine."""
        from onnx_harness.run.cluster.messages import RemoteVerdict

        judged = self._judged[cell.id]
        machine = machine_of(this_host(self.devices))
        limit = self.settings.cell_memory if judged.starved else 0
        return RemoteVerdict(
            replace(judged.result, machine=machine.host),
            machine,
            judged.level,
            judged.failing,
            judged.crashed,
            tuple(self._attempts.fatal.get(cell.id, ())),
            self._attempts.without_unusual.get(cell.card.path, ""),
            limit=limit,
            warnings=tuple(f"A worker of the cluster: {word}" for word in judged.warnings),
        )

    def _take(self, cell: Cell, remote: RemoteVerdict) -> None:
        """Take over what another machine found out about a cell."""
        judged = remote.judged
        if remote.machine.fingerprint == machine_of(this_host()).fingerprint:
            judged = replace(judged, result=replace(judged.result, machine=None))
        self._judged[cell.id] = judged
        self.past.judged_on(cell, remote.machine, remote.limit)
        self._attempts.adopt_deaths(cell, remote.fatal, remote.died)

    def _with_times(
        self, cell: Cell, result: CellResult, remote: RemoteVerdict
    ) -> CellResult:
        """Return the verdict on a cell with its latency as another machine took it."""
        here = remote.machine.fingerprint == machine_of(this_host()).fingerprint
        self.past.judged_on(cell, remote.machine)
        return remote.timed(result, None if here else remote.machine.host)
