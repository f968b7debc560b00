"""Mistakes in what a model decides by: each is caught by the inputs that reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.inputs.decisions import batch
from onnx_harness.inputs.plan import large, search
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.coverage import Reached
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.forests import ML, forest, set_attribute, words
from tests.models import model as text_model
from tests.models import save

FOREST = forest(trees=8, depth=4, seed=21)
CITIES = ["amber", "beryl", "coral", "dusk", "ember", "flint", "garnet", "hazel"]


def encoder(cities: list[str]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("OneHotEncoder", ["city"], ["hot"], domain=ML, cats_strings=cities),
        helper.make_node("MatMul", ["hot", "w"], ["y"]),
    ]
    made = words(nodes, {"city": (TensorProto.STRING, ["n"])}, 2)
    weights = np.random.default_rng(0).normal(size=(len(cities), 2)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return made


def labels(values: list[float]) -> onnx.ModelProto:
    node = helper.make_node(
        "LabelEncoder", ["k"], ["y"], domain=ML, keys_strings=CITIES, values_floats=values
    )
    return words([node], {"k": (TensorProto.STRING, ["n", 1])}, 1)


def imputer(number: float) -> onnx.ModelProto:
    settings: dict[str, Any] = {
        "imputed_value_floats": [1.0, 2.0, number],
        "replaced_value_float": float("nan"),
    }
    node = helper.make_node("Imputer", ["x"], ["y"], domain=ML, **settings)
    return words([node], {"x": (TensorProto.FLOAT, ["n", 3])}, 3)


def buckets(last: float) -> onnx.ModelProto:
    """A column's bucket: more bounds than a set of a few rows has elements."""
    return text_model(
        "(float[n,1] x) => (int64[n] y) { b = Constant <value_floats = [1.0, 10.0, 100.0, 1000.0, "
        f"{last}]> () a = Constant <value_ints = [1]> () c = GreaterOrEqual (x, b) i = Cast <to = "
        f"7> (c) "
        "y = ReduceSum <keepdims = 0> (i, a) }"
    )


def suppression(overlap: float) -> onnx.ModelProto:
    return text_model(
        "(float[1,20,4] b, float[1,1,20] s) => (int64[n,3] y) { m = Constant <value_ints = [20]> "
        "() "
        f"o = Constant <value_floats = [{overlap}]> () y = NonMaxSuppression (b, s, m, o) }}"
    )


def members(second: float) -> onnx.ModelProto:
    """A tree that asks whether a number is in a set, as ai.onnx.ml 5 has it."""
    tensors: dict[str, Any] = {
        "nodes_modes": np.asarray([6, 0], np.uint8),
        "nodes_splits": np.asarray([0, 2.5], np.float32),
        "leaf_weights": np.asarray([5, 6, 7], np.float32),
        "membership_values": np.asarray([1, second, 9, np.nan], np.float32),
    }
    node = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        domain=ML,
        n_targets=1,
        tree_roots=[0],
        nodes_featureids=[0, 1],
        nodes_truenodeids=[0, 1],
        nodes_trueleafs=[1, 1],
        nodes_falsenodeids=[1, 2],
        nodes_falseleafs=[0, 1],
        leaf_targetids=[0, 0, 0],
        **{name: numpy_helper.from_array(values) for name, values in tensors.items()},
    )
    made = words([node], {"x": (TensorProto.FLOAT, ["n", 2])}, 1)
    del made.opset_import[:]
    made.opset_import.extend([helper.make_opsetid("", 21), helper.make_opsetid(ML, 5)])
    made.ir_version = 10
    return made


def support_vectors(last: float) -> onnx.ModelProto:
    node = helper.make_node(
        "SVMRegressor",
        ["x"],
        ["y"],
        domain=ML,
        kernel_type="RBF",
        kernel_params=[0.1, 0.0, 3.0],
        n_supports=4,
        support_vectors=[7.0 * place for place in range(12)],
        coefficients=[1.0, -1.0, 0.5, last],
        rho=[0.1],
    )
    return words([node], {"x": (TensorProto.FLOAT, ["n", 3])}, 1)


def table(wrong_row: int | None) -> onnx.ModelProto:
    """A table of 5,000 rows, of which usual sets look a few dozen up."""
    rows = np.random.default_rng(3).normal(size=(5000, 8)).astype(np.float32)
    if wrong_row is not None:
        rows[wrong_row] *= -4
    made = text_model(
        "(int64[n,l] x) => (float[n,8] y) { e = Gather (t, x) y = ReduceMean <axes = [1], "
        "keepdims = 0> (e) }",
        opset=17,
    )
    made.graph.initializer.append(numpy_helper.from_array(rows, "t"))
    return made


def positions(wrong_row: int | None) -> onnx.ModelProto:
    """A table of 1,024 positions, which are counted off a length."""
    rows = np.random.default_rng(3).normal(size=(1024, 8)).astype(np.float32)
    if wrong_row is not None:
        rows[wrong_row] = rows[wrong_row][::-1].copy()
    made = text_model(
        "(float[n,l,8] x) => (float[n,l,8] y) { one = Constant <value_ints = [1]> () "
        "zero = Constant <value_int = 0> () step = Constant <value_int = 1> () "
        "s = Shape (x) g = Gather (s, one) l = Squeeze (g) p = Range (zero, l, step) "
        "e = Gather (t, p) y = Add (x, e) }",
        opset=17,
    )
    made.graph.initializer.append(numpy_helper.from_array(rows, "t"))
    return made


