"""How often a cell is judged, and what its last verdict hangs on, without a worker process."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Judged, Task, never_loaded
from onnx_harness.errors import (
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    WorkerOutOfMemory,
    WorkerTimedOut,
)
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.isolate import RISK
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.run.attempts import Attempts
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, save
from tests.unit.results_examples import cell as result_of

FULL = OSError(errno.ENOSPC, "No space left on device")
UNUSUAL_STAGE = f"{RISK}{UNUSUAL}"


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    card = card_for(save(linear(), tmp_path / "m.onnx"))
    return Cell(card, parse_variant("original"), "cpu")


class Worker:
    """Answers one after another; an error is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers: Iterator[object] = iter(answers)
        self.asked = 0
        self.tasks: list[Task] = []

    def __call__(self, _: object, *arguments: object) -> Any:
        self.asked += 1
        for argument in arguments:
            if isinstance(argument, Task):
                self.tasks.append(argument)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def attempts(worker: Worker, **options: int) -> Attempts:
    settings = Settings(input_sets=1)
    return Attempts(worker, lambda cell: Task(cell, cell.card.path, settings), **options)


@pytest.mark.parametrize("fault", [FULL, WorkerNotStarted("no process")])
def test_a_fault_of_the_machine_is_tried_twice_again_here(
    cell: Cell, fault: Exception
) -> None:
    worker = Worker(fault, fault, fault)
    judged = attempts(worker).judge(cell)
    assert (judged.result.status, judged.result.symptom) == (
        Status.ERROR,
        Symptom.ENVIRONMENT,
    )
    assert worker.asked == 3


def test_a_fault_of_the_machine_is_left_to_other_machines_where_there_are_any(
    cell: Cell,
) -> None:
    worker = Worker(FULL)
    assert (
        attempts(worker, machine_retries=0).judge(cell).result.symptom is Symptom.ENVIRONMENT
    )
    assert worker.asked == 1


def test_a_fault_of_the_machine_at_load_is_no_verdict_on_the_models_other_variants(
    cell: Cell,
) -> None:
    failed = replace(never_loaded(cell), symptom=Symptom.ENVIRONMENT)
    tried = attempts(Worker(Judged(failed), Judged(result_of())))
    assert tried.judge(cell).result.status is Status.PASS
    assert tried.unloadable == {}


@pytest.mark.parametrize("stage", [Stage.RUN, Stage.TRANSFORM])
def test_a_lack_of_memory_says_so(cell: Cell, stage: Stage) -> None:
    judged = attempts(Worker(WorkerOutOfMemory("ate", stage))).judge(cell)
    assert (judged.result.status, judged.starved) == (Status.FAIL, True)


def test_a_verdict_without_the_inputs_that_ate_the_memory_hangs_on_it(cell: Cell) -> None:
    tried = attempts(Worker(WorkerOutOfMemory("ate", UNUSUAL_STAGE), Judged(result_of())))
    judged = tried.judge(cell)
    assert (judged.result.status, judged.starved) == (Status.PASS, True)
    assert not attempts(Worker(Judged(result_of()))).judge(cell).starved


@pytest.mark.parametrize(
    ("note", "stage", "words"),
    [
        ("transform", Stage.TRANSFORM, "during transform, it died"),
        (
            "transform: float32 search, run 3",
            Stage.TRANSFORM,
            "during transform (float32 search, run 3), it died",
        ),
        (
            "inputs at a size of 64",
            Stage.LOAD,
            "during load (inputs at a size of 64), it died",
        ),
        ("", Stage.LOAD, "during load, it died"),
    ],
)
def test_a_death_is_told_by_its_stage_and_the_part_of_it(
    cell: Cell, note: str, stage: Stage, words: str
) -> None:
    death = WorkerCrashed("it died", note)
    judged = attempts(Worker(death, death)).judge(cell)
    assert (judged.result.stage, judged.result.reason) == (stage, words)
    assert judged.result.symptom is Symptom.CRASH


FAILED = result_of(status=Status.FAIL, stage=Stage.COMPARE, reason="it is off")


@pytest.mark.parametrize("death", [WorkerTimedOut, WorkerOutOfMemory])
def test_what_ends_a_search_for_a_mend_costs_the_mend_and_not_the_verdict(
    cell: Cell, death: type[WorkerDied]
) -> None:
    died = death("did not end", f"{RISK}mend 0123")
    worker = Worker(died, Judged(FAILED))
    judged = attempts(worker).judge(cell)
    assert (judged.result.status, judged.result.reason) == (Status.FAIL, "it is off")
    assert judged.result.detail == ("No mend is offered: looking for one, did not end",)
    assert not judged.starved
    assert [task.mending for task in worker.tasks] == [True, False]


def test_a_pass_has_no_word_of_a_mend(cell: Cell) -> None:
    """A verdict may depend on what the machine does: it fails once, and passes after that."""
    died = WorkerTimedOut("did not end", f"{RISK}mend 0123")
    judged = attempts(Worker(died, Judged(result_of()))).judge(cell)
    assert (judged.result.status, judged.result.detail) == (Status.PASS, ())


def test_what_is_forgotten_is_judged_with_its_mend_again(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = WorkerTimedOut("did not end", f"{RISK}mend 0123")
    worker = Worker(died, Judged(FAILED), Judged(FAILED))
    runner = Runner(Settings(input_sets=1))
    monkeypatch.setattr(runner, "_attempts", attempts(worker))
    assert runner.judge(cell).detail
    runner.forget(cell)
    assert runner.judge(cell) == FAILED
    assert [task.mending for task in worker.tasks] == [True, False, True]


def test_a_verdict_is_never_tried_again(cell: Cell) -> None:
    worker = Worker(Judged(FAILED), Judged(result_of()))
    assert attempts(worker).judge(cell).result is FAILED
    assert worker.asked == 1


def test_a_timeout_in_a_mend_is_told_as_that(cell: Cell) -> None:
    died = WorkerTimedOut("did not end", f"{RISK}mend int8.static(reduce_range=True) 0123")
    result = attempts(Worker(died, died)).judge(cell).result
    assert result.stage is Stage.COMPARE
    assert result.reason == (
        "during compare (mend int8.static(reduce_range=True) 0123), did not end"
    )
