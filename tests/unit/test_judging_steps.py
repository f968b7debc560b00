"""Step functions of a model: what is one, how large its steps are, what moves in front of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.last_bits import (
    AMOUNT,
    EDGES,
    NOTHING,
    ONE_UNIT,
    has_steps,
    steps,
    with_last_bits,
)
from onnx_harness.judging.runs import open_cpu
from onnx_harness.providers.running import run
from tests.models import model

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
F = "(float[n,64] x) => (float[n,64] y) "
HALF_STEP = numpy_helper.from_array(np.array(0.5, np.float32))


def built(
    *nodes: onnx.NodeProto,
    output: str = "y",
    kinds: dict[str, int] | None = None,
    **constants: Any,
) -> onnx.ModelProto:
    """Nodes on a float ``x``, checked by nobody."""
    known = {"x": FLOAT, **(kinds or {})}
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in known.items()]
    tensors = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    ]
    outputs = [helper.make_tensor_value_info(output, FLOAT, None)]
    graph = helper.make_graph(list(nodes), "g", infos, outputs, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], **attributes)


STEPS = [
    *((op, "x") for op in ("Ceil", "Floor", "Round", "Sign", "ArgMax", "ArgMin", "NonZero")),
    *(
        (op, "x", "k")
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    *((op, "k", "x") for op in ("Equal", "Less")),
    ("TopK", "x", "k"),
    ("NonMaxSuppression", "x", "k"),
    ("NonMaxSuppression", "k", "x"),
    *(
        (op, "x", "k")
        for op in ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "MatMulNBits")
    ),
]


@pytest.mark.parametrize("words", STEPS, ids=" ".join)
def test_what_gives_a_step_function_of_a_float_is_found(words: tuple[str, ...]) -> None:
    op, *inputs = words
    assert has_steps(built(node(op, *inputs), kinds={"k": TensorProto.INT64}))
    ints = built(node(op, *inputs), kinds={"k": FLOAT, "x": TensorProto.INT64})
    first = inputs.index("x") == 0 and op not in {"NonMaxSuppression"} and "q" not in op
    both = len(inputs) > 1 and (
        op
        in {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonMaxSuppression"}
    )
    assert has_steps(ints) == both or not first


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("TopK", ("k", "x")),
        ("QuantizeLinear", ("k", "x")),
        ("NonMaxSuppression", ("k", "k", "x")),
        ("NonMaxSuppression", ("k", "k", "k", "x")),
        ("Floor", ("k", "x")),
        ("Floor", ("", "x")),
        ("Where", ("k", "x", "x")),
        ("Gather", ("x", "k")),
    ],
)
def test_what_only_accompanies_a_step_function_is_none(
    op: str, inputs: tuple[str, ...]
) -> None:
    assert not has_steps(built(node(op, *inputs), kinds={"k": TensorProto.INT64}))


@pytest.mark.parametrize(
    ("target", "is_step"),
    [
        *((kind, True) for kind in ("BOOL", "INT8", "INT16", "INT32", "INT64")),
        *((kind, True) for kind in ("UINT8", "UINT16", "UINT32", "UINT64")),
        ("DOUBLE", False),
        ("FLOAT", False),
    ],
)
def test_a_cast_to_integers_is_a_step_function(target: str, is_step: bool) -> None:
    cast = node("Cast", "x", to=TensorProto.DataType.Value(target))
    assert has_steps(built(cast)) is is_step
    assert not has_steps(built(cast, kinds={"x": TensorProto.INT32}))
    # Another attribute with that number says nothing.
    other = node("Cast", "x", to=FLOAT, saturate=TensorProto.DataType.Value(target))
    assert not has_steps(built(other))


def test_a_float16_anywhere_is_a_step_function() -> None:
    branch = "h = Cast <to = {}> (x) y2 = Cast <to = 1> (h)"
    text = (
        "(float[n,64] x, bool c) => (float[n,64] y) {{ y = If(c) <then_branch = g () => "
        f"(float[n,64] y2) {{{{ {branch} }}}}, "
        "else_branch = k () => (float[n,64] v) {{ v = Neg(x) }}> }}"
    )
    assert has_steps(model(text.format(10)))
    assert not has_steps(model(text.format(11)))
    assert has_steps(built(node("Neg", "w"), w=np.zeros(1, np.float16)))
    assert has_steps(built(node("Neg", "x"), kinds={"h": HALF}))


@pytest.mark.parametrize(
    ("chain", "step"),
    [
        *(([node(op, "x")], 1.0) for op in ("Ceil", "Floor", "Round", "Sign")),
        *(([node(op, "x", "s")], 1.0) for op in ("QuantizeLinear", "QLinearConv", "QLinearMatMul")),
        *(([node(op, "x", "s")], None) for op in ("QLinearAdd", "DynamicQuantizeLinear", "Exp")),
        ([node("DequantizeLinear", "x", "s")], 0.25),
        ([node("DequantizeLinear", "x", "rows")], 3.0),
        ([node("DequantizeLinear", "x", "below")], 2.0),
        ([node("DequantizeLinear", "x", "nothing")], None),
        ([node("DequantizeLinear", "x", "none")], None),
        ([node("DequantizeLinear", "x", "x")], None),
        ([node("DequantizeLinear", "s", "x")], None),
        ([node("Constant", output="c", value=HALF_STEP), node("DequantizeLinear", "x", "c")], 0.5),
        *(
            ([node("Round", "x", output="r"), node(op, "r", "s")], 1.0)
            for op in ("MaxPool", "Pad", "Relu", "Transpose", "Reshape", "Identity")
        ),
        ([node("Round", "x", output="r"), node("Pad", "s", "r")], None),
        ([node("Round", "x", output="r"), node("Relu", "r", output="t"), node("Pad", "t")], 1.0),
        ([node("Relu", "x")], None),
        ([node("Neg", "x", output="z")], None),
    ],
)  # fmt: skip
def test_the_distance_of_two_neighbouring_values(
    chain: list[onnx.NodeProto], step: float | None
) -> None:
    made = built(
        *chain,
        s=np.float32(0.25),
        rows=np.array([1, 3, 2], np.float32),
        below=np.array([-2.0, 1.0], np.float32),
        nothing=np.float32(0),
        none=np.zeros(0, np.float32),
    )
    assert steps(made) == ({} if step is None else {"y": step})


def test_each_output_has_a_step_of_its_own() -> None:
    made = model(
        "(float[n] x) => (float[n] a, float[n] b, float[n] c, float[n] x2) "
        "{ e = Exp(x) a = Neg(e) b = Floor(x) s = Constant <value = float {0.5}> () "
        "q = QuantizeLinear(x, s) c = DequantizeLinear(q, s) x2 = Neg(b) }"
    )
    assert steps(made) == {"b": 1.0, "c": 0.5}


@pytest.mark.parametrize(("opset", "fits"), [(8, False), (9, True)])
def test_an_opset_without_the_operators_that_move_is_refused(opset: int, fits: bool) -> None:
    made = model(F + "{ y = Neg(x) }", opset=opset)
    if fits:
        changed = with_last_bits(made)
        expected = [
            helper.make_tensor_value_info(name, FLOAT, []) for name in (AMOUNT, EDGES)
        ]
        assert list(changed.graph.input[1:]) == expected
        assert len(made.graph.input) == 1
        return
    with pytest.raises(ValueError, match="needs opset 9, and it has 8"):
        with_last_bits(made)


MANY = np.linspace(0.1, 0.9, 4000, dtype=np.float32)
SUM = "(float[4000] x) => (float[4000] y, float[4000] z) { y = Add(x, v) z = Add(x, w) }"


def weighted(text: str, **weights: Any) -> onnx.ModelProto:
    made = model(text)
    for name, array in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return made


def moves(
    made: onnx.ModelProto, amount: Any = ONE_UNIT, edges: Any = ONE_UNIT, **values: Any
) -> dict[str, Any]:
    return run(open_cpu(with_last_bits(made)), {**values, AMOUNT: amount, EDGES: edges})


@pytest.mark.parametrize("opset", [17, 22])
def test_constants_move_up_as_often_as_down_each_by_itself_and_alike_in_each_session(
    opset: int,
) -> None:
    made = weighted(SUM, v=MANY, w=MANY)
    made.opset_import[0].version = opset
    zero = np.zeros(4000, np.float32)
    first, again = (moves(made, x=zero) for _ in range(2))
    signs = {name: np.sign(value - MANY) for name, value in first.items()}
    for name, sign in signs.items():
        assert 0.46 < (sign > 0).mean() < 0.54
        assert (sign != 0).all()
        np.testing.assert_array_equal(first[name], again[name])
    assert 0.46 < (signs["y"] == signs["z"]).mean() < 0.54
    session = open_cpu(with_last_bits(made))
    drawn = [
        run(session, {"x": zero, AMOUNT: ONE_UNIT, EDGES: ONE_UNIT})["y"] for _ in range(2)
    ]
    assert 0.46 < (drawn[0] == drawn[1]).mean() < 0.54


@pytest.mark.parametrize(("opset", "op"), [(17, "RandomUniformLike"), (22, "Dropout")])
def test_seeds_make_draws_the_same_in_every_process(opset: int, op: str) -> None:
    made = weighted(SUM, v=MANY, w=MANY)
    made.opset_import[0].version = opset
    seeds = []
    for changed in (with_last_bits(made), with_last_bits(made)):
        drawing = [each for each in changed.graph.node if each.op_type == op]
        attributes = [{each.name: each for each in drawn.attribute} for drawn in drawing]
        seeds.append([helper.get_attribute_value(each["seed"]) for each in attributes])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 2


def test_what_cannot_move_costs_no_node() -> None:
    whole = np.array([1, -3, np.inf], np.float32)
    made = weighted("(float[3] x) => (float[3] y) { y = Add(x, w) }", w=whole)
    assert [each.op_type for each in with_last_bits(made).graph.node] == ["Add"]
    mixed = weighted(
        "(float[3] x) => (float[3] y) { y = Add(x, w) }", w=whole + np.float32(0.5)
    )
    assert len(with_last_bits(mixed).graph.node) > 1


def test_a_model_that_onnx_cannot_infer_is_refused() -> None:
    with pytest.raises(Exception, match=r"No opset import for domain of\.nobody"):
        with_last_bits(model(F + "{ y = of.nobody.Neg(x) }"))


@pytest.mark.parametrize(
    ("text", "amount", "edges"),
    [
        # A constant moves by the amount, but where it is compared: there it is an edge.
        (F + "{ y = Add(x, w) }", True, False),
        (F + "{ b = Greater(x, w) f = Cast <to = 1> (b) y = Add(f, w) }", False, True),
        # What a step function reads is an edge.
        (F + "{ e = Mul(x, x) r = Floor(e) g = Sub(e, r) y = Add(r, g) }", False, True),
        # Whoever reads it reads it as it is, but for the step function.
        (F + "{ e = Mul(x, x) r = Floor(e) y = Identity(e) }", False, False),
        (F + "{ r = Floor(x) y = Identity(r) }", False, False),
        (F + "{ y = Neg(x) }", False, False),
    ],
)
def test_what_moves_by_which_amount(text: str, amount: bool, edges: bool) -> None:
    made = (
        weighted(text, w=np.linspace(0.1, 0.9, 64, dtype=np.float32))
        if "w" in text
        else model(text)
    )
    # Squares next to whole numbers fall to either side.
    x = np.sqrt(np.arange(1, 65, dtype=np.float32))[None]
    still = moves(made, NOTHING, NOTHING, x=x)["y"]
    np.testing.assert_array_equal(still, run(open_cpu(made), {"x": x})["y"])
    assert (moves(made, ONE_UNIT, NOTHING, x=x)["y"] != still).any() == amount
    if "Floor" not in text:
        assert (moves(made, NOTHING, ONE_UNIT, x=x)["y"] != still).any() == edges


@pytest.mark.parametrize(
    ("between", "moved"),
    [
        ("t = Relu(d) y = MatMul(t, ones)", True),
        ("t = Transpose <perm = [0, 1]> (d) y = MatMul(t, ones)", True),
        ("y = ReduceSum <keepdims = 1> (d)", True),
        ("t = Exp(d) y = MatMul(t, ones)", False),
        ("t = Neg(d) y = MatMul(t, ones)", False),
        ("y = Mul(d, ones)", False),
    ],
)
def test_the_terms_of_a_sum_behind_a_quantizer_move_by_the_amount(
    between: str, moved: bool
) -> None:
    text = (
        "(float[1,64] x) => (float y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
        + between
        + " }"
    )
    made = weighted(text, s=np.float32(0.5), z=np.uint8(128), ones=np.ones((64, 1), "f4"))
    read = with_last_bits(made).graph.node[-1].input[0]
    assert read.startswith("last_bits/") == moved


def test_dequantized_weights_stay_and_a_constant_s_type_is_kept() -> None:
    made = weighted(
        "(float[1,64] x) => (float y) { v = DequantizeLinear(w, s, z) y = MatMul(x, v) }",
        w=np.ones((64, 1), np.uint8),
        s=np.float32(0.5),
        z=np.uint8(0),
    )
    changed = with_last_bits(made)
    assert changed.graph.node[-1].input[1] == "v"
    assert [tensor.name for tensor in changed.graph.initializer] == ["w", "s", "z"]
    wide = weighted(
        "(double[2] x) => (double[2] y) { y = Add(x, w) }", w=np.array([0.1, 0.2])
    )
    assert [each.op_type for each in with_last_bits(wide).graph.node] == ["Add"]


def test_one_value_is_moved_once_for_all_that_read_it() -> None:
    made = weighted(
        F + "{ a = Add(x, w) b = Sub(a, w) y = Mul(b, w) }", w=np.full(64, 0.3, "f4")
    )
    nodes = with_last_bits(made).graph.node
    read = [
        each.input[1]
        for each in nodes
        if each.op_type in {"Add", "Sub"} and each.output[0] in "ab"
    ]
    assert len(set(read)) == 1
    assert [each.op_type for each in nodes].count("RandomUniformLike") == 1


def test_constants_and_edges_of_a_branch_move_in_it() -> None:
    made = model(
        "(float[n,64] x, bool c) => (float[n,64] y) { e = Mul(x, x) y = If(c) "
        "<then_branch = g () => (float[n,64] u) "
        "{ k = Constant <value_float = 0.3> () u = Mul(e, k) }, "
        "else_branch = h () => (float[n,64] v) { v = Floor(e) }> }"
    )
    x = np.sqrt(np.arange(1, 65, dtype=np.float32))[None]
    for choice, amounts in ((True, (ONE_UNIT, NOTHING)), (False, (NOTHING, ONE_UNIT))):
        values: dict[str, Any] = {"x": x, "c": np.array(choice)}
        still = moves(made, NOTHING, NOTHING, **values)["y"]
        drawn = [moves(made, *pair, **values)["y"] for pair in (amounts, amounts[::-1])]
        assert [(moved != still).any() for moved in drawn] == [True, False]
