"""The run: what judges cells one after another, and survives every one of them."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from onnx_harness import providers
from onnx_harness.cards import fetch
from onnx_harness.cards.unlinked import unlinked
from onnx_harness.cell import pipeline, timing
from onnx_harness.cell.comparison import Pair
from onnx_harness.cell.content import machine_of
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import Judged, RunNote, Task
from onnx_harness.errors import (
    HarnessError,
    ResultsError,
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    named,
)
from onnx_harness.gate import verdicts
from onnx_harness.gate.pinned import Pinned
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.isolate import RISK, Worker, noted
from onnx_harness.judging.reference import FEED
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.providers.probe import Availability, probe
from onnx_harness.providers.sessions import thread_environment
from onnx_harness.results.cells import CellResult, PinnedRecord, Stage, Status, Symptom
from onnx_harness.results.run import this_host
from onnx_harness.results.workbench import workbench
from onnx_harness.run.fatal import FatalSet, counts_against, with_crash, with_remarks
from onnx_harness.run.jobs import Jobs
from onnx_harness.run.past import Past
from onnx_harness.run.schedule import Group
from onnx_harness.settings import Settings

if TYPE_CHECKING:
    from onnx_harness.run.cluster.messages import RemoteVerdict
    from onnx_harness.run.remote import Remote

Answer = TypeVar("Answer")

MACHINE_RETRIES = 2
"""So often is a cell judged again that failed for the machine's sake: no process, no room."""

MOST_DEATHS = 8
"""So often may what is tried on the untouched model end the process.

Feeds of sizes that nobody uses, levels that its noise is measured at. Then the model is what is
wrong.
"""


