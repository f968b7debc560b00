"""``simplify``: what is folded, what is removed, what is left alone, and that no value changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_harness.errors import NotApplicable
from onnx_harness.model.file import node_count
from onnx_harness.transforms import remarks
from onnx_harness.transforms.simplification import folding
from onnx_harness.transforms.simplify import simplify, simplify_with_report
from tests.unit.transform_models import (
    arrays,
    copy_of,
    floats,
    model_of,
    ops,
    run,
    same_bits,
)

RECORDED = sorted((Path(__file__).parents[1] / "data" / "defects").glob("*.npz"))
DEFECTS = [path.with_suffix(".onnx") for path in RECORDED]


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a caller may feed: before IR version 4, no initializer, although all are listed."""
    constants = (
        {tensor.name for tensor in model.graph.initializer}
        if model.ir_version < 4
        else set()
    )
    return [info for info in model.graph.input if info.name not in constants]


def simplified(
    model: onnx.ModelProto, max_growth_bytes: int = 1 << 20, **feeds: Any
) -> onnx.ModelProto:
    """The simplified model: valid, with the interface and, on ``feeds``, every bit of the original."""
    result = simplify(copy_of(model), max_growth_bytes)
    onnx.checker.check_model(result, full_check=True)
    assert inputs(result) == inputs(model)
    assert list(result.graph.output) == list(model.graph.output)
    assert same_bits(run(result, **feeds), run(model, **feeds))
    assert result.ByteSize() <= model.ByteSize() + max_growth_bytes
    return result


def test_what_depends_on_constants_alone_becomes_an_initializer() -> None:
    model = model_of("""agraph (float[N,3] x) => (float[N,3] z) <float[3] w = {1,-2,3}>
        { two = Constant<value = float {2}>() twice = Mul(w, two) r = Sqrt(two)
              by = Div(twice, r) z = Mul(x, by) }
    """)
    result = simplified(model, x=floats(4, 3))
    assert ops(result) == {"Mul": 1}
    assert [tensor.name for tensor in result.graph.initializer] == ["by"]


@pytest.mark.parametrize(
    "attribute",
    ["value_float = 2.0", "value = float[1] {2}", "value_floats = [2.0, 3.0, 4.0]"],
)
def test_constant_nodes_become_initializers_however_they_hold_their_value(
    attribute: str,
) -> None:
    model = model_of(
        f"agraph (float[N,3] x) => (float[N,3] z) {{ c = Constant<{attribute}>() z = Mul(x, c) }}"
    )
    assert ops(simplified(model, x=floats(2, 3))) == {"Mul": 1}


@pytest.mark.parametrize(
    ("ir_version", "expected"),
    [
        pytest.param(3, {"Neg": 1, "Constant": 1}, id="callers may override initializers"),
        pytest.param(8, {"Neg": 1}, id="an initializer is the output"),
    ],
)
def test_an_output_that_is_constant_stays_an_output(
    ir_version: int, expected: dict[str, int]
) -> None:
    model = model_of(
        """agraph (float[N] x) => (float[N] z, float[2] k)
        { c = Constant<value = float[2] {-0.0, 3}>() d = Neg(c) k = Neg(d) z = Neg(x) }""",
        ir_version=ir_version,
    )
    assert ops(simplified(model, x=floats(2))) == expected


@pytest.mark.parametrize(("size", "nodes"), [(2, 1), (100, 2)])
def test_a_constant_that_is_read_elsewhere_is_an_output_too_if_it_is_small(
    size: int, nodes: int
) -> None:
    numbers = ", ".join(map(str, range(size)))
    model = model_of(
        f"agraph (float[N,{size}] x) => (float[N,{size}] z, float[{size}] k) "
        f"<float[{size}] c = {{{numbers}}}> {{ z = Mul(x, c) k = Identity(c) }}"
    )
    result = simplified(model, x=floats(3, size))

    assert len(result.graph.node) == nodes


def test_what_a_branch_gives_is_computed_in_it() -> None:
    model = model_of("""agraph (float[2] x, bool c) => (float[2] z)
        { z = If (c) <then_branch = one () => (float[2] t) { t = Constant<value = float[2] {1, 2}>() },
                      else_branch = two () => (float[2] u) { u = Neg(x) }> }""")
    for chosen in (True, False):
        result = simplified(model, x=floats(2), c=chosen)
        assert node_count(result.graph) == 3


