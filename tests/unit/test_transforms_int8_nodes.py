"""int8 and int4: which nodes are told from which, what is never quantized, and the options of the
library.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnx_harness.errors import NotApplicable, UsageError
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.quantizing import Scheme, quantize_through, watched
from onnx_harness.names import parse_variant
from onnx_harness.transforms import bind, remarks
from onnx_harness.transforms.int8 import quantize_dynamic
from onnx_harness.transforms.quantization.masks import huge_values, masked_scores
from onnx_harness.transforms.quantization.nodes import is_quantized, size_values
from onnx_harness.transforms.quantization.operators import STATIC_OPS
from onnx_harness.transforms.variant import bind_variant
from tests.unit.test_transforms_int8 import (
    convolution,
    dense,
    quantized,
    samples_for,
    scale_of,
    signal_db,
    two_layers,
    weighted,
    weights,
)
from tests.unit.transform_models import copy_of, floats, ops, run


def tied(product: str) -> onnx.ModelProto:
    return weighted(
        f"agraph (int64[N] ids) => (float[N,60] y) {{ [table] h = Gather(E, ids) {product} }}",
        E=(60, 32),
    )


def test_the_standard_attention_is_not_onnx_runtime_s() -> None:
    model = weighted(
        "agraph (float[1,4,16] x) => (float[1,4,16] y) "
        "{ q = MatMul(x, w) y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, x, x) }",
        opset=23,
        ir_version=11,
        w=(16, 16),
    )
    result = quantized(model, "int8.dynamic")
    assert ops(result)["Attention"] == 1
    assert signal_db(model, result, floats(1, 4, 16)) > 20


@pytest.mark.parametrize(
    "graph",
    [
        # a is wanted as it is, and isn't clipped with y
        "(float[n,32] x) => (float[n,32] a, float[n,32] y) { a = MatMul(x, w) y = Relu(a) }",
        "(float[n,32] x, bool c) => (float[n,32] z, float[n,32] y) { a = MatMul(x, w)"
        " y = Relu(a) z = If(c)<then_branch = t () => (float[n,32] p) { p = Identity(a) },"
        " else_branch = e () => (float[n,32] q) { q = Neg(a) }> }",
        # the bias counts twice
        "(float[n,32] x) => (float[n,32] y) { y = Gemm<alpha = 0.5, beta = 2.0>(x, w, b) }",
    ],
    ids=["an output", "a body", "beta"],
)
def test_what_the_library_would_lose_stays(graph: str) -> None:
    model = weighted(f"agraph {graph}", w=(32, 32), b=(32,))
    conditions = {"c": np.asarray(True)} if len(model.graph.input) > 1 else {}
    samples = [each | conditions for each in samples_for(model)]
    result = quantized(model, "int8.static", samples)
    for expected, given in zip(
        run(model, **samples[0]), run(result, **samples[0]), strict=True
    ):
        assert np.linalg.norm(expected - given) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_an_old_file_whose_constants_are_no_inputs_is_quantized(text: str) -> None:
    """ONNX Runtime takes such files, and onnx's version converter finds no constant in them."""
    # A weight behind an Identity: what is done after the conversion is done to its result.
    graph = "agraph (float[n,32] x) => (float[n,32] y) { v = Identity(w) y = MatMul(x, v) }"
    model = weighted(graph, w=(32, 32))
    model.ir_version, model.opset_import[0].version = 3, 7
    result = quantized(model, text, samples_for(model))
    assert signal_db(model, result, floats(4, 32)) > 20


@pytest.mark.parametrize(
    ("op_type", "domain", "expected"),
    [
        *(
            ("DequantizeLinear", "", True),
            ("MatMulNBits", "com.microsoft", True),
            ("QLinearConv", "", True),
        ),
        *(
            ("QuickGelu", "com.microsoft", False),
            ("QuantizeLinear", "mine", False),
            ("Reshape", "", False),
        ),
    ],
)
def test_what_is_quantized_already_is_told_by_domain_and_name(
    op_type: str, domain: str, expected: bool
) -> None:
    assert is_quantized(helper.make_node(op_type, ["x"], ["y"], domain=domain)) is expected


