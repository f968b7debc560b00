"""A model with a switch at every node computes each mix as its conversion does, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnx_harness.judging.mixed.neighbours import moves_between, neighbours
from onnx_harness.judging.mixed.switches import MASK, Switched, switched, through_moves
from onnx_harness.judging.simulation import simulated
from onnx_harness.transforms.float16 import clamp
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.half.plan import Plan
from onnx_harness.transforms.half.requests import Request
from onnx_harness.transforms.half.schemas import FLOAT16
from tests.models import model

LIMITS = 1e-7, 1e4
X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)

CHAIN = """(float[2,3] x) => (float[3,3] y, float[2,3] h) {
    h = MatMul(x, w)  t = Transpose(h)  a = Mul(t, c)  b = MatMul(a, h)  y = Tanh(b) }"""
MOVED = """(float[2,3] x) => (float[3,2] y, float[3,2] z, float[3,2] t) {
    h = MatMul(x, w)  t = Transpose(h)  u = Identity(t)  y = Mul(u, c)  z = Div(t, c) }"""
CLAMPED = """(float[2,3] x) => (float[2,3] y) {
    g = MatMul(x, tiny)  o = Constant <value = float[3,3] {1e-9, 0.5, 2.0, 7.0, 1.0, 3.0, 5.0, -7e4, 1.0}>()
    h = MatMul(g, o)  k = Constant <value_float = 3e4>()  m = Constant <value = float[1] {1e-9}>()
    a = Mul(h, large)  b = Mul(a, m)  d = Add(b, large)  y = Div(d, c) }"""
DEFAULT = """(float[2,3] x, float[3,3] tiny) => (float[2,3] y) { a = MatMul(x, tiny) y = Div(a, c) }"""
BRANCHES = """(float[2,3] x) => (float[2,3] y, float[2,3] g) {
    h = MatMul(x, w)  a = Mul(h, c)  g, f = If (on) <
        then_branch = yes () => (float[2,3] up, float[2,3] same) { up = Mul(a, x)  same = Identity(h) },
        else_branch = no () => (float[2,3] down, float[2,3] other) { down = Add(a, x)  other = Neg(a) }>
    s = Add(g, f)  y = Sqrt(s) }"""
LOOP = """(float[2,3] x) => (float[2,3] y, float[2,2,3] rows) {
    h = MatMul(x, w)  total, rows = Loop (trips, on, h) <body = body
        (int64 i, bool go, float[2,3] state) => (bool more, float[2,3] next, float[2,3] row) {
            more = Identity(go)  s = Mul(state, c)  next = Add(s, x)  row = Mul(state, x) }>
    y = Div(total, c) }"""
NESTED = """(float[2,3] x) => (float[2,3] y) {
    h = Mul(x, c)  total = Loop (trips, on, h) <body = body
        (int64 i, bool go, float[2,3] state) => (bool more, float[2,3] next) {
            more = Identity(go)  next = If (go) <
                then_branch = yes () => (float[2,3] up) { up = Mul(state, c) },
                else_branch = no () => (float[2,3] down) { down = Sub(state, x) }> }>
    y = Div(total, c) }"""
SCAN = """(float[2,3] x) => (float[3] last, float[2,3] y) {
    h = Mul(x, c)  last, rows = Scan <num_scan_inputs = 1, body = body
        (float[3] state, float[3] item) => (float[3] next, float[3] row) {
            next = Mul(state, item)  row = Div(state, item) }> (start, h)
    y = Mul(rows, c) }"""
BLOCKED = """(float[2,3] x) => (float[2,3] y) {
    h = MatMul(x, w)  e = Exp(h)  s = CumSum(e, one)  l = Log(s)  a = Mul(l, c)  y = Tanh(a) }"""
WEIGHTS = {
    "w": np.random.default_rng(1).normal(size=(3, 3)) * 7,
    "c": np.array([1.7]),
    "tiny": np.array([[1e-9, 0.3, 2.0], [5.0, -1e-8, 3.0], [1.0, 0.1, 7e4]]),
    "large": np.array([3e4]),
    "start": np.array([1.1, 2.3, -0.7]),
}
INTEGERS = {
    "one": np.array(1, np.int64),
    "trips": np.array(2, np.int64),
    "on": np.array(True),
}


def built(text: str, opset: int = 17) -> onnx.ModelProto:
    made = model(text, opset=opset)
    values = {key: value.astype("f4") for key, value in WEIGHTS.items()} | INTEGERS
    used = _reads(made.graph)
    made.graph.initializer.extend(
        numpy_helper.from_array(value, key) for key, value in values.items() if key in used
    )
    return made


def _reads(graph: onnx.GraphProto) -> set[str]:
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            names |= _reads(attribute.g)
    return names


def conversion_of(source: onnx.ModelProto, **asked: Any) -> MixedConversion:
    return MixedConversion(
        source,
        Request(True, allow_missing=True, **asked),
        LIMITS,
        lambda array, places: clamp(array, *LIMITS, places),
        FLOAT16,
        "fp16.io32",
    )


def plan_of(source: onnx.ModelProto, **asked: Any) -> Plan:
    conversion, copied = conversion_of(source, **asked), onnx.ModelProto()
    copied.CopyFrom(source)
    return conversion.plan(copied, conversion.rounder())


def clamped(tensor: onnx.TensorProto) -> onnx.TensorProto | None:
    values = numpy_helper.to_array(tensor)
    rounded = clamp(np.ascontiguousarray(values).reshape(-1), *LIMITS, [])
    if not rounded.raised and not rounded.lowered:
        return None
    return numpy_helper.from_array(rounded.array.astype("f4").reshape(values.shape), "")


def with_switches(source: onnx.ModelProto) -> Switched:
    graph = switched(plan_of(source), clamped)
    onnx.checker.check_model(graph.model, full_check=True)
    return graph


def opened(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bits(session: ort.InferenceSession, **feeds: npt.NDArray[Any]) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in session.run(None, {"x": X, **feeds})]


def choices(count: int) -> Iterator[set[int]]:
    """No node, each alone, all but each, all."""
    every = set(range(count))
    yield set()
    for place in every:
        yield {place}
    for place in every:
        yield every - {place}
    yield every


CASES = {
    "chain": (CHAIN, 17),
    "chain of an old opset": (CHAIN, 8),
    "moved": (MOVED, 17),
    "clamped": (CLAMPED, 17),
    "default": (DEFAULT, 17),
    "branches": (BRANCHES, 17),
    "loop": (LOOP, 17),
    "nested": (NESTED, 17),
    "scan": (SCAN, 17),
    "blocked": (BLOCKED, 17),
}


@pytest.mark.parametrize("case", CASES)
def test_each_mix_is_what_its_conversion_computes(case: str) -> None:
    source = built(*CASES[case])
    graph = with_switches(source)
    session, differing = opened(graph.model), set()
    for chosen in choices(len(graph.labels)):
        names = frozenset(graph.labels[place] for place in graph.closed(chosen))
        moves = moves_between(plan_of(source), names)
        listed = [graph.labels[place] for place in sorted(chosen)]
        converted = conversion_of(source).converted((*listed, *moves))
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(converted)
        expected = bits(opened(simulated(converted, skeleton)))
        mixed = bits(session, **{MASK: graph.mask(chosen)})
        assert mixed == expected, names
        differing.add(tuple(mixed))
    assert len(differing) >= 2


def count(graph: onnx.GraphProto, op: str) -> int:
    """How many nodes of an operator a graph has, those inside others included."""
    number = 0
    for node in graph.node:
        number += node.op_type == op
        for attribute in node.attribute:
            number += count(attribute.g, op)
    return number


@pytest.mark.parametrize(
    ("case", "labels", "ops", "inside"),
    [
        ("chain", "h a b y", "MatMul Mul MatMul Tanh", {}),
        ("moved", "h y z", "MatMul Mul Div", {}),
        (
            "branches",
            "h a g up down other s y",
            "MatMul Mul If Mul Add Neg Add Sqrt",
            {2: {3, 4, 5}},
        ),
        ("loop", "h total row y", "MatMul Loop Mul Div", {1: {2}}),
        (
            "nested",
            "h total next up down y",
            "Mul Loop If Mul Sub Div",
            {1: {2, 3, 4}, 2: {3, 4}},
        ),
        ("scan", "h last next row y", "Mul Scan Mul Div Mul", {1: {2, 3}}),
        ("blocked", "h e", "MatMul Exp", {}),
    ],
)
def test_the_nodes_that_can_be_switched_are_those_that_compute(
    case: str, labels: str, ops: str, inside: dict[int, set[int]]
) -> None:
    graph = with_switches(built(*CASES[case]))
    assert (graph.labels, graph.ops) == (tuple(labels.split()), tuple(ops.split()))
    assert graph.inside == inside
    for place, followers in inside.items():
        assert graph.closed([place, 0]) == {place, 0} | followers
    assert graph.closed([0]) == {0}
    assert graph.closed(()) == frozenset()


def test_the_mask_has_an_element_for_each_reason_to_round() -> None:
    source = built(CHAIN)
    source.ir_version = 3
    source.graph.value_info.append(source.graph.output[1])
    graph = switched(plan_of(source), clamped)
    assert list(graph.conditions) == [{0}, {1}, {2}, {3}, {1, 2}, {0, 2}, {2, 3}]
    assert graph.mask({0, 2}).tolist() == [
        not condition <= {0, 2} for condition in graph.conditions
    ]
    proto = graph.model
    assert proto.ir_version == 4  # initializers that aren't inputs
    kind = proto.graph.input[-1].type.tensor_type
    assert [info.name for info in proto.graph.input] == ["x", MASK]
    assert kind.elem_type == onnx.TensorProto.BOOL
    assert [size.dim_value for size in kind.shape.dim] == [len(graph.conditions)]
    assert not proto.graph.value_info
    assert with_switches(built(CHAIN)).model.ir_version == 9


@pytest.mark.parametrize(
    ("case", "casts", "choices"),
    [
        ("chain", 16, 11),
        ("moved", 16, 9),
        ("clamped", 16, 12),
        ("default", 10, 6),
        ("branches", 26, 23),
        ("loop", 16, 10),
        ("nested", 18, 16),
        ("scan", 20, 16),
    ],
)
def test_a_value_is_rounded_once_for_all_its_readers(
    case: str, casts: int, choices: int
) -> None:
    graph = with_switches(built(*CASES[case])).model.graph
    assert (count(graph, "Cast"), count(graph, "Where")) == (casts, choices)


@pytest.mark.parametrize(("opset", "ops"), [(8, ("If", "Where")), (9, ("Where", "If"))])
def test_a_switch_is_a_branch_where_the_opset_has_no_other(
    opset: int, ops: tuple[str, str]
) -> None:
    graph = with_switches(built(CHAIN, opset)).model.graph
    assert [count(graph, op) for op in ops] == [11, 0]


def test_a_value_is_followed_back_through_what_moves_it() -> None:
    plan = plan_of(built(MOVED))
    names = {name: through_moves(plan, name) for name in ("x", "c", "h", "t", "u", "y")}
    assert names == {"x": "x", "c": "c", "h": "h", "t": "h", "u": "h", "y": "y"}


@pytest.mark.parametrize(
    ("case", "nodes", "around"),
    [
        ("chain", {0}, {0, 1, 2}),
        ("chain", {1}, {0, 1, 2}),
        ("chain", {3}, {2, 3}),
        ("chain", {1, 3}, {0, 1, 2, 3}),
        ("chain", (), ()),
        ("moved", {1}, {0, 1}),
        ("blocked", {0}, {0, 1}),
        ("clamped", {0, 2, 3}, {0, 1}),
        ("branches", {0}, {0, 1}),
        ("branches", {2}, {2, 6}),
        ("branches", {5}, {1, 5}),
        ("loop", {1}, {0, 1, 3}),
        ("loop", {2}, ()),
    ],
)
def test_neighbours_make_what_nodes_read_or_read_what_they_make(
    case: str, nodes: Any, around: Any
) -> None:
    assert neighbours(plan_of(built(*CASES[case])), nodes) == set(around)


def test_neighbours_by_name_are_those_that_compute_in_the_half_type() -> None:
    """One of two nodes of a name stays float32; an input that is left out has no maker."""
    text = """(float[2,3] x) => (float[2,3] y, float[2,3] e) {
        h = Mul(x, c)  a = Clip(h, , c)  d = Neg(a)  y = Tanh(d)  e = Exp(h) }"""
    source = built(text)
    source.graph.node[4].name = "d"
    plan = plan_of(source, op_block_list=["Exp"])
    labels = [(plan.label(step), plan.converted(step)) for step in plan.reading.floating]
    assert labels == [("h", True), ("a", True), ("d", True), ("y", True), ("d", False)]
    assert neighbours(plan, {0}) == {0, 1}


def test_a_node_that_stays_float32_is_not_inside_by_the_name_of_another() -> None:
    text = """(float[2,3] x) => (float[2,3] y) {
        h = Mul(x, c)  total = Loop (trips, on, h) <body = body
            (int64 i, bool go, float[2,3] state) => (bool more, float[2,3] next) {
                more = Identity(go)  e = Exp(state)  next = Mul(e, c) }>
        y = Div(total, c) }"""
    source = built(text)
    source.graph.node[1].attribute[0].g.node[1].name = "y"
    graph = switched(plan_of(source, op_block_list=["Exp"]), clamped)
    assert graph.labels == ("h", "total", "next", "y")
    assert graph.inside == {1: {2}}


def test_a_weight_is_rounded_right_before_its_first_reader() -> None:
    """A rounded weight takes memory for as long as it's there."""
    nodes = list(with_switches(built(CHAIN)).model.graph.node)
    places = {name: place for place, node in enumerate(nodes) for name in node.output}
    (cast,) = (
        place
        for place, node in enumerate(nodes)
        if node.op_type == "Cast" and node.input[0] == "c"
    )
    assert places["h"] < cast < len(nodes) - 1
    assert [node.op_type for node in nodes[cast : cast + 4]] == [
        "Cast",
        "Cast",
        "Where",
        "Mul",
    ]


def test_a_mask_of_nothing_is_of_truth_values() -> None:
    assert Switched(onnx.ModelProto(), (), (), {}, ()).mask(()).dtype.kind == "b"