def test_special_values_survive_folding() -> None:
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    model = model_of("agraph (float[5] x) => (float[5] z) { a = Identity(x) z = Mul(a, a) }")
    model.graph.node.insert(
        0,
        helper.make_node("Constant", [], ["s"], value=onnx.numpy_helper.from_array(special)),
    )
    model.graph.node.insert(1, helper.make_node("Reshape", ["s", "s5"], ["k"]))
    model.graph.initializer.append(helper.make_tensor("s5", TensorProto.INT64, [1], [5]))
    model.graph.node[-1].input[1] = "k"
    result = simplified(model, x=np.ones(5, np.float32))
    (tensor,) = result.graph.initializer
    assert onnx.numpy_helper.to_array(tensor).tobytes() == special.tobytes()


def test_random_operators_are_not_folded() -> None:
    model = model_of("""agraph (float[2] x) => (float[2] z)
        { r = RandomNormal<shape = [2]>() l = RandomNormalLike(r) s = Add(r, l) z = Add(x, s) }""")
    assert ops(simplify(model)) == {"RandomNormal": 1, "RandomNormalLike": 1, "Add": 2}


def test_every_random_operator_of_the_standard_is_known() -> None:
    bodies = {"If", "Loop", "Scan", "SequenceMap"}  # as random as what they hold
    # Flagged by the schema, although their definition draws nothing at random.
    drawn = {
        "AffineGrid",
        "LinearAttention",
        "CausalConvWithState",
        "DepthToSpace",
        "SpaceToDepth",
    }
    flagged = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.non_deterministic  # type: ignore[attr-defined]
    }
    assert flagged - bodies - drawn == folding._RANDOM


def test_an_operator_of_another_domain_is_not_taken_for_the_standard_one() -> None:
    model = model_of("""agraph (float[2] x) => (float[2] z) <float[2] w = {1,2}>
        { a = local.Identity(w) b = local.Reshape(x) c = Mul(a, b) z = Identity(c) }
        <opset_import: ["" : 17], domain: "local"> Identity (v) => (r) { r = Neg(v) }
        <opset_import: ["" : 17], domain: "local"> Reshape (v) => (r) { r = Exp(v) }""")
    result = simplify(copy_of(model), inline_functions=False)
    assert ops(result) == {"Identity": 1, "Reshape": 1, "Mul": 1}
    assert same_bits(run(result, x=floats(2)), run(model, x=floats(2)))


def test_a_default_that_the_caller_may_override_is_no_constant() -> None:
    model = model_of(
        "agraph (float[2] x, float[2] w) => (float[2] z) <float[2] w = {1,2}> { n = Neg(w) z = "
        "Mul(x, n) }"
    )
    result = simplified(model, x=floats(2), w=floats(2, seed=1))
    assert ops(result) == {"Neg": 1, "Mul": 1}
    assert same_bits(run(result, x=floats(2)), run(model, x=floats(2)))


def test_before_ir_version_4_initializers_are_constants_and_stay_listed_as_inputs() -> None:
    model = model_of(
        """agraph (float[2] x, float[2] w) => (float[2] z) <float[2] w = {1,2}>
        { c = Constant<value = float[2] {3, 4}>() s = Add(w, c) n = Neg(s) z = Mul(x, n) }""",
        ir_version=3,
    )
    result = simplified(model, x=floats(2))
    assert ops(result) == {"Mul": 1}
    assert [info.name for info in result.graph.input] == ["x", "n"]


@pytest.mark.parametrize(
    ("allowed", "expected"), [(200, {"Expand": 1, "MatMul": 1}), (1 << 20, {"MatMul": 1})]
)
def test_folding_grows_a_model_by_no_more_than_allowed(
    allowed: int, expected: dict[str, int]
) -> None:
    model = model_of("""agraph (float[64,64] x) => (float[64,64] z) <float[1] w = {2}, int64[2] size = {64, 64}>
        { n = Neg(w) large = Expand(n, size) z = MatMul(x, large) }""")
    assert ops(simplified(model, allowed, x=floats(64, 64))) == expected


def test_what_folding_frees_counts_against_what_it_adds() -> None:
    weight = onnx.numpy_helper.from_array(floats(64, 64), "w")
    model = model_of("agraph (float[2,64] x) => (float[2,64] z) { z = Neg(x) }")
    model.graph.initializer.append(weight)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["w"], ["t"]),
            helper.make_node("MatMul", ["x", "t"], ["z"]),
        ]
    )
    assert ops(simplified(model, 256, x=floats(2, 64))) == {"MatMul": 1}


