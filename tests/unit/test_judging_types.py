"""Which values of a model are of a narrow type, and what becomes of them in float32 or float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_harness.judging import half_range, narrow_types
from onnx_harness.judging.half_range import (
    OUTPUT,
    computes_in_half,
    computes_in_narrow,
    half_values,
    nodes_in_half,
    watch,
)
from onnx_harness.judging.narrow_types import narrow_by_graph, typed, types_in
from onnx_harness.judging.simulation import unknown_types
from onnx_harness.model.inference import infer_types
from tests.models import model

FLOAT, HALF, BHALF = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
INT64, DOUBLE = TensorProto.INT64, TensorProto.DOUBLE
NARROW = frozenset({HALF, BHALF})
OURS = ', "of.ours" : 3, "of.theirs" : 5'


ANY = {"tensor(float)", "tensor(float16)"}


def parameter(variable: str, *types: str) -> Any:
    return SimpleNamespace(typeStr=variable, types=set(types) or ANY)


T, U, H, WHOLE = (
    parameter("T"),
    parameter("U"),
    parameter("tensor(float16)", "tensor(float16)"),
    parameter("tensor(int64)", "tensor(int64)"),
)
SCHEMAS: dict[str, tuple[list[Any], list[Any]]] = {
    "Keep": ([T], [T]),
    "Fixed": ([T], [H]),
    "Second": ([T, U], [U]),
    "Third": ([U, U, T], [T]),
    "Many": ([T], [T]),
    "Pair": ([T, U], [U, T]),
    "Count": ([T], [T, WHOLE]),
    "Mute": ([T], [U]),
    "Empty": ([T], []),
    "Alone": ([], [T]),
    "Unspelt": ([SimpleNamespace(types=ANY)], [SimpleNamespace(types=ANY)]),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """What ONNX Runtime's schemas were asked for; they are ours here."""
    asked: list[tuple[str, int, str]] = []

    def schema(op: str, opset: int, domain: str) -> Any:
        asked.append((op, opset, domain))
        if op not in SCHEMAS:
            return None
        inputs, outputs = SCHEMAS[op]
        return SimpleNamespace(inputs=inputs, outputs=outputs)

    monkeypatch.setattr(narrow_types, "schema", schema)
    return asked


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("a = of.ours.Keep(h)", {"a": HALF}),
        ("a = of.ours.Keep(f)", {"a": FLOAT}),
        ("a = of.ours.Keep(unheard)", {}),
        ("a = of.ours.Fixed(f)", {"a": HALF}),
        ("a = of.ours.Second(f, h)", {"a": HALF}),
        ("a = of.ours.Second(h, f)", {"a": FLOAT}),
        ("a = of.ours.Second(h)", {}),
        ("a = of.ours.Third(h, h, f)", {"a": FLOAT}),
        ("a, b = of.ours.Pair(h, f)", {"a": FLOAT, "b": HALF}),
        ("a, b, c = of.ours.Count(h, f)", {"a": HALF, "b": INT64, "c": INT64}),
        # What takes any number of inputs has the last parameter for all that follow.
        ("a, b = of.ours.Many(unheard, f)", {"a": FLOAT, "b": FLOAT}),
        ("a = of.ours.Mute(h)", {}),
        ("a = of.ours.Empty(h)", {}),
        ("a = of.ours.Alone(h)", {}),
        ("a = of.ours.Unspelt(h)", {"a": HALF}),
        ("a = of.ours.Unheard(h)", {}),
        # What follows is inferred on, and typed again where it is ONNX Runtime's.
        (
            "a = of.ours.Keep(h) b = Neg(a) c = of.ours.Keep(b)",
            {"a": HALF, "b": HALF, "c": HALF},
        ),
        ("a = of.ours.Unheard(h) b = Neg(a) c = of.ours.Fixed(b)", {"c": HALF}),
    ],
)
def test_the_types_of_foreign_operators_are_those_of_their_schemas(
    body: str, kinds: dict[str, int], asked: list[tuple[str, int, str]]
) -> None:
    made = model(
        f"(float16[2] h, float[2] f) => (float16[2] y) {{ {body} y = Neg(h) }}", domains=OURS
    )
    before = made.SerializeToString()
    found = types_in(typed(made).graph)
    assert found == {"h": HALF, "f": FLOAT, "y": HALF, **kinds}
    assert made.SerializeToString() == before
    assert {(opset, domain) for _, opset, domain in asked} == {(3, "of.ours")}
    assert {op for op, _, _ in asked} <= {*SCHEMAS, "Unheard"}