def test_a_model_of_integer_weights_alone_is_quantized_already() -> None:
    model = weighted(
        "agraph (float[N,4] x) => (float[N,4] y) <int8[4,4] q, float s = {0.1}> "
        "{ w = DequantizeLinear(q, s) y = MatMul(x, w) }".replace(
            "int8[4,4] q, ", "int8[4,1] q = {1,2,3,4}, "
        ).replace("float[N,4] y", "float[N,1] y")
    )
    for text in ("int8.dynamic", "int8.static", "int4"):
        with pytest.raises(NotApplicable, match="quantized already"):
            quantized(model, text, samples_for(model))


_FEATURES = (
    '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> agraph (float[N,4] x) => '
    "(float[N,R] y, int64[N,1] c) { both = Concat<axis = 1>(x, x) halves, unused = "
    "Split<axis = 1>(both) c = ai.onnx.ml.LabelEncoder<keys_floats = [900.0, 901.0], "
    "values_int64s = [1, 2]>(halves) %s }"
)


def test_features_that_categories_are_looked_up_by_stay_exact() -> None:
    model = weighted(
        "agraph (float[N,4] x) => (float[N,4] y) { y = MatMul(x, w) }", w=(4, 4)
    )
    text = _FEATURES % "h = MatMul(m, w) y = Reshape(h, s)"
    text = text.replace("(float[N,4] x)", "(float[N,4] x, float[N,4] m)")
    features = onnx.parser.parse_model(text.replace("[N,1] c", "[N,4] c"))
    features.graph.initializer.extend(model.graph.initializer)
    features.graph.initializer.append(numpy_helper.from_array(np.array([-1, 2]), "s"))
    rows = np.array([[900.0, 901, 3, 7], [901, 901, 900, -5]], np.float32)
    samples = [{"x": rows, "m": floats(2, 4, seed=seed)} for seed in range(3)]
    result = quantized(features, "int8.static", samples)
    assert ops(result)["QuantizeLinear"]  # the product and what it reads are
    before, after = (run(each, **samples[0])[1] for each in (features, result))
    assert before.tolist() == [[1, 2, -1, -1], [2, 2, 1, -1]]
    assert after.tolist() == before.tolist()


def test_nothing_of_a_model_is_quantized_that_only_moves_features() -> None:
    model = onnx.parser.parse_model(
        (_FEATURES % "y = Identity(unused)").replace("[N,1] c", "[N,4] c")
    )
    with pytest.raises(NotApplicable, match=r"but for both, halves, .*features of a tree"):
        quantized(model, "int8.static(op_types_to_quantize=['Concat'])", samples_for(model))


def test_a_branch_keeps_the_weight_that_it_reads() -> None:
    model = weighted(
        "agraph (float[N,8] x, bool c) => (float[N,8] y) { a = MatMul(x, w) y = If (c) "
        "<then_branch = t () => (float[N,8] p) { p = MatMul(a, w) }, "
        "else_branch = e () => (float[N,8] q) { q = Neg(a) }> }",
        w=(8, 8),
    )
    result = quantized(model, "int8.dynamic(reduce_range=True)")
    for chosen in (True, False):
        before, after = (
            run(each, x=floats(4, 8), c=np.array(chosen))[0] for each in (model, result)
        )
        assert np.linalg.norm(before - after) < 0.1 * np.linalg.norm(before)


def test_a_branch_keeps_what_it_reads_of_a_table() -> None:
    model = weighted(
        "agraph (int64[N] i, bool c) => (float[N,8] y) { a = Gather(w, i) y = If (c) "
        "<then_branch = t () => (float[N,8] p) { p = Neg(a) }, else_branch = e () => (float[N,8] "
        "q) { q = Abs(a) }> "
        "z = MatMul(a, v) }",
        w=(8, 8),
        v=(8, 8),
    )
    result = quantized(model, "int8.dynamic")
    assert np.array_equal(
        *(run(each, i=np.arange(3), c=np.array(True))[0] for each in (model, result))
    )


