"""The search for the cause of a failure: the process that asks.

Each trial runs in a worker, which may die of it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from onnx_harness.cell.state import Task
from onnx_harness.diagnose import (
    attempts,
    handout,
    ledger_entry,
    sentences,
    smallest_case,
    trial_runner,
    trials,
)
from onnx_harness.diagnose.bench import bench_of
from onnx_harness.diagnose.budget import DEFAULT_SECONDS
from onnx_harness.diagnose.faulty_optimizers import find_optimizers
from onnx_harness.diagnose.faulty_parts import find_parts
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.found_releases import found_release
from onnx_harness.diagnose.hangs import confirm_hang, tell_hang
from onnx_harness.diagnose.localization import find_input, find_node
from onnx_harness.diagnose.minimal import OutOfBudget
from onnx_harness.diagnose.repeats import repeated
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Outcome, Question, Trial
from onnx_harness.errors import WorkerDied, words_of
from onnx_harness.judging.card_options import with_card
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.results.diagnosis import Diagnosis, Mend
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant, bind_variant

# Of what is left: writing the smallest model and running its script, which may hang, takes the rest
# or a little more.
_REDUCTION_SHARE, _WRITING_SECONDS = 0.7, 30.0


class SearchInterrupted(KeyboardInterrupt):
    """A search was interrupted.

    Attributes:
        diagnosis: what is known so far.
    """

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.sentence)
        self.diagnosis = diagnosis


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
        self.findings = Findings(failure=known_failure)
        self._folder, self._public = folder, public
        self._known_failure = known_failure
        self._seconds = seconds
        self._runner = TrialRunner(question, seconds)
        self._reduced = self._whole()
        self._anew = False

    def run(self) -> Diagnosis:
        """Search until the cause is found or the budget is spent.

        Raises:
            KeyboardInterrupt: it was interrupted; `diagnosis` is what is known so far.
        """
        try:
            self._search()
        except OutOfBudget:
            self.findings.end = "budget"
        except KeyboardInterrupt:
            self.findings.end = "interrupted"
            raise
        finally:
            self._runner.close()
        return self.diagnosis()

    def diagnosis(self) -> Diagnosis:
        """Return what is known so far."""
        findings = self.findings
        return Diagnosis(
            sentences.sentence(findings, self.question, self._seconds),
            findings.cause,
            findings.smallest,
            findings.mend,
            spent=self._runner.spent,
            evidence=(*findings.evidence, *self._runner.timed_out),
            found=findings.named and not findings.end,
        )

    # The order of the search: cheap and coarse questions first.

    def _search(self) -> None:
        whole = self._whole()
        failure = self._confirmed(whole)
        if failure is None:
            return
        self.findings.failure = failure.reason or self._known_failure
        self.findings.stage = failure.stage.value
        if self.question.candidate is None:
            self.findings.set_cause(release=found_release(self.question.task, failure))
        if failure.places and failure.stage in (Stage.RUN, Stage.COMPARE):
            self.findings.set_cause(input_set=self._runner.ask(set_name, failure.places[0]))
        if failure.stage in (Stage.TRANSFORM, Stage.CHECK, Stage.SESSION):
            whole = replace(whole, until=failure.stage)
        base = self._narrowed(whole, failure)
        base = self._provider(base, failure)
        by_runtime = self._needs_runtime(base, failure)
        if not by_runtime:  # what ONNX Runtime does beside that is another matter
            base = replace(base, level="disable")
        base = self._reduced = replace(base, count=self._transform(base, failure))
        first = self._runner.limit
        find = find_optimizers if by_runtime else find_parts
        self._reduced = find(self._runner, self.findings, base, failure)
        if self._runner.hunts_hang and not confirm_hang(
            self._runner, self.findings, self._reduced, first
        ):
            self._start_anew()
            return
        if not self.findings.named:
            self._threads(base, failure)
        try:
            find_node(self._runner, self.findings, self._reduced, failure)
            find_input(self._runner, self.findings, self._reduced, failure)
        except OutOfBudget:
            self.findings.note("no time was left to look for the node and the input")
        self._smallest(self._reduced, failure)
        self._mend(whole, failure)
        self._keep_entry()

    def _start_anew(self) -> None:
        """Search for another failure than a hang: what was taken for one is slow."""
        if self._anew:  # twice is enough
            raise OutOfBudget
        self._anew = True
        self.findings = Findings(
            failure=self._known_failure, evidence=self.findings.evidence[-1:]
        )
        self._runner.forget_hangs()
        self._search()

    def _whole(self) -> Trial:
        bound, cell = self.question.bound, self.question.task.cell
        return Trial(len(bound.changing), bound.level, cell.provider)

    def _confirmed(self, whole: Trial) -> Outcome | None:
        """Return the failure where there is one that repeats.

        What else there is to say is noted.
        """
        failure = self._runner.trial(whole, limit=self._runner.limit)
        if failure.manner == "hang":
            failure = tell_hang(
                self._runner, self.findings, whole, failure, self._known_failure
            )
        # Where no output reacts to the inputs, that is said of the untouched model.
        unjudged = failure.status in (Status.NOT_APPLICABLE, Status.ERROR)
        if unjudged or failure.symptom is Symptom.VACUOUS:
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
            self._runner.forked = whole.provider == "cpu"
        if failure.manner == "hang":
            self._runner.expect_hang()
            return failure
        if self._narrowed(whole, failure) != whole:  # it repeats, on one of the input sets
            return failure
        return repeated(self._runner, self.findings, whole, failure)

    def _narrowed(self, whole: Trial, failure: Outcome) -> Trial:
        """Return the trial on the failing input sets alone, where it still fails alike."""
        if failure.stage not in (Stage.RUN, Stage.COMPARE) or not failure.places:
            return whole
        alone = replace(whole, places=failure.places[:1])
        return alone if self._runner.still_fails(alone, failure) else whole

    def _provider(self, base: Trial, failure: Outcome) -> Trial:
        """Find out whether the provider is at fault: the same on the CPU is right."""
        if base.provider == "cpu":
            return base
        on_cpu = replace(base, provider="cpu")
        outcome = self._runner.trial(on_cpu)
        if trials.same_failure(failure, outcome):
            self.findings.note("on the CPU it fails in the same way")
            return on_cpu
        self.findings.set_cause(provider=base.provider)
        self.findings.note(f"on the CPU {outcome.in_words}")
        return base

    def _transform(self, base: Trial, failure: Outcome) -> int:
        """Return how many steps of the chain it takes to fail; 0: the untouched model does."""
        bound = self.question.bound
        if base.count == 0:
            return 0
        for count in range(base.count + 1):
            shorter = count < base.count
            outcome = self._runner.trial(replace(base, count=count)) if shorter else failure
            names = [step.name for step in bound.changing[:count]]
            chain = "+".join(names) or "the untouched model"
            if shorter:
                self.findings.note(f"{chain}: {outcome.in_words}")
            if trials.same_failure(failure, outcome):
                if count:
                    self.findings.set_cause(transform=bound.changing[count - 1].name)
                return count
        return base.count

    def _needs_runtime(self, base: Trial, failure: Outcome) -> bool:
        """Decide whether it takes ONNX Runtime's optimizer to fail."""
        late = (Stage.SESSION, Stage.RUN, Stage.COMPARE)
        if base.level == "disable" or failure.stage not in late or base.provider != "cpu":
            return False
        outcome = self._runner.trial(replace(base, level="disable"))
        self.findings.note(f"with ONNX Runtime's optimizations off: {outcome.in_words}")
        return not trials.same_failure(failure, outcome)

    def _threads(self, base: Trial, failure: Outcome) -> None:
        """Find out whether one thread is right where several aren't."""
        if failure.stage not in (Stage.SESSION, Stage.RUN, Stage.COMPARE):
            return
        outcome = self._runner.trial(replace(base, threads=1))
        self.findings.note(f"on one thread: {outcome.in_words}")
        self.findings.threads = not trials.same_failure(failure, outcome)

    def _smallest(self, base: Trial, failure: Outcome) -> None:
        """Find the smallest model that still fails, and write what shows it."""
        if self._folder is None or self._runner.left <= 0:
            return
        place = (self._runner.trial(base).places or failure.places or (0,))[0]
        sentence = sentences.sentence(self.findings, self.question, self._seconds)
        share = self._runner.left * _REDUCTION_SHARE
        limit = self._runner.limit if failure.manner == "hang" else None
        order = smallest_case.Order(
            base,
            self.findings.cause,
            failure.stage,
            place,
            sentence,
            share,
            self.question.folder / "smallest",
            self._public,
            limit,
        )
        try:
            answer = self._runner.ask(
                smallest_case.reduce_failure,
                order,
                limit=self._runner.left,
                grace=_WRITING_SECONDS,
            )
            if answer.smallest is not None:
                handout.place(order.folder, self._folder, public=self._public)
        except OutOfBudget:
            return
        except Exception as error:  # what can't be cut or written is no smaller
            self.findings.note(f"no smaller model: {words_of(error)}")
            return
        if answer.smallest is not None:
            self.findings.smallest = replace(answer.smallest, path=str(self._folder))
        self.findings.note(answer.words)

    def known_failure(self) -> str:
        """Return the cell as an entry of the ledger, to paste; empty where no cause was found."""
        findings, cell = self.findings, self.question.task.cell
        if self.question.candidate is not None or not findings.named or findings.end:
            return ""
        words = sentences.sentence(findings, self.question, self._seconds)
        folder = self._folder if findings.smallest is not None else None
        return ledger_entry.text_of(
            cell, ledger_entry.entry_of(cell, findings, words, folder)
        )

    def _keep_entry(self) -> None:
        """Write the entry beside the smallest model, unless that is to be published."""
        if self._folder is None or self._public or self.findings.smallest is None:
            return
        entry = self.known_failure()
        if not entry:
            return
        try:
            (self._folder / ledger_entry.FILE).write_text(entry, encoding="utf-8")
        except OSError as error:
            self.findings.note(f"no entry for the card: {words_of(error)}")

    def _mend(self, whole: Trial, failure: Outcome) -> None:
        """Try what mends the cell, where there is time for it."""
        question, cell = self.question, self.question.task.cell
        steps = question.bound.changing
        narrows = any(step.transform.precision is not Precision.FP32 for step in steps)
        of_values = narrows and failure.stage is Stage.COMPARE
        # Steps that were changed for the search have no spelling that would stand for them.
        by_name = (
            with_card(bind_variant(cell.variant), cell.card).steps == question.bound.steps
        )
        if question.candidate is not None or not (of_values or by_name):
            return
        if self._runner.left < trial_runner.LEAST_SECONDS:
            self.findings.note("no time was left to look for a mend")
            return
        try:
            asked = (
                (attempts.mend, whole) if of_values else (attempts.early_mend, failure.stage)
            )
            spelling, words = self._runner.ask(*asked, limit=self._runner.left)
        except (OutOfBudget, WorkerDied):
            return
        if words:
            self.findings.note(words)
        if spelling is not None:
            self.findings.mend = Mend(spelling, True)


def set_name(question: Question, place: int) -> str:
    """Return the name of an input set of the reference. Meant for the worker."""
    return bench_of(question).standard.reference.sets[place].name


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

    Raises:
        SearchInterrupted: by Ctrl-C.
    """
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-diagnose-", ignore_cleanup_errors=True
    ) as name:
        card = task.cell.card
        steps = (
            bound if bound is not None else with_card(bind_variant(task.cell.variant), card)
        )
        question = Question(task, steps, Path(name), candidate, float16_io)
        search = Search(question, seconds, known_failure, folder=folder, public=public)
        try:
            return search.run()
        except KeyboardInterrupt:
            raise SearchInterrupted(search.diagnosis()) from None