IF = (
    "{} = If (c) <then_branch = t () => (float16[2] p) {{ {} p = Neg(h) }}, "
    "else_branch = e () => (float16[2] q) {{ q = Neg(h) }}> "
)


@pytest.mark.parametrize(
    ("body", "inferred"),
    [
        ("y = Neg(h)", 1),
        ("a = of.ours.Unheard(h) y = Neg(h)", 1),
        # Those in a row are typed at once, those behind an operator of ONNX's once it's inferred.
        ("a = of.ours.Keep(h) b = of.ours.Keep(a) y = of.ours.Keep(b)", 2),
        ("a = of.ours.Keep(h) b = Neg(a) d = of.ours.Keep(b) y = Neg(d)", 3),
        # Wherever they stand.
        ("a = of.ours.Keep(h) " + IF.format("y", "") + "b = Neg(a)", 2),
        ("a = of.ours.Keep(h) " + IF.format("y", "d = of.ours.Keep(h)") + "b = Neg(a)", 2),
        (IF.format("y", "d = of.ours.Keep(h)") + "a = of.ours.Keep(h) b = Neg(a)", 2),
    ],
)
def test_a_model_is_inferred_again_where_a_type_was_added(
    body: str, inferred: int, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = infer_types
    runs: list[Any] = []

    def infers(made: onnx.ModelProto, **more: Any) -> onnx.ModelProto:
        runs.append(more)
        return real(made, **more)

    monkeypatch.setattr(narrow_types, "infer_types", infers)
    made = model(f"(float16[2] h, bool c) => (float16[2] y) {{ {body} }}", domains=OURS)
    found = types_in(typed(made).graph)
    assert len(runs) == inferred
    assert found.get("b", HALF) == HALF
    assert ("b" in found) == (" b = " in body)
    assert bool(asked) == ("of.ours" in body)


def test_a_schema_is_asked_for_by_the_version_of_its_domain(
    asked: list[tuple[str, int, str]],
) -> None:
    made = model(
        "(float[2] f) => (float[2] y) { a = of.theirs.Keep(f) b = of.ours.Many(a) y = Neg(b) }",
        domains=OURS,
    )
    typed(made)
    assert set(asked) == {("Keep", 5, "of.theirs"), ("Many", 3, "of.ours")}


def test_in_a_body_a_foreign_operator_knows_the_values_around_it_and_their_namesakes(
    asked: list[tuple[str, int, str]],
) -> None:
    text = (
        "(float16[2] h, float[2] f, bool c) => (float[2] y) { y = If (c) "
        "<then_branch = t () => (float[2] p) { a = of.ours.Keep(h) p = Cast <to = 1> (a) }, "
        "else_branch = e () => (float[2] q) "
        "{ a = of.ours.Keep(f) b = of.ours.Keep(a) q = Neg(b) }> }"
    )
    made = typed(model(text, domains=OURS))
    bodies = [types_in(attribute.g) for attribute in made.graph.node[0].attribute]
    assert bodies == [{"a": HALF, "p": FLOAT}, {"a": FLOAT, "b": FLOAT, "q": FLOAT}]
    assert asked
    assert narrow_by_graph(model(text, domains=OURS)) == [{"h": HALF}, {"a": HALF}, {}]


def test_what_a_model_declares_is_believed_before_a_schema(
    asked: list[tuple[str, int, str]],
) -> None:
    made = model(
        "(float[2] f) => (float16[2] y) { y, z = of.ours.Count(f) b = Neg(y) }", domains=OURS
    )
    found = types_in(typed(made).graph)
    assert (found["y"], found["b"], found["z"]) == (HALF, HALF, INT64)
    assert asked


def test_a_model_that_onnx_cannot_infer_is_refused() -> None:
    text = "(float16[2] h) => (float16[2] y) { y = of.nobody.Keep(h) }"
    with pytest.raises(Exception, match=r"No opset import for domain of\.nobody"):
        typed(model(text))


# what computes in a narrow type


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ("y = Neg(x)", set()),
        ("y = Elu <alpha = 10.0> (x)", set()),
        ("y = Softmax <axis = 10> (x)", set()),
        ("a = Cast <to = 10> (x) y = Cast <to = 1> (a)", {"a"}),
        ("a = Cast <to = 16> (x) y = Cast <to = 1> (a)", set()),
        ("k = Constant <value = float16[2] {1, 2}> () y = Cast <to = 1> (k)", {"k"}),
        ("y = Cast <to = 1> (w)", {"w"}),
        ("n = Constant <value_int = 2> () h = HannWindow <output_datatype = 10> (n)", {"h"}),
        (
            "c = Constant <value = bool {1}> () y = If (c) <then_branch = t () => (float[2] p) "
            "{ a = Cast <to = 10> (x) p = Cast <to = 1> (a) }, else_branch = e () => (float[2] q) "
            "{ q = Neg(x) }>",
            {"a"},
        ),
    ],
)  # fmt: skip
def test_a_float16_is_found_wherever_a_model_states_one(body: str, values: set[str]) -> None:
    made = model(f"(float[2] x) => (float[2] y) {{ {body} }}")
    if "(w)" in body:
        made.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float16), "w"))
    assert half_values(made) == values