@pytest.mark.parametrize(
    "size",
    [
        "s = Shape(a) f = Cast<to = 1>(s) [sizes] m = Mul(f, k) i = Cast<to = 7>(m) "
        'y = Resize<mode = "nearest">(a, , , i)',
        '[sizes] m = Concat<axis = 0>(one, k2) y = Resize<mode = "nearest">(a, , m)',
    ],
)
def test_sizes_and_scales_stay_exact(size: str) -> None:
    constants = (
        "float[4] k = {1,1,1.7,2.3}, float[2] one = {1,1}, float[2] k2 = {1.7,2.3}, "
        "float[3,3,1,1] w = "
    )
    factors = ",".join(map(str, floats(9).round(3)))
    model = weighted(
        f"agraph (float[1,3,5,5] x) => (float[A,B,C,D] y) <{constants}{{{factors}}}> {{ a = "
        f"Conv(x, w) {size} }}"
    )
    result = quantized(model, "int8.static", samples_for(model))
    before, after = (run(each, x=floats(1, 3, 5, 5))[0] for each in (model, result))
    assert before.shape == after.shape
    assert "m" not in watched(model, Scheme(frozenset(STATIC_OPS), static=True))


@pytest.mark.parametrize(
    "product",
    ["t = Transpose<perm = [1, 0]>(E) y = MatMul(h, t)", "y = Gemm<transB = 1>(h, E)"],
)
def test_a_table_that_is_also_a_factor_is_quantized_and_said_so(product: str) -> None:
    model = tied(product)
    with remarks() as noted:
        result = quantized(model, "int8.dynamic")
    assert any("'E' is the table of a Gather and a factor of" in note for note in noted)
    assert all(
        tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims
        for tensor in result.graph.initializer
    )
    assert result.ByteSize() < 0.6 * model.ByteSize()


def test_a_tied_table_has_one_scale_and_the_product_one_a_channel() -> None:
    model = tied("y = Gemm<transB = 1>(h, E)")
    samples = [{"ids": np.arange(60)}]
    result = quantized(model, "int8.static(per_channel=True)", samples)
    before, after = (run(each, ids=np.arange(60))[0] for each in (model, result))
    assert np.linalg.norm(before - after) < 0.05 * np.linalg.norm(before)
    assert scale_of(result, "E").shape == (60,)
    assert scale_of(result, "E_table").shape == ()


def test_a_scale_a_channel_works_on_grouped_deconvolutions() -> None:
    model = weighted(
        "agraph (float[1,4,5,5] x) => (float[1,6,7,7] y) { y = ConvTranspose<group = 2>(x, w) }",
        w=(4, 3, 3, 3),
    )
    result = quantized(model, "int8.static(per_channel=True)", samples_for(model))
    assert signal_db(model, result, samples_for(model)[0]["x"]) > 20


def test_a_scale_a_channel_of_stacked_matrices_is_refused_with_the_mend() -> None:
    model = weighted(
        (
            "agraph (float[2,3,8] x) => (float[2,3,4] y) { h = MatMul(x, v) [stacked] y = "
            "MatMul(h, "
            "w) }"
        ),
        v=(8, 8),
        w=(2, 8, 4),
    )
    with pytest.raises(
        ValueError, match=r"MatMul 'stacked'.*nodes_to_exclude=\['stacked'\]"
    ):
        quantized(model, "int8.dynamic(per_channel=True)")
    left = quantized(model, "int8.dynamic(per_channel=True, nodes_to_exclude=['stacked'])")
    assert ops(left)["MatMul"] == 1
    static = quantized(model, "int8.static(per_channel=True)", samples_for(model))
    assert signal_db(model, static, samples_for(model)[0]["x"]) > 20


@pytest.mark.parametrize("text", ["int8.dynamic(%s=['frist'])", "int8.static(%s=['frist'])"])
@pytest.mark.parametrize("option", ["nodes_to_exclude", "nodes_to_quantize"])
def test_a_node_that_is_not_there_is_refused(text: str, option: str) -> None:
    model = two_layers()
    with pytest.raises(
        ValueError, match=f"{option}: the model has no node 'frist'.*Did you mean 'first'"
    ):
        quantized(model, text % option, samples_for(model))


