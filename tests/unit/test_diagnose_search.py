"""The search for a cause, on planted faults: a step, a pass of it, two together, ONNX Runtime's
optimizer, chance.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.search import diagnose
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Parts, Transform
from onnx_harness.transforms.variant import BoundVariant, bind_variant
from tests.models import linear, model, save

DEFECTS = Path(__file__).parents[1] / "data" / "defects"
PASSES = tuple(f"pass_{number}" for number in range(48))


def spoil(
    model: onnx.ModelProto, culprits: Sequence[str], how: str, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """A transform of 48 passes that spoils the model where all the culprits run."""
    if set(culprits) & set(skipped):
        return model
    if how == "raise":
        raise RuntimeError("planted")
    if how == "raise and name it":
        raise RuntimeError(f"planted in '{culprits[0]}'")
    if how == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(60)
    weight = model.graph.initializer[0]
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) * 1.5, weight.name)
    )
    return model


def names(_: onnx.ModelProto, __: Mapping[str, Any]) -> Sequence[str]:
    return PASSES


def without(options: Mapping[str, Any], left: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(left)}


def spoiling(*culprits: str, how: str = "weight") -> BoundStep:
    parts = Parts("pass", names, without)
    transform = Transform("", partial(spoil, culprits=culprits, how=how), {}, parts=parts)
    return BoundStep("planted", transform, {})


def chain(variant: str, *more: BoundStep) -> BoundVariant:
    bound = bind_variant(parse_variant(variant))
    return replace(bound, steps=(*bound.steps, *more))


def searched(path: Path, variant: str, *more: BoundStep, **options: Any) -> Diagnosis:
    task = Task(
        Cell(card_for(path), parse_variant(variant), "cpu"), path, Settings(input_sets=1)
    )
    return diagnose(task, bound=chain(variant, *more), **options)


def test_one_pass_of_48_is_named_in_at_most_16_transforms(tmp_path: Path) -> None:
    diagnosis = searched(
        save(linear(), tmp_path / "m.onnx"), "simplify", spoiling("pass_17")
    )

    assert diagnosis.found
    assert (diagnosis.cause.transform, diagnosis.cause.passes) == ("planted", ("pass_17",))
    assert diagnosis.spent.transforms <= 16
    assert diagnosis.sentence.startswith("`pass_17` (a pass of `planted`)")


def test_passes_that_fail_together_are_named_together(tmp_path: Path) -> None:
    diagnosis = searched(
        save(linear(), tmp_path / "m.onnx"), "original", spoiling("pass_3", "pass_30")
    )

    assert diagnosis.cause.passes == ("pass_3", "pass_30")
    assert any("it takes each of them" in line for line in diagnosis.evidence)


@pytest.mark.parametrize(
    ("how", "words"), [("raise", "planted"), ("die", "SIGSEGV"), ("hang", "did not end")]
)
def test_exceptions_deaths_and_hangs_have_causes_too(
    tmp_path: Path, how: str, words: str
) -> None:
    step = spoiling("pass_0", how=how)
    diagnosis = searched(
        save(linear(), tmp_path / "m.onnx"),
        "original",
        step,
        seconds=60 if how != "hang" else 20,
    )

    assert diagnosis.cause.transform == "planted"
    assert words in diagnosis.sentence
    if how != "hang":  # a hang takes its time in each trial
        assert diagnosis.cause.passes == ("pass_0",)


def test_an_optimizer_of_onnx_runtime_is_named_with_what_it_made() -> None:
    diagnosis = searched(DEFECTS / "83_ort_rmsnorm_keepdims0.onnx", "ort.all")

    assert diagnosis.cause.transform is None
    assert diagnosis.cause.level == "extended"
    assert diagnosis.cause.optimizers == ("SimplifiedLayerNormFusion",)
    assert "SimplifiedLayerNormalization" in diagnosis.sentence


def test_two_models_are_diagnosed_as_a_cell_is() -> None:
    path = DEFECTS / "83_ort_rmsnorm_keepdims0.onnx"
    task = Task(
        Cell(card_for(path), parse_variant("original"), "cpu"), path, Settings(input_sets=1)
    )

    diagnosis = diagnose(task, candidate=path)

    assert diagnosis.cause.optimizers == ("SimplifiedLayerNormFusion",)


def test_what_passes_has_no_cause(tmp_path: Path) -> None:
    diagnosis = searched(save(linear(), tmp_path / "m.onnx"), "optimize")

    assert not diagnosis.found
    assert diagnosis.sentence.startswith("Nothing to diagnose")


def test_what_fails_now_and_then_is_called_flaky_with_the_share(tmp_path: Path) -> None:
    diagnosis = searched(
        save(linear(), tmp_path / "m.onnx"), "optimize", known_failure="output y departs"
    )

    assert not diagnosis.found
    assert diagnosis.sentence.startswith(
        "Nothing to diagnose"
    )  # it failed once, and in none of ten trials here


def test_a_spent_budget_says_what_was_narrowed_down_and_how_to_go_on(tmp_path: Path) -> None:
    step = spoiling("pass_40", "pass_1", how="die")
    diagnosis = searched(save(linear(), tmp_path / "m.onnx"), "original", step, seconds=0.1)

    assert "nothing was narrowed down" in diagnosis.sentence
    assert "--budget 1` goes on" in diagnosis.sentence
    assert diagnosis.cause.passes != ("pass_1", "pass_40")


def test_the_document_has_every_key_and_null_for_what_does_not_apply(tmp_path: Path) -> None:
    document = searched(save(linear(), tmp_path / "m.onnx"), "optimize").as_json()

    assert list(document) == ["sentence", "cause", "smallest", "mend", "spent"]
    assert list(document["cause"]) == [
        "transform",
        "passes",
        "rules",
        "level",
        "optimizers",
        "node",
        "provider",
        "input_set",
        "release",
    ]
    assert set(document["cause"].values()) == {None}
    assert list(document["spent"]) == ["transforms", "sessions", "runs", "seconds"]


def test_a_conversion_names_the_node_that_it_takes_to_fail(tmp_path: Path) -> None:
    made = model(
        "(float[8] x) => (float[8] y) { a = Tanh(x)  b = Mul(a, big)  c = Mul(b, b)  d = Sqrt(c)  "
        "y = Div(d, big) }"
    )
    made.graph.initializer.append(
        numpy_helper.from_array(np.array(3000.0, np.float32), "big")
    )
    path = save(made, tmp_path / "m.onnx")

    diagnosis = searched(path, "fp16.io32")

    assert diagnosis.cause.transform == "fp16.io32"
    assert diagnosis.cause.rules
    assert set(diagnosis.cause.rules) <= {
        "b",
        "c",
        "d",
    }  # their first outputs: the nodes have no names


def test_a_failure_of_nodes_without_names_is_not_named_away() -> None:
    file = DEFECTS / "53_fp16_unnamed_nodes_keep_io.onnx"
    variant = parse_variant("fp16.onnxmltools.io32")

    diagnosis = diagnose(
        Task(Cell(card_for(file), variant, "cpu"), file, Settings(input_sets=1))
    )

    assert diagnosis.cause.transform == "fp16.onnxmltools.io32"
    assert any("it takes nodes without names" in line for line in diagnosis.evidence)


def test_a_model_whose_output_never_moves_is_not_judged(tmp_path: Path) -> None:
    path = save(
        model("(float[2,4] x) => (float[2,4] y) { z = Sub(x, x)  y = Relu(z) }"),
        tmp_path / "m.onnx",
    )

    diagnosis = searched(path, "optimize")

    assert not diagnosis.found
    assert diagnosis.sentence.startswith("Nothing to diagnose: m-optimize-cpu isn't judged")
    assert diagnosis.cause.transform is None


def test_a_pass_that_the_reason_names_is_tried_first(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")

    diagnosis = searched(path, "original", spoiling("pass_17", how="raise and name it"))

    assert diagnosis.cause.passes == ("pass_17",)
    assert any("(2 trials; it takes each of them)" in line for line in diagnosis.evidence)


def matmul(folder: Path) -> Path:
    """A model that no half type harms."""
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])]
    graph = helper.make_graph(
        [node], "m", inputs, outputs, [numpy_helper.from_array(weight, "w")]
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return save(made, folder / "m.onnx")


@pytest.mark.parametrize("variant", ["fp16.mixed", "bf16.io32"])
def test_what_a_run_passes_has_nothing_to_diagnose(tmp_path: Path, variant: str) -> None:
    diagnosis = searched(matmul(tmp_path), variant)

    assert diagnosis.sentence.endswith(f"m-{variant}-cpu passes."), diagnosis
    assert not diagnosis.found


def cancelling(folder: Path) -> Path:
    """A normalization by mean(b^2) - mean(b)^2, which a narrow type makes zero or negative."""
    weight = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32) / 4
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="project"),
        helper.make_node("Add", ["a", "offset"], ["b"], name="offset"),
        helper.make_node("Mul", ["b", "b"], ["b2"], name="square"),
        helper.make_node(
            "ReduceMean", ["b2"], ["mean_b2"], name="mean_of_squares", axes=[-1]
        ),
        helper.make_node("ReduceMean", ["b"], ["mean_b"], name="mean", axes=[-1]),
        helper.make_node(
            "Mul", ["mean_b", "mean_b"], ["square_mean"], name="square_of_mean"
        ),
        helper.make_node("Sub", ["mean_b2", "square_mean"], ["variance"], name="variance"),
        helper.make_node("Sqrt", ["variance"], ["deviation"], name="deviation"),
        helper.make_node("Sub", ["b", "mean_b"], ["centered"], name="center"),
        helper.make_node("Div", ["centered", "deviation"], ["y"], name="normalize"),
    ]
    constants = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.array(40, np.float32), "offset"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 32])]
    graph = helper.make_graph(nodes, "m", inputs, outputs, constants)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return save(made, folder / "m.onnx")


def test_what_is_simulated_in_bfloat16_fails_as_its_cell_does(tmp_path: Path) -> None:
    diagnosis = searched(cancelling(tmp_path), "bf16.io32")

    assert diagnosis.found, diagnosis
    assert diagnosis.cause.transform == "bf16.io32"
    assert "bfloat16 as hardware computes it departs" in diagnosis.sentence
    assert diagnosis.mend is not None
    assert diagnosis.mend.variant == "bf16.mixed"


def test_a_quantization_has_the_mend_of_its_cell(tmp_path: Path) -> None:
    diagnosis = searched(cancelling(tmp_path), "int8.static")

    assert diagnosis.cause.transform == "int8.static", diagnosis
    assert diagnosis.mend is not None
    assert diagnosis.mend.variant == "int8.mixed"


# What float16 makes of one operator, whose value goes on to others that a conversion casts it for.
SQUARE_AND_ROOT = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w)  a = Mul(h, c)  b = Mul(a, a)  r = Sqrt(b)  t = Tanh(h)  y = Add(r, t) }"""
TINY_EPSILON = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w)  a = Mul(h, c)  b = Mul(a, a)  s = Add(b, e)  r = Sqrt(s)
  t = Div(a, r)  y = Sigmoid(t) }"""
RUNNING_SUM = """(float[4,900] x) => (float[4,900] y) {
  a = Abs(x)  f = Mul(a, c)  s = CumSum(f, one)  z = Div(s, d)  p = Sqrt(z)  y = Add(p, a) }"""


@pytest.mark.parametrize(
    ("text", "scale", "node", "converted"),
    [
        (SQUARE_AND_ROOT, 1000.0, ("Mul", "make_b"), "make_b"),
        (TINY_EPSILON, 1e-4, ("Mul", "make_b"), "make_b"),
        # The library leaves the sum as it is, and casts it for what reads it.
        (RUNNING_SUM, 500.0, ("CumSum", "make_s"), "make_z"),
    ],
)
def test_a_library_s_conversion_names_the_operator_of_the_model_and_no_cast(
    tmp_path: Path, text: str, scale: float, node: tuple[str, str], converted: str
) -> None:
    made = model(text, opset=17)
    arrays = {
        "w": np.eye(8, dtype="f4"),
        "c": np.array([scale], "f4"),
        "d": np.array([scale], "f4"),
        "e": np.array([1e-9], "f4"),
        "one": np.array(1),
    }
    read = {name for each in made.graph.node for name in each.input}
    for name in arrays.keys() & read:
        made.graph.initializer.append(numpy_helper.from_array(arrays[name], name))
    for each in made.graph.node:
        each.name = f"make_{each.output[0]}"

    diagnosis = searched(save(made, tmp_path / "m.onnx"), "fp16.onnxmltools.io32")

    cause = diagnosis.cause
    assert cause.transform == "fp16.onnxmltools.io32", diagnosis
    assert cause.node is not None
    assert (cause.node.op_type, cause.node.name) == node, diagnosis
    assert cause.rules == (converted,), diagnosis


@pytest.mark.parametrize(
    ("name", "variant", "mend"),
    [
        # No valid model.
        ("53_fp16_unnamed_nodes_keep_io", "fp16.onnxmltools.io32", "fp16.io32"),
        ("67_fp16_lstm_optional_names", "fp16.onnxmltools", "fp16()"),  # no model at all
    ],
)
def test_a_library_that_makes_no_model_has_a_mend_too(
    name: str, variant: str, mend: str
) -> None:
    diagnosis = searched(DEFECTS / f"{name}.onnx", variant)

    assert diagnosis.cause.transform == variant
    assert diagnosis.mend is not None, diagnosis.evidence
    assert diagnosis.mend.variant == mend
    path = DEFECTS / f"{name}.onnx"
    cell = Cell(card_for(path), parse_variant(mend), "cpu")
    assert judge(Task(cell, path, Settings(input_sets=1))).result.status is Status.PASS
