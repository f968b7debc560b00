"""The account of a run: what it writes at the end, and what it says is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.report.table import ModelHeader
from onnx_harness.report.write import SUMMARY
from onnx_harness.results.cells import Status
from onnx_harness.results.store import ResultsWriter
from onnx_harness.run import account as account_room
from onnx_harness.run.account import Account
from tests.unit.results_examples import RUN, cell

HEADER = ModelHeader("MIT", 1, 17)
LATER = replace(RUN, id="20260103t030405z-0a1b2c3d")


def fails(*_: object, **__: object) -> None:
    raise ResultsError("the disk is full")


def test_a_report_is_the_latest_runs_that_judged_something(tmp_path: Path) -> None:
    for run, cells in ((RUN, [cell()]), (LATER, [cell(model="later")])):
        account = Account(tmp_path, run)
        for each in cells:
            account.put(each, HEADER)
        account.finish()
    written = (tmp_path / SUMMARY).read_text("utf-8")
    assert "later" in written
    Account(tmp_path, replace(RUN, id="20260104t030405z-0a1b2c3d")).finish()
    assert (tmp_path / SUMMARY).read_text("utf-8") == written


def test_a_model_none_of_whose_cells_was_judged_is_told() -> None:
    account = Account(None, RUN)
    skipped = Status.NOT_APPLICABLE
    for variant, model, status in (
        ("original", "some", Status.PASS),
        ("fp16", "some", skipped),
        ("original", "none", skipped),
        ("fp16", "none", skipped),
    ):
        account.put(cell(variant, model=model, status=status, reason="no"), HEADER)
    account.put(cell(model="case", status=skipped), HEADER, suite="a suite")
    assert {name: each.id for name, each in account.unjudged().items()} == {
        "none": "none-original-cpu"
    }
    said = [line.text for line in account.lines(width=200, quiet=True)]
    assert "none: no cell was judged, so the run isn't a success: no" in said


def test_what_cant_be_kept_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, (owner, name) in enumerate(
        ((ResultsWriter, "put_all"), (account_room, "write_reports"))
    ):
        account = Account(tmp_path / str(place), RUN)
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fails)
            account.put(cell(), HEADER)
            assert account.incomplete is None
            account.finish()
        assert account.incomplete == "the disk is full"
        assert "the disk is full" in [
            line.text for line in account.lines(width=200, quiet=True)
        ]