def test_a_model_that_states_none_is_not_inferred(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: Any) -> Any:
        return [{"told": HALF, "other": BHALF}]

    monkeypatch.setattr(half_range, "narrow_by_graph", found)
    body = "(float[10] x) => (float16[10] y) { y = Flatten <axis = 10> (x) }"
    assert half_values(model(body)) == set()
    assert half_values(model(body.replace("float[10] x", "float16[10] x"))) == {"told"}
    bits = model(
        "(float[2] x) => (float[2] y) { k = Constant <value = bfloat16[1] {1}> () y = Neg(x) }"
    )
    assert half_values(bits) == set()


CHAIN = (
    "(float16[2] x, bfloat16[2] b, float[2] f) => (float16[2] y, bfloat16[2] z, float[2] g) "
    "{ m = Identity(x) y = Neg(m) z = Abs(b) g = Exp(f) }"
)


def test_nodes_that_compute_are_told_by_their_type() -> None:
    made = model(CHAIN)
    assert [node.op_type for node in nodes_in_half(made)] == ["Neg"]
    alone = {
        kind: f"({kind}[2] x) => ({kind}[2] y) {{ y = Sqrt(x) }}"
        for kind in ("float", "float16", "bfloat16")
    }
    found = {
        kind: (computes_in_half(model(text)), computes_in_narrow(model(text)))
        for kind, text in alone.items()
    }
    assert found == {
        "float": (False, False),
        "float16": (True, True),
        "bfloat16": (False, True),
    }
    moved = model(
        "(bfloat16[2] x) => (float[2] y) { a = Identity(x) y = Cast <to = 1> (a) }"
    )
    assert not computes_in_narrow(moved)
    made.graph.node[1].op_type = "IsInf"  # its input alone is of the type
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    assert [node.op_type for node in nodes_in_half(made)] == ["IsInf"]


