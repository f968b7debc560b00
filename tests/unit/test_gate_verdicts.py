"""A night's verdicts: how many pairs a cell gets, and what its pairs say beside its accepted level."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnx_harness.gate.latency import is_comparable
from onnx_harness.gate.verdicts import (
    BUDGET_S,
    PAIR_S,
    confirming_pairs,
    decide_again,
    decide_cells,
    is_slower,
    lockstep_pairs,
    undecided,
    with_verdict,
    without_second,
)
from onnx_harness.latency.statistics import (
    ALPHA,
    CONFIRMING_PAIRS,
    MINIMUM_EFFECT,
    Decision,
    pairs_needed,
)
from onnx_harness.report.table import ModelHeader
from onnx_harness.results.cells import PinnedRecord, Status
from onnx_harness.results.history import History
from onnx_harness.results.levels import Level, trimmed
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.store import ResultsWriter, read_results
from onnx_harness.results.timings import LevelVerdict
from onnx_harness.run.account import Account
from tests.nights import PINNED, pinned, spread_about, timed
from tests.unit.results_examples import RUN


@pytest.mark.parametrize("cells", [1, 2, 20, 120, 500, 2000])
def test_so_many_pairs_as_can_fail_are_chosen_from_the_number_of_cells_alone(
    cells: int,
) -> None:
    choice = lockstep_pairs(cells)
    assert choice.pairs >= pairs_needed(ALPHA / cells)
    assert choice == lockstep_pairs(cells)
    assert choice.why.startswith(f"{choice.pairs} pairs for ")
    slowest = {
        "": (record(1.5, pairs=choice.pairs), 1.0),
        **{str(n): (record(1.0), 1.0) for n in range(cells - 1)},
    }
    if cells <= 120:
        assert decide_cells(slowest)[""].outcome is Outcome.FAIL


def test_a_night_of_the_zoo_keeps_to_its_time() -> None:
    choice = lockstep_pairs(120)
    assert 120 * choice.pairs * PAIR_S <= BUDGET_S
    assert choice.power >= 0.95


def test_the_second_measurement_has_no_fewer_pairs_than_the_first() -> None:
    assert [confirming_pairs(16), confirming_pairs(40)] == [CONFIRMING_PAIRS, 40]


def record(
    ratio: float, *, pairs: int = 16, spread: float = 0.005, seed: int = 1
) -> PinnedRecord:
    values = spread_about(ratio, spread, pairs, np.random.default_rng(seed))
    return PinnedRecord(PINNED, Status.PASS, ratio=ratio, log_ratios=values)


def verdict(measured: PinnedRecord, accepted: float) -> LevelVerdict:
    made = with_verdict(
        measured, accepted, decide_cells({"": (measured, accepted)})[""]
    ).verdict
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("ratio", "accepted", "outcome"),
    [
        (1.05, 1.0, Outcome.FAIL),
        (1.0, 1.05, Outcome.PASS),  # faster
        (1.3, 1.3, Outcome.PASS),
        (1.3, 1.24, Outcome.FAIL),
        (0.8, 0.75, Outcome.FAIL),
        (1.01, 1.0, Outcome.PASS),  # below the minimum effect
    ],
)
def test_pairs_are_held_against_the_accepted_level_and_above_one_is_slower(
    ratio: float, accepted: float, outcome: Outcome
) -> None:
    found = verdict(record(ratio), accepted)
    assert (found.outcome, found.accepted, found.pairs, found.reason) == (
        outcome,
        accepted,
        16,
        None,
    )
    assert found.ratio == pytest.approx(ratio / accepted, rel=0.003)
    assert found.ratio is not None
    assert found.ratio_ci95 is not None
    assert found.ratio_ci95[0] <= found.ratio <= found.ratio_ci95[1]


def test_evidence_is_adjusted_for_the_other_cells_of_the_run() -> None:
    """Of one cell the evidence would do; among 120 equals something like it comes up by chance."""
    doubtful = record(1.03, spread=0.04)
    alone = decide_cells({"slow": (doubtful, 1.0)})["slow"]
    others = {str(number): (record(1.0, seed=number), 1.0) for number in range(119)}
    together = decide_cells({"slow": (doubtful, 1.0), **others})["slow"]
    assert alone.outcome is Outcome.FAIL
    assert alone.p is not None
    assert together.outcome is Outcome.INCONCLUSIVE
    assert together.p == pytest.approx(min(1.0, 120 * alone.p))
    in_a_part = decide_cells({"slow": (doubtful, 1.0)}, family=120)["slow"]
    assert (in_a_part.outcome, in_a_part.p) == (together.outcome, together.p)


def test_a_slowdown_fails_only_if_both_measurements_say_so() -> None:
    slow = record(1.05)
    first = decide_cells({"": (slow, 1.0)})[""]
    assert undecided(with_verdict(slow, 1.0, first))
    again = record(1.05, pairs=32, seed=2).log_ratios
    assert decide_again(first, again, 1.0).outcome is Outcome.FAIL
    assert decide_again(first, record(1.0, pairs=32).log_ratios, 1.0).outcome is Outcome.PASS
    settled = replace(
        with_verdict(slow, 1.0, decide_again(first, again, 1.0)), confirming_log_ratios=again
    )
    assert not undecided(settled)
    assert settled.night_ratio == pytest.approx(1.05)


def test_a_second_measurement_that_failed_leaves_no_verdict() -> None:
    slow = record(1.05)
    first = with_verdict(slow, 1.0, decide_cells({"": (slow, 1.0)})[""])
    left = without_second(first, "GateError: the process died of signal 11")
    assert left.verdict is not None
    assert left.verdict.outcome is Outcome.INVALID
    assert (
        left.verdict.reason
        == "fail, and couldn't be measured again: GateError: the process died of signal 11"
    )
    assert not undecided(left)
    with pytest.raises(ValueError, match="without a verdict"):
        without_second(slow, "x")


def test_only_what_means_the_same_is_held_against_a_level() -> None:
    level = Level(
        trimmed(timed("original")),
        "A Processor",
        7,
        "r",
        "2026-01-02T03:04:05+00:00",
        "w",
        "y",
    )
    cell = timed("original", 1.2)
    assert cell.pinned is not None
    assert is_comparable(level, "A Processor", 7, cell)
    assert not is_comparable(level, "Another", 7, cell)
    assert not is_comparable(level, "A Processor", 8, cell)
    assert not is_comparable(level, "A Processor", 7, replace(cell, card_sha256="c2"))
    assert not is_comparable(level, "A Processor", 7, replace(cell, inputs_sha256="i2"))
    assert not is_comparable(level, "A Processor", 7, replace(cell, pinned=None))
    for change in (
        {"model_sha256": "cd"},
        {"threads": 2},
        {"versions": {"onnxruntime": "2"}},
        {"ratio": math.inf},
    ):
        other = replace(pinned(), **change)
        assert not is_comparable(level, "A Processor", 7, replace(cell, pinned=other)), (
            change
        )
    without = replace(
        level, cell=replace(level.cell, pinned=replace(cell.pinned, ratio=None))
    )
    assert not is_comparable(without, "A Processor", 7, cell)


def test_a_verdict_is_kept_with_its_cell_as_soon_as_it_is_there(tmp_path: Path) -> None:
    header = ModelHeader()
    before = timed(
        "original", pinned=pinned(1.06, again=1.05, verdict=None, confirming_log_ratios=())
    )
    after = timed("original", pinned=pinned(1.06, again=1.05))
    assert after.pinned is not None
    account = Account(tmp_path, RUN)
    account.put(before, header)
    account.put(timed("simplify"), header)
    account.update(after)
    assert read_results(tmp_path).cells == (after, timed("simplify"))
    with History(tmp_path / "history.sqlite") as past:
        assert past.cells(RUN.id) == (after, timed("simplify"))
        [(ratio,)] = past._database.execute(
            "SELECT pinned_ratio FROM cells WHERE variant = 'original'"
        ).fetchall()
    assert ratio == pytest.approx(1.05)
    told = [line.text for line in account.lines(width=120, quiet=False)]
    assert (
        "latency compared with the accepted levels: 1 pass, 1 fail, 1 of them measured again; "
        "`onnx-harness gate` decides" in told
    )
    account.finish()
    [kept, _] = json.loads((tmp_path / "results.json").read_text("utf-8"))["cells"]
    assert len(kept["pinned"]["confirming_log_ratios"]) == CONFIRMING_PAIRS


def test_a_verdict_fits_into_the_room_that_its_cell_has(tmp_path: Path) -> None:
    """So that a hundred of them at the end of a run don't write the whole file a hundred times."""
    writer = ResultsWriter(tmp_path, RUN)
    cells = [timed(f"v{number}", pinned=pinned(1.06)) for number in range(20)]
    for each in cells:
        assert each.pinned is not None
        writer.put(replace(each, latency=None, pinned=None))
        writer.put(
            replace(
                each, pinned=replace(each.pinned, verdict=None, confirming_log_ratios=())
            )
        )
    size = (tmp_path / "results.json").stat().st_size
    for each in cells:
        writer.put(each)
    assert (tmp_path / "results.json").stat().st_size == size
    assert read_results(tmp_path).cells == tuple(cells)
    writer.close()


