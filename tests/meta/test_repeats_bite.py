"""A session that is right once: a second run, or one after another size, that departs fails, and
says which run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_harness.cell import outputs, repeats
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import run
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import linear, model, save


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


class Forgetful:
    """Runs a session, and gives zeros from the run of that number on the first input set, or the
    smallest change.
    """

    def __init__(self, wrong: set[int], *, last_bit: bool = False) -> None:
        self.counts: dict[bytes, int] = {}
        self.runs = 0
        self._wrong, self._last_bit = wrong, last_bit

    def __call__(self, session: Any, values: Any) -> dict[str, Any]:
        outputs = run(session, values)
        key = b"".join(value.tobytes() for value in values.values())
        self.counts[key] = self.counts.get(key, 0) + 1
        self.runs += 1
        if key != next(iter(self.counts)) or self.counts[key] not in self._wrong:
            return outputs
        return {
            name: np.nextafter(y, np.inf) if self._last_bit else 0 * y
            for name, y in outputs.items()
        }


def judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, session: Forgetful, text: str = ""
) -> CellResult:
    card = card_for(save(model(text) if text else linear(), folder / "m.onnx"))
    monkeypatch.setattr(repeats, "run", session)
    return judge(
        Task(Cell(card, parse_variant("original"), "cpu"), card.path, Settings(input_sets=2))
    ).result


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            {2},
            (
                "the first input set (set 0 (seed 0, steps, 1x4)) gives another result when it is "
                "run "
                "a second time"
            ),
        ),
        (
            {3},
            (
                "the first input set (set 0 (seed 0, steps, 1x4)) gives another result when it is "
                "run "
                "again after "
            ),
        ),
        (
            {1},
            (
                "the first run alone departs; when its input set (set 0 (seed 0, steps, 1x4)) is "
                "run "
                "a second time"
            ),
        ),
    ],
)
def test_the_run_that_departs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: set[int], reason: str
) -> None:
    result = judged(tmp_path, monkeypatch, Forgetful(wrong))
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.COMPARE,
        Symptom.WRONG_VALUES,
    )
    assert str(result.reason).startswith(reason)
    monkeypatch.setattr(outputs, "wrong_repeat", lambda *_: None)
    without = judged(tmp_path, monkeypatch, Forgetful(wrong))
    assert without.status is (Status.FAIL if wrong == {1} else Status.PASS)
    assert not str(without.reason).startswith(reason[:20])


def test_the_last_bit_is_no_other_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        judged(tmp_path, monkeypatch, Forgetful({2, 3}, last_bit=True)).status is Status.PASS
    )


def test_two_runs_more_are_all_that_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Forgetful(set())
    result = judged(tmp_path, monkeypatch, session)
    assert result.accuracy is not None
    assert session.runs == result.accuracy.input_sets + 2


def test_a_model_that_draws_at_random_is_not_asked_for_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Forgetful({2, 3})
    text = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Neg(x)  z = RandomNormalLike(x) }"
    result = judged(tmp_path, monkeypatch, session, text)
    assert result.status is Status.PASS, result
    assert max(session.counts.values()) == 2  # once more, to see that it still draws
