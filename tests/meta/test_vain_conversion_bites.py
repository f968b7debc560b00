"""A conversion that converts next to nothing: no pass as FP16, nor is one under a name that the
model doesn't have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms.half import vain
from onnx_harness.transforms.half.decide import Halving
from tests.models import model, save

BLOCKED = "fp16.io32(op_block_list=['MatMul'])"


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def judged(folder: Path, variant: str) -> CellResult:
    made = model(
        "(float[n,40] x) => (float[n,40] y) { h = MatMul(x, w)  y = Tanh(h) }", opset=17
    )
    weights = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    card = card_for(save(made, folder / "net.onnx"))
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings(input_sets=2))
    ).result


def test_a_model_whose_weights_all_stay_float32_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judged(tmp_path, "fp16.io32").status is Status.PASS
    result = judged(tmp_path, BLOCKED)
    assert (result.status, result.stage) == (Status.NOT_APPLICABLE, Stage.TRANSFORM)
    assert "0% of the float32 weights would be converted" in str(result.reason)
    monkeypatch.setattr(vain, "LEAST_SHARE", 0.0)
    assert judged(tmp_path, BLOCKED).status is Status.PASS


def test_a_model_whose_nodes_all_stay_float32_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(
        "(float[n,4] x) => (float[n,4] y) <int64 axis = {1}> { y = CumSum(x, axis) }",
        opset=17,
    )
    card = card_for(save(made, tmp_path / "sums.onnx"))
    task = Task(
        Cell(card, parse_variant("fp16.io32"), "cpu"), card.path, Settings(input_sets=2)
    )
    result = judge(task).result
    assert (result.status, result.stage) == (Status.NOT_APPLICABLE, Stage.TRANSFORM)
    assert "what the model computes stays float32 (CumSum)" in str(result.reason)
    monkeypatch.setattr(Halving, "computes_in_half", lambda _: True)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "other"))
    assert judge(task).result.status is Status.PASS


def test_a_misspelt_operator_is_no_pass(tmp_path: Path) -> None:
    result = judged(tmp_path, "fp16.io32(op_block_list=['Matmul'])")
    assert (result.status, result.stage) == (Status.FAIL, Stage.TRANSFORM)
    assert "Did you mean 'MatMul'?" in str(result.reason)