def animals(text: str) -> onnx.ModelProto:
    made = text_model("(string[n] x) => (bool[n] y) { y = Equal (x, w) }", opset=19)
    made.graph.initializer.append(numpy_helper.from_array(np.asarray([text], object), "w"))
    return made


def split(model: onnx.ModelProto, at: int) -> np.float32:
    values = next(
        entry.floats
        for entry in model.graph.node[0].attribute
        if entry.name == "nodes_values"
    )
    return np.float32(values[at])


UNSEEN = [
    "a threshold one unit in the last place up",
    "a threshold one unit in the last place down",
]
VALUES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
MISTAKES = {
    "a threshold one unit in the last place up": (
        FOREST,
        set_attribute(
            FOREST,
            "nodes_values",
            0,
            float(np.nextafter(split(FOREST, 0), np.float32(np.inf))),
        ),
    ),
    "a threshold one unit in the last place down": (
        FOREST,
        set_attribute(
            FOREST,
            "nodes_values",
            2,
            float(np.nextafter(split(FOREST, 2), np.float32(-np.inf))),
        ),
    ),
    "less for at most": (FOREST, set_attribute(FOREST, "nodes_modes", 1, b"BRANCH_LT")),
    "a leaf": (FOREST, set_attribute(FOREST, "target_weights", 15, 9.0)),
    "two categories swapped": (encoder(CITIES), encoder([*CITIES[:-2], "hazel", "garnet"])),
    "one label's value": (labels(VALUES), labels([*VALUES[:-1], 8.1])),
    "what stands in for no number": (imputer(3.0), imputer(4.0)),
    "a bound of a bucket": (buckets(1e4), buckets(1.1e4)),
    "a greatest overlap": (suppression(0.5), suppression(0.8)),
    "a member of a set": (members(4.0), members(5.0)),
    "the weight of a support vector": (support_vectors(2.0), support_vectors(2.2)),
    "a row of a table": (table(None), table(1717)),
    "a text that is compared with": (animals("cat"), animals("dog")),
}


def judged(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    right: onnx.ModelProto,
    wrong: onnx.ModelProto,
) -> CellResult:
    """The verdict on a transform that puts ``wrong`` in the place of ``right``."""
    planted = Transform("a planted fault", lambda _: wrong, {"planted": {}})
    monkeypatch.setitem(
        cast("dict[str, Transform]", transforms.registry()), "planted", planted
    )
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(folder / "cache"))
    card = card_for(save(right, folder / "model.onnx"))
    return judge(
        Task(Cell(card, parse_variant("planted"), "cpu"), card.path, Settings())
    ).result


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught_and_a_copy_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = MISTAKES[name]
    assert judged(tmp_path / "copy", monkeypatch, right, right).status is Status.PASS
    assert judged(tmp_path / "wrong", monkeypatch, right, wrong).status is Status.FAIL
    # It's these inputs that catch it, and no others.
    monkeypatch.setattr(search, "decisive_sets", lambda *_: ([], []))
    blind = judged(tmp_path / "blind", monkeypatch, right, wrong).status
    assert blind is (Status.PASS if name in UNSEEN else blind)


def test_a_position_beyond_usual_lengths_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = positions(None), positions(900)
    assert judged(tmp_path / "copy", monkeypatch, right, right).status is Status.PASS
    assert judged(tmp_path / "wrong", monkeypatch, right, wrong).status is Status.FAIL
    monkeypatch.setattr(large, "large_set", lambda *_: None)
    assert judged(tmp_path / "blind", monkeypatch, right, wrong).status is Status.PASS


def test_what_is_reached_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(tmp_path, monkeypatch, FOREST, FOREST).coverage
    assert found is not None
    leaves = found.kinds["leaves"]
    assert leaves.reached >= 0.9 * leaves.total
    found = judged(tmp_path / "labels", monkeypatch, labels(VALUES), labels(VALUES)).coverage
    assert found is not None
    assert found.kinds == {"keys": Reached(8, 8)}


def test_little_coverage_is_remarked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_MOST_SETS", 0)
    small = forest(rows=1, depth=5, seed=22)
    found = judged(tmp_path, monkeypatch, small, small)
    assert any(note.startswith("the inputs reach ") for note in found.notes)


def test_a_side_of_a_comparison_that_no_input_reaches_is_remarked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "(float[n,4] x) => (float[n,4] y) { s = Sigmoid(x) b = Greater(s, far) y = Where(b, s, x) }"
    far = text_model(text)
    far.graph.initializer.append(numpy_helper.from_array(np.array(2.0, np.float32), "far"))
    outcome = judged(tmp_path / "far", monkeypatch, far, far)
    assert outcome.coverage is not None
    assert outcome.coverage.kinds["sides of comparisons"] == Reached(1, 2)
    assert "the inputs reach 1 of 2 sides of comparisons" in outcome.notes
    near = text_model(text)
    near.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "far"))
    assert not any(
        "sides" in note for note in judged(tmp_path / "near", monkeypatch, near, near).notes
    )
