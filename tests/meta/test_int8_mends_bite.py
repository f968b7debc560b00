"""A mend of a quantization is offered where it was tried and passes, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell import int8_mends
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import Variant, parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.settings import Settings
from tests.models import model, save

SEVEN_BITS = 'mend: `--variant "int8.static(reduce_range=True)"` passes'
MIXED = "mend: `--variant int8.mixed` keeps 1 of 2 nodes in float"


def exponential() -> onnx.ModelProto:
    """Its sum, in 8 bits, is a factor off once it is an exponent."""
    made = model(
        "(float[n,8] x) => (float[n,8] y) { a = MatMul (x, w) e = Exp (a) "
        "s = Constant <value_floats = [1.0, 2.0, 4.0, 8.0, 16.0, 300.0, 2.0, 1.0]> () "
        "y = Mul (e, s) }"
    )
    weights = (1.2 * np.random.default_rng(0).standard_normal((8, 8))).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return made


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    card = card_for(save(exponential(), tmp_path / "model.onnx"))
    return Task(Cell(card, parse_variant("int8.static"), "cpu"), card.path, Settings())


def mends(result: CellResult) -> list[str]:
    assert result.status is Status.FAIL
    return [line for line in result.detail if line.startswith("mend: ")]


def test_the_nodes_that_have_to_stay_float_are_found(failing: Task) -> None:
    assert mends(judge(failing).result) == [MIXED]


def test_the_first_that_passes_is_offered(failing: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def passes(_way: object, _subject: object, _cache: object, variant: Variant) -> str | None:
        tried.append(variant.spelling)
        return "" if "reduce_range" in variant.spelling else None

    monkeypatch.setattr(int8_mends, "_passes", passes)
    [mend] = mends(judge(failing).result)
    assert mend.startswith(SEVEN_BITS)
    assert tried == ["int8.static(reduce_range=True)"]


@pytest.mark.parametrize("answer", [None, RuntimeError("it can't be opened")])
def test_what_fails_is_not_offered(
    answer: Exception | None, failing: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passes(*_: object) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(int8_mends, "_passes", passes)
    assert mends(judge(failing).result) == []


def test_a_verdict_that_passes_everything_would_offer_what_fails(
    failing: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the verdict that keeps the first one from being offered."""

    class Passed:
        passed = True

    monkeypatch.setattr(int8_mends, "judge_outputs", lambda *_, **__: Passed())
    [mend] = mends(judge(failing).result)
    assert mend.startswith(SEVEN_BITS)