class Runner:
    """Judges cells in a worker process and times those that pass.

    Attributes:
        past: what earlier runs found out.
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
    ) -> None:
        """Nothing is started before it's needed.

        Args:
            settings: of the run.
            plain: judge by usual inputs and tolerances alone; for measuring what the rest costs.
            recorded: a ``.npz`` whose input sets are used instead of all others.
            threads: of the worker's sessions, where several runners share the machine.
        """
        self.settings = settings
        self._plain = plain
        self._recorded = recorded
        self._threads = threads
        self._jobs: Jobs | None = None
        self._cluster: Remote | None = None
        self._closed = False
        self.devices: dict[str, str] = {}
        self.past = Past(settings)
        self._worker: Worker | None = None
        self._judged: dict[str, Judged] = {}
        self._paths: dict[Path, Path] = {}
        self._pinned: Pinned | None = None
        self._timed: dict[str, tuple[Cell, CellResult]] = {}  # beside the pinned reference
        self._without_unusual: dict[Path, str] = {}  # model to what it died of
        self._fatal: dict[
            str, list[FatalSet]
        ] = {}  # by cell: unusual input sets that the worker died of
        self._unloadable: dict[
            Path, Judged
        ] = {}  # model to the verdict on its load, which no variant has a part in
        self._deaths: Counter[Path] = Counter()  # of what can be done without, by model

    def start(self) -> None:
        """Start the worker now: it gets ready while the run is still being prepared."""
        with contextlib.suppress(
            WorkerNotStarted
        ):  # whoever needs it meets the error, where it can be told
            self._started_worker()

    def start_jobs(self, groups: Sequence[Group], count: int) -> None:
        """Judge those cells in the background, in ``count`` processes.

        :meth:`judge` waits for each.
        """
        cores = this_host(self.devices).cores

        def other() -> Runner:
            return Runner(
                self.settings,
                plain=self._plain,
                recorded=self._recorded,
                threads=max(1, cores // count),
            )

        self._jobs = Jobs(groups, count, other)

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
        self._cluster.start(groups, timed, _plain_file, say)

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
            return Availability(provider, usable=False, reason=f"trying it, {error}", mend=None)
        if availability.device:
            self.devices[provider] = availability.device
        return availability

    def judge(self, cell: Cell) -> CellResult:
        """The verdict on ``cell`` up to ``compare``; found once per run.

        Never raises for what a model does.
        """
        if cell.id not in self._judged and (earlier := self.past.verdict(cell)) is not None:
            self._judged[cell.id] = Judged(replace(earlier, latency=None))
        if cell.id not in self._judged and self._jobs is not None and cell in self._jobs:
            self._adopt(cell, cast("Runner", self._jobs.judge_of(cell)))
        if cell.id not in self._judged and self._cluster is not None and cell in self._cluster:
            self._take(cell, self._cluster.verdict(cell))
        if cell.id not in self._judged:
            unloadable = self._unloadable.get(cell.card.path)
            judged = (
                self._judge_persistently(cell)
                if unloadable is None
                else _of_another_cell(unloadable, cell)
            )
            if self._worker is not None and unloadable is None:
                judged = replace(
                    judged, result=replace(judged.result, peak_bytes=self._worker.peak_bytes)
                )
            self._judged[cell.id] = judged
        return self._judged[cell.id].result

    def time(self, cell: Cell, benchmark: Any) -> CellResult:
        """Return the verdict on a cell that :meth:`judge` passed, with its latency.

        Where it has none, it has the reason.
        """
        self.end_jobs()
        result = self.judge(cell)
        if self._cluster is not None and self._cluster.times(cell):
            return self._with_times(cell, result, self._cluster.timed(cell))
        task = self.task(cell)
        try:
            if (
                self._judged[cell.id].artifact is None
            ):  # its verdict is an earlier run's, and the cache may be emptied
                path, level = self.call(pipeline.place_of_artifact, task)
                self._judged[cell.id] = Judged(result, path, level)
            sets = self.call(timing.timing_inputs, task)
            record = timing.time_cell(task, self._judged[cell.id], sets, benchmark)
        except Exception as error:
            reason = f"can't be timed: {named(error)}"
            return replace(result, status=Status.ERROR, stage=Stage.LATENCY, reason=reason)
        # pytest-benchmark was told not to measure: then neither is anything timed beside the
        # reference.
        result = self.beside(
            cell, replace(result, latency=record), None if record is None else dict(sets[0])
        )
        self._timed[cell.id] = (cell, result)
        return result

    def check_reference(self, cells: int) -> str | None:
        """Try the pinned reference environment.

        How often a cell is timed in pairs with it is settled too.

        Args:
            cells: how many are going to be timed.

        Returns:
            How many pairs each gets, and why; None where no environment was named.

        Raises:
            UsageError: there is none.
            GateError: it doesn't work.
            ResultsError: the accepted levels can't be read.
        """
        if self.settings.gate_reference is None:
            return None
        choice = verdicts.lockstep_pairs(max(cells, 1))
        self._pinned = Pinned(
            self.settings.gate_reference, self.settings, this_host(self.devices), choice.pairs
        )
        self._pinned.check()
        return choice.why if cells else None

    def beside(
        self, cell: Cell, result: CellResult, values: dict[str, Any] | None = None
    ) -> CellResult:
        """Add to ``result`` what the pinned reference makes of the cell.

        It's timed on ``values`` where there are any.
        """
        if self._pinned is None:
            return result
        try:
            task = self.task(cell)
        except HarnessError:  # it was told in the verdict: there is no model
            return result
        return replace(result, pinned=self._pinned.record(task, self._judged[cell.id], values))

    def settle(self, say: Callable[[str], None]) -> Iterator[CellResult]:
        """The verdicts on times beside the reference, when all cells were timed.

        Doubtful ones are measured again.

        Args:
            say: takes a line for each part of a measurement that is made again, before it is made.

        Yields:
            The newer state of each cell that has an accepted level; of one that is measured again,
            twice.
        """
        if self._pinned is None:
            return
        decided = self._pinned.decide()
        for name, first in decided.items():
            yield replace(self._timed[name][1], pinned=first)
        waiting = deque(self._pinned.doubtful())
        count, settled, turns = len(waiting), 0, Counter[str]()
        while waiting:  # a part of each in turn: see `verdicts.PART_PAIRS`
            name = waiting.popleft()
            cell, result = self._timed[name]
            turns[name] += 1
            done = f"{settled} of {count} settled"
            say(
                f"doubtful latencies measured again, on fresh pairs in turn, {done}: {name}, turn "
                f"{turns[name]}"
            )
            try:
                sets = self.call(timing.timing_inputs, self.task(cell))
                record: PinnedRecord | None = self._pinned.again(name, dict(sets[0]))
            except Exception as error:  # as in `time`: whatever a model does, the run goes on
                record = verdicts.without_second(decided[name], named(error))
            if record is None:
                waiting.append(name)
                continue
            settled += 1
            yield replace(result, pinned=record)

    def apart(self, settings: Settings, recorded: Path | None) -> Runner:
        """Return a runner of other settings on the same worker process.

        Ending that is left to this one.
        """
        runner = Runner(settings, recorded=recorded)
        runner._worker = self._started_worker()
        return runner

    def call(self, function: Callable[..., Answer], *args: Any) -> Answer:
        """Return what ``function(*args)`` says, in the worker. Raises as :meth:`ask` does.

        The first argument, where it's a task or a pair, says which custom operators the sessions
        get.
        """
        subject = args[0] if args else None
        libraries = subject.custom_ops if isinstance(subject, Task | Pair) else ()
        return self._started_worker().call(WithLibraries(libraries, function), *args)

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
        if self._jobs is not None:
            self._jobs.close()
        if self._cluster is not None:
            self._cluster.close()
        if self._pinned is not None:
            self._pinned.close()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            with contextlib.suppress(ResultsError):
                workbench().cache.prune_if_due()

    def _started_worker(self) -> Worker:
        if self._worker is None:
            if self._closed:
                raise WorkerNotStarted("the run has ended")
            environment = {} if self._threads is None else thread_environment(self._threads)
            for name in self.settings.provider:
                environment.update(providers.get(name).environment)
            self._worker = Worker(
                self.settings.limits,
                environment,
                preload=("onnx_harness.cell.pipeline", "onnx", "onnxruntime"),
            )
        return self._worker

    def task(self, cell: Cell) -> Task:
        """Return what the worker is given to judge a cell; its model is fetched where need be."""
        if cell.card.path not in self._paths:
            path = fetch.materialize(cell.card)
            self._paths[cell.card.path] = self._started_worker().call(unlinked, path)
        unusual = not self._plain and cell.card.path not in self._without_unusual
        return Task(
            cell,
            self._paths[cell.card.path],
            self.settings,
            unusual=unusual,
            explained=not self._plain,
            skipped=tuple(fatal.place for fatal in self._fatal.get(cell.id, ())),
            recorded=self._recorded,
        )

    def _adopt(self, cell: Cell, runner: Runner) -> None:
        """Take over what another runner found out about a cell, for whoever asks further."""
        self._judged[cell.id] = runner._judged[cell.id]
        if cell.id in runner._fatal:
            self._fatal[cell.id] = runner._fatal[cell.id]
        if cell.card.path in runner._without_unusual:
            self._without_unusual[cell.card.path] = runner._without_unusual[cell.card.path]

    def told_elsewhere(self, cell: Cell) -> RemoteVerdict:
        """Return what was found of a cell that :meth:`judge` has judged, for another machine."""
        from onnx_harness.run.cluster.messages import RemoteVerdict

        judged, machine = self._judged[cell.id], machine_of(this_host(self.devices))
        return RemoteVerdict(
            replace(judged.result, machine=machine.host),
            machine,
            judged.level,
            judged.failing,
            judged.crashed,
            tuple(self._fatal.get(cell.id, ())),
            self._without_unusual.get(cell.card.path, ""),
        )

    def _take(self, cell: Cell, remote: RemoteVerdict) -> None:
        """Take over what another machine found out about a cell."""
        judged = remote.judged
        if remote.machine.fingerprint == machine_of(this_host()).fingerprint:
            judged = replace(judged, result=replace(judged.result, machine=None))
        self._judged[cell.id] = judged
        self.past.judged_on(cell, remote.machine)
        if remote.fatal:
            self._fatal[cell.id] = list(remote.fatal)
        if remote.died:
            self._without_unusual[cell.card.path] = remote.died

    def _with_times(self, cell: Cell, accurate: CellResult, remote: RemoteVerdict) -> CellResult:
        """Return the verdict on a cell with its latency as another machine took it."""
        here = remote.machine.fingerprint == machine_of(this_host()).fingerprint
        self.past.judged_on(cell, remote.machine)
        return replace(
            accurate,
            status=remote.result.status,
            stage=remote.result.stage,
            reason=remote.result.reason,
            latency=remote.result.latency,
            machine=None if here else remote.machine.host,
        )

    def _judge_persistently(self, cell: Cell) -> Judged:
        """Judge again by the kind of failure.

        The machine's twice, a crash once, to tell whether it stays; no verdict.

        A crash that doesn't come back is a failure all the same, and says that it is flaky.
        """
        judged = self._judge(cell)
        for _ in range(MACHINE_RETRIES):
            if judged.result.symptom is not Symptom.ENVIRONMENT:
                break
            judged = self._judge(cell)
        if not judged.crashed:
            return judged
        self._unloadable.pop(cell.card.path, None)
        again = self._judge(cell)
        if again.crashed or again.result.symptom is Symptom.ENVIRONMENT:
            return judged
        note = (
            f"flaky: judged once more, it didn't crash, and ended as {again.result.status} at "
            f"{again.result.stage}"
        )
        return replace(judged, result=replace(judged.result, notes=(*judged.result.notes, note)))

    def _judge(self, cell: Cell) -> Judged:
        ended = CellResult(
            id=cell.id,
            model=cell.card.name,
            model_sha256="",
            variant=cell.variant.id,
            provider=cell.provider,
            status=Status.ERROR,
            stage=Stage.LOAD,
            card_sha256=cell.card.digest(),
        )
        try:
            judged = self.call(pipeline.judge, self.task(cell))
            if (died := self._without_unusual.get(cell.card.path)) is not None:
                note = f"fed usual inputs alone: on unusual ones, {died}"
                judged = replace(
                    judged, result=replace(judged.result, notes=(*judged.result.notes, note))
                )
            if judged.result.stage is Stage.LOAD:
                self._unloadable[cell.card.path] = judged
            return self._with_fatal_sets(cell, judged)
        except WorkerDied as death:
            at_load = death.stage == Stage.LOAD or death.stage.startswith(f"{RISK}{FEED}")
            if (set_note := RunNote.read(death.stage)) is not None:
                return self._died_running(cell, ended, death, set_note)
            fed_unusual = death.stage.removeprefix(RISK).startswith(UNUSUAL)
            if (
                fed_unusual
                and not self._may_try_again(cell, death)
                and cell.card.path not in self._without_unusual
            ):
                # What no user would feed killed ONNX Runtime itself: that says nothing about the
                # variant.
                self._without_unusual[cell.card.path] = death.what
                return self._judge(cell)
            if death.stage.startswith(RISK):
                if self._may_try_again(cell, death):
                    self._deaths[cell.card.path] += 1
                    return self._judge(cell)  # the worker knows what it doesn't try again
                death.stage = ""
            stage = Stage(death.stage) if death.stage else Stage.LOAD
            ended = replace(
                ended, status=Status.FAIL, stage=stage, reason=f"during {stage}, {death.what}"
            )
            if (
                cell.card.suite and stage is Stage.LOAD
            ):  # of the untouched case, before any transform
                return Judged(replace(ended, status=Status.NOT_APPLICABLE, symptom=Symptom.NOT_RUN))
            judged = Judged(
                replace(ended, symptom=Symptom.CRASH), crashed=isinstance(death, WorkerCrashed)
            )
            if at_load:
                self._unloadable[cell.card.path] = judged
            return judged
        except (WorkerNotStarted, ResultsError) as error:
            return Judged(replace(ended, reason=str(error), symptom=Symptom.ENVIRONMENT))
        except HarnessError as error:
            return Judged(replace(ended, reason=str(error)))
        except Exception as error:
            return Judged(
                replace(ended, reason=f"the harness itself failed, {type(error).__name__}: {error}")
            )

    def _may_try_again(self, cell: Cell, death: WorkerDied) -> bool:
        """Decide whether to judge a cell again after the worker's death.

        It's worth it where the worker remembers what it died of, and leaves that out.
        """
        remembered = isinstance(death, WorkerCrashed) and death.stage.startswith(RISK)
        return remembered and self._deaths[cell.card.path] < MOST_DEATHS

    def _died_running(
        self, cell: Cell, ended: CellResult, death: WorkerDied, note: RunNote
    ) -> Judged:
        """The verdict on a cell whose worker died on an input set.

        On an unusual one, that of the other sets.
        """
        fatal = self._fatal.setdefault(cell.id, [])
        if note.unusual and isinstance(death, WorkerCrashed) and len(fatal) < MOST_DEATHS:
            fatal.append(FatalSet(note.place, note.name, death.what))
            return self._judge(cell)
        reason = f"during run, on input set {note.place + 1} ({note.name}), {death.what}"
        crash = replace(
            ended, status=Status.FAIL, stage=Stage.RUN, reason=reason, symptom=Symptom.CRASH
        )
        return Judged(crash, failing=(note.place,), crashed=isinstance(death, WorkerCrashed))

    def _with_fatal_sets(self, cell: Cell, judged: Judged) -> Judged:
        """``judged`` with what is to be said of the unusual input sets that the worker died of."""
        fatal = self._fatal.get(cell.id)
        if not fatal:
            return judged
        if not counts_against(cell.variant):
            return with_remarks(
                judged, fatal, "a narrower type needn't be usable on unusual inputs"
            )
        own = []
        for fatal_set in fatal:
            if self._survives_untouched(cell, fatal_set.place):
                own.append(fatal_set)
        others = [fatal_set for fatal_set in fatal if fatal_set not in own]
        judged = with_remarks(
            judged, others, "the untouched model dies of it too, at the same optimization level"
        )
        return with_crash(judged, own) if own else judged

    def _survives_untouched(self, cell: Cell, place: int) -> bool:
        try:
            self.call(pipeline.run_untouched, self.task(cell), place)
        except WorkerDied:
            return False
        except Exception:  # it refuses that set in so many words: nothing died
            return True
        return True


def _plain_file(cell: Cell) -> Path:
    """Return the model of a cell on this machine."""
    return fetch.materialize(cell.card)


def _of_another_cell(judged: Judged, cell: Cell) -> Judged:
    """Return the verdict on a model's load as that of one more cell, which it cost no time."""
    result = replace(
        judged.result, id=cell.id, variant=cell.variant.id, provider=cell.provider, seconds={}
    )
    return replace(judged, result=result)
