"""The first node that departs on its own, told from those that inherit its error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.attempts import attempt
from onnx_harness.diagnose.search import diagnose
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.diagnose.values import Watch, first_departure
from onnx_harness.names import parse_variant
from onnx_harness.selftest.observer_rows import Observed, observed_models
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant
from tests.models import model, save

LAYERS = 12


def deep() -> onnx.ModelProto:
    """Twelve layers, each a product and a Tanh; every node has a name."""
    names = ["x", *(f"t{number}" for number in range(LAYERS))]
    layers = "".join(
        f" m{number} = MatMul({names[number]}, w{number})  t{number} = Tanh(m{number})"
        for number in range(LAYERS)
    )
    made = model(
        f"(float[2,8] x) => (float[2,8] y) {{{layers}  y = Identity(t{LAYERS - 1}) }}"
    )
    rng = np.random.default_rng(3)
    for number in range(LAYERS):
        weight = rng.normal(size=(8, 8)).astype(np.float32) / 2
        made.graph.initializer.append(numpy_helper.from_array(weight, f"w{number}"))
    for node in made.graph.node:
        node.name = f"/{node.output[0]}"
    return made


def with_wrong_weight(number: int) -> onnx.ModelProto:
    made = deep()
    weight = next(tensor for tensor in made.graph.initializer if tensor.name == f"w{number}")
    weight.CopyFrom(
        numpy_helper.from_array(
            numpy_helper.to_array(weight) * np.float32(1.01), weight.name
        )
    )
    return made


def watched(folder: Path, candidate: onnx.ModelProto) -> Watch:
    a, b = save(deep(), folder / "a.onnx"), save(candidate, folder / "b.onnx")
    original = parse_variant("original")
    task = Task(Cell(card_for(a), original, "cpu"), a, Settings(input_sets=1))
    scratch = folder / "scratch"
    scratch.mkdir()
    question = Question(task, bind_variant(original), scratch, b)
    return first_departure(question, Trial(0, "disable", "cpu"), 0)


@pytest.mark.parametrize("number", [0, 5, LAYERS - 1])
def test_the_wrong_layer_is_named_and_the_layers_behind_it_are_not(
    tmp_path: Path, number: int
) -> None:
    watch = watched(tmp_path, with_wrong_weight(number))

    assert watch.node is not None
    assert (watch.node.name, watch.node.op_type) == (f"/m{number}", "MatMul")
    assert watch.node.own == pytest.approx(0.01, rel=1e-3)
    assert watch.node.inherited == 0
    assert watch.mended
    assert watch.compared == watch.values


def test_two_wrong_layers_are_not_mended_by_one(tmp_path: Path) -> None:
    candidate = with_wrong_weight(2)
    other = next(tensor for tensor in candidate.graph.initializer if tensor.name == "w7")
    other.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(other) * np.float32(1.02), "w7")
    )

    watch = watched(tmp_path, candidate)

    assert watch.node is not None
    assert watch.node.name == "/m2"
    assert watch.mended is False


def test_the_same_model_has_no_such_node(tmp_path: Path) -> None:
    watch = watched(tmp_path, deep())

    assert watch.node is None


def test_sessions_do_not_grow_with_the_nodes(tmp_path: Path) -> None:
    watch = watched(tmp_path, with_wrong_weight(5))

    assert watch.sessions <= 2 * math.log2(watch.values) + 6


def test_infinities_of_float16_are_found_where_they_begin(tmp_path: Path) -> None:
    text = (
        "(float[8] x) => (float[8] y) { a = Tanh(x)  b = Mul(a, big)  c = Mul(b, b)  d = "
        "Sqrt(c)  y = Div(d, big) }"
    )
    made = model(text)
    made.graph.initializer.append(
        numpy_helper.from_array(np.array(3000.0, np.float32), "big")
    )
    path = save(made, tmp_path / "m.onnx")
    variant = parse_variant("fp16.io32")

    diagnosis = diagnose(
        Task(Cell(card_for(path), variant, "cpu"), path, Settings(input_sets=1))
    )

    node = diagnosis.cause.node
    assert node is not None
    assert (node.name, node.op_type, node.own_error) == ("c", "Mul", None)
    assert node.inherited_error is not None
    assert node.inherited_error < 1e-2


def test_a_fusion_that_goes_away_when_it_is_watched_is_reported(tmp_path: Path) -> None:
    text = """(float[4,4] x) => (float[4,4] z) {
        two = Constant<value_float=2.0>()  e = Constant<value_float=0.00001>()
        p = Pow(x, two)  m = ReduceMean<axes=[-1], keepdims=0>(p)  s = Add(m, e)  r = Sqrt(s)  q = Div(x, r)
        z = Mul(q, g) }"""
    made = model(text)
    made.graph.initializer.append(
        numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), "g")
    )
    path = save(made, tmp_path / "m.onnx")
    variant = parse_variant("ort.extended")

    diagnosis = diagnose(
        Task(Cell(card_for(path), variant, "cpu"), path, Settings(input_sets=1))
    )

    assert diagnosis.cause.optimizers == ("SimplifiedLayerNormFusion",)
    assert any("watching values changes the result" in line for line in diagnosis.evidence)
    assert diagnosis.cause.node is not None
    assert diagnosis.cause.node.op_type == "SimplifiedLayerNormalization"


@pytest.mark.parametrize(
    "observed", list(observed_models()), ids=lambda observed: observed.kind
)
def test_each_planted_observer_effect_is_reported(
    tmp_path: Path, observed: Observed
) -> None:
    path = save(observed.model(), tmp_path / "m.onnx")
    variant = parse_variant(f"ort.{observed.level}")
    task = Task(Cell(card_for(path), variant, "cpu"), path, Settings(input_sets=1))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    question, trial = (
        Question(task, bind_variant(variant), scratch),
        Trial(0, observed.level, "cpu"),
    )
    place = attempt(question, trial).places[0]

    watch = first_departure(question, trial, place)

    assert watch.observer.startswith("watching values changes the result")
    assert "it passes" in watch.observer


def test_an_effect_on_a_part_of_the_error_is_reported(tmp_path: Path) -> None:
    observed = next(observed_models())
    path = save(observed.model(), tmp_path / "a.onnx")
    wrong = observed.model()
    weight = wrong.graph.initializer[0]
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) * 1.001, weight.name)
    )
    task = Task(
        Cell(card_for(path), parse_variant("original"), "cpu"), path, Settings(input_sets=1)
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    candidate = save(wrong, tmp_path / "b.onnx")
    question = Question(task, bind_variant(parse_variant("original")), scratch, candidate)

    watch = first_departure(question, Trial(0, observed.level, "cpu"), 0)

    assert "its error is 1.0e-03 in the place of" in watch.observer


def test_watching_that_changes_nothing_is_not_reported(tmp_path: Path) -> None:
    path = save(deep(), tmp_path / "a.onnx")
    task = Task(
        Cell(card_for(path), parse_variant("original"), "cpu"), path, Settings(input_sets=1)
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    candidate = save(with_wrong_weight(3), tmp_path / "b.onnx")
    question = Question(task, bind_variant(parse_variant("original")), scratch, candidate)

    for level in ("disable", "all"):
        assert first_departure(question, Trial(0, level, "cpu"), 0).observer == ""


def test_values_that_do_not_fit_at_once_are_watched_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_harness.diagnose.values._MOST_BYTES", 1 << 9)

    watch = watched(tmp_path, with_wrong_weight(9))

    assert watch.node is not None
    assert watch.node.name == "/m9"
    assert watch.mended
    assert watch.sessions > 8


def test_a_wrong_constant_is_named_by_the_node_that_reads_it(tmp_path: Path) -> None:
    text = "(float[4] x) => (float[4] y) { k = Constant<value_float=SCALE>()  t = Tanh(x)  y = Mul(t, k) }"
    a = save(model(text.replace("SCALE", "2.0")), tmp_path / "a.onnx")
    b = save(model(text.replace("SCALE", "2.2")), tmp_path / "b.onnx")
    original = parse_variant("original")
    task = Task(Cell(card_for(a), original, "cpu"), a, Settings(input_sets=1))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    question = Question(task, bind_variant(original), scratch, b)

    watch = first_departure(question, Trial(0, "disable", "cpu"), 0)

    assert watch.node is not None
    assert (watch.node.name, watch.node.op_type) == ("y", "Mul")