@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_settings_that_models_share_may_name_what_one_lacks(text: str) -> None:
    model = two_layers()
    shared = "allow_missing=true, nodes_to_exclude=['frist', 'first'], op_types_to_exclude=['Loop']"
    with remarks() as said:
        result = quantized(model, f"{text}({shared})", samples_for(model))
    expected = quantized(model, f"{text}(nodes_to_exclude=['first'])", samples_for(model))
    assert result == expected
    assert "nodes_to_exclude names 'frist', and the model has no such node" in said
    only = quantized(
        model,
        f"{text}(allow_missing=True, nodes_to_quantize=['frist', 'second'])",
        samples_for(model),
    )
    named = quantized(model, f"{text}(nodes_to_quantize=['second'])", samples_for(model))
    assert only == named
    with pytest.raises(
        NotApplicable, match="none of the nodes that nodes_to_quantize names"
    ):
        quantized(
            model,
            f"{text}(allow_missing=True, nodes_to_quantize=['frist'])",
            samples_for(model),
        )
    with pytest.raises(NotApplicable, match="no operator that op_types_to_quantize names"):
        quantized(
            model,
            f"{text}(allow_missing=True, op_types_to_quantize=['Loop'])",
            samples_for(model),
        )


def test_int4_may_exclude_nodes_that_a_model_lacks() -> None:
    model = two_layers()
    with pytest.raises(ValueError, match="no node 'frist'"):
        quantized(model, "int4(nodes_to_exclude=['frist'])")
    with remarks() as said:
        result = quantized(
            model, "int4(nodes_to_exclude=['frist', 'first'], allow_missing=True)"
        )
    assert result == quantized(model, "int4(nodes_to_exclude=['first'])")
    assert said == ["nodes_to_exclude names 'frist', and the model has no such node"]


