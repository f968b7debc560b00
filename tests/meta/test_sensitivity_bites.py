"""What counts the faults that a verdict catches: a blind verdict scores low, and what changes
nothing isn't a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.accuracy import compare
from onnx_harness.cards.card import Card
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Judged, Task
from onnx_harness.errors import ModelError, WorkerCrashed
from onnx_harness.mutation import mutants, planting, sensitivity
from onnx_harness.mutation.atlas import Site
from onnx_harness.mutation.faults import Edit, Fault, FaultKind
from onnx_harness.mutation.mutants import Fate, Trial
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, PlacementRecord, Stage, Status, Symptom
from onnx_harness.results.coverage import SensitivityRecord
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, model, save

BLIND: dict[str, Any] = {"rtol": 1e9, "atol": 1e9}
SIGN, NUDGE, CHANNELS, ACTIVATION = (
    "flipped sign",
    "weight +1%",
    "permuted channels",
    "removed activation",
)


class Bench:
    """Judges a model, and plants faults in it without a worker."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch

    def task(
        self, made: onnx.ModelProto, variant: str = "original", **settings: Any
    ) -> Task:
        card = card_for(save(made, self._folder / "model.onnx"))
        # Unusual inputs would have NaN in them, and that no tolerance lets through, however blind.
        return Task(
            Cell(card, parse_variant(variant), "cpu"),
            card.path,
            Settings(**settings),
            unusual=False,
        )

    def blind(self, **settings: Any) -> dict[str, Any]:
        """Make the verdict blind: nothing has to be explained, and any distance is usable."""
        self._monkeypatch.setattr(compare, "check_faithful", lambda *_: None)
        return {**BLIND, **settings}

    def attempt(
        self, made: onnx.ModelProto, fault: Fault, variant: str = "original", **settings: Any
    ) -> Trial:
        task = self.task(made, variant, **settings)
        judged = judge(task)
        assert judged.result.status is Status.PASS, judged.result.reason
        return mutants.attempt(task, judged, fault)

    def attempts(
        self, made: onnx.ModelProto, count: int, variant: str = "original", **settings: Any
    ) -> list[Trial]:
        task = self.task(made, variant, **settings)
        judged = judge(task)
        return [
            mutants.attempt(task, judged, fault)
            for fault in mutants.plan(task, judged, count, 0)
        ]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    return Bench(tmp_path, monkeypatch)


def built(graph: str, **weights: Any) -> onnx.ModelProto:
    made = model(graph)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(each, "f4"), key) for key, each in weights.items()
    )
    return made


def fault(kind: str, node: int, slot: int = 0, *index: int, factor: float = 1.0) -> Fault:
    return Fault(kind, Site((), node), "planted", slot, index, factor)


def with_dead_branch() -> onnx.ModelProto:
    graph = """(float[n,4] x) => (float[n,4] y) {
        a = MatMul(x, w)  b = MatMul(x, dead)  c = Mul(b, nothing)  y = Add(a, c) }"""
    rng = np.random.default_rng(0)
    return built(graph, w=rng.normal(size=(4, 4)), dead=rng.normal(size=(4, 4)), nothing=0.0)


def with_equal_channels() -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(size=(4, 3))
    weight[:, 2] = weight[:, 0]
    return built("(float[n,4] x) => (float[n,3] y) { y = MatMul(x, w) }", w=weight)


def positive() -> onnx.ModelProto:
    return model("(float[n,4] x) => (float[n,4] y) { a = Abs(x)  y = Relu(a) }")


