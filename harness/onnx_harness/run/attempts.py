"""Judge a cell in a worker process as often as the kind of its failure asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx_harness.cell import pipeline
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import (
    Judged,
    RunNote,
    Task,
    is_of_the_machine,
    never_loaded,
    stage_of,
)
from onnx_harness.errors import (
    HarnessError,
    ResultsError,
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    WorkerOutOfMemory,
    named,
)
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.isolate import RISK
from onnx_harness.judging.reference import FEED
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.run.fatal import FatalSet, counts_against, with_crash, with_remarks

MACHINE_RETRIES = 2
"""So often is a cell judged again that failed for the machine's sake: no process, no room."""

MOST_DEATHS = 8
"""So often may what is tried on the untouched model end the process.

Feeds of sizes that nobody uses, levels that its noise is measured at. Then the model is what is
wrong.
"""

# What is tried as a mend of a failure in the comparison.
_MEND = "mend "


class Attempts:
    """Judges cells in a worker, and remembers what the worker died of.

    Attributes:
        without_unusual: by model that is fed usual inputs alone, what the worker died of on others.
        fatal: by cell, unusual input sets that the worker died of.
        unmended: by cell, what a worker died of that looked for a mend of its failure.
        unloadable: by model, the verdict on its load, which no variant has a part in.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        task: Callable[[Cell], Task],
        machine_retries: int = MACHINE_RETRIES,
    ) -> None:
        """Start with nothing remembered.

        Args:
            call: asks the worker: `Runner.call`.
            task: says what it is asked about a cell: `Runner.task`.
            machine_retries: so often is a cell judged again that failed for the machine's sake; 0
                where another machine can be asked.
        """
        self._call = call
        self._task = task
        self._machine_retries = machine_retries
        self.without_unusual: dict[Path, str] = {}
        self.fatal: dict[str, list[FatalSet]] = {}
        self.unmended: dict[str, str] = {}
        self.unloadable: dict[Path, Judged] = {}
        self._deaths: Counter[Path] = Counter()  # of what can be done without, by model
        # Models that lack unusual inputs for want of memory.
        self._starved: set[Path] = set()

    def adopt(self, cell: Cell, attempts: Attempts) -> None:
        """Take over what is remembered elsewhere of a cell and its model."""
        died = attempts.without_unusual.get(cell.card.path, "")
        self.adopt_deaths(cell, attempts.fatal.get(cell.id, ()), died)

    def adopt_deaths(self, cell: Cell, fatal: Sequence[FatalSet], died: str) -> None:
        """Take over what a worker died of that judged a cell elsewhere."""
        if fatal:
            self.fatal[cell.id] = list(fatal)
        if died:
            self.without_unusual[cell.card.path] = died

    def forget(self, cell: Cell) -> None:
        """Forget what a worker died of that judged it: another model may have its id now."""
        self.fatal.pop(cell.id, None)
        self.unmended.pop(cell.id, None)

    def judge(self, cell: Cell) -> Judged:
        """Judge again by the kind of failure.

        The machine's twice, a crash once, to tell whether it stays; no verdict.

        A crash that doesn't come back is a failure all the same, and says that it is flaky.
        """
        judged = self._judge(cell)
        for _ in range(self._machine_retries):
            if judged.result.symptom is not Symptom.ENVIRONMENT:
                break
            judged = self._judge(cell)
        if not judged.crashed:
            return judged
        self.unloadable.pop(cell.card.path, None)
        again = self._judge(cell)
        if again.crashed or again.result.symptom is Symptom.ENVIRONMENT:
            return self._with_mend(cell, judged)
        note = (
            f"flaky: judged once more, it didn't crash, and ended as {again.result.status} at "
            f"{again.result.stage}"
        )
        return replace(
            judged, result=replace(judged.result, notes=(*judged.result.notes, note))
        )

    def _judge(self, cell: Cell) -> Judged:
        ended = never_loaded(cell)
        try:
            judged = self._call(pipeline.judge, self._task_of(cell))
            passed = judged.result.status is Status.PASS
            if cell.id in self.unmended and not passed:
                words = f"No mend is offered: looking for one, {self.unmended[cell.id]}"
                result = replace(judged.result, detail=(*judged.result.detail, words))
                judged = replace(judged, result=result)
            if (died := self.without_unusual.get(cell.card.path)) is not None:
                note = f"fed usual inputs alone: on unusual ones, {died}"
                result = replace(judged.result, notes=(*judged.result.notes, note))
                starved = judged.starved or cell.card.path in self._starved
                judged = replace(judged, result=result, starved=starved)
            of_the_machine = judged.result.symptom is Symptom.ENVIRONMENT
            if judged.result.stage is Stage.LOAD and not of_the_machine:
                self.unloadable[cell.card.path] = judged
            return self._with_fatal_sets(cell, judged)
        except WorkerDied as death:
            return self._died(cell, ended, death)
        except (WorkerNotStarted, ResultsError) as error:
            return Judged(replace(ended, reason=str(error), symptom=Symptom.ENVIRONMENT))
        except HarnessError as error:
            return Judged(replace(ended, reason=str(error)))
        except Exception as error:
            if is_of_the_machine(error):
                return Judged(
                    replace(ended, reason=named(error), symptom=Symptom.ENVIRONMENT)
                )
            return Judged(
                replace(
                    ended,
                    reason=f"the harness itself failed, {type(error).__name__}: {error}",
                )
            )

    def _task_of(self, cell: Cell) -> Task:
        task = self._task(cell)
        return replace(task, mending=False) if cell.id in self.unmended else task

    def _died(self, cell: Cell, ended: CellResult, death: WorkerDied) -> Judged:
        """The verdict on a cell whose worker died, judged again where that can help."""
        at_load = death.stage == Stage.LOAD or death.stage.startswith(f"{RISK}{FEED}")
        if (set_note := RunNote.read(death.stage)) is not None:
            return self._died_running(cell, ended, death, set_note)
        fed_unusual = death.stage.removeprefix(RISK).startswith(UNUSUAL)
        if (
            fed_unusual
            and not self._may_try_again(cell, death)
            and cell.card.path not in self.without_unusual
        ):
            # What no user would feed killed ONNX Runtime itself: that says nothing about the
            # variant.
            self.without_unusual[cell.card.path] = death.what
            if isinstance(death, WorkerOutOfMemory):
                self._starved.add(cell.card.path)
            return self._judge(cell)
        if death.stage.startswith(RISK):
            if self._may_try_again(cell, death):
                self._deaths[cell.card.path] += 1
                return self._judge(cell)  # the worker knows what it doesn't try again
            tried = death.stage.removeprefix(RISK)
            if tried.startswith(_MEND) and cell.id not in self.unmended:
                # It's a courtesy: the verdict is what the cell fails by.
                self.unmended[cell.id] = death.what
                return self._judge(cell)
            death.stage = f"{Stage.COMPARE}: {tried}" if tried.startswith(_MEND) else ""
        stage, doing = stage_of(death.stage)
        ended = replace(
            ended, status=Status.FAIL, stage=stage, reason=f"during {doing}, {death.what}"
        )
        # Of the untouched case, before any transform.
        if cell.card.suite and stage is Stage.LOAD:
            return Judged(
                replace(ended, status=Status.NOT_APPLICABLE, symptom=Symptom.NOT_RUN)
            )
        judged = Judged(
            replace(ended, symptom=Symptom.CRASH),
            crashed=isinstance(death, WorkerCrashed),
            starved=isinstance(death, WorkerOutOfMemory),
        )
        if at_load:
            self.unloadable[cell.card.path] = judged
        return judged

    def _with_mend(self, cell: Cell, judged: Judged) -> Judged:
        """``judged``, a crash, with what passes instead, where another worker finds it."""
        result = judged.result
        if result.stage is Stage.LOAD or cell.card.suite:
            return judged
        try:
            mend = self._call(pipeline.mend_after_death, self._task(cell), result.stage)
        except Exception:  # it's a courtesy: the crash is the verdict
            return judged
        detail = (*result.detail, mend) if mend else result.detail
        return replace(judged, result=replace(result, detail=detail))

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
        fatal = self.fatal.setdefault(cell.id, [])
        if note.unusual and isinstance(death, WorkerCrashed) and len(fatal) < MOST_DEATHS:
            fatal.append(FatalSet(note.place, note.name, death.what))
            return self._judge(cell)
        reason = f"during run, on input set {note.place + 1} ({note.name}), {death.what}"
        crash = replace(
            ended, status=Status.FAIL, stage=Stage.RUN, reason=reason, symptom=Symptom.CRASH
        )
        return Judged(
            crash,
            failing=(note.place,),
            crashed=isinstance(death, WorkerCrashed),
            starved=isinstance(death, WorkerOutOfMemory),
        )

    def _with_fatal_sets(self, cell: Cell, judged: Judged) -> Judged:
        """``judged`` with what is to be said of the unusual input sets that the worker died of."""
        fatal = self.fatal.get(cell.id)
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
            judged,
            others,
            "the untouched model dies of it too, at the same optimization level",
        )
        return with_crash(judged, own) if own else judged

    def _survives_untouched(self, cell: Cell, place: int) -> bool:
        try:
            self._call(pipeline.run_untouched, self._task(cell), place)
        except WorkerDied:
            return False
        except Exception:  # it refuses that set in so many words: nothing died
            return True
        return True


def of_another_cell(judged: Judged, cell: Cell) -> Judged:
    """Return the verdict on a model's load as that of one more cell, which it cost no time."""
    result = replace(
        judged.result,
        id=cell.id,
        variant=cell.variant.id,
        provider=cell.provider,
        seconds={},
    )
    return replace(judged, result=result)