def a_decision(outcome: Outcome, estimate: float | None) -> Decision:
    return Decision(outcome, 0.5, estimate, None, 16)


@pytest.mark.parametrize(
    ("outcome", "estimate", "expected"),
    [
        (Outcome.FAIL, None, True),
        (Outcome.FAIL, 1.5, True),
        (Outcome.PASS, None, False),
        (Outcome.INVALID, 1.0, False),
        (Outcome.PASS, 1 / (1 + MINIMUM_EFFECT), False),
        (Outcome.PASS, math.nextafter(1 / (1 + MINIMUM_EFFECT), 0), True),
        (Outcome.INCONCLUSIVE, 0.5, True),
        (Outcome.INCONCLUSIVE, 1.5, False),
    ],
)
def test_operators_are_named_of_what_fails_or_is_as_slow(
    outcome: Outcome, estimate: float | None, expected: bool
) -> None:
    assert is_slower(a_decision(outcome, estimate)) is expected


@pytest.mark.parametrize("ends", [None, (0.8, 1.25)])
@pytest.mark.parametrize("estimate", [None, 0.5])
def test_a_verdict_has_what_was_decided_the_other_way_round(
    ends: tuple[float, float] | None, estimate: float | None
) -> None:
    made = Decision(Outcome.INVALID, 0.03, estimate, ends, 12, "why", 0.01, 3)
    before = record(1.1)
    after = with_verdict(before, 1.3, made)
    assert after == replace(before, verdict=after.verdict)
    assert after.verdict == LevelVerdict(
        outcome=Outcome.INVALID,
        accepted=1.3,
        p=0.03,
        ratio=None if estimate is None else 2.0,
        ratio_ci95=None if ends is None else (0.8, 1.25),
        pairs=12,
        reason="why",
    )