EQUIVALENT: dict[str, tuple[Callable[[], onnx.ModelProto], Fault]] = {
    "a weight of a dead branch": (with_dead_branch, fault(SIGN, 1, 1, 5, factor=-1.0)),
    "two equal channels permuted": (with_equal_channels, fault(CHANNELS, 0, 1, 1, 0, 2)),
    "a Relu removed from what is never negative": (positive, fault(ACTIVATION, 1)),
    "a clamp that nothing reaches": (
        positive,
        fault("clamp at 1e2", 1, 0, onnx.TensorProto.FLOAT),
    ),
    "less than a rounding of a weight": (linear, fault(NUDGE, 0, 1, 3, factor=1 + 1e-9)),
}
REAL: dict[str, tuple[Callable[[], onnx.ModelProto], Fault]] = {
    "a weight of the branch that lives": (with_dead_branch, fault(SIGN, 0, 1, 5, factor=-1.0)),
    "two other channels permuted": (with_equal_channels, fault(CHANNELS, 0, 1, 1, 0, 1)),
    "a Relu removed that is needed": (
        lambda: model("(float[n,4] x) => (float[n,4] y) { a = Neg(x)  y = Relu(a) "
                      "}"), fault(ACTIVATION, 1),
    ),
    "a hundredth of a weight": (linear, fault(NUDGE, 0, 1, 3, factor=1.01)),
}  # fmt: skip


@pytest.mark.parametrize("settings", [{}, BLIND])
@pytest.mark.parametrize("name", EQUIVALENT)
def test_what_changes_nothing_is_equivalent_whatever_the_verdict_allows(
    bench: Bench, name: str, settings: Any
) -> None:
    build, planted = EQUIVALENT[name]
    assert bench.attempt(build(), planted, **settings).fate is Fate.EQUIVALENT


@pytest.mark.parametrize("name", REAL)
def test_a_real_fault_is_caught_and_by_a_blind_verdict_missed(
    bench: Bench, name: str
) -> None:
    build, planted = REAL[name]
    assert bench.attempt(build(), planted).fate is Fate.CAUGHT
    missed = bench.attempt(build(), planted, **bench.blind())
    assert missed.fate is Fate.MISSED
    assert missed.words.startswith("y moves by")


def test_what_is_equivalent_is_told_by_the_noise_and_by_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, planted = REAL["a hundredth of a weight"]
    monkeypatch.setattr(mutants, "LIKENESS", 1e12)
    assert bench.attempt(build(), planted, **bench.blind()).fate is Fate.EQUIVALENT


def test_a_fault_that_the_verdicts_inputs_do_not_show_is_missed_on_others(
    bench: Bench,
) -> None:
    # One set reads two of 64 rows; other sets read others.
    graph = (
        "(int64[2] i) => (float[2,8] y) { t = Mul(table, one)  y = Gather<axis=0>(t, i) }"
    )
    made = built(graph, table=np.random.default_rng(0).normal(size=(64, 8)), one=1.0)
    faults = [fault(SIGN, 0, 0, 8 * row, factor=-1.0) for row in range(0, 64, 2)]
    trials = [bench.attempt(made, each, input_sets=1) for each in faults]
    fates = {trial.fate for trial in trials}
    assert fates >= {Fate.EQUIVALENT, Fate.MISSED}
    assert all(
        trial.words.endswith("on other inputs")
        for trial in trials
        if trial.fate is Fate.MISSED
    )


def test_noise_of_a_float16_model_is_what_float16_does(bench: Bench) -> None:
    # Behind a Cast.
    weight = (
        next(k for k, node in enumerate(linear().graph.node) if node.op_type == "MatMul") + 1
    )
    small, large = (fault(NUDGE, weight, 1, 3, factor=1 + change) for change in (1e-3, 0.5))
    assert bench.attempt(linear(), small, "fp16.io32").fate is Fate.EQUIVALENT
    assert bench.attempt(linear(), large, "fp16.io32").fate is Fate.CAUGHT


def test_a_mutant_that_cannot_be_made_is_no_caught_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(_: onnx.ModelProto) -> bytes:
        raise ModelError("more than 2 GB")

    monkeypatch.setattr(mutants, "_serialized", too_large)
    with pytest.raises(ModelError):
        bench.attempt(linear(), fault(SIGN, 0, 1, 5, factor=-1.0))


