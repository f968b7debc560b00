"""How often a cell is judged, and what its last verdict hangs on, without a worker process."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Judged, RunNote, Task, never_loaded
from onnx_harness.errors import (
    ResultsError,
    WorkerCrashed,
    WorkerDied,
    WorkerNotStarted,
    WorkerOutOfMemory,
    WorkerTimedOut,
)
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.isolate import RISK
from onnx_harness.judging.reference import FEED
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.run.attempts import MOST_DEATHS, Attempts, of_another_cell
from onnx_harness.run.fatal import FatalSet, counts_against, with_crash
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


CRASH = WorkerCrashed("it died", Stage.LOAD)
CRASH_TRANSFORM = WorkerCrashed("it died", Stage.TRANSFORM)
FEEDING = WorkerCrashed("it died", f"{RISK}{FEED} 3 0123")


@pytest.mark.parametrize("death", [CRASH, FEEDING, WorkerTimedOut("did not end", "load")])
def test_a_death_at_load_is_that_of_the_models_other_variants(
    cell: Cell, death: WorkerDied
) -> None:
    tried = attempts(Worker(*(copy(death) for _ in range(MOST_DEATHS + 3))))
    judged = tried.judge(cell)
    assert judged.result.stage is Stage.LOAD
    assert tried.unloadable.keys() == {cell.card.path}
    other = replace(cell, variant=parse_variant("simplify"), provider="openvino")
    result = replace(judged.result, seconds={"load": 3.0})
    elsewhere = of_another_cell(replace(judged, result=result), other).result
    assert (elsewhere.id, elsewhere.variant, elsewhere.provider) == (
        other.id,
        "simplify",
        "openvino",
    )
    assert (elsewhere.seconds, elsewhere.reason) == ({}, judged.result.reason)


def test_a_model_that_cant_be_loaded_isnt_tried_for_each_variant(cell: Cell) -> None:
    for stage, known in ((Stage.LOAD, True), (Stage.SESSION, False)):
        tried = attempts(Worker(Judged(replace(FAILED, stage=stage))))
        tried.judge(cell)
        assert bool(tried.unloadable) is known


def test_a_crash_at_load_that_stays_away_is_none_of_the_other_variants(cell: Cell) -> None:
    tried = attempts(Worker(CRASH, Judged(result_of())))
    judged = tried.judge(cell)
    assert judged.result.status is Status.FAIL
    assert judged.result.notes == (
        "flaky: judged once more, it didn't crash, and ended as pass at done",
    )
    assert tried.unloadable == {}


def test_a_crash_that_the_machine_kept_from_being_tried_again_isnt_called_flaky(
    cell: Cell,
) -> None:
    worker = Worker(CRASH_TRANSFORM, WorkerNotStarted("no process"), "mend: another")
    judged = attempts(worker).judge(cell)
    assert (judged.result.symptom, judged.result.notes) == (Symptom.CRASH, ())
    assert judged.result.detail == ("mend: another",)


def test_no_mend_is_looked_for_where_no_variant_has_a_part(cell: Cell) -> None:
    of_suite = replace(cell, card=replace(cell.card, suite="a suite"))
    for crash, asked, status in (
        (CRASH, cell, Status.FAIL),
        (CRASH_TRANSFORM, of_suite, Status.FAIL),
        (CRASH, of_suite, Status.NOT_APPLICABLE),  # the case itself, before any transform
    ):
        worker = Worker(crash, crash)
        assert attempts(worker).judge(asked).result.status is status
        assert worker.asked == (1 if status is Status.NOT_APPLICABLE else 2)


def test_unusual_inputs_are_left_out_once(cell: Cell) -> None:
    died = WorkerTimedOut("did not end", UNUSUAL_STAGE)
    worker = Worker(died, died)
    tried = attempts(worker)
    judged = tried.judge(cell)
    assert (judged.result.status, worker.asked) == (Status.FAIL, 2)
    assert tried.without_unusual == {cell.card.path: "did not end"}
    assert not judged.starved


def test_what_the_worker_remembers_it_died_of_is_left_out_so_often(cell: Cell) -> None:
    died = WorkerCrashed("it died", f"{RISK}level all")
    worker = Worker(*[died] * MOST_DEATHS, Judged(result_of()))
    assert attempts(worker).judge(cell).result.status is Status.PASS
    worker = Worker(*[died] * (MOST_DEATHS + 2))
    judged = attempts(worker).judge(cell)
    assert (judged.result.status, judged.crashed) == (Status.FAIL, True)
    assert worker.asked == MOST_DEATHS + 2  # it's tried once more whether it stays
    # What didn't end isn't remembered.
    worker = Worker(WorkerTimedOut("did not end", f"{RISK}level all"))
    assert not attempts(worker).judge(cell).crashed
    assert worker.asked == 1


def dies_on(place: int, *, unusual: bool = True) -> str:
    return str(RunNote(place, unusual, f"set {place}"))


def test_of_unusual_sets_so_many_may_be_fatal(cell: Cell) -> None:
    deaths = [WorkerCrashed("it died", dies_on(place)) for place in range(MOST_DEATHS + 1)]
    survives = [None] * MOST_DEATHS
    tried = attempts(Worker(*deaths[:-1], Judged(result_of()), *survives))
    judged = tried.judge(cell)
    assert judged.failing == tuple(range(MOST_DEATHS))
    assert len(tried.fatal[cell.id]) == MOST_DEATHS
    tried = attempts(Worker(*deaths, deaths[-1], ""))
    judged = tried.judge(cell)
    words = f"during run, on input set {MOST_DEATHS + 1} (set {MOST_DEATHS}), it died"
    assert (judged.result.reason, judged.failing) == (words, (MOST_DEATHS,))
    assert len(tried.fatal[cell.id]) == MOST_DEATHS


@pytest.mark.parametrize(
    ("death", "starved"), [(WorkerTimedOut, False), (WorkerOutOfMemory, True)]
)
def test_what_doesnt_end_on_an_unusual_set_is_a_failure_on_it(
    cell: Cell, death: type[WorkerDied], starved: bool
) -> None:
    tried = attempts(Worker(death("did not end", dies_on(3))))
    judged = tried.judge(cell)
    assert (judged.result.stage, judged.failing) == (Stage.RUN, (3,))
    assert (judged.starved, judged.crashed, tried.fatal[cell.id]) == (starved, False, [])


def test_a_failure_on_other_sets_is_told_before_a_crash_on_unusual_ones() -> None:
    fatal = [FatalSet(3, "set 3", "it died"), FatalSet(5, "set 5", "it died")]
    failed = with_crash(Judged(FAILED, failing=(7, 8)), fatal)
    assert (failed.result.reason, failed.failing) == ("it is off", (7, 3, 5, 8))
    assert len(failed.result.notes) == 2
    crashed = with_crash(Judged(result_of()), fatal)
    assert (crashed.result.stage, crashed.failing) == (Stage.RUN, (3, 5))
    assert crashed.result.detail == ("also on input set 6 (set 5), it died",)


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("original", True),
        ("simplify", True),
        ("fp16", False),
        ("bf16", False),
        ("int8.static", False),
    ],
)
def test_of_narrower_types_a_crash_on_unusual_inputs_doesnt_count(
    variant: str, counts: bool
) -> None:
    assert counts_against(parse_variant(variant)) == counts


def test_what_others_died_of_is_taken_over_and_forgotten(cell: Cell) -> None:
    fatal = FatalSet(2, "set 2", "it died")
    elsewhere, here = attempts(Worker()), attempts(Worker())
    elsewhere.fatal[cell.id] = [fatal]
    elsewhere.without_unusual[cell.card.path] = "it died"
    here.adopt(cell, elsewhere)
    assert here.fatal == {cell.id: [fatal]}
    assert here.without_unusual == {cell.card.path: "it died"}
    here.adopt(cell, attempts(Worker()))
    assert (here.fatal, here.without_unusual) == (
        elsewhere.fatal,
        elsewhere.without_unusual,
    )
    here.forget(cell)
    assert here.fatal == {}


def test_results_that_cant_be_kept_are_no_fault_of_a_cell(cell: Cell) -> None:
    full = ResultsError("the disk is full")
    judged = attempts(Worker(full, full, full)).judge(cell)
    assert (judged.result.reason, judged.result.symptom) == (
        "the disk is full",
        Symptom.ENVIRONMENT,
    )
