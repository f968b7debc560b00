"""What input sets reach inside a model: sides of comparisons, branches, inputs that matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import influence as room
from onnx_harness.judging.influence import BRANCHES, INPUTS, SIDES, influence, to_be_counted
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache
from tests.models import model, save


def counted(
    made: onnx.ModelProto, feeds: list[dict[str, Any]], folder: Path
) -> dict[str, tuple[int, int]]:
    path = save(made, folder / "model.onnx")
    session = open_cpu(path)
    sets = tuple(InputSet(f"set {at}", values) for at, values in enumerate(feeds))
    answers = Reference(sets, tuple(run(session, values) for values in feeds), frozenset())
    counts, notes = influence(Model(path), answers, Cache(folder / "cache"))
    assert notes == ()
    return counts


def row(*values: float) -> Any:
    return np.array([values], np.float32)


GREATER = (
    "(float[n,2] x) => (float[n,2] y) { z = Constant <value_float = 0.0> () b = Greater(x, "
    "z) y = Where(b, x, z) }"
)


@pytest.mark.parametrize(
    ("values", "seen"), [(row(1, 2), 1), (row(-1, -2), 1), (row(1, -1), 2)]
)
def test_both_sides_of_a_comparison(values: Any, seen: int, tmp_path: Path) -> None:
    assert counted(model(GREATER), [{"x": values}], tmp_path) == {SIDES: (seen, 2)}


def test_sides_are_gathered_over_the_sets_and_empty_ones_show_none(tmp_path: Path) -> None:
    feeds = [{"x": row(1, 2)}, {"x": np.zeros((0, 2), np.float32)}, {"x": row(-1, -2)}]
    assert counted(model(GREATER), feeds, tmp_path) == {SIDES: (2, 2)}


IF = """(float[n,2] x, bool go) => (float[n,2] y) {
  y = If (go) <then_branch = one () => (float[n,2] t) { z = Constant <value_float = 0.0> ()
              b = Less(x, z)
                                                        t = Where(b, z, x) },
               else_branch = two () => (float[n,2] s) { s = Neg(x) }> }"""


def test_branches_and_comparisons_in_a_branch_that_is_not_taken(tmp_path: Path) -> None:
    no, yes = np.array(False), np.array(True)
    feeds = [{"x": row(1, -2), "go": no}]
    assert counted(model(IF), feeds, tmp_path / "no") == {SIDES: (0, 2), BRANCHES: (1, 2)}
    feeds.append({"x": row(1, -2), "go": yes})
    counts = counted(model(IF), feeds, tmp_path / "both")
    assert counts[SIDES] == counts[BRANCHES] == (2, 2)


def test_what_hangs_on_shapes_alone_is_not_counted(tmp_path: Path) -> None:
    text = """(float[n,2] x) => (float[n,2] y) {
      s = Shape(x) two = Constant <value_int = 2> () b = Equal(s, two) f = Cast <to = 1> (b)
              y = Add(x, f) }"""
    assert counted(model(text), [{"x": row(1, 2)}], tmp_path) == {}


def test_an_input_that_changes_nothing_does_not_count(tmp_path: Path) -> None:
    text = "(float[n,2] x, float[n,2] idle) => (float[n,2] y) { d = Sub(idle, idle) y = Add(x, d) }"
    feeds = [{"x": row(1, 2), "idle": row(3, 4)}, {"x": row(5, 6), "idle": row(7, 8)}]
    assert counted(model(text), feeds, tmp_path / "idle") == {INPUTS: (1, 2)}
    both = "(float[n,2] x, float[n,2] idle) => (float[n,2] y) { y = Add(x, idle) }"
    assert counted(model(both), feeds, tmp_path / "both") == {INPUTS: (2, 2)}


def test_what_cannot_be_counted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("not today")

    monkeypatch.setattr(room, "_sides", refuse)
    path = save(model(GREATER), tmp_path / "model.onnx")
    answers = Reference(
        (InputSet("one", {"x": row(1, 2)}),), ({"y": row(1, 2)},), frozenset()
    )
    counts, notes = influence(Model(path), answers, Cache(tmp_path / "cache"))
    assert counts == {}
    assert notes == ("what is reached of comparisons can't be counted: not today",)


def test_what_a_run_will_count_is_said_before_it() -> None:
    words = "decide by the inputs: a run counts which of their sides are reached"
    assert to_be_counted(model(IF)) == f"1 comparison and 1 If {words}"
    assert to_be_counted(model("(float[n,2] x) => (float[n,2] y) { y = Neg(x) }")) == ""
