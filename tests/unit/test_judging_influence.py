"""What input sets reach inside a model: sides of comparisons, branches, inputs that matter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

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


def test_each_comparison_has_sides_of_its_own(tmp_path: Path) -> None:
    text = GREATER.replace("y = Where", "c = Less(x, z) d = And(b, c) y = Where")
    assert counted(model(text), [{"x": row(1, 2)}], tmp_path) == {SIDES: (2, 4)}
    assert counted(model(text), [{"x": row(1, -2)}], tmp_path) == {SIDES: (4, 4)}


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


def test_a_condition_that_no_comparison_makes_has_branches_and_no_sides(
    tmp_path: Path,
) -> None:
    text = IF.replace("If (go)", "If (stop)").replace("{\n", "{ stop = Not(go)\n", 1)
    feeds = [{"x": row(1, -2), "go": np.array(False)}]
    assert counted(model(text), feeds, tmp_path) == {SIDES: (2, 2), BRANCHES: (1, 2)}


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


def test_each_question_is_asked_though_the_others_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    risks: list[str] = []

    @contextlib.contextmanager
    def risking(what: str) -> Iterator[None]:
        risks.append(what)
        yield

    def refuse(*_: Any) -> Any:
        raise ValueError("not today\nbut tomorrow")

    monkeypatch.setattr(room, "risking", risking)
    path = save(model(GREATER), tmp_path / "model.onnx")
    made, answers = Model(path), Reference((), (), frozenset())
    monkeypatch.setattr(room, "_sides", refuse)
    monkeypatch.setattr(room, "_inputs", lambda *words: {INPUTS: words})
    found: Any = room._measured(made, answers)
    assert found == (
        {INPUTS: (made, answers)},
        ["what is reached of comparisons can't be counted: not today"],
    )
    monkeypatch.setattr(room, "_inputs", refuse)
    assert room._measured(made, answers) == (
        {},
        [f"what is reached of {what} can't be counted: not today" for what in ASKED],
    )
    digest = made.sha256[:16]
    assert risks == [f"what is reached of {what} {digest}" for what in ASKED] * 2


ASKED = ("comparisons", "inputs")


def test_what_is_reached_is_kept_by_model_sets_and_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def measures(*words: Any) -> Any:
        asked.append(words)
        return {SIDES: (1, 2)}, ["a note"]

    monkeypatch.setattr(room, "_measured", measures)
    made = Model(save(model(GREATER), tmp_path / "model.onnx"))
    other = Model(save(model(GREATER.replace("0.0", "1.0")), tmp_path / "other.onnx"))
    sets = [
        Reference((InputSet("a", {"x": row(at, 2)}),), ({},), frozenset()) for at in (1, 3)
    ]
    cache = Cache(tmp_path / "cache")
    for subject, answers in ((made, sets[0]), (made, sets[1]), (other, sets[0])):
        for _ in range(2):
            assert influence(subject, answers, cache) == ({SIDES: (1, 2)}, ("a note",))
    assert asked == [(made, sets[0]), (made, sets[1]), (other, sets[0])]
    for name in ("runtime_key", "source_digest"):
        with monkeypatch.context() as patched:
            patched.setattr(room, name, lambda: "another")
            influence(made, sets[0], cache)
    assert len(asked) == 5
    assert cache.folder("influence", "ab" * 32).parents[1].is_dir()


def others(*values: Any) -> list[Any]:
    sets = tuple(
        InputSet(str(at), {"x": value} if value is not None else {})
        for at, value in enumerate(values)
    )
    return room._others(Reference(sets, ({},) * len(sets), frozenset()), "x")


def test_another_value_of_an_input_has_its_shape_and_other_bytes() -> None:
    own = row(1, 2)
    fitting = [row(3, 4), row(1, -2), row(5, 6), row(7, 8)]
    found = others(own, row(1, 2), None, [row(3, 4)], np.zeros(2, "f4"), *fitting)
    assert len(found) == 3
    assert all(value is fit for value, fit in zip(found, fitting, strict=False))
    assert others([own], [row(3, 4)]) == others(own) == []


RESHAPE = "(float[?,?] x, int64[2] k) => (float[?,?] y) { y = Reshape(x, k) }"


def test_a_value_that_does_not_go_with_the_others_matters(tmp_path: Path) -> None:
    feeds = [
        {"x": np.zeros((2, 4), "f4"), "k": np.array([4, 2])},
        {"x": np.zeros((3, 4), "f4"), "k": np.array([6, 2])},
    ]
    assert counted(model(RESHAPE), feeds, tmp_path) == {INPUTS: (1, 1)}


def test_inputs_that_no_set_changes_are_left_out(tmp_path: Path) -> None:
    text = (
        "(float[n,2] same, float[n,2] x, float[n,2] idle) => (float[n,2] y) "
        "{ d = Sub(idle, idle) e = Add(x, d) y = Add(e, same) }"
    )
    feeds = [{"same": row(0, 0), "x": row(at, 2), "idle": row(at, 4)} for at in (1, 3)]
    assert counted(model(text), feeds, tmp_path / "a") == {INPUTS: (1, 2)}
    assert counted(model(text), [feeds[0]] * 2, tmp_path / "b") == {}
    one = [feeds[0], {**feeds[0], "x": row(5, 6)}]
    assert counted(model(text), one, tmp_path / "c") == {INPUTS: (1, 1)}


def test_of_many_inputs_the_first_ones_are_tried_each_with_few_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"x{at}" for at in range(18)]
    inputs = ", ".join(f"float[1,1] {name}" for name in names)
    made = model(f"({inputs}) => (float[1,1] y) {{ y = Sum({', '.join(names)}) }}")
    feeds = [dict.fromkeys(names, row(at)) for at in range(6)]
    runs: list[Any] = []

    def counts(session: Any, values: Any) -> Any:
        runs.append([name for name in names if values[name][0, 0] != 0])
        return run(session, values)

    monkeypatch.setattr(room, "run", counts)
    assert counted(made, feeds, tmp_path) == {INPUTS: (16, 16)}
    assert runs == [[name] for name in names[:16] for _ in range(3)]
    subject = Model(tmp_path / "model.onnx")
    sets = tuple(InputSet(str(at), values) for at, values in enumerate(feeds))
    for alone in (sets, tuple(replace(each, values={"x0": row(0)}) for each in sets)):
        unstable = frozenset("y" if alone is sets else "")
        assert room._inputs(subject, Reference(alone, ({"y": row(0)},) * 6, unstable)) == {}


def test_outputs_are_the_same_by_their_bits_whatever_their_order() -> None:
    first = {"b": row(1), "a": row(2)}
    assert room._same(first, {"a": row(2), "b": row(1)})
    assert not room._same(first, {"a": row(2), "b": row(-1)})
    assert not room._same({"a": row(0.0)}, {"a": row(-0.0)})


def body(text: str, result: str) -> str:
    return (
        (
            f"If (go) <then_branch = t () => (float[n,2] p) {{{{ {text} p = Neg({result}) }}}}, "
            "else_branch = e () => (float[n,2] q) {{ q = Neg(x) }}>"
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )


WORDS = "decide by the inputs: a run counts which of their sides are reached"
SURE = "sure = Constant <value = bool {1}> ()"
CONSTANT = "z = Constant <value_float = 0.0> () "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{CONSTANT} b = Greater(x, z) c = Less(x, z) y = Equal(z, z)", "2 comparisons"),
        (f"{CONSTANT} b = Not(go) y = {body('b2 = Greater(x, z)', 'x')}", "1 comparison and 1 If"),
        (f"y = {body('', 'x')} w = {body('', 'x')}", "2 Ifs"),
        (f"y = {body('b = Less(x, x) c = LessOrEqual(x, x)', 'x')}", "2 comparisons and 1 If"),
        (f"{CONSTANT} y = {body('b = Equal(z, z)', 'x')}", "1 If"),
        (f"{SURE} y = {body('b = Equal(x, x)', 'x').replace('(go)', '(sure)')}", "1 comparison"),
        ("b = Greater(x, default) y = Neg(x)", "1 comparison"),
        ("b = Greater(default, default) y = Neg(x)", ""),
        ("s = Shape(x) t = Size(x) b = Greater(s, t) y = Neg(x)", ""),
        ("b = of.ours.Greater(x, x) y = Neg(x)", ""),
        (f"y = {body(SURE, 'x')} v = Neg(y) b = Less(v, v)", "1 comparison and 1 If"),
    ],
)  # fmt: skip
def test_comparisons_and_branches_that_inputs_decide(text: str, words: str) -> None:
    made = model(
        f"(float[n,2] x, bool go, float[n,2] default) => (float[n,2] y) {{ {text} }}",
        domains=', "of.ours" : 1',
    )
    made.graph.initializer.append(numpy_helper.from_array(row(1, 2), "default"))
    assert to_be_counted(made) == (f"{words} {WORDS}" if words else "")


def test_what_a_run_will_count_is_said_before_it() -> None:
    words = "decide by the inputs: a run counts which of their sides are reached"
    assert to_be_counted(model(IF)) == f"1 comparison and 1 If {words}"
    assert to_be_counted(model("(float[n,2] x) => (float[n,2] y) { y = Neg(x) }")) == ""