def test_a_weight_that_is_an_output_is_not_freed() -> None:
    model = model_of("""agraph (float[2,64] x, float[64,64] w) => (float[2,64] z, float[64,64] w)
        { t = Transpose(w) z = MatMul(x, t) }""")
    del model.graph.input[1]
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats(64, 64), "w"))
    with remarks() as said:
        assert ops(simplified(model, 256, x=floats(2, 64))) == {"Transpose": 1, "MatMul": 1}
    assert said == []  # nothing was folded and then undone for its size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k = Transpose(w)", {"Mul": 1}),
        ("k = Sqrt(w)", {"Sqrt": 1, "Mul": 1}),
        ("s = Sqrt(w) k = Transpose(s)", {"Mul": 1}),
        ("c = Cast<to = 1>(w) s = Sqrt(c) k = Cast<to = 10>(s)", {"Cast": 1, "Mul": 1}),
    ],
)
def test_of_float16_only_what_moves_values_is_folded(
    text: str, expected: dict[str, int]
) -> None:
    model = model_of(
        f"agraph (float16[2,2] x) => (float16[2,2] z) <float16[2,2] w = {{2,3,5,7}}> {{ {text} z "
        f"= Mul(x, k) }}"
    )
    assert ops(simplified(model, x=floats(2, 2).astype(np.float16))) == expected


def test_a_dequantized_weight_stays_quantized_when_it_would_not_fit() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["q"], ["t"], perm=[1, 0]),
            helper.make_node("DequantizeLinear", ["t", "scale"], ["w"]),
            helper.make_node("MatMul", ["x", "w"], ["z"]),
        ],
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 64])],
        [
            onnx.numpy_helper.from_array(
                np.arange(4096, dtype=np.int8).reshape(64, 64), "q"
            ),
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    assert ops(simplified(model, 512, x=floats(2, 64))) == {
        "DequantizeLinear": 1,
        "MatMul": 1,
    }


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("s = Shape(x) z = Expand(s, one)", 0),
        ("s = Shape<start = 2, end = 1>(x) t = Shape(x) z = Concat<axis = 0>(s, t)", 0),
        ("s = Shape(y) z = Gather(s, one)", 0),
        ("s = Shape(y) z = Slice(s, one, two)", 0),
        ("s = Shape<start = 1>(y) z = Slice(s, zero, one)", 0),
        ("s = Shape(y) z = Gather(s, zero)", 2),
        ("s = Size(y) z = Expand(s, one)", 2),
    ],
)
def test_the_static_part_of_a_shape_is_a_constant(text: str, left: int) -> None:
    model = model_of(f"""agraph (float[2,3] x, float[N,5] y) => (int64[M] z)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}> {{ {text} }}""")
    result = simplified(model, x=floats(2, 3), y=floats(4, 5))
    assert sum(ops(result).values()) - ops(result).get("Constant", 0) == left


def test_a_declared_shape_is_not_believed() -> None:
    # What the value_info says is false, and no runtime minds.
    model = model_of("agraph (float[N] x) => (int64[1] z) { a = Neg(x) z = Shape(a) }")
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [7]))
    assert ops(simplified(model, x=floats(3))) == {"Neg": 1, "Shape": 1}


@pytest.mark.parametrize(
    "text", ["z = Shape(x)", "z = Add(w, w)", "s = Shape(x) z = Cast<to = 7>(s)"]
)
def test_before_opset_9_an_output_of_integers_cannot_be_a_constant(text: str) -> None:
    model = model_of(
        f"agraph (float[2,3] x) => (int64[2] z) <int64[2] w = {{1, 2}}> {{ {text} }}",
        opset=8,
    )
    assert "Constant" not in ops(simplified(model, x=floats(2, 3)))


def test_branches_of_different_shapes_are_not_taken_for_one_before_opset_11() -> None:
    # There, onnx's inference gives the output the dimensions that either branch knows.
    model = model_of(
        """agraph (bool c, float[2,4] x, float[2,N] y) => (int64[2] z) {
            b = If (c) <then_branch = one () => (float[A,B] t) { t = Neg(x) },
                        else_branch = two () => (float[A,B] e) { e = Neg(y) }>
            z = Shape(b) }""",
        opset=9,
    )
    for chosen in (True, False):
        simplified(model, c=np.array(chosen), x=floats(2, 4), y=floats(2, 7))


