"""A mend of a quantization is offered where it was tried and passes, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell import int8_mends
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.model.file import Model
from onnx_harness.names import Variant, parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant
from tests.models import model, save

SEVEN_BITS = 'mend: `--variant "int8.static(reduce_range=True)"` passes'
MIXED = "mend: `--variant int8.mixed` keeps 1 of 2 nodes in float: 'y'"


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


def products(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    made = model(text)
    for name, value in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(value.astype("f4"), name))
    return made


def drawn(*shape: int, wild: bool = False) -> np.ndarray:
    """Weights of a normal distribution; where ``wild``, a few are 200 times as large."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape)
    return values * np.where(rng.random(shape) < 0.02, 200, 1) if wild else values


STACKED = """(float[2,n,32] x) => (float[2,n,32] y) {
  h = MatMul(x, w)  t = Tanh(h)  y = MatMul(t, u) }"""
VECTOR = "(float[n,32] x) => (float[n] y) { h = MatMul(x, v)  y = Exp(h) }"
FIRST = "(float[32] x) => (float[16] y) { h = MatMul(x, w)  t = Tanh(h)  y = MatMul(t, u) }"


def judged(folder: Path, made: onnx.ModelProto, variant: str) -> CellResult:
    card = card_for(save(made, folder / "model.onnx"))
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings(input_sets=2))
    ).result


@pytest.mark.parametrize(
    ("made", "variant", "offer", "words"),
    [
        (
            products(STACKED, w=drawn(2, 32, 32, wild=True), u=drawn(2, 32, 32)),
            "int8.static",
            "int8.mixed",
            "keeps 1 of 2 nodes in float: 'h'",
        ),
        (
            products(STACKED, w=drawn(2, 32, 32, wild=True), u=drawn(2, 32, 32)),
            "int8.dynamic",
            "int8.dynamic(nodes_to_exclude=['h'])",
            "passes: 'h' stays float",
        ),
        (
            products(FIRST, w=drawn(32, 32, wild=True), u=drawn(32, 16)),
            "int8.dynamic",
            "int8.dynamic(per_channel=True)",
            "passes: a scale for each output channel of a weight",
        ),
    ],
    ids=["mixed", "a node left out", "a scale for each channel"],
)
def test_what_is_offered_for_products_passes(
    made: onnx.ModelProto,
    variant: str,
    offer: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    [mend] = mends(judged(tmp_path, made, variant))
    spelling = f'"{offer}"' if "(" in offer else offer
    assert mend == f"mend: `--variant {spelling}` {words}"
    assert judged(tmp_path, made, offer).status is Status.PASS


def test_where_nothing_would_be_quantized_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    made = products(VECTOR, v=2 * drawn(32))
    result = judged(tmp_path, made, "int8.static")
    assert mends(result) == []
    assert result.detail[-1] == (
        "No mend was found: none of int8.static(reduce_range=True), "
        "int8.static(per_channel=True), int8.mixed passes (no choice of nodes in float was "
        "verified on the quantized model: with those in float nothing is left to quantize)"
    )


def mends(result: CellResult) -> list[str]:
    assert result.status is Status.FAIL
    return [line for line in result.detail if line.startswith("mend: ")]


def test_the_nodes_that_have_to_stay_float_are_found(failing: Task) -> None:
    assert mends(judge(failing).result) == [MIXED]


def test_the_first_that_passes_is_offered(
    failing: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def passes(
        _way: object, _subject: object, _cache: object, variant: Variant
    ) -> str | None:
        tried.append(variant.spelling)
        return "" if "reduce_range" in variant.spelling else None

    monkeypatch.setattr(int8_mends, "_passes", passes)
    [mend] = mends(judge(failing).result)
    assert mend.startswith(SEVEN_BITS)
    assert tried == ["int8.static(reduce_range=True)"]


@pytest.mark.parametrize(("limit", "tries"), [(300.0, 3), (160.0, 2), (120.0, 1)])
def test_no_mend_is_begun_that_could_cost_the_cell_its_verdict(
    limit: float, tries: int, failing: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 35 s here, of a quarter of the cell's time."""
    clock = iter((0, 0, 35, 70, 105))
    monkeypatch.setattr("onnx_harness.cell.int8_mends.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(int8_mends, "_passes", lambda *_: None)
    settings = replace(failing.settings, cell_timeout=limit)
    way = SimpleNamespace(
        bound=bind_variant(failing.cell.variant), task=replace(failing, settings=settings)
    )
    subject = SimpleNamespace(model=Model(failing.model))
    found, words = int8_mends.int8_mend_of(way, subject, None)  # type: ignore[arg-type]
    assert found is None
    assert words.count("int8.") == tries


@pytest.mark.parametrize("answer", [None, RuntimeError("it can't be opened")])
def test_what_fails_is_not_offered(
    answer: Exception | None, failing: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passes(*_: object) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(int8_mends, "_passes", passes)
    result = judge(failing).result
    assert mends(result) == []
    assert result.detail[-1].startswith(
        "No mend was found: none of int8.static(reduce_range=True)"
    )


def test_a_verdict_that_passes_everything_would_offer_what_fails(
    failing: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the verdict that keeps the first one from being offered."""

    class Passed:
        passed = True

    monkeypatch.setattr(int8_mends, "judge_outputs", lambda *_, **__: Passed())
    [mend] = mends(judge(failing).result)
    assert mend.startswith(SEVEN_BITS)
