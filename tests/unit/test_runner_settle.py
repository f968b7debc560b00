"""The end of a run beside the reference: parts of the second measurements in turn, and what comes
of each cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.timing import timing_inputs
from onnx_harness.errors import GateError
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, PinnedRecord
from onnx_harness.results.outcome import Outcome
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, save
from tests.nights import pinned

SLOW, SETTLED = pinned(1.05, confirming_log_ratios=()), pinned(1.05)
PARTS = {"lin-original-cpu": 1, "lin-simplify-cpu": 3, "lin-ort.all-cpu": 2}


class Reference:
    """Stands in for the pinned reference, which would take half a minute for each cell: only the
    order matters here.
    """

    def __init__(self, breaks: str = "") -> None:
        self.asked: list[str] = []
        self.fed: list[Any] = []
        self._breaks = breaks

    def decide(self) -> dict[str, PinnedRecord]:
        return dict.fromkeys(PARTS, SLOW)

    def doubtful(self) -> list[str]:
        return list(PARTS)

    def again(self, id: str, values: Mapping[str, Any]) -> PinnedRecord | None:
        assert values.keys() == {"x"}
        self.asked.append(id)
        self.fed.append(values["x"])
        taken = Counter(self.asked)[id]
        if id == self._breaks and taken == 2:
            raise GateError("out of order")
        return SETTLED if taken == PARTS[id] else None

    def close(self) -> None:
        pass


def settled(
    reference: Reference, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[CellResult], list[str]]:
    """What a run yields at its end, and what it says."""
    said: list[str] = []
    runner = Runner(Settings(input_sets=4))
    card = card_for(save(linear(), folder / "lin.onnx"))
    cells = [
        Cell(card, parse_variant(name), "cpu")
        for name in ("original", "simplify", "ort.all")
    ]
    monkeypatch.setattr(runner, "_pinned", reference)
    monkeypatch.setattr(
        runner, "_timed", {cell.id: (cell, runner.judge(cell)) for cell in cells}
    )
    try:
        found = list(runner.settle(said.append))
        first, *_, second = runner.call(timing_inputs, runner.task(cells[0]))
        assert all(np.array_equal(values, first["x"]) for values in reference.fed)
        assert not np.array_equal(first["x"], second["x"])
        return found, said
    finally:
        runner.close()


def test_a_part_of_each_doubtful_cell_is_taken_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference()
    found, said = settled(reference, tmp_path, monkeypatch)
    first, second, third = PARTS
    assert reference.asked == [first, second, third, second, third, second]
    assert [(each.id, each.pinned) for each in found] == [
        *((name, SLOW) for name in PARTS),
        *((name, SETTLED) for name in (first, third, second)),
    ]
    assert [line.partition("in turn, ")[2] for line in said] == [
        f"{done} of 3 settled: {name}, turn {turn}"
        for done, turn, name in zip(
            (0, 1, 1, 1, 1, 2), (1, 1, 1, 2, 2, 3), reference.asked, strict=True
        )
    ]


def test_a_cell_whose_second_part_fails_has_no_verdict_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = PARTS
    reference = Reference(breaks=second)
    found, _ = settled(reference, tmp_path, monkeypatch)
    assert reference.asked == [first, second, third, second, third]
    ended = {each.id: each.pinned.verdict for each in found if each.pinned}
    broken = ended[second]
    assert broken is not None
    assert broken.outcome is Outcome.INVALID
    assert broken.reason == "fail, and couldn't be measured again: GateError: out of order"
    assert ended[first] == ended[third] == SETTLED.verdict