def test_what_inference_would_object_to_is_left_as_it_was() -> None:
    # onnx's inference takes the axes of an old Squeeze to be sorted, which shows once the shape
    # before it is known.
    model = model_of(
        """agraph (float[N,6] x) => (float[A] z) <int64[1] one = {1}, int64[1] last = {-1}>
        { s = Concat<axis = 0>(one, last, one) r = Reshape(x, s) z = Squeeze<axes = [2, 0]>(r) }""",
        opset=9,
    )
    with remarks() as said:
        result = simplified(model, x=floats(2, 6))
    assert ops(result) == ops(model)
    assert "inconsistent" in said[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Identity(x) z = Neg(a)", {"Neg": 1}),
        ("a = Neg(x) z = Identity(a)", {"Neg": 1}),
        ("z = Identity(x)", {"Identity": 1}),
        ("a = Cast<to = 1>(x) z = Neg(a)", {"Neg": 1}),
        ("a = Cast<to = 11>(x) z = Cast<to = 1>(a)", {"Identity": 1}),
        ("a = Cast<to = 10>(x) z = Cast<to = 1>(a)", {"Cast": 2}),
        ("a = Transpose<perm = [0, 1]>(x) z = Neg(a)", {"Neg": 1}),
        ("a = Transpose(x) b = Neg(a) z = Transpose(b)", {"Neg": 1}),
        ("a = Reshape(x, s) z = Neg(a)", {"Neg": 1}),
        ("a = Pad(x, none) z = Neg(a)", {"Neg": 1}),
        ("a = Pad(x, turned) z = Neg(a)", {"Pad": 1, "Neg": 1}),
        ("a = Concat<axis = 0>(x) z = Neg(a)", {"Neg": 1}),
        ("a = Add(x, zeros) z = Neg(a)", {"Add": 1, "Neg": 1}),
        ("a = Neg(x) b = Exp(a) c = Add(b, a) z = Abs(a)", {"Neg": 1, "Abs": 1}),
    ],
)
def test_only_nodes_that_do_nothing_are_removed(text: str, expected: dict[str, int]) -> None:
    model = model_of(f"""agraph (float[2,2] x) => (float[2,2] z)
        <int64[2] s = {{2,-1}}, int64[4] none = {{0,0,0,0}}, int64[4] turned = {{1,0,-1,0}}, float[1] zeros = {{0}}>
        {{ {text} }}""")
    assert ops(simplified(model, x=-floats(2, 2) * 0)) == expected


def test_two_outputs_that_are_one_value_both_stay() -> None:
    model = model_of(
        "agraph (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Identity(y) }"
    )
    assert ops(simplified(model, x=floats(2))) == {"Neg": 1, "Identity": 1}


def test_branches_that_share_names_each_keep_their_own_values() -> None:
    model = model_of("""agraph (bool c, float[2] x) => (float[2] z) {
        a = Neg(x) b = Identity(a)
        z = If (c) <
            then_branch = one () => (float[2] y) { n = Identity(b) y = Exp(n) },
            else_branch = other () => (float[2] y) { n = Exp(b) y = Identity(n) }>
    }""")
    for choice in (True, False):
        result = simplified(model, c=choice, x=floats(2))
    assert ops(result) == {"Neg": 1, "If": 1}
    assert [
        [node.op_type for node in each.g.node] for each in result.graph.node[1].attribute
    ] == [
        ["Exp"],
        ["Exp"],
    ]


def test_a_node_with_a_body_is_folded_when_all_that_it_captures_is_constant() -> None:
    text = """agraph (float[2] x) => (float[2] z) <bool c = {{1}}, float[2] w = {{1,2}}> {{
        y = If (c) <then_branch = one () => (float[2] t) {{ t = Neg({captured}) }},
                    else_branch = other () => (float[2] t) {{ t = Exp(w) }}>
        z = Mul(x, y) }}"""
    assert ops(simplified(model_of(text.format(captured="w")), x=floats(2))) == {"Mul": 1}
    assert ops(simplified(model_of(text.format(captured="x")), x=floats(2))) == {
        "Neg": 1,
        "Mul": 1,
    }


