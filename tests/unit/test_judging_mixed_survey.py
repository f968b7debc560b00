"""What rounding does to each node of a model: measured beside it, and what is made of the figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from onnx_harness.judging.mixed import survey
from onnx_harness.judging.mixed.survey import FOUND, NodeSurvey, read, surveyed
from tests.unit.test_judging_mixed_switches import (
    CHAIN,
    LOOP,
    WEIGHTS,
    X,
    built,
    opened,
    plan_of,
)

Floats = npt.NDArray[np.float32]
WIDE = """(float[2,3] x) => (float[3,3] y, float[2,3] z) {
    h = MatMul(x, w)  t = Transpose(h)  a = Mul(t, c)  y = MatMul(a, x)  z = Mul(x, c) }"""


def half(value: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32)


def of_model(
    source: onnx.ModelProto, **feeds: Any
) -> tuple[survey.Surveyed, Any, list[Any]]:
    instrumented = surveyed(plan_of(source))
    onnx.checker.check_model(instrumented.model)
    session = opened(instrumented.model)
    names = [info.name for info in session.get_outputs()]
    outputs = session.run(None, {"x": X, **feeds})
    return instrumented, dict(zip(names, outputs, strict=True)).get(FOUND), outputs


def test_each_value_is_measured_against_its_twin_and_its_rounding() -> None:
    source = built(WIDE)
    source.ir_version = 3
    instrumented, measured, outputs = of_model(source)
    w, c = (WEIGHTS[name].astype(np.float32) for name in ("w", "c"))
    h = X @ w
    a = h.T * c
    y, z = a @ X, X * c
    twins = [half(X) @ half(w), half(h.T) * half(c), half(a) @ half(X), half(X) * half(c)]
    expected = []
    for exact, twin in zip((h, a, y, z), twins, strict=True):
        exact64 = exact.astype(np.float64)
        expected.append(np.sum((twin - exact64) ** 2))
        expected.append(np.sum((half(exact) - exact64) ** 2))
        expected += [np.sum(exact64**2), np.abs(exact64).max()]
    assert instrumented.values == (0, 1, 2, 3)
    np.testing.assert_allclose(measured, expected, rtol=1e-3)
    np.testing.assert_array_equal(outputs[0], y)
    proto = instrumented.model
    assert proto.ir_version == 4
    kind = proto.graph.output[-1].type.tensor_type
    assert (kind.elem_type, kind.shape.dim[0].dim_value) == (onnx.TensorProto.FLOAT, 16)


def test_an_input_that_many_nodes_read_is_rounded_once() -> None:
    graph = surveyed(plan_of(built(WIDE))).model.graph
    # x, w, h by its transpose, c, a; and each of the four values that is measured.
    assert sum(node.op_type == "Cast" for node in graph.node) == 2 * (5 + 4)
    names = [node.name for node in graph.node]
    assert [name for name in names if name in set("htayz")] == list("htayz")
    assert len(set(names)) == len(names)  # as a profile tells them apart


def test_outputs_that_are_left_out_have_no_twin_and_bodies_are_not_measured() -> None:
    source = built("(float[2,1,3] x) => (float[1,1,3] y) { a = Mul(x, c) y = Neg(a) }")
    source.graph.node[1].CopyFrom(
        helper.make_node(
            "GRU", ["a", "gates", "more", "", "", "first"], ["", "y"], hidden_size=3
        )
    )
    for name, shape in (("gates", (1, 9, 3)), ("more", (1, 9, 3)), ("first", (1, 1, 3))):
        value = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        source.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    _, measured, _ = of_model(source, x=X.reshape(2, 1, 3))
    gru = measured.reshape(-1, 4)[1]
    assert measured.shape == (8,)
    assert 0 < gru[0] < 1e-4 * gru[2]
    assert 0 < gru[1] < 1e-6 * gru[2]
    instrumented, measured, _ = of_model(built(LOOP))
    assert instrumented.values == (0, 3)  # the product before the loop, and what follows it
    assert measured.shape == (8,)


def test_a_model_without_nodes_to_measure_gets_no_output() -> None:
    source = built("(float[2,3] x) => (float[3,2] y) { y = Transpose(x) }")
    source.ir_version = 3
    instrumented, measured, outputs = of_model(source)
    assert (instrumented.values, measured, len(outputs)) == ((), None, 1)
    assert instrumented.model.ir_version == 3
    assert not instrumented.model.graph.initializer


INF, NAN = math.inf, math.nan


def test_the_worst_of_a_node_is_over_its_values_and_all_sets() -> None:
    rows = [[4, 1, 16, 3], [1, 9, 16, 1], [INF, NAN, 4, NAN], [4e-37, 0, 0, 0]]
    more = [[16, 1, 16, 2], [1, 1, 16, 4], [1, 1, 4, -INF], [INF, 1, INF, INF]]
    runs = [np.array(table, np.float32).ravel() for table in (rows, more)]
    got = survey._worst(4, (0, 0, 2, 3), runs)
    for column, expected in zip(
        got,
        ([1.0, NAN, INF, INF], [0.75, NAN, INF, 1 / 3.1], [4.0, NAN, INF, INF]),
        strict=True,
    ):
        assert column[:3] == pytest.approx(expected[:3], nan_ok=True)
    assert got[1][3] == 0.0
    first = survey._worst(4, (0, 0, 2, 3), runs[:1])
    assert [column[3] for column in first] == pytest.approx([2.0, 0.0, 0.0], rel=1e-6)
    assert survey._worst(1, (), [])[0] == pytest.approx([NAN], nan_ok=True)


U = 2.0**-11


@pytest.mark.parametrize(
    ("inherits", "rounds", "suspicion"),
    [
        # A node hands on by how much it makes an error larger, and what is before it multiplies.
        ((2, NAN, 10, 100), (0.5, 1, 1, 0.5), (2000, 1000, 1000, 100)),
        # A node that loses less than a rounding counts as one; what is about 1 stays so.
        ((1, 1, 1, 1), (0.5, 0.5, 0.5, 0.5), (1, 1, 1, 1)),
        # The greatest that is measured, of what it inherits and what it rounds.
        ((2, 3, 4, 2), (1, 5, 1, 3), (2, 5, 4, 3)),
        # That a value is infinite is its maker's doing.
        ((1, 1, 1, 50), (0.5, 0.5, INF, 0.5), (1, 1, 1e24, 50)),
        # Where an input that rounds to zero makes infinity no factor is known.
        ((1, 1, 1, INF), (0.5, 0.5, 0.5, 0.5), (1e6, 1e6, 1e6, 1e24)),
        ((1, 1, 1, NAN), (1, 1, 1, NAN), (1, 1, 1, 8)),
        ((NAN,) * 4, (NAN,) * 4, (8, 8, 8, 8)),
        # Factors are bounded on both sides.
        ((1, INF, INF, INF), (1, 1, 1, 1), (1e12, 1e24, 1e24, 1e24)),
        ((1, 1, 0, 0), (1, 1, 1, 1), (1e-12, 1e-12, 1e-6, 1)),
        # The rounding of what is read: of its maker, through a move; on average of a weight.
        ((1, 10, 1, 1), (NAN, 1, 1, 1), (20, 10, 1, 1)),
        ((1, 10, 1, 1), (2, 1, 1, 1), (10, 10, 1, 1)),
        ((1, 10, 1, 1), (0.25, 1, 1, 1), (20, 10, 1, 1)),
        ((1, 10, 1, 1), (INF, 1, 1, 1), (1e24, 10, 1, 1)),
    ],
)
def test_a_node_is_suspect_of_what_it_loses_times_what_follows_makes_of_it(
    inherits: tuple[float, ...], rounds: tuple[float, ...], suspicion: tuple[float, ...]
) -> None:
    text = """(float[2,3] x) => (float[3,2] y) {
        h = MatMul(x, w)  t = Transpose(h)  a = Mul(t, c)  b = Mul(a, a)  y = Tanh(b) }"""
    plan = plan_of(built(text))
    atoms = {"h": 0, "a": 1, "b": 2, "y": 3}
    got = survey._suspicion(
        plan, atoms, [U * each for each in inherits], [U * each for each in rounds], U
    )
    assert got == pytest.approx(list(suspicion), rel=1e-3)


def test_of_several_readers_the_strictest_counts() -> None:
    text = """(float[2,3] x) => (float[2,3] y, float[2,3] z) {
        h = Mul(x, c)  a = Tanh(h)  b = Sigmoid(h)  y = Add(a, b)  z = Mul(b, b) }"""
    plan = plan_of(built(text))
    atoms = {"h": 0, "a": 1, "b": 2, "y": 3, "z": 4}

    def suspicion(inherits: list[float], rounds: list[float]) -> list[float]:
        scaled = [[U * number for number in numbers] for numbers in (inherits, rounds)]
        return survey._suspicion(plan, atoms, scaled[0], scaled[1], U)

    ones = [1.0] * 5
    assert suspicion([1, 1, 1, 50, 1], ones) == [50, 50, 50, 50, 1]
    assert suspicion([1, 1, 1, 1, 50], ones) == [50, 1, 50, 1, 50]
    assert suspicion([1, 8, 1, 50, 70], ones) == [400, 400, 70, 50, 70]
    assert suspicion([1, 1, 1, 50, 1], [1, 5, 1, 1, 1]) == [10, 50, 10, 50, 1]
    assert suspicion([1, 1, 1, 50, 1], [1, 1, 5, 1, 1]) == [10, 10, 50, 50, 1]
    assert suspicion([1, 1, 1, 50, 1], [1, INF, 1, 1, 1]) == [1, 1e24, 1, 50, 1]


@pytest.mark.parametrize(("direct", "moved"), [(50.0, 1.0), (1.0, 50.0)])
def test_a_move_hands_on_no_less_than_others_want(direct: float, moved: float) -> None:
    text = """(float[2,3] x) => (float[2,3] y, float[3,2] z) {
        h = Mul(x, c)  t = Transpose(h)  y = Tanh(h)  z = Sigmoid(t) }"""
    atoms, inherits = {"h": 0, "y": 1, "z": 2}, [U, direct * U, moved * U]
    got = survey._suspicion(plan_of(built(text)), atoms, inherits, [U] * 3, U)
    assert got == [50.0, direct, moved]


def test_what_stays_float32_hands_on_what_its_readers_want() -> None:
    text = "(float[2,3] x) => (float[2,3] y) { h = Mul(x, c)  s = Neg(h)  y = Tanh(s) }"
    plan = plan_of(built(text), op_block_list=["Neg"])
    kept = [plan.label(step) for step in plan.reading.floating if not plan.converted(step)]
    assert kept == ["s"]
    atoms = {"h": 0, "y": 1}
    got = survey._suspicion(plan, atoms, [U, 10 * U], [U, U], U)
    assert got == [20.0, 10.0]  # what Neg gives is rounded as a value is on average


def test_what_is_read_off_a_survey_is_a_record_for_each_node() -> None:
    plan = plan_of(built(CHAIN))
    row = [U**2, 4 * U**2, 1, 3]
    runs = [np.array([row, row, [9, INF, 1, 7]], np.float32).ravel()]
    times = {"h": 1.0, "b": 2.0, "t": 9.0, "y": 1.0}
    got = read(plan, (0, 2, 3), runs, times, U)
    nothing: Any = pytest.approx(NAN, nan_ok=True)
    factor: Any = pytest.approx(3 / U)
    assert got == (
        NodeSurvey(U, 2 * U, 3.0, factor, 0.25),
        NodeSurvey(nothing, nothing, nothing, 8.0, 0.0),
        NodeSurvey(U, 2 * U, 3.0, factor, 0.5),
        NodeSurvey(3.0, INF, 7.0, 1e24, 0.25),
    )
    assert [each.overflows for each in got] == [False, False, False, True]


def test_a_node_with_graphs_reads_no_floats_itself() -> None:
    text = """(float[2,3] x) => (float[2,3] y) { y = Tanh(g)  g = If (on) <
        then_branch = yes () => (float[2,3] up) { up = Mul(x, c) },
        else_branch = no () => (float[2,3] down) { down = Neg(x) }> }"""
    plan = plan_of(built(text))
    atoms = {"g": 0, "up": 1, "down": 2, "y": 3}
    inherits, rounds = [2 * U, 3 * U, NAN, 8 * U], [NAN, NAN, NAN, U]
    assert survey._suspicion(plan, atoms, inherits, rounds, U) == [32.0, 3.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("names", "factor"),
    [
        (["a", "b"], 3.0),
        (["b", "", "c"], 1.0),
        (["b"], 0.5),
        (["c"], 1.0),
        ([""], 1.0),
        ([], 1.0),
    ],
)
def test_an_error_grows_by_the_most_that_any_value_of_a_node_makes_of_it(
    names: list[str], factor: float
) -> None:
    assert survey._wanted(names, {"a": 3.0, "b": 0.5, "": 9.0}) == factor
