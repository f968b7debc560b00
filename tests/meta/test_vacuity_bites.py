"""A comparison that couldn't have failed is no pass: models whose outputs say nothing about their
inputs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import model, save

X = "(float[n,4] x) => (float[n,4] y) "
ZERO = "{ z = Constant <value_float = 0.0> () y = Mul(x, z) }"


def judged(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: onnx.ModelProto,
    card: str = "",
    variant: str = "original",
) -> CellResult:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(folder / "cache"))
    path = save(made, folder / "m.onnx")
    if card:
        (folder / "m.model.toml").write_text(card, encoding="utf-8")
    return judge(
        Task(Cell(card_for(path), parse_variant(variant), "cpu"), path, Settings())
    ).result


@pytest.mark.parametrize(
    "body",
    [
        ZERO,
        "{ i = Sub(x, x) y = Abs(i) }",
        "{ lo = Constant <value_float = -0.0005> () hi = Constant <value_float = 0.0005> () c = "
        "Clip(x, lo, hi) "
        "k = Constant <value_float = 10000.0> () y = Add(c, k) }",
    ],
    ids=["times zero", "minus itself", "drowned"],
)
def test_a_cell_whose_outputs_ignore_the_inputs_fails(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = judged(tmp_path, monkeypatch, model(X + body))
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.COMPARE,
        Symptom.VACUOUS,
    )
    assert "no output reacts to the inputs (y)" in str(result.reason)
    assert "recorded input set" in str(result.reason)
    assert '[vacuous] y = "why"' in str(result.reason)


def test_the_card_can_accept_it_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = judged(
        tmp_path,
        monkeypatch,
        model(X + ZERO),
        '[vacuous]\ny = "a placeholder for a later version"\n',
    )
    assert result.status is Status.PASS
    assert (
        "accepted by the card: y says nothing about the inputs, a placeholder for a later version"
        in result.notes
    )


@pytest.mark.parametrize("name", ["w", "y2"])
def test_accepting_one_output_does_not_accept_another(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = model(
        f"(float[n,4] x) => (float[n,4] y, float[n,4] {name}) {{ y = Sub(x, x) {name} = Sub(x, x) "
        f"}}"
    )
    result = judged(tmp_path, monkeypatch, both, '[vacuous]\ny = "known"\n')
    assert (result.status, result.symptom) == (Status.FAIL, Symptom.VACUOUS)
    assert f"({name})" in str(result.reason)


def test_accepting_a_sequence_accepts_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = model(
        "(float[n,4] x) => (seq(float[n,4]) y) { i = Sub(x, x) y = SequenceConstruct(i) }"
    )
    refused, accepted = (
        judged(tmp_path, monkeypatch, sequence),
        judged(tmp_path, monkeypatch, sequence, '[vacuous]\ny = "ok"\n'),
    )
    assert (refused.symptom, accepted.status) == (Symptom.VACUOUS, Status.PASS)
    assert "accepted by the card: y says nothing about the inputs, ok" in accepted.notes


def test_a_card_that_accepts_what_reacts_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = judged(
        tmp_path, monkeypatch, model(X + "{ y = Relu(x) }"), '[vacuous]\ny = "no more"\n'
    )
    assert result.status is Status.PASS
    assert (
        "the card's [vacuous] lists y, which does react to the inputs: remove the line"
        in result.notes
    )


@pytest.mark.parametrize(
    "graph",
    [
        "() => (float[2] y) { y = Constant <value_floats = [1.0, 2.0]> () }",
        "(float[n,4] x) => (int64[2] y) { y = Shape(x) }",
        "(float[2,4] x) => (float[?] y) { s = Shape(x) y = ConstantOfShape(s) }",
        "(float[n,0] x) => (float[n,0] y) { y = Relu(x) }",
        "(float[n,4] x) => (float[?,?] y) "
        "{ r = ReduceSum <keepdims = 1> (x) s = Constant <value_ints = [0, 4]> () e = Expand(r, "
        "s) y = Neg(e) }",
        "(float[n,0] x) => (float[?,?] y) { s = Shape(x) i = Constant <value_ints = [1, 0]> () r "
        "= Gather(s, i) "
        "y = Reshape <allowzero = 1> (x, r) }",
        "(float[n,4] x) => (float[n,4] y, float[n,4] w) { y = Sub(x, x) w = Relu(x) }",
        "(float[n,4] x) => (float[n,4] y) { z = Constant <value_float = 0.0> () y = Div(x, z) }",
        "(float[n,4] x) => (int64[2] y) { y = local.F(x) } "
        '<domain: "local", opset_import: ["" : 17]> F (a) => (b) { b = Shape(a) }',
    ],
    ids=[
        "no inputs",
        "a shape",
        "made of a shape",
        "nothing by its shape",
        "nothing by the shape inferred",
        "nothing that goes in",
        "another output reacts",
        "infinities with the sign of the input",
        "a shape inside a function",
    ],
)
def test_what_is_constant_by_its_structure_or_stands_beside_what_reacts_passes(
    graph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = judged(tmp_path, monkeypatch, model(graph, domains=', "local" : 1'))
    assert result.status is Status.PASS, result.reason


def test_a_model_that_onnx_ships_without_real_weights_is_called_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (
        Path(onnx.__file__).parent
        / "backend"
        / "test"
        / "data"
        / "light"
        / "light_squeezenet.onnx"
    )
    shutil.copy(shipped, tmp_path / "light.onnx")
    result = judged(tmp_path, monkeypatch, onnx.load(tmp_path / "light.onnx"))
    assert (result.status, result.symptom) == (Status.FAIL, Symptom.VACUOUS)


def test_what_is_drawn_on_unusual_inputs_alone_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sessions draw alike as long as their nodes are numbered alike, and simplifying removes some.
    made = model(
        X
        + "{ l = Constant <value_float = 50.0> () i = Identity(x) a = Abs(i) big = Greater(a, l) "
        "r = RandomUniformLike(x) w = Mul(r, l) y = Where(big, w, x) }"
    )
    result = judged(tmp_path, monkeypatch, made, variant="simplify")
    assert result.status is Status.PASS, result.reason
    assert result.accuracy is not None
    assert result.accuracy.input_sets > Settings().input_sets
