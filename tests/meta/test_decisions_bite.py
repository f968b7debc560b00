"""Mistakes in what a model decides by: each is caught by the inputs that reach it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.inputs.decisions import batch
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Reached, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.forests import ML, forest, set_attribute, words
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
    node = helper.make_node("LabelEncoder", ["k"], ["y"], domain=ML, keys_strings=CITIES, values_floats=values)
    return words([node], {"k": (TensorProto.STRING, ["n", 1])}, 1)


def split(model: onnx.ModelProto, at: int) -> np.float32:
    values = next(entry.floats for entry in model.graph.node[0].attribute if entry.name == "nodes_values")
    return np.float32(values[at])


VALUES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
MISTAKES = {
    "a threshold one unit in the last place up": (
        FOREST,
        set_attribute(FOREST, "nodes_values", 0, float(np.nextafter(split(FOREST, 0), np.float32(np.inf)))),
    ),
    "a threshold one unit in the last place down": (
        FOREST,
        set_attribute(FOREST, "nodes_values", 2, float(np.nextafter(split(FOREST, 2), np.float32(-np.inf)))),
    ),
    "less for at most": (FOREST, set_attribute(FOREST, "nodes_modes", 1, b"BRANCH_LT")),
    "a leaf": (FOREST, set_attribute(FOREST, "target_weights", 60, 9.0)),
    "two categories swapped": (encoder(CITIES), encoder([*CITIES[:-2], "hazel", "garnet"])),
    "one label's value": (labels(VALUES), labels([*VALUES[:-1], 8.1])),
}


class Planting:
    """A transform that makes the wrong model of any."""

    wrong: onnx.ModelProto

    def __init__(self) -> None:
        self.transform = Transform("planted", self, "a mistake")

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        assert model.graph.node
        made = onnx.ModelProto()
        made.CopyFrom(self.wrong)
        return made


@pytest.fixture
def planting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Planting]:
    plant = Planting()
    found = {**transforms.registry(), "planted": plant.transform}
    monkeypatch.setattr(transforms, "registry", lambda: found)
    yield plant


def judged(path: Path, variant: str, tmp_path: Path) -> CellResult:
    task = Task(Cell(card_for(path), parse_variant(variant), "cpu"), path, Settings())
    return judge(task, tmp_path).result


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught(name: str, planting: Planting, tmp_path: Path) -> None:
    right, planting.wrong = MISTAKES[name]
    path = save(right, tmp_path / "right.onnx")
    assert judged(path, "original", tmp_path).status is Status.PASS
    assert judged(path, "planted", tmp_path).status is Status.FAIL


def test_what_is_reached_is_recorded(tmp_path: Path) -> None:
    found = judged(save(FOREST, tmp_path / "right.onnx"), "original", tmp_path)
    assert found.coverage is not None
    leaves = found.coverage.kinds["leaves"]
    assert leaves.reached >= 0.9 * leaves.total
    assert judged(save(labels(VALUES), tmp_path / "labels.onnx"), "original", tmp_path).coverage.kinds == {  # type: ignore[union-attr]
        "keys": Reached(8, 8)
    }


def test_little_coverage_is_remarked_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(batch, "_MOST_SETS", 0)
    found = judged(save(forest(rows=1, depth=5, seed=22), tmp_path / "one.onnx"), "original", tmp_path)
    assert any(note.startswith("the inputs reach ") for note in found.notes)
