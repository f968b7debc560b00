"""The table of causes counts a diagnosis as wrong where the search is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.cell.workers import cell_worker
from onnx_harness.diagnose import faulty_parts, trials
from onnx_harness.diagnose.minimal import Minimal
from onnx_harness.names import parse_variant
from onnx_harness.results.diagnosis import Cause, Diagnosis, Smallest
from onnx_harness.selftest import cause_cost, cause_rows, smallest_rows
from onnx_harness.selftest.bench import Outcome
from onnx_harness.selftest.cause_rows import CAUSES, _of_step, of_tiny
from onnx_harness.selftest.minimality import is_minimal
from onnx_harness.selftest.planted_causes import STEP, one_of_48, planted_steps
from onnx_harness.selftest.smallest_rows import SMALLEST
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant
from tests.models import linear, save


def test_a_right_search_names_the_planted_pass(tmp_path: Path) -> None:
    card = card_for(save(linear(), tmp_path / "net.onnx"))

    outcome = _of_step(card, next(planted_steps()))

    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
    assert CAUSES.reached([outcome])


def test_a_search_that_takes_every_trial_for_the_failure_is_counted_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "same_failure", lambda *_: True)
    card = card_for(save(linear(), tmp_path / "net.onnx"))

    outcome = _of_step(card, next(planted_steps()))

    assert outcome.bad == 1
    assert not CAUSES.reached([outcome])


@pytest.mark.parametrize(
    ("parts", "minimal"),
    [
        (("part_17",), True),
        (("part_17", "part_03"), False),  # one of them is enough
        (("part_03",), False),  # it does no harm
        ((), None),
    ],
)
def test_a_set_that_is_named_is_tried_again_without_each_member(
    tmp_path: Path, parts: tuple[str, ...], minimal: bool | None
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    bound = replace(bind_variant(parse_variant("original")), steps=(one_of_48(17).step,))
    task = Task(
        Cell(card_for(path), parse_variant("original"), "cpu"), path, Settings(input_sets=1)
    )

    assert is_minimal(task, bound, Cause(transform=STEP, passes=parts)) is minimal


@pytest.mark.parametrize(
    ("optimizers", "minimal"),
    [
        (("DivMulFusion",), True),
        (("DivMulFusion", "ConstantFolding"), False),  # one of them is enough
        (("ConstantFolding",), False),  # it does no harm
    ],
)
def test_a_set_of_optimizers_is_tried_again_without_each_member(
    optimizers: tuple[str, ...], minimal: bool
) -> None:
    path = Path(__file__).parents[1] / "data" / "defects" / "79_ort_divmul_integer.onnx"
    variant = parse_variant("ort.basic")
    task = Task(Cell(card_for(path), variant, "cpu"), path, Settings(input_sets=1))
    cause = Cause(level="basic", optimizers=optimizers)

    assert is_minimal(task, bind_variant(variant), cause) is minimal


def test_a_set_that_is_not_minimal_is_counted_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_for(save(linear(), tmp_path / "net.onnx"))
    right = _of_step(card, next(planted_steps()))
    monkeypatch.setattr(cause_rows, "is_minimal", lambda *_: False)
    wrong = _of_step(card, next(planted_steps()))

    assert "1 of 1 sets minimal" in CAUSES.figure([right])
    assert "0 of 1 sets minimal" in CAUSES.figure([wrong])
    assert (right.bad, wrong.bad) == (0, 1)
    assert not CAUSES.reached([right] * 99 + [wrong])


def one_by_one(
    items: Sequence[str], fails: Callable[[tuple[str, ...]], bool], **_: object
) -> Minimal[str]:
    """The search for a minimal set that halves nothing."""
    tried = [item for item in items if fails((item,))]
    return Minimal(tuple(tried), True, len(items))


def test_a_search_that_halves_nothing_costs_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cheap = of_tiny(partial(cause_cost._of_pass, number=30))
    monkeypatch.setattr(faulty_parts, "minimal_part", one_by_one)
    costly = of_tiny(partial(cause_cost._of_pass, number=30))

    assert cheap.bad == 0, cheap.words
    assert cause_cost.COST.reached([cheap])
    assert costly.bad == 1
    assert "transforms, and at most 16 are asked for" in costly.words[0]
    assert not cause_cost.COST.reached([cheap, costly])


def test_a_node_costs_no_more_sessions_than_are_asked_for() -> None:
    outcome = cause_cost._of_node(16)

    assert outcome.bad == 0, outcome.words
    assert cause_cost.most_sessions(16) == 14
    assert cause_cost.COST.figure([outcome]).endswith("sessions of 14")


def test_a_smallest_model_is_measured_with_its_cause_and_its_script() -> None:
    outcome = of_tiny(partial(smallest_rows.judge, fault=next(planted_steps())))

    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
    assert outcome.figures["nodes"] <= 2
    assert outcome.figures["checks"] > 0
    assert SMALLEST.reached([outcome])


def test_another_cause_at_the_end_and_a_script_that_shows_nothing_are_counted() -> None:
    fault = next(planted_steps())
    same = Diagnosis("It's that.", Cause(transform=STEP, passes=fault.parts))
    other = Diagnosis("It's another one.", Cause(transform=STEP, passes=("part_00",)))
    smallest = Smallest("shown", 2, 30)

    right, wrong, mute, stuck = (
        smallest_rows.outcome_of("m", smallest, again, fault, codes)
        for again, codes in ((same, (1, 0)), (other, (1, 0)), (same, (0, 0)), (same, (1, 1)))
    )

    assert (right.bad, wrong.bad, mute.bad, stuck.bad) == (0, 1, 1, 1)
    assert SMALLEST.reached([right])
    assert not any(SMALLEST.reached([right, outcome]) for outcome in (wrong, mute, stuck))


def test_large_smallest_models_and_many_checks_are_counted() -> None:
    figures = {"nodes": 2.0, "checks": 30.0, "same": 1.0, "shown": 1.0}
    small = Outcome(1, 0, (), figures)
    assert SMALLEST.reached([small, small, small])
    assert not SMALLEST.reached([Outcome(1, 0, (), figures | {"nodes": 4.0})])
    assert not SMALLEST.reached([small, small, Outcome(1, 0, (), figures | {"nodes": 7.0})])
    assert not SMALLEST.reached([Outcome(1, 0, (), figures | {"checks": 41.0})])


def test_slow_checks_are_counted() -> None:
    model = Outcome(1, 0, (), {"nodes": 2.0, "checks": 30.0, "same": 1.0, "shown": 1.0})
    fast, slow = (smallest_rows.rate_outcome(rate) for rate in (100.0, 99.0))

    assert SMALLEST.reached([fast, model])
    assert not SMALLEST.reached([slow, model])
    assert SMALLEST.figure([fast, model]).endswith("100 checks a second of a tiny one")


def test_the_checks_that_are_timed_show_the_fault() -> None:
    assert smallest_rows._rate().figures["rate"] > 0
    harmless = replace(next(planted_steps()), step=one_of_48(17).step, parts=("part_03",))
    with (
        pytest.raises(RuntimeError, match="doesn't show the planted fault"),
        closing(cell_worker(Settings())) as worker,
    ):
        worker.call(smallest_rows.timed_checks, harmless, 1)
