"""A LabelEncoder behind an operator that onnx infers nothing of, at which its inference dies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.cell.artifacts import checker_says
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.inputs import generate
from onnx_harness.inputs.decisions.coverage import coverage
from onnx_harness.inputs.plan.recipe import recipe_for
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.inference import infer_types
from onnx_harness.model.label_keys import may_lack_key_types, with_key_types
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import run
from onnx_harness.results.cells import Status
from onnx_harness.settings import Settings
from tests.models import save

FLOATS: dict[str, Any] = {"keys_floats": [1.0, 2.0], "values_floats": [5.0, 7.0]}
KEYS: list[tuple[dict[str, Any], int | None]] = [
    (FLOATS, TensorProto.FLOAT),
    ({"keys_int64s": [1, 2], "values_floats": [5.0, 7.0]}, TensorProto.INT64),
    ({"keys_strings": ["a", "b"], "values_floats": [5.0, 7.0]}, TensorProto.STRING),
    (
        {
            "keys_tensor": numpy_helper.from_array(np.array([1.0, 2.0])),
            "values_tensor": numpy_helper.from_array(np.array([5.0, 7.0], np.float32)),
        },
        TensorProto.DOUBLE,
    ),
    ({}, None),
]


def encoder(keys: Mapping[str, Any] = FLOATS) -> onnx.ModelProto:
    """A column whose missing numbers are filled in, and then looked up."""
    nodes = [
        helper.make_node(
            "Imputer",
            ["x"],
            ["filled"],
            domain="ai.onnx.ml",
            imputed_value_floats=[1.0],
            replaced_value_float=float("nan"),
        ),
        helper.make_node("LabelEncoder", ["filled"], ["y"], domain="ai.onnx.ml", **keys),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 4)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(("keys", "kind"), KEYS)
def test_what_is_looked_up_has_the_type_of_the_keys(
    keys: Mapping[str, Any], kind: int | None
) -> None:
    made = encoder(keys)
    before = made.SerializeToString()
    stated = with_key_types(made)
    types = {info.name: info.type.tensor_type.elem_type for info in stated.graph.value_info}
    assert types == ({} if kind is None else {"filled": kind})
    assert made.SerializeToString() == before
    assert (stated is made) == (kind is None)


def test_a_stated_type_and_an_input_stay() -> None:
    stated = with_key_types(encoder())
    assert with_key_types(stated) is stated
    alone = encoder()
    del alone.graph.node[0]
    alone.graph.node[0].input[0] = "x"
    assert with_key_types(alone) is alone


def test_inference_and_the_checker_live(tmp_path: Path) -> None:
    made = encoder()
    inferred = infer_types(made)
    assert [info.name for info in inferred.graph.value_info] == ["filled"]
    path = save(made, tmp_path / "m.onnx")
    assert may_lack_key_types(path)
    assert checker_says(path) is None
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert "InferenceError" in str(checker_says(save(made, path)))
    plain = encoder()
    del plain.graph.node[1]
    assert not may_lack_key_types(save(plain, path))


@pytest.mark.parametrize("variant", ["original", "simplify", "optimize", "int8.dynamic"])
def test_a_column_that_is_filled_and_looked_up_is_judged(
    variant: str, tmp_path: Path
) -> None:
    path = save(encoder(), tmp_path / "m.onnx")
    result = judge(
        Task(Cell(card_for(path), parse_variant(variant), "cpu"), path, Settings())
    ).result
    expected = Status.NOT_APPLICABLE if variant == "int8.dynamic" else Status.PASS
    assert result.status is expected, result


def test_keys_behind_an_imputer_are_fed_and_so_is_what_it_replaces() -> None:
    made = encoder()
    session = open_cpu(made)
    sets = generate(made, {}, try_run=partial(run, session), unusual=True)
    held = np.concatenate([np.ravel(one.values["x"]) for one in sets])
    assert {1.0, 2.0} <= set(held.tolist())
    assert np.isnan(held).any()
    kinds = coverage(made, recipe_for(made, {}), sets).kinds
    assert kinds["keys"] == (3, 3)