def test_sequences_are_left_and_what_is_taken_from_constant_ones_is_folded() -> None:
    model = model_of("""agraph (float[2] x) => (float[2] z, seq(float[2]) s) <float[2] w = {1,2}, int64 at = {0}> {
        n = Neg(w) q = SequenceConstruct(n, w) e = SequenceAt(q, at) z = Mul(x, e)
              s = SequenceConstruct(n, x) }""")
    result = simplify(copy_of(model))
    onnx.checker.check_model(result, full_check=True)
    assert ops(result) == {"Mul": 1, "SequenceConstruct": 1}
    (z, s), (z_before, s_before) = run(result, x=floats(2)), run(model, x=floats(2))
    assert same_bits([z, *s], [z_before, *s_before])


def test_what_onnx_runtime_cannot_compute_is_left_and_the_rest_folded() -> None:
    # There's no CPU kernel for the hyperbolic sine of a double.
    model = model_of("""agraph (float[2] x) => (float[2] z, double[2] k) <double[2] w = {1,2}, float[2] v = {1,2}>
        { a = Neg(w) k = Sinh(a) n = Neg(v) m = Abs(n) z = Mul(x, m) }""")
    result = simplify(model)
    assert ops(result) == {"Sinh": 1, "Mul": 1}
    assert {tensor.name for tensor in result.graph.initializer} == {"a", "m"}


def test_maps_and_sparse_constants_pass_through() -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [4.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [2]),
        [3],
    )
    nodes = [
        helper.make_node("Constant", [], ["sparse"], sparse_value=sparse),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Add", ["same", "sparse"], ["z"]),
        helper.make_node(
            "ZipMap", ["m"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[1, 2, 3]
        ),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in "xm"
    ]
    kind = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    outputs = [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 3]),
        helper.make_value_info("map", helper.make_sequence_type_proto(kind)),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=opsets, ir_version=8
    )
    result = simplify(copy_of(model))
    onnx.checker.check_model(result, full_check=True)
    assert list(result.graph.output) == list(model.graph.output)
    assert [node.op_type for node in result.graph.node] == ["Constant", "Add", "ZipMap"]
    assert result.graph.node[0].attribute[0].sparse_tensor == sparse
    x = floats(1, 3)
    assert str(run(result, x=x, m=x)) == str(run(model, x=x, m=x))


def test_sparse_initializers_inside_a_branch_are_not_applicable() -> None:
    model = model_of("""agraph (bool c, float[2] x) => (float[2] z) { z = If (c) <
        then_branch = one () => (float[2] t) { t = Neg(x) },
        else_branch = other () => (float[2] t) { t = Exp(x) }> }""")
    model.graph.node[0].attribute[0].g.sparse_initializer.add().dims.append(3)
    with pytest.raises(NotApplicable, match="sparse initializers"):
        simplify(model)


def test_all_but_the_graph_is_kept() -> None:
    model = model_of(
        "agraph (float[2] x) => (float[2] z) { a = Identity(x) z = local.Twice(a) }"
        '<opset_import: ["" : 17], domain: "local"> Twice (v) => (r) { r = Add(v, v) }'
    )
    model.producer_name, model.doc_string, model.model_version = "somebody", "a story", 3
    helper.set_model_props(model, {"key": "value"})
    result = simplify(copy_of(model), inline_functions=False)
    for each in (result, model):
        each.ClearField("graph")
    assert result == model


@pytest.mark.parametrize("path", DEFECTS, ids=lambda path: path.stem)
def test_what_breaks_other_simplifiers_stays_right(path: Path) -> None:
    model = onnx.load(path)
    feeds = dict(np.load(path.with_suffix(".npz")).items())
    before, after = (
        arrays(run(model, **feeds)),
        arrays(run(simplify(copy_of(model)), **feeds)),
    )
    assert [each.dtype for each in after] == [each.dtype for each in before]
    for one, other in zip(after, before, strict=True):
        if other.dtype.kind == "O":
            assert one.tolist() == other.tolist()
            continue
        np.testing.assert_allclose(one, other, rtol=1e-6)
        np.testing.assert_array_equal(np.signbit(one), np.signbit(other))


def test_a_model_whose_functions_are_inlined_becomes_the_result_in_place() -> None:
    model = model_of(
        "agraph (float[N,4] x) => (float[N,4] z) { y = local.Twice(x) z = Relu(y) } "
        '<opset_import: ["" : 17], domain: "local"> Twice (v) => (r) { r = Add(v, v) }'
    )
    result, _ = simplify_with_report(model, in_place=True)
    assert result is model
    assert ops(model) == {"Add": 1, "Relu": 1}