def test_extra_options_reach_the_library() -> None:
    model = dense()
    plain = quantized(model, "int8.static", samples_for(model))
    options = (
        "extra_options=['ActivationSymmetric=true', 'WeightSymmetric=false', "
        "'DefaultTensorType=FLOAT']"
    )
    other = quantized(model, f"int8.static({options})", samples_for(model))
    assert weights(plain).keys() == weights(other).keys()
    assert scale_of(plain, "x") != scale_of(other, "x")
    assert scale_of(plain, "w") != scale_of(other, "w")
    assert quantize_dynamic(
        copy_of(model), extra_options={"WeightSymmetric": False}
    ) != quantize_dynamic(model)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "WeightSymetric=true",
            "'WeightSymetric' isn't known. Did you mean 'WeightSymmetric'",
        ),
        ("WeightSymmetric=perhaps", "WeightSymmetric is true or false; 'perhaps' isn't"),
        ("SmoothQuantAlpha=much", "SmoothQuantAlpha is a number"),
        ("DefaultTensorType=STRING", "DefaultTensorType is one of FLOAT"),
        ("WeightSymmetric", "has no value"),
        (
            "CalibPercentile=99",
            "CalibPercentile has no effect with calibration='minmax': it's read with "
            "calibration='percentile'",
        ),
        ("SmoothQuantAlpha=0.5", "no effect without 'SmoothQuant=true' beside it"),
        ("CalibMovingAverageConstant=0.1", "no effect without 'CalibMovingAverage=true'"),
    ],
)
def test_extra_options_that_cannot_be_honoured_are_refused(
    written: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bind(parse_variant(f"int8.static(extra_options=['{written}'])").steps[0])


@pytest.mark.parametrize(
    "options",
    [
        "calibration='percentile', extra_options=['CalibPercentile=99']",
        "extra_options=['CalibMovingAverage=true', 'CalibMovingAverageConstant=0.1']",
    ],
)
def test_extra_options_of_a_method_are_taken_with_it(options: str) -> None:
    model = dense()
    assert quantized(model, f"int8.static({options})", samples_for(model)) != quantized(
        model, "int8.static", samples_for(model)
    )


@pytest.mark.parametrize(
    ("step", "option", "kind"),
    [
        ("int8.static", "MatMulConstBOnly=true", "dynamic"),
        ("int8.dynamic", "CalibPercentile=99", "static"),
        ("int8.dynamic", "AddQDQPairToWeight=true", "static"),
    ],
)
def test_extra_options_of_the_other_kind_are_remarked(
    step: str, option: str, kind: str
) -> None:
    model = dense()
    with remarks() as said:
        quantized(model, f"{step}(extra_options=['{option}'])", samples_for(model))
    name = option.partition("=")[0]
    assert f"extra_options: {name} has no effect here: int8.{kind} alone reads it" in said
    with remarks() as said:
        quantized(
            model, f"{step}(extra_options=['WeightSymmetric=true'])", samples_for(model)
        )
    assert not said


def test_an_option_whose_library_is_missing_does_not_apply() -> None:
    model = dense()
    with pytest.raises(
        NotApplicable, match="SmoothQuant=true takes the library neural-compressor"
    ):
        quantized(
            model, "int8.static(extra_options=['SmoothQuant=true'])", samples_for(model)
        )


def test_the_calibration_is_written_as_the_library_writes_it() -> None:
    model = convolution()
    for text in ("MinMax", "Percentile", "Entropy"):
        one, other = (
            quantized(model, f"int8.static(calibration='{word}')", samples_for(model))
            for word in (text, text.lower())
        )
        assert one == other


@pytest.mark.parametrize(
    "options",
    ["", "(block_size=16)", "(symmetric=True)", "(accuracy_level=1, block_size=64)"],
)
def test_int4_stores_matrices_in_blocks(options: str) -> None:
    model = weighted(
        "agraph (float[N,64] x) => (float[N,48] y) { p = MatMul(x, w)  y = Add(p, b) }",
        w=(64, 48),
        b=(48,),
    )
    result = copy_of(model)
    result = bind(parse_variant(f"int4{options}").steps[0])(result)
    assert ops(result) == {"MatMulNBits": 1, "Add": 1}
    assert result.ByteSize() < 0.35 * model.ByteSize()
    assert signal_db(model, result, floats(4, 64)) > 12


@pytest.mark.parametrize(
    ("options", "message"),
    [("block_size=48", "block_size is 48"), ("accuracy_level=5", "accuracy_level is 5")],
)
def test_int4_options_that_cannot_be_honoured_are_refused(
    options: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bind(parse_variant(f"int4({options})").steps[0])


def test_int4_without_a_constant_matrix_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="no MatMul has a constant matrix"):
        bind(parse_variant("int4").steps[0])(convolution())


def test_the_ideal_of_int4_has_sixteen_levels_in_a_block() -> None:
    variant = parse_variant("int4(block_size=16, nodes_to_exclude=['n'])")
    conversion = conversion_of(bind_variant(variant))
    assert conversion is not None
    assert conversion.scheme is not None
    from onnx_harness.judging.quantizing import quantized as rounded

    weight = floats(40, 3)
    levels = rounded(weight, conversion.scheme, None)
    assert conversion.scheme.never == {"n"}
    assert levels.shape == weight.shape
    assert max(len(np.unique(levels[start : start + 16, 0])) for start in (0, 16, 32)) <= 16
    model = weighted(
        "agraph (float[N,40] x) => (float[N,3] y) { y = MatMul(x, w) }", w=(40, 3)
    )
    result = bind(parse_variant("int4(block_size=16)").steps[0])(copy_of(model))
    assert signal_db(model, result, floats(8, 40)) > 12


def test_a_file_takes_int4_from_the_command_line(tmp_path: Path) -> None:
    from onnx_harness.cli import main

    onnx.save(dense(), tmp_path / "m.onnx")
    words = [
        "transform",
        str(tmp_path / "m.onnx"),
        "--variant",
        "int4",
        "-o",
        str(tmp_path / "o.onnx"),
    ]
    assert main(words) == 0
    assert "MatMulNBits" in ops(onnx.load(tmp_path / "o.onnx"))


@pytest.mark.parametrize("made", ["ReduceSum", "input"])
def test_what_a_quantized_node_reads_is_rounded_for_all_who_read_it(made: str) -> None:
    """As the library does: a graph output that goes on to an ArgMax is one of them."""
    source = "p = ReduceSum<keepdims=0>(x, a)" if made == "ReduceSum" else "p = Identity(x)"
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[N,4{',3' if made == 'ReduceSum' else ''}] x) => (float[N,4] p, int64[N] c) "
        f"<int64[1] a = {{2}}> {{ {source} c = ArgMax<axis=1, keepdims=0>(p) }}"
    )
    model = onnx.parser.parse_model(text)
    feed = {"x": floats(8, 4, 3) if made == "ReduceSum" else floats(8, 4)}
    conversion = conversion_of(bind_variant(parse_variant("int8.static")))
    assert conversion is not None
    assert conversion.scheme is not None
    exact = run(model, **feed)[0]
    ranges = {
        name: (float(exact.min()), float(exact.max()))
        for name in watched(model, conversion.scheme)
    }
    ideal = quantize_through(copy_of(model), conversion.scheme, ranges)
    library = quantized(model, "int8.static", [feed])
    assert "p" in ranges
    np.testing.assert_allclose(run(ideal, **feed)[0], run(library, **feed)[0], atol=1e-5)
    assert np.abs(run(ideal, **feed)[0] - exact).max() > 1e-3


