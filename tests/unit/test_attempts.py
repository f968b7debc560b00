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
from onnx_harness.errors import WorkerNotStarted, WorkerOutOfMemory, WorkerTimedOut
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.isolate import RISK
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.run.attempts import Attempts
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

    def __call__(self, *_: object) -> Any:
        self.asked += 1
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def attempts(worker: Worker, **options: int) -> Attempts:
    settings = Settings(input_sets=1)
    return Attempts(worker, lambda cell: Task(cell, cell.card.path, settings), **options)


@pytest.mark.parametrize("fault", [FULL, WorkerNotStarted("no process")])
def test_a_fault_of_the_machine_is_tried_twice_again_here(cell: Cell, fault: Exception) -> None:
    worker = Worker(fault, fault, fault)
    judged = attempts(worker).judge(cell)
    assert (judged.result.status, judged.result.symptom) == (Status.ERROR, Symptom.ENVIRONMENT)
    assert worker.asked == 3


def test_a_fault_of_the_machine_is_left_to_other_machines_where_there_are_any(cell: Cell) -> None:
    worker = Worker(FULL)
    assert attempts(worker, machine_retries=0).judge(cell).result.symptom is Symptom.ENVIRONMENT
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
    ("variant", "note", "stage"),
    [
        ("simplify+fp16.mixed", "float32 search, run 37", Stage.TRANSFORM),
        ("int8.mixed", "float search, verifying", Stage.TRANSFORM),
        ("fp16.io32", "float32 search, survey 2", Stage.COMPARE),
        ("original", "inputs at a size of 3001", Stage.LOAD),
        ("int8.static", "mend int8.static(reduce_range=True) 0123", Stage.COMPARE),
    ],
)
def test_what_a_worker_was_at_within_a_stage_is_named(
    cell: Cell, variant: str, note: str, stage: Stage
) -> None:
    died = WorkerTimedOut("did not end within 300 s", f"{RISK * note.startswith('mend')}{note}")
    judged = attempts(Worker(died, died)).judge(replace(cell, variant=parse_variant(variant)))
    assert (judged.result.status, judged.result.stage) == (Status.FAIL, stage)
    assert judged.result.reason == f"during {stage} ({note}), did not end within 300 s"
