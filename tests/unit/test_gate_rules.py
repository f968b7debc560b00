"""A cell against its level: errors that grew, and figures that are no numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnx_harness.gate.rules import Compared, compare
from onnx_harness.results.cells import AccuracyRecord, CellResult, PlacementRecord
from onnx_harness.results.levels import Level, trimmed
from onnx_harness.results.outcome import Outcome
from tests.nights import timed
from tests.unit.results_examples import RUN, output

NAN = math.nan


def compared(accepted: CellResult, tonight: CellResult) -> Compared:
    level = Level(trimmed(accepted), "A Processor", RUN.seed, "night0", RUN.started, "w", "y")
    return compare(level, tonight, RUN)


def with_output(**fields: object) -> CellResult:
    """Return a cell whose second output has ``fields``; the first stays as it is."""
    return timed("original", accuracy=AccuracyRecord(4, {"y": output(), "z": output(**fields)}))  # type: ignore[arg-type]


def outcomes(seen: Compared) -> list[tuple[Outcome, str]]:
    return [(finding.outcome, finding.what) for finding in seen.findings]


@pytest.mark.parametrize("measure", ["minimum_tolerance", "rel_l2"])
@pytest.mark.parametrize("lost", [NAN, None])
def test_an_error_that_is_no_number_any_more_fails(measure: str, lost: float | None) -> None:
    seen = compared(with_output(), with_output(**{measure: lost}))
    assert outcomes(seen) == [(Outcome.FAIL, "accuracy")]
    assert seen.findings[0].reason.startswith("z: has no ")


@pytest.mark.parametrize("measure", ["minimum_tolerance", "rel_l2"])
@pytest.mark.parametrize("accepted", [NAN, None])
def test_an_error_that_was_no_number_when_accepted_is_not_compared(measure: str, accepted: float | None) -> None:
    assert outcomes(compared(with_output(**{measure: accepted}), with_output())) == []


def placed(share: float) -> CellResult:
    provider = "CPUExecutionProvider"
    return timed("original", placement=PlacementRecord(provider, {provider: 331}, {}, share))


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.9, []),
        (0.8995, []),
        (0.8985, [(Outcome.FAIL, "placement")]),
        (NAN, [(Outcome.FAIL, "placement")]),
    ],
)
def test_a_share_that_is_less_or_no_number_fails(share: float, expected: list[tuple[Outcome, str]]) -> None:
    assert outcomes(compared(placed(0.9), placed(share))) == expected


def test_another_provider_fails_whatever_its_share() -> None:
    tonight = placed(1.0)
    assert tonight.placement is not None
    elsewhere = replace(tonight.placement, requested="CUDAExecutionProvider")
    seen = compared(placed(0.9), replace(tonight, placement=elsewhere))
    assert outcomes(seen) == [(Outcome.FAIL, "placement")]