MASKS = {
    "infinity": "m = ConstantOfShape<value = float[1] {-inf}>(s)  k = Trilu<upper = 1>(m, one)",
    "ten thousand": "m = ConstantOfShape<value = float[1] {-10000}>(s)  k = Trilu<upper = 1>(m, one)",
}


@pytest.mark.parametrize("mask", MASKS)
def test_scores_that_a_mask_makes_huge_stay_float(mask: str) -> None:
    """In steps of the mask's range all scores that aren't masked are one number."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        causal (float[1,6,8] x) => (float[1,6,8] y) <int64[2] s = {{6, 6}}, int64 one = {{1}}> {{
        t = Transpose<perm = [0, 2, 1]>(x)  a = MatMul(x, t)  {MASKS[mask]}  b = Add(a, k)
        p = Softmax<axis = -1>(b)  y = MatMul(p, x) }}"""
    )
    feed = {"x": floats(1, 6, 8)}
    result = quantized(copy_of(model), "int8.static", [feed])
    assert "QuantizeLinear" in ops(result)
    assert signal_db(model, result, feed["x"]) > 25


def test_an_input_with_a_default_stays_an_input() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,4] x, float[4] k) => (float[2,4] y) <float[4] k = {1, 2, 3, 4}> {
        a = Relu(x)  b = Add(a, x)  y = Mul(b, k) }"""
    )
    result = quantized(model, "int8.static", [{"x": floats(2, 4)}])
    assert [info.name for info in result.graph.input] == ["x", "k"]
    assert "QuantizeLinear" in ops(result)


def test_a_node_without_a_name_is_named_by_its_output() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x) => (float[2,4] y) {
        a = Relu(x)  b = Add(a, x)  y = Mul(b, x) }"""
    )
    whole = quantized(copy_of(model), "int8.static", [{"x": floats(2, 4)}])
    left = quantized(
        copy_of(model), "int8.static(nodes_to_exclude=['b'])", [{"x": floats(2, 4)}]
    )
    assert ops(left)["QuantizeLinear"] < ops(whole)["QuantizeLinear"]


POSITIONS = """f = Cast<to = 1>(at)  u = Unsqueeze(f, last)  t = Transpose<perm = [1, 0, 2]>(u)
    a = Mul(t, inverses)  c = Cos(a)  y = Mul(x, c)"""


def test_angles_of_positions_stay_float() -> None:
    """A level of positions up to 1000 is 4 wide."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        rotary (int64[1,9] at, float[9,1,4] x) => (float[9,1,4] y)
        <int64[1] last = {{2}}, float[4] inverses = {{1, 0.1, 0.01, 0.001}}> {{ {POSITIONS} }}"""
    )
    feed = {"at": np.arange(9)[None] * 127, "x": floats(9, 1, 4)}
    result = quantized(copy_of(model), "int8.static", [feed])
    assert "QuantizeLinear" in ops(result)
    (expected,), (ours,) = run(model, **feed), run(result, **feed)
    assert np.linalg.norm(ours - expected) < 0.03 * np.linalg.norm(expected)


def test_a_padding_by_the_lowest_number_stays_float() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        pool (float[1,2,5,5] x) => (float[1,2,3,3] y) <float low = {-3.4e38},
        int64[8] ends = {0, 0, 1, 1, 0, 0, 1, 1}> {
        p = Pad(x, ends, low)  m = MaxPool<kernel_shape = [3, 3]>(p)  y = Conv(m, w) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats(2, 2, 3, 3), "w"))
    feed = {"x": floats(1, 2, 5, 5)}
    result = quantized(copy_of(model), "int8.static", [feed])
    assert "QuantizeLinear" in ops(result)
    assert signal_db(model, result, feed["x"]) > 25