def test_a_mutant_that_does_not_open_is_caught_before_anything_is_compared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plant(edit: Edit) -> None:
        edit.node.op_type = "Frobnicate"

    kind = FaultKind("no such operator", lambda *_: iter(()), plant)
    monkeypatch.setattr(planting, "KINDS", {kind.name: kind})
    found = bench.attempt(linear(), fault("no such operator", 0))
    assert found.fate is Fate.BROKEN
    assert "Frobnicate" in found.words


def test_a_good_verdict_catches_all_and_a_blind_one_next_to_nothing(bench: Bench) -> None:
    def score(trials: list[Trial]) -> float:
        fates = [trial.fate for trial in trials if trial.fate is not Fate.EQUIVALENT]
        return fates.count(Fate.CAUGHT) / len(fates)

    assert score(bench.attempts(linear(), 30)) == 1.0
    assert score(bench.attempts(linear(), 30, **bench.blind())) == 0.0


class Pretender:
    """A runner whose cell passed, and whose worker says of each fault what the test wants."""

    def __init__(self, card: Card, fate: Callable[[int], Fate], places: int = 100) -> None:
        self.settings = Settings()
        self._fate, self._places, self._asked = fate, places, 0
        self.cell = Cell(card, parse_variant("original"), "cpu")
        placement = PlacementRecord(
            "CPUExecutionProvider", {"CPUExecutionProvider": 3}, {}, 1.0
        )
        self.result = CellResult(
            self.cell.id,
            card.name,
            "",
            "original",
            "cpu",
            Status.PASS,
            Stage.DONE,
            placement=placement,
        )

    def judge(self, _: Cell) -> CellResult:
        return self.result

    def revise(self, result: CellResult) -> None:
        self.result = result

    def ask(self, function: Any, _: Cell, *args: Any) -> Any:
        if function is mutants.plan:
            return [fault(NUDGE, number) for number in range(min(args[0], self._places))]
        if function is mutants.is_caught:
            return args[0].factor >= 1.02
        self._asked += 1
        fate = self._fate(self._asked)
        if fate is Fate.BROKEN:
            raise WorkerCrashed("killed by SIGSEGV (signal 11)")
        return Trial(args[0], fate, "why")


@pytest.fixture
def examined(tmp_path: Path) -> Callable[..., CellResult]:
    card = replace(card_for(save(linear(), tmp_path / "model.onnx")), least_sensitivity=0.9)

    def examine(
        fate: Callable[[int], Fate], *, seconds: float = 60.0, **how: Any
    ) -> CellResult:
        runner: Any = Pretender(replace(card, **how.pop("card", {})), fate, **how)
        result = sensitivity.examine(runner, runner.cell, seconds=seconds)
        assert sensitivity.examine(runner, runner.cell) is result, "found once per run"
        return result

    return examine


def every(number: int, fate: Fate) -> Callable[[int], Fate]:
    return lambda asked: fate if asked % number == 0 else Fate.CAUGHT


def test_a_cell_under_its_cards_minimum_fails_and_says_what_it_missed(examined: Any) -> None:
    result = examined(every(5, Fate.MISSED))
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.COMPARE,
        Symptom.INSENSITIVE,
    )
    assert result.reason.startswith(
        "24 of 30 planted faults are caught (80%), and the card requires 90%; one of those missed:"
    )
    assert [line for line in result.detail if line.startswith("missed")] == [
        "missed weight +1%: planted; why"
    ] * 6


def test_a_cell_above_its_cards_minimum_passes_and_so_does_any_without_one(
    examined: Any,
) -> None:
    assert examined(every(15, Fate.MISSED)).status is Status.PASS
    assert (
        examined(lambda _: Fate.MISSED, card={"least_sensitivity": None}).status
        is Status.PASS
    )


def test_equivalent_mutants_are_counted_apart(examined: Any) -> None:
    found = examined(every(3, Fate.EQUIVALENT)).sensitivity
    assert (found.planted, found.caught, found.equivalent, found.score) == (30, 20, 10, 1.0)


def test_where_nothing_is_left_to_catch_no_minimum_is_reached(examined: Any) -> None:
    result = examined(lambda _: Fate.EQUIVALENT)
    assert (result.status, result.sensitivity.score) == (Status.FAIL, None)
    assert "none of 30 planted faults changes an output" in result.reason