# what is watched


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ("y = Mul(x, x)", ["'y' (Mul)"]),
        ("a = Abs(x) y = Mul(a, x)", ["'y' (Mul)"]),
        # Behind a sole Relu it shows what comes through; not where others read it too.
        ("a = Mul(x, x) r = Relu(a) y = Neg(r)", ["'r' (Relu)"]),
        ("a = Mul(x, x) r = Relu(a) s = Relu(a) y = Add(r, s)", ["'a' (Mul)", "'y' (Add)"]),
        ("a = Mul(x, x) r = Relu(a) s = Exp(a) y = Abs(s)", ["'a' (Mul)", "'s' (Exp)"]),
        ("y = Mul(x, x) r = Relu(y) s = Tanh(r)", ["'y' (Mul)"]),
        # What saturates swallows it, all of them.
        ("a = Mul(x, x) y = Tanh(a)", []),
        ("a = Mul(x, x) s = Sigmoid(a) t = Erf(a) y = Concat <axis = 0> (s, t)", []),
        ("a = Mul(x, x) s = Sigmoid(a) t = Exp(a) y = Abs(t)", ["'a' (Mul)", "'t' (Exp)"]),
        ("a = Mul(x, x) y = Identity(x)", ["'a' (Mul)"]),
        # A float32 that float16 may not hold; a weight of ours and a Cast of a float16 are none.
        ("f = Constant <value_float = 1e9> () a = Cast <to = 10> (f) y = Neg(a)", ["'a' (Cast)"]),
        ("a = Cast <to = 10> (x) y = Neg(a)", []),
        ("a = Mul(x, w) y = Identity(w)", ["'a' (Mul)"]),
        ("f = Cast <to = 1> (x) g = Mul(f, f) y = Identity(x)", []),
    ],
)  # fmt: skip
def test_the_values_that_may_grow_are_watched(body: str, places: list[str]) -> None:
    made = model(f"(float16[2] x) => (float16[n] y) {{ {body} }}")
    if "w)" in body:
        made.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float16), "w"))
    found = watch(made, made)
    assert [str(place) for place in found.places] == places
    outputs = [info.name for info in found.model.graph.output]
    assert outputs == ["y", *([OUTPUT] if places else [])]
    assert found.model.graph.output[0].type.tensor_type.elem_type == FLOAT


def test_a_watched_value_is_told_with_its_node_and_the_nodes_that_compute_with_it() -> None:
    made = model(
        "(float16[2] x, bool c) => (float16[2] y, float[2] z) { a = Mul(x, x) b = Identity(a) "
        "y = If (c) <then_branch = t () => (float16[2] p) { p = Add(a, b) }, "
        "else_branch = e () => (float16[2] q) { q = Identity(a) }> "
        "z = Cast <to = 1> (a) d = Exp(a) }"
    )
    for node, name in zip(made.graph.node, ("one", "two", "three", "four", ""), strict=True):
        node.name = name
    found = {place.value: place for place in watch(made, made).places}
    assert list(found) == ["a", "p", "d"]
    assert str(found["a"]) == "'a' (Mul 'one')"
    assert (found["a"].node, found["a"].op) == ("one", "Mul")
    assert sorted(found["a"].readers) == [("", "Add"), ("", "Exp")]
    assert found["p"].readers == ()


def test_empty_tensors_cost_a_copy_only_where_they_are_expected() -> None:
    text = "(float16[n] x) => (float16[n] y) { y = Mul(x, x) }"
    ways: list[dict[str, bool]] = [{}, {"with_empty": False}, {"with_empty": True}]
    sizes = [len(watch(model(text), model(text), **way).model.graph.node) for way in ways]
    assert sizes[0] == sizes[1] < sizes[2]


def test_foreign_operators_of_unknown_types_are_named_in_order(
    asked: list[tuple[str, int, str]],
) -> None:
    made = model(
        "(float16[2] x, float[2] f, bool c) => (float16[2] y) { a = of.theirs.Unheard(x) "
        "b = of.ours.Unheard(f, x) d = of.ours.Keep(x) e = of.ours.Silent(f) "
        "y = If (c) <then_branch = t () => (float16[2] p) { k = of.ours.Inside(d) p = Neg(x) }, "
        "else_branch = o () => (float16[2] q) { q = Neg(x) }> }",
        domains=OURS,
    )
    assert unknown_types(made) == ["of.ours:Unheard", "of.theirs:Unheard"]
    assert asked