def test_where_all_that_could_be_quantized_is_a_mask_the_refusal_says_so() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        pool (float[1,1,5,5] x) => (float[1,1,5,5] y) <float low = {-3.4e38},
        int64[8] ends = {0, 0, 1, 1, 0, 0, 1, 1}> {
        [pad] p = Pad(x, ends, low)  [pool] y = MaxPool<kernel_shape = [3, 3]>(p) }"""
    )
    with pytest.raises(NotApplicable, match="but for pad, pool: excluded, or in them sizes"):
        quantized(model, "int8.static", [{"x": floats(1, 1, 5, 5)}])


def test_scales_that_a_branch_reads_stay_float() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        grow (float[1,1,1,40] x, int64[1] target, bool c) => (float[1,1,1,w] y)
        <float[3] ones = {1, 1, 1}, float width = {40}> {
        t = Cast<to = 1>(target)  r = Div(t, width)  s = Concat<axis = 0>(ones, r)  p = Relu(x)
        q = Add(p, x)
        y = If(c)<then_branch = a () => (float[1,1,1,w1] y1) { y1 = Resize<mode = "linear">(q, , s) },
                  else_branch = b () => (float[1,1,1,w2] y2) { y2 = Identity(q) }> }"""
    )
    feed = {"x": floats(1, 1, 1, 40), "target": np.array([3001]), "c": np.array(True)}
    result = quantized(copy_of(model), "int8.static", [feed])
    assert "QuantizeLinear" in ops(result)
    assert run(result, **feed)[0].shape == (1, 1, 1, 3001)


def test_a_cache_that_is_handed_out_is_not_rounded_by_its_readers() -> None:
    """ONNX Runtime moves a QuantizeLinear across a Transpose, up to the output of the graph."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        step (float[1,4,8] x, int64[1,4,8] at, float[1,16,8] cache) =>
            (float[1,4,16] y, float[1,16,8] keys) {
        q = MatMul(x, w)  keys = ScatterElements<axis = 1>(cache, at, x)
        t = Transpose<perm = [0, 2, 1]>(keys)  y = MatMul(q, t) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats(8, 8), "w"))
    rows = np.arange(4)[None, :, None] + np.zeros((1, 4, 8), np.int64)
    feed = {"x": floats(1, 4, 8), "at": rows, "cache": floats(1, 16, 8, seed=1)}
    result = quantized(copy_of(model), "int8.static", [feed])
    assert "QuantizeLinear" in ops(result)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(result.SerializeToString(), options)
    np.testing.assert_array_equal(session.run(["keys"], feed)[0], run(result, **feed)[1])


def test_a_cast_like_hands_on_what_it_casts_and_not_what_it_looks_like() -> None:
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        agraph (float[2,3] x, int64[3] n) => (float[2,3] z, float[2,3] r) <float low = {-1e30}> {
        h = Add(x, x) l = CastLike(low, h) s = Add(h, l) z = Softmax(s)
        t = Mul(h, h) m = CastLike(n, t) a = Mul(m, m) i = Cast<to = 7>(a) r = Expand(h, i) }"""
    ).graph
    assert masked_scores(graph) >= {"l", "s", "z"}
    assert {"l", "s"} <= huge_values(graph)
    assert "t" not in huge_values(graph)
    assert {"m", "a", "n"} <= size_values(graph)
    assert "t" not in size_values(graph)


def test_the_ideal_of_int4_has_sixteen_levels_in_bodies_too() -> None:
    """MatMulNBits takes the place of a MatMul there as it does in the main graph."""
    model = weighted(
        """agraph (float[N,3,32] x) => (float[N,3,32] y) {
            y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = turn (float[N,32] a) => (float[N,32] b) { b = MatMul(a, w) }>(x)
        }""",
        w=(32, 32),
    )
    variant = parse_variant("int4(block_size=16)")
    conversion = conversion_of(bind_variant(variant))
    assert conversion is not None
    assert conversion.type == "int4"
    assert conversion.scheme is not None
    x = floats(2, 3, 32)
    (ideal,) = run(quantize_through(copy_of(model), conversion.scheme, {}), x=x)
    (got,) = run(bind(variant.steps[0])(copy_of(model)), x=x)
    (expected,) = run(model, x=x)
    np.testing.assert_allclose(got, ideal, atol=1e-5)
    assert np.abs(ideal - expected).max() > 1e-2


