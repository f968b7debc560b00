"""Run trials in a worker, each once, within a budget.

A trial may end its worker; the next one starts another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from onnx_harness import providers
from onnx_harness.cell.workers import cell_worker
from onnx_harness.diagnose import apart, attempts, trials
from onnx_harness.diagnose.minimal import OutOfBudget
from onnx_harness.diagnose.trials import Cost, Outcome, Question, Trial
from onnx_harness.errors import WorkerDied, WorkerTimedOut, words_of
from onnx_harness.isolate import RISK, Worker
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.results.cells import Stage, Status
from onnx_harness.results.diagnosis import Spent

Answer = TypeVar("Answer")

# The first trial may use up this share of the budget, and a slow one has this long at least.
_SHARE, LEAST_SECONDS = 0.15, 5.0
LEAST_HANG_SECONDS = 2.0
# Once a trial has ended, others may take so many times what it took: they do about as much, and
# what else runs on the machine comes and goes.
_SLOWER = 5.0
# A trial that isn't expected to hang is given so many times the limit before it counts as hanging.
_SECOND_CHANCE = 2.0
_MOST_DEATHS = 8


class TrialRunner:
    """The trials of one question: their worker, their outcomes and what they cost.

    Attributes:
        forked: trials are forked from the worker, since one has died.
        limit: seconds that a trial may take.
        hunts_hang: the failure looked for is a hang. Where it isn't, a trial that reaches the limit
            is given a longer one.
        slowest: seconds of the slowest trial that ended by itself; 0 before there is one.
        timed_out: evidence on trials that didn't end within the longer limit either.
    """

    def __init__(self, question: Question, seconds: float) -> None:
        """Nothing is started before it's needed.

        Args:
            question: what is diagnosed.
            seconds: the budget.
        """
        self.question = question
        self.forked = False
        self.limit = max(LEAST_SECONDS, _SHARE * seconds)
        self.hunts_hang = False
        self.slowest = 0.0
        self.timed_out: list[str] = []
        self._longest = math.inf
        self._untouched = 0.0  # seconds of the slowest trial before a hang was looked for
        self._seconds = seconds
        self._started = time.monotonic()
        self._spent = Spent()
        self._outcomes: dict[Trial, Outcome] = {}
        self._worker: Worker | None = None
        # Seconds of the first warm-up, which a run has behind it already.
        self._preparing = 0.0
        self._cold = True
        self._call_seconds = 0.0  # of the last call of the worker, which was warm

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._seconds + self._preparing - (time.monotonic() - self._started)

    @property
    def spent(self) -> Spent:
        """The cost so far."""
        return replace(self._spent, seconds=round(time.monotonic() - self._started, 3))

    def add(self, cost: Cost) -> None:
        """Count what something other than a trial has cost."""
        self._spent = replace(
            self._spent,
            transforms=self._spent.transforms + cost.transforms,
            sessions=self._spent.sessions + cost.sessions,
            runs=self._spent.runs + cost.runs,
        )

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def still_fails(self, trial: Trial, failure: Outcome) -> bool:
        """Return whether a trial fails in the same way as ``failure``.

        The predicate of every reduction.
        """
        return trials.same_failure(failure, self.trial(trial))

    def trial(self, trial: Trial, limit: float | None = None) -> Outcome:
        """Return what comes of a trial; each is tried once.

        Args:
            trial: what is tried.
            limit: seconds that it may take, where it isn't the limit of all.

        Raises:
            OutOfBudget: there is no time left for it to end.
        """
        if trial in self._outcomes:
            return self._outcomes[trial]
        outcome = self._timed(trial, self.limit if limit is None else limit)
        if outcome.manner == "hang" and limit is None and not self.hunts_hang:
            longer = _SECOND_CHANCE * self.limit
            outcome = self._timed(trial, longer)
            if outcome.manner == "hang":
                self.timed_out.append(
                    f"a trial was given up after {longer:.3g} s: it fails otherwise"
                )
        self._outcomes[trial] = outcome
        return outcome

    def expect_hang(self) -> None:
        """Look for a hang from here on.

        What trials take is measured anew: they end at the stage that hangs.
        """
        self.hunts_hang = True
        self._untouched, self.slowest = self.slowest, 0.0

    def shorten(self, harmless: Trial) -> None:
        """Where a hang is looked for, let trials take no more than a few times what one takes.

        Args:
            harmless: a trial that makes what the others start from, and should pass.
        """
        if not self.hunts_hang:
            return
        if self.trial(harmless, limit=self.limit).manner == "hang":
            return
        self.slowest = 0.0  # what it starts from is made by now
        self.trial(replace(harmless, attempt=1), limit=self.limit)
        self.slowest = self.slowest or self._untouched
        self._longest = self.limit
        self.limit = LEAST_HANG_SECONDS
        self._adapt()

    def forget_hangs(self) -> None:
        """Look for another failure from here on: what was taken for a hang is tried again."""
        self.hunts_hang = False
        self._longest = math.inf
        self._adapt()
        for trial, outcome in list(self._outcomes.items()):
            if outcome.manner == "hang":
                del self._outcomes[trial]

    def _adapt(self) -> None:
        self.limit = min(max(self.limit, _SLOWER * self.slowest), self._longest)

    def _timed(self, trial: Trial, limit: float) -> Outcome:
        """Try, within a limit that a trial which ends in time may raise.

        Raises:
            OutOfBudget: the budget ended before the limit was reached.
        """
        available = self.left
        outcome = self._tried(trial, limit)
        self.add(outcome.cost)
        if outcome.manner != "hang":
            self.slowest = max(self.slowest, self._call_seconds)
            self._adapt()
        elif limit > max(available, LEAST_HANG_SECONDS):
            raise OutOfBudget
        return outcome

    def _tried(self, trial: Trial, limit: float) -> Outcome:
        for _ in range(_MOST_DEATHS):
            try:
                if self.forked:
                    seconds = min(limit, max(self.left, LEAST_HANG_SECONDS))
                    return self.ask(apart.attempt_apart, trial, seconds, limit=limit)
                return self.ask(attempts.attempt, trial, limit=limit)
            except OutOfBudget:
                raise
            except WorkerDied as death:
                # What the worker died of and can do without, it leaves out the next time. What was
                # late there would be late again.
                late = isinstance(death, WorkerTimedOut)
                if late or not death.stage.startswith(RISK):
                    return apart.of_note(
                        death.stage, apart.too_long(limit) if late else death.what
                    )
            except Exception as error:  # of the harness itself: no verdict on what was tried
                return Outcome(Status.ERROR, Stage.LOAD, words_of(error))
        return Outcome(
            Status.ERROR, Stage.LOAD, "the untouched model ends the process again and again"
        )

    def ask(
        self,
        function: Callable[..., Answer],
        *args: Any,
        limit: float | None = None,
        grace: float = 0.0,
    ) -> Answer:
        """Return what ``function(question, *args)`` gives in the worker.

        Args:
            function: of the question and ``args``.
            args: further arguments.
            limit: seconds that it may take, as far as they are left; None: what a trial may.
            grace: seconds that it may take beyond the budget, for what is written at its end.

        Raises:
            OutOfBudget: there is no time left.
            WorkerDied: it died of it.
        """
        if self.left <= 0:
            raise OutOfBudget
        if self._cold:
            started = time.monotonic()
            self._warm()
            self._preparing = self._preparing or time.monotonic() - started
        worker = self._started_worker()
        share = min(self.limit if limit is None else limit, self.left)
        seconds = max(share, LEAST_HANG_SECONDS) + grace
        # The forked one ends first.
        worker.limit(seconds + (LEAST_SECONDS if self.forked else 0.0))
        started = time.monotonic()
        try:
            return worker.call(
                WithLibraries(self.question.task.custom_ops, function), self.question, *args
            )
        except WorkerDied:
            self._cold = True
            raise
        finally:
            self._call_seconds = time.monotonic() - started

    def _started_worker(self) -> Worker:
        if self._worker is None:
            task = self.question.task
            candidate = self.question.candidate or task.model
            self._worker = cell_worker(
                task.settings,
                providers.get(task.cell.provider).environment,
                preload=("onnx_harness.diagnose.attempts", "onnx", "onnxruntime"),
                readable=(task.model, task.cell.card.path, candidate),
                writable=(self.question.folder,),
            )
        return self._worker

    def _warm(self) -> None:
        """Have a fresh worker load the reference, outside the limits of a trial.

        It is the same for all of them.
        """
        self._cold = False
        for _ in range(_MOST_DEATHS):
            worker = self._started_worker()
            worker.limit(self.question.task.settings.cell_timeout)
            try:
                worker.call(
                    WithLibraries(self.question.task.custom_ops, attempts.warm),
                    self.question,
                )
            except WorkerDied as death:
                if death.stage.startswith(RISK):
                    continue
            except Exception:  # the first trial meets it again, and says where
                return
            return
