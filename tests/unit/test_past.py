"""Earlier runs' verdicts: which of them count, and what the file of a new one is called by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.cell.content import machine_of, this_machine
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import line_of
from onnx_harness.results.verdicts import VerdictFiles
from onnx_harness.run import past as past_room
from onnx_harness.run.past import Past
from onnx_harness.settings import Settings
from tests.models import linear, model, save
from tests.unit.results_examples import RUN, latency
from tests.unit.results_examples import cell as result_of

ELSEWHERE = machine_of(replace(RUN.host, cpu="Another Processor", cores=99))
TIMED = result_of("simplify", model="m", latency=latency())


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    card = card_for(save(linear(), tmp_path / "m.onnx"))
    return Cell(card, parse_variant("simplify"), "cpu")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(report_dir=tmp_path / "reports", resume=True)


def keep(settings: Settings, result: CellResult, key: str, timing: str) -> None:
    assert settings.report_dir is not None
    VerdictFiles(settings.report_dir).put(result, key, timing)


def test_a_verdict_is_taken_and_its_times_where_they_were_taken_alike(
    cell: Cell, settings: Settings
) -> None:
    entry = Past(settings).entry(cell, reused=False)
    assert entry.key
    keep(settings, TIMED, entry.key, entry.timing)
    past = Past(settings)
    assert past.verdict(cell) == past.timed(cell) == TIMED
    assert past.line(cell) == line_of(TIMED)
    longer = Past(replace(settings, latency_budget=9.0))
    assert (longer.verdict(cell), longer.timed(cell)) == (TIMED, None)
    for other in (replace(settings, resume=False), replace(settings, seed=5)):
        assert Past(other).verdict(cell) is None
        assert Past(other).line(cell) == ""
    untimed = replace(TIMED, latency=None)
    keep(settings, untimed, entry.key, entry.timing)
    past = Past(settings)
    assert (past.verdict(cell), past.timed(cell)) == (untimed, None)


def test_each_machine_and_limit_has_a_key_of_its_own(cell: Cell, settings: Settings) -> None:
    asked = [(None, 0), (ELSEWHERE, 0), (ELSEWHERE, 1 << 30), (None, 1 << 31)]
    past = Past(settings)
    keys = [past.key(cell, machine, limit) for machine, limit in asked]
    assert len(set(keys)) == len(asked)
    assert keys == [Past(settings).key(cell, *words) for words in asked]
    assert past.key(cell, this_machine()) == keys[0]


def test_what_another_machine_judged_is_kept_by_that_machine_and_its_limit(
    cell: Cell, settings: Settings
) -> None:
    past = Past(settings)
    here = past.entry(cell, reused=False)
    past.judged_on(cell, ELSEWHERE, 1 << 30)
    past.judged_on(cell, ELSEWHERE)  # its times come later
    there = past.entry(cell, reused=False)
    assert there.key == past.key(cell, ELSEWHERE, 1 << 30)
    assert there.timing != here.timing


def test_a_verdict_of_the_cluster_is_reused_under_its_machines_key(
    cell: Cell, settings: Settings
) -> None:
    elsewhere = Past(settings).key(cell, ELSEWHERE)
    keep(settings, TIMED, elsewhere, "of another budget")
    past = Past(settings)
    past.machines = [this_machine(), ELSEWHERE]
    assert past.verdict(cell) == TIMED
    assert past.entry(cell, reused=True).key == elsewhere
    assert past.entry(cell, reused=False).key == past.key(cell) != elsewhere


def test_a_model_that_changes_between_its_cells_is_another(
    cell: Cell, settings: Settings
) -> None:
    past = Past(replace(settings, resume=False))
    past.key(cell)
    save(model("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }"), cell.card.path)
    later = replace(cell, variant=parse_variant("optimize"))
    assert past.key(later) == Past(settings).key(later)


def test_what_cant_be_read_has_no_key(
    cell: Cell, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> str:
        raise PermissionError("not yours")

    monkeypatch.setattr(past_room, "model_digest", refused)
    past = Past(settings)
    assert (past.key(cell), past.verdict(cell)) == ("", None)
    assert Past(Settings()).key(cell) == ""
