"""The part of an input that shows a failure, and the property of it that matters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.shrink import shown_by
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.names import parse_variant
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant
from tests.models import model, save

TABLE = np.arange(1, 41, dtype=np.float32).reshape(10, 4) / 10


def shown(
    folder: Path, right: str, wrong: str, values: dict[str, Any], **weights: Any
) -> Sequence[str]:
    """What shows that a graph departs from another one, on one set of inputs."""
    paths = []
    for name, text in (("right", right), ("wrong", wrong)):
        made = model(text, opset=17)
        read = {each for node in made.graph.node for each in node.input}
        for key in weights.keys() & read:
            made.graph.initializer.append(
                numpy_helper.from_array(np.asarray(weights[key]), key)
            )
        onnx.checker.check_model(made)
        paths.append(save(made, folder / f"{name}.onnx"))
    recorded = folder / "set.npz"
    np.savez(recorded, **values)
    cell = Cell(card_for(paths[0]), parse_variant("original"), "cpu")
    task = Task(cell, paths[0], Settings(input_sets=1), recorded=recorded)
    question = Question(task, bind_variant(cell.variant), folder, candidate=paths[1])
    return shown_by(question, Trial(0, "disable", "cpu"), 0, 30.0).words


def test_one_index_is_enough_and_it_is_the_greatest(tmp_path: Path) -> None:
    """A row of a table is wrong: the last one."""
    text = "(int64[6] ids) => (float[6,4] y) { y = Gather(%s, ids) }"
    bad = TABLE.copy()
    bad[9] = -5

    words = shown(
        tmp_path,
        text % "table",
        text % "bad",
        {"ids": np.array([3, 1, 9, 4, 4, 2])},
        table=TABLE,
        bad=bad,
    )

    assert words == (
        "one element of 'ids' is enough: 9 at [2]; it takes its greatest value",
    )


def test_a_negative_index_is_called_negative(tmp_path: Path) -> None:
    """Negative indices are taken for the first one."""
    right = "(int64[6] ids) => (float[6,4] y) { y = Gather(table, ids) }"
    wrong = "(int64[6] ids) => (float[6,4] y) { least = Max(ids, zero)  y = Gather(table, least) }"

    words = shown(
        tmp_path,
        right,
        wrong,
        {"ids": np.array([3, 1, -2, 4, 4, 2])},
        table=TABLE,
        zero=np.array(0),
    )

    assert words == (
        "one element of 'ids' is enough: -2 at [2], negative; it takes its least value",
    )


def test_a_scalar_is_named_by_what_it_has_to_be(tmp_path: Path) -> None:
    right = "(float[4] x, int64[1] n) => (float[4] y) { f = Cast<to = 1>(n)  y = Add(x, f) }"
    wrong = right.replace("y = Add(x, f)", "c = Min(f, most)  y = Add(x, c)")
    values = {"x": np.ones(4, np.float32), "n": np.array([np.iinfo(np.int64).max])}

    words = shown(tmp_path, right, wrong, values, most=np.array(7, np.float32))

    assert "it takes 'n' to be 9223372036854775807, at the edge of int64" in words


def test_a_flag_is_enough(tmp_path: Path) -> None:
    right = "(bool[4] on) => (float[4] y) { f = Cast<to = 1>(on)  y = Mul(f, k) }"
    wrong = right.replace("Mul(f, k)", "Mul(f, bad)")
    k, bad = np.array([1, 1, 1, 1], np.float32), np.array([1, 1, 9, 1], np.float32)

    words = shown(tmp_path, right, wrong, {"on": np.array([True] * 4)}, k=k, bad=bad)

    assert words == ("one element of 'on' is enough: True at [2]",)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([0.3, 2.5, 1.2, 0.9], "2.5 at [1], halfway between two whole numbers"),
        ([0.3, 70000.5, 1.2, 0.9], "70000.5 at [1], beyond float16"),
    ],
)
def test_a_value_at_an_edge_is_said_to_be_one(
    tmp_path: Path, x: list[float], said: str
) -> None:
    """Halves go up instead of to the even neighbour; what is large is cut."""
    right = "(float[4] x) => (float[4] y) { y = Round(x) }"
    wrong = (
        "(float[4] x) => (float[4] y) { h = Add(x, half)  f = Floor(h)  y = Min(f, most) }"
    )
    constants = {"half": np.array(0.5, np.float32), "most": np.array(65504, np.float32)}

    [words] = shown(tmp_path, right, wrong, {"x": np.array(x, np.float32)}, **constants)

    assert words.startswith(f"one element of 'x' is enough: {said}")


def test_of_floats_the_sign_is_said_before_the_greatest_value(tmp_path: Path) -> None:
    right = "(float[4] x) => (float[4] y) { y = Identity(x) }"
    wrong = "(float[4] x) => (float[4] y) { y = Min(x, most) }"
    x = np.array([1, 2, 50, 3], np.float32)

    [words] = shown(tmp_path, right, wrong, {"x": x}, most=np.array(10, np.float32))

    assert words.endswith("it takes its positive values")
