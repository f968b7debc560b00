"""A cell against its level: what has changed, in what words, and figures that are no numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from onnx_harness.gate.rules import LESS_SHARE, LOOSER, Compared, compare
from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    GraphChange,
    KnownRecord,
    PlacementRecord,
    Stage,
    Status,
)
from onnx_harness.results.levels import Level, trimmed
from onnx_harness.results.outcome import Outcome
from tests.nights import pinned, timed
from tests.unit.results_examples import RUN, output

NAN = math.nan


def compared(accepted: CellResult, tonight: CellResult) -> Compared:
    level = Level(
        trimmed(accepted), "A Processor", RUN.seed, "night0", RUN.started, "w", "y"
    )
    return compare(level, tonight, RUN)


def with_output(**fields: object) -> CellResult:
    """Return a cell whose second output has ``fields``; the first stays as it is."""
    second = output(**fields)  # type: ignore[arg-type]
    return timed("original", accuracy=AccuracyRecord(4, {"y": output(), "z": second}))


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
def test_an_error_that_was_no_number_when_accepted_is_not_compared(
    measure: str, accepted: float | None
) -> None:
    assert outcomes(compared(with_output(**{measure: accepted}), with_output())) == []


def placed(share: float) -> CellResult:
    provider = "CPUExecutionProvider"
    return timed("original", placement=PlacementRecord(provider, {provider: 331}, {}, share))


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.9, []),
        (0.9 - LESS_SHARE, []),
        (0.8985, [(Outcome.FAIL, "placement")]),
        (NAN, [(Outcome.FAIL, "placement")]),
    ],
)
def test_a_share_that_is_less_or_no_number_fails(
    share: float, expected: list[tuple[Outcome, str]]
) -> None:
    assert outcomes(compared(placed(0.9), placed(share))) == expected


def test_another_provider_fails_whatever_its_share() -> None:
    tonight = placed(1.0)
    assert tonight.placement is not None
    elsewhere = replace(tonight.placement, requested="CUDAExecutionProvider")
    seen = compared(placed(0.9), replace(tonight, placement=elsewhere))
    assert outcomes(seen) == [(Outcome.FAIL, "placement")]


RULED = timed("original", seconds={})
Changes = dict[str, object]


def changed(cell: CellResult, **fields: object) -> CellResult:
    """Return ``cell`` with ``fields``.

    Those of records by a double underscore: ``pinned__threads``.
    """
    for name, value in fields.items():
        record, _, inner = name.partition("__")
        now: Any = replace(getattr(cell, record), **{inner: value}) if inner else value
        changes: dict[str, Any] = {record: now}
        cell = replace(cell, **changes)
    return cell


def said(seen: Compared) -> list[str]:
    """Return each finding as one line, then the notes."""
    lines = [f"{found.outcome} {found.what}: {found.reason}" for found in seen.findings]
    return [*lines, *seen.notes]


FAILED = {
    "status": Status.FAIL,
    "stage": Stage.COMPARE,
    "reason": "it differs",
    "pinned": None,
}
SHARE = PlacementRecord(
    "CPUExecutionProvider", {"CPUExecutionProvider": 331}, {"Mul": 2, "Add": 1}, 0.5
)
GRAPH = GraphChange(672, 333, 4_700_000, 4_600_000, 0.5)
PASSED_PINNED = {**FAILED, "pinned": pinned()}
FAILED_PINNED = {**FAILED, "pinned": pinned(status=Status.FAIL)}
JUDGED = AccuracyRecord(4, {"y": output()})


@pytest.mark.parametrize(
    ("accepted", "tonight", "expected"),
    [
        ({}, {}, []),
        ({}, {"model_sha256": "cd"}, ["the model isn't the file that was accepted"]),
        (
            {},
            {"inputs_sha256": "i2"},
            [
                "invalid inputs: it was judged on other inputs than the accepted ones: their "
                "number, or how they're made"
            ],
        ),
        ({}, {"inputs_sha256": ""}, []),
        ({"inputs_sha256": ""}, {}, []),
        (
            {},
            {"card_sha256": "c2"},
            [
                "invalid card: its card says other things about inputs, tolerances or known "
                "failures than when accepted"
            ],
        ),
        ({"pinned": None}, {}, []),
        ({}, {"pinned": None}, []),
        (
            {"pinned__threads": 1},
            {"pinned__threads": 2},
            ["invalid threads: timed on 2 threads, and accepted on 1"],
        ),
        (
            {"pinned__versions": {"onnx": "1", "pytest": "8", "a": "1", "c": "1"}},
            {"pinned__versions": {"onnx": "2", "pytest": "9", "b": "1", "c": "1"}},
            [
                "invalid versions: the pinned reference isn't the accepted one: "
                "a 1, now absent; b absent, now 1; onnx 1, now 2"
            ],
        ),
        (FAILED, FAILED, []),
        (
            {**FAILED, "stage": Stage.RUN},
            {**FAILED, "reason": None},
            [
                "fail status: was accepted as fail at run, and is fail at compare: no reason was "
                "given"
            ],
        ),
        (FAILED, {"graph": GRAPH}, ["passes; it was accepted as fail at compare"]),
        (
            {**FAILED, "status": Status.KNOWN_FAILURE},
            {
                "graph": GRAPH,
                "known": KnownRecord("r", {}, mended="thing 1.33.0 (known of <1.33)"),
            },
            [
                "passes, mended by thing 1.33.0 (known of <1.33); it was accepted as known_failure "
                "at compare"
            ],
        ),
        (
            {"stage": Stage.LATENCY},
            {"graph": None, "placement": None, "accuracy": None},
            [
                "invalid placement: it isn't known where its nodes ran",
                "invalid accuracy: its outputs weren't compared",
            ],
        ),
        (
            {"graph": None, "placement": None, "accuracy": None},
            {"graph": GRAPH, "placement": SHARE},
            [],
        ),
        (
            {},
            {**FAILED, "status": Status.ERROR, "graph": GRAPH},
            ["invalid status: couldn't be judged, error at compare: it differs"],
        ),
        (
            {},
            {**PASSED_PINNED, "graph": GRAPH},
            [
                "fail status: was accepted as pass, and is fail at compare: it differs "
                "(with the pinned versions it ends as pass: it's the versions under test)"
            ],
        ),
        (
            {},
            FAILED_PINNED,
            [
                "fail status: was accepted as pass, and is fail at compare: it differs "
                "(with the pinned versions too: it's the model, the card or the machine)"
            ],
        ),
        ({}, {"graph": GRAPH}, ["fail nodes: 333 nodes, and 331 were accepted"]),
        (
            {},
            {"graph": GRAPH, "pinned__graph": replace(GRAPH, nodes_after=1331)},
            [
                "fail nodes: 333 nodes (1,331 with the pinned versions), and 331 were accepted"
            ],
        ),
        (
            {"graph": replace(GRAPH, nodes_after=2000)},
            {"graph": replace(GRAPH, nodes_after=1999)},
            ["1,999 nodes, fewer than the 2,000 accepted"],
        ),
        ({}, {"graph__bytes_after": 4_646_000}, []),
        (
            {},
            {"graph__bytes_after": 4_646_001},
            ["fail size: 4,646,001 bytes, and 4,600,000 were accepted"],
        ),
        (
            {},
            {"placement": SHARE},
            [
                "fail placement: 50.0% of its nodes run on CPUExecutionProvider, and 100.0% "
                "were accepted; elsewhere: Add (1), Mul (2)"
            ],
        ),
        (
            {},
            {"placement__share": 0.5},
            [
                "fail placement: 50.0% of its nodes run on CPUExecutionProvider, and 100.0% were "
                "accepted"
            ],
        ),
        (
            {},
            {"placement__requested": "CUDA", "placement__share": 0.5},
            ["fail placement: asked for CUDA, and accepted on CPUExecutionProvider"],
        ),
        (
            {"accuracy": AccuracyRecord(4, {name: output() for name in "zay"})},
            {"accuracy": AccuracyRecord(4, {"y": output(), "new": output()})},
            ["fail accuracy: its outputs a, z are gone"],
        ),
        (
            {},
            {"accuracy": AccuracyRecord(4, {"y": output(rel_l2=1.0)}), "card_sha256": "c2"},
            [
                "invalid card: its card says other things about inputs, tolerances or known "
                "failures than when accepted"
            ],
        ),
    ],
)
def test_what_changed_is_said(
    accepted: Changes, tonight: Changes, expected: list[str]
) -> None:
    seen = compared(changed(RULED, **accepted), changed(RULED, **tonight))
    assert said(seen) == expected


def test_another_seed_is_said_and_not_that_its_inputs_differ() -> None:
    level = Level(trimmed(RULED), "A Processor", 8, "night0", RUN.started, "w", "y")
    seen = compare(level, replace(RULED, inputs_sha256="i2"), RUN)
    assert said(seen) == [
        "invalid seed: the run's seed is 7, and the level was accepted with 8"
    ]
    assert not seen.comparable


@pytest.mark.parametrize(
    ("accepted", "tonight", "other_model", "expected"),
    [
        ({}, {"atol": 1e-5 * LOOSER}, False, []),
        (
            {},
            {"atol": 1.02e-5},
            False,
            [
                "invalid accuracy: y: the tolerance is looser (rtol 0.0001, atol 1.02e-05) "
                "than the accepted one (rtol 0.0001, atol 1e-05)"
            ],
        ),
        ({}, {"atol": 1.0}, True, []),
        (
            {},
            {"rtol": 2e-4},
            True,
            [
                "invalid accuracy: y: the tolerance is looser (rtol 0.0002, atol 1e-05) "
                "than the accepted one (rtol 0.0001, atol 1e-05)"
            ],
        ),
        (
            {},
            {"vacuous": "it is constant"},
            False,
            ["invalid accuracy: y: the comparison can't fail any more: it is constant"],
        ),
        ({"vacuous": "it was"}, {"vacuous": "it is constant"}, False, []),
        ({"nonfinite": 3}, {"nonfinite": 3}, False, []),
        (
            {"nonfinite": 2000},
            {"nonfinite": 2001},
            False,
            [
                "fail accuracy: y: 2,001 values are NaN or infinite where they shouldn't be, "
                "2,000 were"
            ],
        ),
        ({"rel_l2": 1e-5}, {"rel_l2": 2e-5}, False, []),
        (
            {"rel_l2": 1e-5},
            {"rel_l2": 2.1e-5},
            False,
            ["fail accuracy: y: relative L2 error 2.1e-05, and 1e-05 was accepted"],
        ),
        # a hundredth of the relative tolerance may always grow
        ({"minimum_tolerance": 1e-9}, {"minimum_tolerance": 1e-6}, False, []),
        (
            {"minimum_tolerance": 1e-9},
            {"minimum_tolerance": 1.1e-6},
            False,
            [
                "fail accuracy: y: smallest tolerance that would pass 1.1e-06, and 1e-09 was "
                "accepted"
            ],
        ),
        (
            {"minimum_tolerance": None},
            {"minimum_tolerance": 1.0, "rel_l2": 1.0},
            False,
            ["fail accuracy: y: relative L2 error 1, and 1e-05 was accepted"],
        ),
    ],
)
def test_an_output_that_got_worse_is_said(
    accepted: Changes, tonight: Changes, other_model: bool, expected: list[str]
) -> None:
    was, now = (
        AccuracyRecord(4, {"y": replace(output(), **fields)})  # type: ignore[arg-type]
        for fields in (accepted, tonight)
    )
    model = "cd" if other_model else RULED.model_sha256
    seen = compared(
        replace(RULED, accuracy=was), replace(RULED, accuracy=now, model_sha256=model)
    )
    assert [line for line in said(seen) if not line.startswith("the model")] == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (JUDGED, " (smallest tolerance with the pinned versions: 1.1e-06)"),
        (AccuracyRecord(4, {"y": output(minimum_tolerance=None)}), ""),
        (AccuracyRecord(4, {"z": output()}), ""),
        (None, ""),
    ],
)
def test_the_pinned_versions_error_is_said_beside(
    there: AccuracyRecord | None, expected: str
) -> None:
    worse = AccuracyRecord(4, {"y": output(rel_l2=1.0)})
    tonight = replace(RULED, accuracy=worse, pinned=pinned(accuracy=there))
    told = f"fail accuracy: y: relative L2 error 1, and 1e-05 was accepted{expected}"
    assert said(compared(RULED, tonight)) == [told]