def test_what_only_onnx_runtime_knows_the_type_of_is_quantized() -> None:
    """Onnx infers no type for what GroupNormalization gives, nor for what follows."""
    model = weighted(
        """agraph (float[N,4,8,8] x) => (float[N,8] y) {
            n = GroupNormalization<num_groups = 2>(x, s, t)
            p = GlobalAveragePool(n) f = Flatten(p) y = Gemm(f, w, b)
        }""",
        opset=21,
        s=(4,),
        t=(4,),
        w=(4, 8),
        b=(8,),
    )
    result = quantized(model, "int8.static", samples_for(model))
    assert ops(result)["QuantizeLinear"] == 4
    assert signal_db(model, result, samples_for(model)[0]["x"]) > 20


@pytest.mark.parametrize(
    ("variant", "node", "w", "result"),
    [
        ("int8.static", "y = Mul(x, w)", (4,), "6,4"),
        ("int8.static", "y = Add(x, w)", (6, 4), "6,4"),
        ("int8.static", "y = MatMul(x, w)", (4,), "6"),
        ("int8.static", "y = MatMul(x, w)", (4, 6), "6,6"),
        ("int8.static(per_channel=True)", "y = Mul(x, w)", (6, 4), "6,4"),
        ("int8.static(per_channel=True)", "y = MatMul(x, w)", (4, 6), "6,6"),
        ("int8.static(activation_type='int8')", "y = Mul(x, w)", (4,), "6,4"),
        ("int8.static(reduce_range=True)", "y = Mul(x, w)", (4,), "6,4"),
        ("int8.dynamic", "i = ArgMax<axis=1, keepdims=0>(x) y = Gather(w, i)", (4,), "6"),
        (
            "int8.dynamic",
            "i = ArgMax<axis=1, keepdims=0>(x) y = Gather(w, i)",
            (4, 3),
            "6,3",
        ),
    ],
)
def test_the_ideal_rounds_the_constants_that_the_library_rounds(
    variant: str, node: str, w: tuple[int, ...], result: str
) -> None:
    model = weighted(f"agraph (float[6,4] x) => (float[{result}] y) {{ {node} }}", w=w)
    feed = {"x": floats(6, 4)}
    conversion = conversion_of(bind_variant(parse_variant(variant)))
    assert conversion is not None
    assert conversion.scheme is not None
    ranges = {}
    for name in watched(model, conversion.scheme):
        seen = feed["x"] if name == "x" else run(model, **feed)[0]
        ranges[name] = (float(seen.min()), float(seen.max()))
    ideal = run(quantize_through(copy_of(model), conversion.scheme, ranges), **feed)[0]
    library = run(quantized(model, variant, [feed]), **feed)[0]
    # Where the sum of a product lies between two levels, either may be taken.
    step = np.ptp(ideal) / 255
    assert np.abs(ideal - library).max() <= 1.01 * step
    assert np.abs(ideal - library).mean() < 0.1 * step
    assert np.abs(ideal - run(model, **feed)[0]).max() > 1e-4


@pytest.mark.parametrize("ir_version", [3, 8])
def test_the_ideal_rounds_the_weights_of_a_model_that_lists_them_as_inputs_below_ir_version_4(
    ir_version: int,
) -> None:
    model = weighted(
        "agraph (float[N,32] x) => (float[N,8] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, u) }",
        opset=8,
        ir_version=ir_version,
        w=(32, 32),
        u=(32, 8),
    )
    scheme = Scheme(frozenset({"MatMul"}), static=True)
    assert watched(model, scheme) == ["x", "h", "r", "y"]
    ranges = dict.fromkeys(("x", "h", "r", "y"), (-20.0, 20.0))
    ideal = quantize_through(copy_of(model), scheme, ranges)
    assert ops(ideal)["QuantizeLinear"] == 4
    assert not {"w", "u"}.intersection(
        *(node.input for node in ideal.graph.node if node.op_type == "MatMul")
    )
