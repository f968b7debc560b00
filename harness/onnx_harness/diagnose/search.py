"""The search for the cause of a failure: the process that asks.

Each trial runs in a worker, which may die of it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from onnx_harness import providers
from onnx_harness.cell.state import Task
from onnx_harness.diagnose import (
    apart,
    optimizers,
    sentences,
    shrink,
    smallest_case,
    trials,
    values,
)
from onnx_harness.diagnose.budget import DEFAULT_SECONDS
from onnx_harness.diagnose.minimal import Minimal, OutOfBudget, minimal_part
from onnx_harness.diagnose.trials import Outcome, Question, Trial, same_failure
from onnx_harness.errors import WorkerDied, words_of
from onnx_harness.isolate import RISK, Worker
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.results.diagnosis import Cause, Diagnosis, Mend, NodeCause, Smallest, Spent
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant, bind_variant

Answer = TypeVar("Answer")

_LEVELS = ("disable", "basic", "extended", "layout", "all")
# A trial that hangs may use up this share of the budget, and a slow one has this long at least.
_SHARE, _LEAST_SECONDS = 0.15, 5.0
# Where something hangs, a trial is given up after so many times what the untouched model takes.
_HANGS_AFTER, _LEAST_HANG_SECONDS = 5.0, 2.0
# So often a failure that doesn't repeat at once is tried again, to tell its share.
_REPEATS = 10
_MOST_DEATHS = 8
# An input that is small is good to have, and no more.
_SHRINK_SECONDS = 8.0
# A larger set of nodes isn't the cause, it's the whole conversion.
_MOST_NAMED = 8
# Of what is left: writing the smallest model and running its script, which may hang, takes the rest
# or a little more.
_REDUCTION_SHARE, _WRITING_SECONDS = 0.7, 30.0


@dataclass(slots=True)
class Findings:
    """The knowledge so far."""

    cause: Cause = field(default_factory=Cause)
    evidence: list[str] = field(default_factory=list)
    failure: str = ""
    operators: tuple[str, ...] = ()
    kind: str = ""
    threads: bool = False
    proven: bool = False
    remark: str = ""
    end: str = ""
    smallest: Smallest | None = None
    mend: Mend | None = None


class Search:
    """The search for one cause.

    Attributes:
        findings: what is known so far; it's there when a search is interrupted, too.
    """

    def __init__(
        self,
        question: Question,
        seconds: float,
        known_failure: str = "",
        *,
        folder: Path | None = None,
        public: bool = False,
    ) -> None:
        """Nothing is started before it's needed.

        Args:
            question: what is diagnosed.
            seconds: the budget.
            known_failure: the reason that an earlier verdict gave; empty where there was none.
            folder: for the smallest model that still fails; None: it isn't searched for.
            public: replace that model's names, weights and inputs.
        """
        self.question = question
        self._folder, self._public = folder, public
        self.findings = Findings(failure=known_failure)
        self._known_failure = known_failure
        self._seconds = seconds
        self._started = time.monotonic()
        self._spent = Spent()
        self._outcomes: dict[Trial, Outcome] = {}
        self._worker: Worker | None = None
        self._preparing = 0.0  # seconds of the first warm-up, which a run has behind it already
        self._cold = True
        self._reduced = self._whole()
        self._apart = False  # trials are forked: one has died
        self._trial_seconds = max(_LEAST_SECONDS, _SHARE * seconds)

    def run(self) -> Diagnosis:
        """Search until the cause is found or the budget is spent."""
        try:
            self._search()
        except OutOfBudget:
            self.findings.end = "budget"
        finally:
            self.close()
        return self.diagnosis()

    def diagnosis(self) -> Diagnosis:
        """Return what is known so far."""
        spent = replace(self._spent, seconds=round(time.monotonic() - self._started, 3))
        findings = self.findings
        cause = findings.cause
        named = any((cause.transform, cause.level, cause.provider, cause.node, findings.threads))
        complete = named and not findings.end
        return Diagnosis(
            sentences.sentence(findings, self.question, self._seconds),
            cause,
            findings.smallest,
            findings.mend,
            spent=spent,
            evidence=tuple(findings.evidence),
            found=bool(complete),
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
        return same_failure(failure, self.trial(trial))

    def trial(self, trial: Trial) -> Outcome:
        """Return what comes of a trial; each is tried once.

        Raises:
            OutOfBudget: there is no time left.
        """
        if trial not in self._outcomes:
            outcome = self._tried(trial)
            self._add(outcome.cost)
            self._outcomes[trial] = outcome
        return self._outcomes[trial]

    def _tried(self, trial: Trial) -> Outcome:
        for _ in range(_MOST_DEATHS):
            try:
                if self._apart:
                    limit = min(self._trial_seconds, max(self.left, _LEAST_HANG_SECONDS))
                    return self.ask(apart.attempt_apart, trial, limit)
                return self.ask(trials.attempt, trial)
            except OutOfBudget:
                raise
            except WorkerDied as death:
                if not death.stage.startswith(
                    RISK
                ):  # what the worker can do without, it leaves out the next time
                    return apart.of_note(death.stage, death.what)
            except Exception as error:  # of the harness itself: no verdict on what was tried
                return Outcome(Status.ERROR, Stage.LOAD, words_of(error))
        return Outcome(
            Status.ERROR, Stage.LOAD, "the untouched model ends the process again and again"
        )

    def ask(
        self, function: Callable[..., Answer], *args: Any, patient: bool = False, grace: float = 0.0
    ) -> Answer:
        """Return what ``function(question, *args)`` gives in the worker.

        Args:
            function: of the question and ``args``.
            args: further arguments.
            patient: it may take all that is left of the budget, and not a trial's share.
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
        share = self.left if patient else min(self._trial_seconds, self.left)
        limit = max(share, _LEAST_HANG_SECONDS) + grace
        worker.limit(limit + (_LEAST_SECONDS if self._apart else 0.0))  # the forked one ends first
        try:
            return worker.call(
                WithLibraries(self.question.task.custom_ops, function), self.question, *args
            )
        except WorkerDied:
            self._cold = True
            raise

    def _started_worker(self) -> Worker:
        if self._worker is None:
            environment = providers.get(self.question.task.cell.provider).environment
            modules = ("onnx_harness.diagnose.trials", "onnx", "onnxruntime")
            self._worker = Worker(self.question.task.settings.limits, environment, preload=modules)
        return self._worker

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._seconds + self._preparing - (time.monotonic() - self._started)

    def _add(self, cost: trials.Cost) -> None:
        self._spent = replace(
            self._spent,
            transforms=self._spent.transforms + cost.transforms,
            sessions=self._spent.sessions + cost.sessions,
            runs=self._spent.runs + cost.runs,
        )

    def _say(self, line: str) -> None:
        self.findings.evidence.append(line)

    def _set(self, **parts: Any) -> None:
        self.findings.cause = replace(self.findings.cause, **parts)

    # The order of the search: cheap and coarse questions first.

    def _search(self) -> None:
        whole = self._whole()
        failure = self._confirmed(whole)
        if failure is None:
            return
        self.findings.failure = failure.reason or self._known_failure
        if failure.places and failure.stage in (Stage.RUN, Stage.COMPARE):
            self._set(input_set=self._set_name(failure.places[0]))
        if failure.stage in (Stage.TRANSFORM, Stage.CHECK, Stage.SESSION):
            whole = replace(whole, until=failure.stage)
        base = self._narrowed(whole, failure)
        base = self._provider(base, failure)
        by_runtime = self._needs_runtime(base, failure)
        if not by_runtime:  # what ONNX Runtime does beside that is another matter
            base = replace(base, level="disable")
        count = self._transform(base, failure)
        base = self._reduced = replace(base, count=count)
        if by_runtime:
            self._runtime(base, failure)
        else:
            self._parts(base, failure)
        if self.findings.cause == Cause(input_set=self.findings.cause.input_set):
            self._threads(base, failure)
        try:
            self._node(self._reduced, failure)
            self._input(self._reduced, failure)
        except OutOfBudget:
            self._say("no time was left to look for the node and the input")
        self._smallest(self._reduced, failure)
        self._mend(whole, failure)

    def _whole(self) -> Trial:
        bound, cell = self.question.bound, self.question.task.cell
        return Trial(len(bound.changing), bound.level, cell.provider)

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
                    WithLibraries(self.question.task.custom_ops, trials.warm), self.question
                )
            except WorkerDied as death:
                if death.stage.startswith(RISK):
                    continue
            except Exception:  # the first trial meets it again, and says where
                return
            return

    def _confirmed(self, whole: Trial) -> Outcome | None:
        """Return the failure where there is one that repeats.

        What else there is to say is noted.
        """
        failure = self.trial(whole)
        if failure.status is Status.NOT_APPLICABLE or failure.status is Status.ERROR:
            self.findings.end = "not judged"
            self.findings.remark = failure.reason or failure.status
            return None
        if failure.fails and failure.stage is Stage.LOAD:
            self.findings.end = "untouched"
            self.findings.remark = failure.reason or ""
            return None
        if not failure.fails and not self._known_failure:
            self.findings.end = "passes"
            return None
        if failure.symptom is Symptom.CRASH:
            self._apart = whole.provider == "cpu"
        if failure.manner == "hang":
            self._hasten(whole)
            return failure
        repeated = self.trial(replace(whole, attempt=1))
        if same_failure(failure, repeated):
            return failure
        outcomes = [failure, repeated]
        outcomes += [self.trial(replace(whole, attempt=number)) for number in range(2, _REPEATS)]
        failing = [outcome for outcome in outcomes if outcome.fails]
        if len(failing) == len(
            outcomes
        ):  # in one way or another, and what is searched for is the last one
            return failing[-1]
        self.findings.end = "flaky" if failing else "passes"
        self.findings.remark = f"{len(failing)} of {len(outcomes)}"
        self.findings.failure = next((outcome.reason or "" for outcome in failing), "")
        return None

    def _hasten(self, whole: Trial) -> None:
        """Let no trial hang much longer than the untouched model takes."""
        if self.trial(replace(whole, count=0)).fails:
            return
        started = time.monotonic()  # the first trial of a fresh worker has everything to load
        self.trial(replace(whole, count=0, attempt=1))
        seconds = time.monotonic() - started
        self._trial_seconds = min(
            self._trial_seconds, max(_LEAST_HANG_SECONDS, _HANGS_AFTER * seconds)
        )

    def _set_name(self, place: int) -> str:
        return self.ask(set_name, place)

    def _narrowed(self, whole: Trial, failure: Outcome) -> Trial:
        """Return the trial on the failing input sets alone, where it still fails alike."""
        if failure.stage not in (Stage.RUN, Stage.COMPARE) or not failure.places:
            return whole
        alone = replace(whole, places=failure.places[:1])
        return alone if self.still_fails(alone, failure) else whole

    def _provider(self, base: Trial, failure: Outcome) -> Trial:
        """Find out whether the provider is at fault: the same on the CPU is right."""
        if base.provider == "cpu":
            return base
        on_cpu = replace(base, provider="cpu")
        outcome = self.trial(on_cpu)
        if same_failure(failure, outcome):
            self._say("on the CPU it fails in the same way")
            return on_cpu
        self._set(provider=base.provider)
        self._say(f"on the CPU {_words(outcome)}")
        return base

    def _transform(self, base: Trial, failure: Outcome) -> int:
        """Return how many steps of the chain it takes to fail; 0: the untouched model does."""
        bound = self.question.bound
        if base.count == 0:
            return 0
        for count in range(base.count + 1):
            shorter = count < base.count
            outcome = self.trial(replace(base, count=count)) if shorter else failure
            chain = "+".join(step.name for step in bound.changing[:count]) or "the untouched model"
            if shorter:
                self._say(f"{chain}: {_words(outcome)}")
            if same_failure(failure, outcome):
                if count:
                    self._set(transform=bound.changing[count - 1].name)
                return count
        return base.count

    def _needs_runtime(self, base: Trial, failure: Outcome) -> bool:
        """Decide whether it takes ONNX Runtime's optimizer to fail."""
        late = (Stage.SESSION, Stage.RUN, Stage.COMPARE)
        if base.level == "disable" or failure.stage not in late or base.provider != "cpu":
            return False
        outcome = self.trial(replace(base, level="disable"))
        self._say(f"with ONNX Runtime's optimizations off: {_words(outcome)}")
        return not same_failure(failure, outcome)

    def _parts(self, base: Trial, failure: Outcome) -> None:
        """Find the minimal set of passes, rules or nodes of the transform."""
        if base.count == 0:
            return
        try:
            names = self.ask(trials.parts_of, base.count)
        except WorkerDied:
            return
        parts = self.question.bound.changing[base.count - 1].transform.parts
        if not names or parts is None:
            return
        self.findings.kind = parts.kind
        if parts.kind == "node":
            named = self.trial(replace(base, named=True))
            if not same_failure(failure, named):
                self._say(f"it takes nodes without names: once each node has one, {_words(named)}")
                return

        def fails(part: tuple[str, ...]) -> bool:
            chosen = set(part)
            off = tuple(name for name in names if name not in chosen)
            return self.still_fails(replace(base, off=off), failure)

        result = minimal_part(names, fails)
        if result.items:
            chosen = set(result.items)
            entries = []
            for name in names:
                if name not in chosen:
                    entries.append(name)
            self._reduced = replace(base, off=tuple(entries))
        self._keep_parts(parts.kind, names, result)

    def _keep_parts(self, kind: str, names: Sequence[str], result: Minimal[str]) -> None:
        plural = {"pass": "passes"}.get(kind, f"{kind}s")
        if not result.items:
            self._say(f"none of its {len(names)} {plural} is needed for that")
            return
        if result.proven:
            self.findings.proven = True
            self._say(
                f"minimal set of {len(names)} {plural}: {', '.join(result.items[:_MOST_NAMED])} "
                f"({_trials(result.trials)}; it takes each of them)"
            )
        else:
            self._say(f"narrowed down to {len(result.items)} of {len(names)} {plural}")
        if len(result.items) < len(names) or len(names) == 1:
            self._set(**{"passes" if kind == "pass" else "rules": result.items})
        if result.exhausted:
            raise OutOfBudget

    def _runtime(self, base: Trial, failure: Outcome) -> None:
        """Find ONNX Runtime's lowest level that fails, and its optimizers at fault.

        The operators that they made are found, too.
        """
        highest = _LEVELS.index(base.level)
        level = base.level
        for lower in _LEVELS[1:highest]:
            if self.still_fails(replace(base, level=lower), failure):
                level = lower
                break
        self._reduced = replace(base, level=level)
        self._set(level=level)
        self._say(f"the lowest level that fails is '{level}'")
        base = replace(base, level=level)
        names, guess = self._suspects(base, failure)
        if not names:
            return

        def fails(part: tuple[str, ...]) -> bool:
            chosen = set(part)
            off = tuple(name for name in names if name not in chosen)
            return self.still_fails(replace(base, disabled=off), failure)

        result = minimal_part(names, fails, guesses=guess)
        if not result.items or len(result.items) == len(names) > _MOST_NAMED:
            self._say(f"none of {len(names)} optimizers is needed for that")
            return
        self._set(optimizers=result.items)
        self.findings.proven = result.proven
        off = tuple(name for name in names if name not in result.items)
        self._reduced = replace(base, disabled=off)
        self._say(
            f"minimal set of its optimizers: {', '.join(result.items)} ({_trials(result.trials)})"
        )
        if result.exhausted:
            raise OutOfBudget
        self._made(base, result.items)

    def _suspects(
        self, base: Trial, failure: Outcome
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the optimizers that may be at fault, by the session's log.

        The second item is sets of them to try first.
        """
        log, healthy = self.question.folder / "session.log", self.question.folder / "healthy.log"
        if self._logs(base, log) and failure.stage is not Stage.SESSION:
            return optimizers.changing(log), []
        self._logs(base, healthy, idle=True)
        return optimizers.all_of(log, healthy), optimizers.interrupted(log, healthy)

    def _logs(self, base: Trial, log: Path, *, idle: bool = False) -> bool:
        """Keep the log of a session; whether it was made.

        A trial's own model, or one in which nothing is optimized.
        """
        try:
            self.ask(optimizers.log_session, base, log, idle)
        except OutOfBudget:
            raise
        except Exception:  # the session isn't made: that is what is looked into
            return False
        return True

    def _made(self, base: Trial, culprits: Sequence[str]) -> None:
        try:
            self.findings.operators = self.ask(optimizers.made_operators, base, culprits)
        except OutOfBudget:
            raise
        except Exception:  # what can't be opened made nothing
            return
        if self.findings.operators:
            self._say(f"it made {', '.join(self.findings.operators)}")

    def _threads(self, base: Trial, failure: Outcome) -> None:
        """Find out whether one thread is right where several aren't."""
        if failure.stage not in (Stage.SESSION, Stage.RUN, Stage.COMPARE):
            return
        outcome = self.trial(replace(base, threads=1))
        self._say(f"on one thread: {_words(outcome)}")
        self.findings.threads = not same_failure(failure, outcome)

    def _node(self, base: Trial, failure: Outcome) -> None:
        """Find the first node that departs on its own.

        It's searched for in what is left of the cell after all reductions.
        """
        outcome = self.trial(base)
        if failure.stage is not Stage.COMPARE or not outcome.places:
            return
        try:
            watch = self.ask(values.first_departure, base, outcome.places[0], patient=True)
        except OutOfBudget:
            raise
        except Exception as error:  # a graph that can't be cut has no such node
            self._say(f"its values can't be compared one by one: {words_of(error)}")
            return
        self._add(trials.Cost(sessions=watch.sessions, runs=watch.runs))
        if watch.observer:
            self._say(watch.observer)
        self._say(f"{watch.compared} of {watch.values} values compared with the reference's")
        if watch.node is None:
            return
        node, own, inherited = watch.node, _finite(watch.node.own), _finite(watch.node.inherited)
        self._set(node=NodeCause(node.name, node.op_type, own, inherited))
        right = {True: "are right", False: "are still wrong", None: "can't be had"}[watch.mended]
        self._say(f"with the reference's value in the place of '{node.value}', the outputs {right}")

    def _input(self, base: Trial, failure: Outcome) -> None:
        """Find out how little of the input set is enough."""
        outcome = self.trial(base)
        if failure.stage is not Stage.COMPARE or not outcome.places:
            return
        try:
            shown = self.ask(
                shrink.shown_by,
                base,
                outcome.places[0],
                min(self.left / 2, _SHRINK_SECONDS),
                patient=True,
            )
        except OutOfBudget:
            raise
        except Exception as error:  # what can't be changed can't be shrunk
            self._say(f"its input can't be shrunk: {words_of(error)}")
            return
        self._add(trials.Cost(sessions=shown.sessions, runs=shown.runs))
        for line in shown.words:
            self._say(line)

    def _smallest(self, base: Trial, failure: Outcome) -> None:
        """Find the smallest model that still fails, and write what shows it."""
        if self._folder is None or self.left <= 0:
            return
        place = (self.trial(base).places or failure.places or (0,))[0]
        sentence = sentences.sentence(self.findings, self.question, self._seconds)
        share = self.left * _REDUCTION_SHARE
        limit = self._trial_seconds if failure.manner == "hang" else None
        order = smallest_case.Order(
            base,
            self.findings.cause,
            failure.stage,
            place,
            sentence,
            share,
            self._folder,
            self._public,
            limit,
        )
        try:
            answer = self.ask(
                smallest_case.reduce_failure, order, patient=True, grace=_WRITING_SECONDS
            )
        except OutOfBudget:
            return
        except Exception as error:  # what can't be cut or written is no smaller
            self._say(f"no smaller model: {words_of(error)}")
            return
        self.findings.smallest = answer.smallest
        self._say(answer.words)

    def _mend(self, whole: Trial, failure: Outcome) -> None:
        """Try what mends a conversion to float16, where there is time for it."""
        halves = any(
            step.transform.precision is Precision.FP16 for step in self.question.bound.changing
        )
        if not halves or self.question.candidate is not None or failure.stage is not Stage.COMPARE:
            return
        if self.left < _LEAST_SECONDS:
            self._say("no time was left to look for a mend")
            return
        try:
            spelling, words = self.ask(trials.mend, whole, patient=True)
        except (OutOfBudget, WorkerDied):
            return
        self._say(words)
        if spelling is not None:
            self.findings.mend = Mend(spelling, True)


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None


def set_name(question: Question, place: int) -> str:
    """Return the name of an input set of the reference. Meant for the worker."""
    return trials.bench_of(question).standard.reference.sets[place].name


def diagnose(
    task: Task,
    *,
    candidate: Path | None = None,
    float16_io: bool = False,
    bound: BoundVariant | None = None,
    seconds: float = DEFAULT_SECONDS,
    known_failure: str = "",
    folder: Path | None = None,
    public: bool = False,
) -> Diagnosis:
    """Find the cause of a failure.

    Args:
        task: the cell; of two models, the untouched one, its variant empty.
        candidate: the model that should compute what the task's does; None for a cell.
        float16_io: the candidate may take and give float16.
        bound: the variant with its steps, where it isn't to be looked up by name.
        seconds: the budget.
        known_failure: the reason that an earlier verdict on it gave.
        folder: for the smallest model that still fails; None: it isn't searched for.
        public: replace that model's names, weights and inputs.

    Returns:
        The cause, as far as it was found within the budget.
    """
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-diagnose-", ignore_cleanup_errors=True
    ) as name:
        steps = bound if bound is not None else bind_variant(task.cell.variant)
        question = Question(task, steps, Path(name), candidate, float16_io)
        return Search(question, seconds, known_failure, folder=folder, public=public).run()


def _words(outcome: Outcome) -> str:
    """Return what came of a trial, in a few words."""
    if outcome.status is Status.PASS:
        return "it passes"
    return f"{outcome.status} at {outcome.stage}: {outcome.reason}"


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