def test_a_few_mutants_that_do_not_run_count_and_others_take_the_place_of_more(
    examined: Any,
) -> None:
    found = examined(every(3, Fate.BROKEN)).sensitivity
    assert (found.planted, found.caught, found.broken) == (30, 30, 3)


def test_a_model_with_few_places_says_so(examined: Any) -> None:
    result = examined(lambda _: Fate.CAUGHT, places=7)
    assert result.sensitivity.planted == 7
    assert result.notes == (
        "7 faults were planted, not 30: the model has no more places for them",
    )


def test_time_that_is_up_is_said(examined: Any) -> None:
    result = examined(lambda _: Fate.CAUGHT, seconds=-1.0)
    assert (result.status, result.sensitivity.planted) == (Status.FAIL, 0)
    assert result.notes == ("0 of 30 faults were planted: -1 s were up",)


def test_what_fails_beneath_is_an_error_of_the_harness(examined: Any) -> None:
    def fails(_: int) -> Fate:
        raise ZeroDivisionError("no")

    result = examined(fails)
    assert (result.status, result.stage) == (Status.ERROR, Stage.COMPARE)
    assert result.reason == "its sensitivity can't be measured: ZeroDivisionError: no"


@pytest.mark.parametrize("limit", [3e-6, 1e-4, 0.02, 0.9])
def test_the_smallest_change_that_is_caught_is_found_to_within_a_sixth(limit: float) -> None:
    asked: list[float] = []

    def is_caught(probe: Fault) -> bool:
        asked.append(probe.factor - 1)
        return probe.factor - 1 >= limit * (
            2 - probe.site.node
        )  # the second weight is twice as easily seen

    found = sensitivity.smallest_change([fault(NUDGE, 0), fault(NUDGE, 1)], is_caught)
    assert found is not None
    change, probe = found
    assert limit <= change <= limit * 7 / 6 * (1 + 1e-9)
    assert probe.site.node == 1
    assert len(asked) <= 17


def test_a_verdict_that_catches_no_change_of_a_weight_has_no_smallest_one() -> None:
    assert sensitivity.smallest_change([fault(NUDGE, 0)], lambda _: False) is None


@pytest.fixture
def runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Runner]]:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    running: list[Runner] = []

    def start(**settings: Any) -> Runner:
        running.append(Runner(Settings(**settings)))
        return running[-1]

    yield start
    for each in running:
        each.close()


def test_float32_is_held_to_smaller_changes_than_float16(
    runner: Any, tmp_path: Path
) -> None:
    card = card_for(save(linear(), tmp_path / "model.onnx"))
    found: list[SensitivityRecord] = []
    for variant in ("fp16.io32", "original"):
        record = sensitivity.examine(
            runner(), Cell(card, parse_variant(variant), "cpu")
        ).sensitivity
        assert record is not None
        found.append(record)
    loose, tight = found
    assert (tight.score, tight.missed) == (1.0, ())
    assert loose.smallest_change is not None
    assert tight.smallest_change is not None
    assert loose.smallest_change > 10 * tight.smallest_change


def test_a_cell_that_did_not_pass_and_a_case_of_a_suite_are_left_as_they_are(
    tmp_path: Path,
) -> None:
    card = card_for(save(linear(), tmp_path / "model.onnx"))
    failed: Any = Pretender(card, lambda _: Fate.CAUGHT)
    failed.result = replace(failed.result, status=Status.FAIL)
    assert sensitivity.examine(failed, failed.cell).sensitivity is None
    case: Any = Pretender(replace(card, suite="onnx-backend-suite"), lambda _: Fate.CAUGHT)
    assert sensitivity.examine(case, case.cell).sensitivity is None


def test_there_is_nothing_to_plant_in_a_cell_without_an_artifact(bench: Bench) -> None:
    task = bench.task(linear())
    with pytest.raises(ValueError, match="did not pass"):
        mutants.plan(task, Judged(judge(task).result), 1, 0)