def test_a_second_measurement_that_failed_keeps_all_but_the_outcome() -> None:
    first = with_verdict(record(1.1), 1.0, a_decision(Outcome.INCONCLUSIVE, 0.9))
    assert first.verdict is not None
    reason = "inconclusive, and couldn't be measured again: x"
    verdict = replace(first.verdict, outcome=Outcome.INVALID, p=None, reason=reason)
    assert without_second(first, "x") == replace(first, verdict=verdict)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.FAIL, True),
        (Outcome.INCONCLUSIVE, True),
        (Outcome.PASS, False),
        (Outcome.INVALID, False),
    ],
)
def test_a_doubt_is_settled_by_a_second_measurement(
    outcome: Outcome, expected: bool
) -> None:
    first = with_verdict(record(1.1), 1.0, a_decision(outcome, 0.9))
    assert undecided(first) is expected
    assert not undecided(replace(first, confirming_log_ratios=(0.1,)))
    assert not undecided(replace(first, verdict=None))


def test_each_cell_is_held_against_its_own_level() -> None:
    cells = {"slow": (record(1.5), 1.2), "same": (record(1.5, seed=2), 1.5)}
    found = decide_cells(cells)
    assert list(found) == ["slow", "same"]
    assert found["slow"].estimate == pytest.approx(1.2 / 1.5, rel=0.005)
    assert found["same"].estimate == pytest.approx(1.0, rel=0.005)
    again = decide_again(found["slow"], record(1.5, pairs=32).log_ratios, 1.2)
    assert again.estimate == pytest.approx(1.2 / 1.5, rel=0.005)
    assert again.outcome is Outcome.FAIL
