"""The public scoreboard: how cells become rows, and rows a page."""

from __future__ import annotations

from datetime import UTC, datetime

from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from tests.scoreboard.board import COLUMNS, Score, as_json, entries, page


def cell(
    model: str, variant: str, status: Status, symptom: Symptom | None = None
) -> CellResult:
    stage = Stage.DONE if status is Status.PASS else Stage.COMPARE
    return CellResult(
        f"{model}-{variant}-cpu",
        model,
        "",
        variant,
        "cpu",
        status,
        stage,
        "why",
        symptom=symptom,
    )


OFFICIAL = [
    cell("a", "onnxsim+ort.disable", Status.PASS),
    cell("b", "onnxsim+ort.disable", Status.FAIL, Symptom.WRONG_VALUES),
    cell("c", "onnxsim+ort.disable", Status.FAIL, Symptom.INVALID),
    cell("d", "onnxsim+ort.disable", Status.FAIL, Symptom.CRASH),
    cell("e", "onnxsim+ort.disable", Status.FAIL),
    cell("f", "onnxsim+ort.disable", Status.FAIL, Symptom.NOT_RUN),
    cell("g", "onnxsim+ort.disable", Status.NOT_APPLICABLE),
]
KNOWN = [cell("x", "simplify+ort.disable", Status.PASS)]


def test_what_onnx_runtime_does_not_run_and_what_is_not_applicable_counts_for_nobody() -> (
    None
):
    rows = {row.name: row for row in entries(OFFICIAL, KNOWN, {"onnxsim": "0.6.5"})}
    assert len(rows) == len(COLUMNS)
    assert rows["onnxsim"].version == "0.6.5"
    assert rows["onnxsim"].operators == Score(5, 1, 1, 1, 1, 1)
    assert rows["onnxsim"].defects is None
    assert rows["onnx-harness, simplify"].defects == Score(1, 1, 0, 0, 0, 0)


def test_the_page_says_what_was_not_run_and_escapes_what_it_is_given() -> None:
    rows = entries(OFFICIAL, KNOWN, {"onnxsim": "<b>0</b>"})
    text = page(rows, datetime(2026, 1, 2, tzinfo=UTC))
    assert "&lt;b&gt;0&lt;/b&gt;" in text
    assert "<b>0</b>" not in text
    assert "1 of 5" in text
    assert "not run" in text
    assert "2026-01-02" in text


def test_the_numbers_are_json_too() -> None:
    assert as_json(entries(OFFICIAL, KNOWN, {}))[1]["operators"]["run"] == 5


def test_no_library_answers_for_onnx_runtimes_optimizer() -> None:
    for column in COLUMNS:
        own = column.distribution == "onnxruntime"
        assert (
            column.variant.startswith("ort.")
            if own
            else column.variant.endswith("+ort.disable")
        )
