"""Judging a finished run by other bounds: what follows from its figures, and what doesn't."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_harness.report.rejudge import Bounds, rejudge, usable
from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    OutputAccuracy,
    Stage,
    Status,
    Symptom,
)
from tests.unit.results_examples import cell, output


def judged(accuracy: OutputAccuracy, *, sets: int = 1, **more: Any) -> CellResult:
    return cell("fp16", accuracy=AccuracyRecord(sets, {"y": accuracy}), **more)


def status(before: CellResult, bounds: Bounds) -> Status | None:
    """The new status; None where it isn't known."""
    again = rejudge([before], bounds)
    return None if again.undecided else again.cells[0].status


BEYOND: dict[str, Any] = {
    "status": Status.FAIL,
    "stage": Stage.COMPARE,
    "symptom": Symptom.WRONG_VALUES,
    "reason": "off",
}


def test_a_pass_fails_by_narrower_bounds_and_says_why() -> None:
    before = judged(output(1e-5, rtol=1e-4, max_abs=1e-4, usable=True, faithful=True))
    again = rejudge([before], Bounds(1e-6, 1e-7))
    [after] = again.cells
    assert (after.status, after.stage, again.changed) == (
        Status.FAIL,
        Stage.COMPARE,
        (before.id,),
    )
    assert after.reason == "judged again: output y is beyond rtol 1e-06, atol 1e-07"
    assert after.accuracy is not None
    assert (after.accuracy.outputs["y"].rtol, after.accuracy.outputs["y"].usable) == (
        1e-6,
        False,
    )


def test_a_failure_by_its_bounds_alone_passes_by_wider_ones() -> None:
    before = judged(
        output(1e-3, rtol=1e-4, max_abs=0.1, usable=False, faithful=True), **BEYOND
    )
    [after] = rejudge([before], Bounds(1e-2, 1e-3)).cells
    assert (after.status, after.stage, after.reason, after.detail) == (
        Status.PASS,
        Stage.DONE,
        None,
        (),
    )


def test_what_is_not_faithful_or_ended_before_stays_a_failure() -> None:
    unfaithful = judged(output(1e-3, usable=False, faithful=False), **BEYOND)
    refused = cell(status=Status.FAIL, stage=Stage.SESSION, reason="refused", accuracy=None)
    renamed = judged(output(), **{**BEYOND, "symptom": Symptom.CHANGED_TYPES})
    again = rejudge([unfaithful, refused, renamed], Bounds(1.0, 1.0))
    assert [after.status for after in again.cells] == [Status.FAIL] * 3
    assert again.undecided == {}


def test_a_default_atol_of_several_sets_does_not_tell_of_wider_bounds() -> None:
    accuracy = output(1e-5, rtol=1e-4, max_abs=0.5)
    assert status(judged(accuracy, sets=4), Bounds(1e-3, 1e-2)) is None
    assert status(judged(accuracy, sets=1), Bounds(1e-3, 1e-2)) is Status.PASS
    assert status(judged(accuracy, sets=4), Bounds(1e-3, 0.5)) is Status.PASS
    assert status(judged(accuracy, sets=4), Bounds(1e-6, 1e-9)) is Status.FAIL


def test_a_failure_that_no_tolerance_mends_is_not_decided() -> None:
    before = judged(output(None, usable=False, faithful=True), **BEYOND)
    assert status(before, Bounds(1.0, 1.0)) is None
    unmeasured = judged(output(1e-6), **BEYOND)
    assert status(unmeasured, Bounds(1.0, 1.0)) is None


@pytest.mark.parametrize(("asked", "expected"), [(20.0, Status.PASS), (40.0, Status.FAIL)])
def test_a_demand_in_decibels(asked: float, expected: Status) -> None:
    assert status(judged(output(0.1, sqnr_db=30.0)), Bounds(sqnr_db=asked)) is expected


def test_equal_outputs_pass_whatever_the_bounds() -> None:
    equal = judged(output(0.0, max_abs=0.0, sqnr_db=None))
    assert status(equal, Bounds(0.0, 0.0)) is Status.PASS
    assert status(equal, Bounds(sqnr_db=200.0)) is Status.PASS
    assert status(judged(output(0.1, sqnr_db=None)), Bounds(sqnr_db=1.0)) is None


def test_the_norm_of_a_quantized_output_says_nothing_of_single_elements() -> None:
    by_norm = OutputAccuracy(0.5, 1.0, 0.02, 0.99, 34.0, 0, 0.02, 0.178, 0.0)
    assert usable(by_norm, Bounds(1e-2, 1e-3), one_set=True) is None


SHARES = st.floats(1e-6, 1e3)


@given(
    values=st.lists(
        st.tuples(st.floats(-100, 100), st.floats(-1, 1)), min_size=1, max_size=5
    ),
    used=st.tuples(SHARES, SHARES),
    asked=st.tuples(SHARES, SHARES),
)
def test_what_is_decided_is_what_the_elements_say(
    values: list[tuple[float, float]], used: tuple[float, float], asked: tuple[float, float]
) -> None:
    """Elements as (reference, error), judged by one pair of bounds and then by another."""
    (rtol, atol), (new_rtol, new_atol) = used, asked
    scale = max(abs(error) / (atol + rtol * abs(reference)) for reference, error in values)
    record = OutputAccuracy(
        max(abs(error) for _, error in values),
        None,
        0.5,
        None,
        3.0,
        0,
        scale * rtol,
        rtol,
        atol,
    )
    decided = usable(record, Bounds(new_rtol, new_atol), one_set=True)
    margins = [
        abs(error) - (new_atol + new_rtol * abs(reference)) for reference, error in values
    ]
    if decided is True:
        assert max(margins) <= 1e-9
    if decided is False:
        assert max(margins) > -1e-9
