"""Float16 conversion: what becomes float16, where Casts go, what stays, and what the options do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_harness.names import parse_variant
from onnx_harness.transforms import bind, remarks
from onnx_harness.transforms.fp16 import (
    convert_float_to_float16,
    convert_float_to_float16_model_path,
)
from tests.unit.transform_models import arrays, copy_of, floats, model_of, ops, run

RECORDED = (Path(__file__).parents[1] / "data" / "defects").glob("*.npz")
DEFECTS = sorted(path.with_suffix(".onnx") for path in RECORDED)
IN_FLOAT16 = "ort_half_transpose_matmul_segv"
BEYOND_FLOAT16 = "script_small_epsilon"

# Three unnamed nodes on one input: the library would give their Casts one name.
UNNAMED = """
agraph (float[N] x) => (float[N] z)
<float[1] w = {2000}> { a = Neg(x) b = Abs(x) c = Mul(a, w) d = Div(c, w) z = Add(b, d) }
"""


def types(model: onnx.ModelProto) -> list[int]:
    return [
        info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)
    ]


def converted(text: str, model: onnx.ModelProto) -> onnx.ModelProto:
    step = bind(parse_variant(text).steps[0])
    assert step.transform.parts is not None
    # Also where nothing is converted: what is left alone has to be right as well.
    result = replace(step, options=step.transform.parts.without(step.options, ()))(model)
    onnx.checker.check_model(result, full_check=True)
    return result


def test_fp16_changes_inputs_outputs_and_weights() -> None:
    model = converted("fp16", model_of(UNNAMED))
    assert types(model) == [TensorProto.FLOAT16] * 2
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}


def test_io32_keeps_the_types_of_inputs_and_outputs_and_computes_in_float16() -> None:
    model, x = model_of(UNNAMED), floats(7)
    result = converted("fp16.io32", copy_of(model))
    assert types(result) == [TensorProto.FLOAT] * 2
    assert {tensor.data_type for tensor in result.graph.initializer} == {TensorProto.FLOAT16}
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], atol=5e-3)


@pytest.mark.filterwarnings("ignore:the float32 number:UserWarning")
def test_the_library_as_released_is_not_mended() -> None:
    with pytest.raises(onnx.checker.ValidationError, match="single static assignment"):
        converted("fp16.onnxmltools.io32", model_of(UNNAMED))


@pytest.mark.parametrize(
    ("option", "expected"), [("", 10000.0), ("(max_finite_val=65504)", 20000.0)]
)
def test_weights_are_clamped_at_the_limit_that_was_asked_for(
    option: str, expected: float
) -> None:
    model = model_of(
        "agraph (float[N,1] x) => (float[N,1] z) <float[1,1] w = {20000}> { z = MatMul(x, w) }"
    )
    (weight,) = converted(f"fp16{option}", model).graph.initializer
    assert numpy_helper.to_array(weight) == np.float16(expected)


def converts(text: str, opset: int = 17, **feeds: Any) -> onnx.ModelProto:
    """The model in float16 between float32 inputs and outputs: valid, and right to float16
    precision on ``feeds``.
    """
    model = model_of(text, opset)
    result = converted("fp16.io32", copy_of(model))
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    for one, other in zip(run(result, **feeds), run(model, **feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3)
    return result


def test_a_value_is_cast_once_for_all_its_readers() -> None:
    result = converts(
        "agraph (float[2] x) => (float[2] z) { a = Neg(x) b = Abs(x) z = Add(a, b) }",
        x=floats(2),
    )
    assert ops(result) == {"Cast": 2, "Neg": 1, "Abs": 1, "Add": 1}


def test_an_output_that_is_read_inside_as_well_is_cast_for_the_outside_only() -> None:
    result = converts(
        "agraph (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Exp(y) }",
        x=floats(2),
    )
    assert ops(result) == {"Cast": 3, "Neg": 1, "Exp": 1}


def test_an_input_that_is_an_output_stays_itself() -> None:
    model = model_of("agraph (float[2] x) => (float[2] x, float[2] z) { z = Neg(x) }")
    assert types(converted("fp16", copy_of(model))) == [TensorProto.FLOAT16] * 3
    assert types(converted("fp16.io32", model)) == [TensorProto.FLOAT] * 3


def test_a_constant_read_in_both_types_is_there_in_both() -> None:
    result = converts(
        """agraph (float[4] x) => (float[4] z, float[2] v, int64[2] i) <int64[1] k = {2}, float[4] w = {1,2,3,4}>
        { z = Mul(x, w) y = Add(x, w) v, i = TopK(w, k) }""",
        x=floats(4),
    )
    assert sorted(
        tensor.data_type for tensor in result.graph.initializer if tensor.dims == [4]
    ) == [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]


@pytest.mark.parametrize(
    "made",
    [
        "Constant<value_float = 2.0>()",
        "ConstantOfShape(s)",
        "ConstantOfShape<value = float[1] {3}>(s)",
        "Cast<to = 1>(s)",
    ],
)
def test_what_can_be_made_in_float16_is_not_cast_to_it(made: str) -> None:
    result = converts(
        f"agraph (float[2] x) => (float[M] z) <int64[1] s = {{2}}> {{ c = {made} z = Add(x, c) }}",
        x=floats(2),
    )
    assert ops(result).get("Cast", 0) == 2 + made.startswith("Cast")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "q = SequenceConstruct(x, x) e = SequenceAt(q, zero) z = Neg(e)", id="sequence"
        ),
        pytest.param(
            "r = RandomNormalLike<scale = 0.00001>(x) z = Add(r, x)", id="type-of-another"
        ),
        pytest.param("z, m, d = LayerNormalization(x, x)", id="layer-normalization"),
        pytest.param("b = IsNaN(x) z = Where(b, x, x)", id="boolean"),
        pytest.param("d = Cast<to = 11>(x) e = Exp(d) z = Cast<to = 1>(e)", id="double"),
        pytest.param("z = local.Twice(x)", id="function"),
    ],
)
def test_what_a_schema_says_is_respected(text: str) -> None:
    function = (
        '<opset_import: ["" : 17], domain: "local"> Twice (v) => (r) { r = Add(v, v) }'
    )
    converts(
        f"agraph (float[3] x) => (float[3] z) <int64 zero = {{0}}> {{ {text} }} {function}",
        x=floats(3),
    )


def test_sizes_stay_exact() -> None:
    result = converts(
        """agraph (float[1,N] x) => (float[M] z) <float one = {1.0}, int64[1] at = {1}> { s = Shape(x) n = Gather(s, at)
        f = Cast<to = 1>(n) g = Add(f, one) i = Cast<to = 7>(g) z = ConstantOfShape(i) }""",
        x=floats(1, 4097),
    )
    assert run(result, x=floats(1, 4097))[0].shape == (4098,)


def test_branches_and_loops_compute_in_float16_on_values_from_outside() -> None:
    text = """agraph (bool c, float[2] x, int64 n) => (float[2] z) <bool go = {1}> {
        a = Neg(x)
        b = If (c) <then_branch = one () => (float[2] t) { t = Mul(a, x) },
                    else_branch = other () => (float[2] t) { t = Identity(a) }>
        z = Loop (n, go, b) <body = step (int64 i, bool k, float[2] v) => (bool l, float[2] w)
            { l = Identity(k) w = Mul(v, a) }> }"""
    for choice in (True, False):
        result = converts(text, c=choice, x=floats(2), n=np.int64(3))
    loop = next(node for node in result.graph.node if node.op_type == "Loop")
    assert loop.attribute[0].g.input[2].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert ops(result)["Cast"] == 2


def test_resize_keeps_its_scales_in_float32() -> None:
    result = converts(
        """agraph (float[1,1,2,2] x) => (float[1,1,4,4] z) <float[4] s = {1,1,2,2}> { z = Resize(x, , s) }""",
        x=floats(1, 1, 2, 2),
    )
    assert [tensor.data_type for tensor in result.graph.initializer] == [TensorProto.FLOAT]


def test_running_variances_out_of_range_do_no_harm() -> None:
    converts(
        """agraph (float[2,2] x) => (float[2,2] z) <float[2] one = {1,1}, float[2] large = {1e8,1e8}>
        { z = BatchNormalization(x, one, one, one, large) }""",
        x=floats(2, 2) * 1e4,
    )


def test_before_ir_version_4_listed_initializers_are_weights() -> None:
    model = model_of(
        "agraph (float[2] x, float[2] w) => (float[2] z) <float[2] w = {1,2}> { z = Mul(x, w) }",
        ir_version=3,
    )
    result = converted("fp16.io32", model)
    assert [info.type.tensor_type.elem_type for info in result.graph.input] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]


def test_a_default_that_the_caller_may_override_keeps_its_type() -> None:
    model = model_of(
        "agraph (float[2] x, float[2] w) => (float[2] z) <float[2] w = {1,2}> { z = Mul(x, w) }"
    )
    result = converted("fp16.io32", copy_of(model))
    assert types(result) == [TensorProto.FLOAT] * 3
    assert types(converted("fp16", model)) == [TensorProto.FLOAT16] * 3
    x, w = floats(2), np.array([4, 5], np.float32)
    np.testing.assert_allclose(run(result, x=x, w=w)[0], x * w, rtol=1e-3)


@pytest.mark.parametrize(
    "path",
    [path for path in DEFECTS if path.stem not in (BEYOND_FLOAT16, IN_FLOAT16)],
    ids=lambda path: path.stem,
)
def test_what_breaks_the_library_converts(path: Path) -> None:
    model, feeds = onnx.load(path), dict(np.load(path.with_suffix(".npz")).items())
    # The documented default is what's wrong there.
    limit = 65504 if "clamps_weights_at_1e4" in path.stem else 10000
    result = converted(f"fp16.io32(max_finite_val={limit})", copy_of(model))
    assert list(result.graph.output) == list(model.graph.output)
    for one, other in zip(
        arrays(run(result, **feeds)), arrays(run(model, **feeds)), strict=True
    ):
        if other.dtype.kind == "O":
            assert one.tolist() == other.tolist()
            continue
        np.testing.assert_allclose(
            one,
            other,
            rtol=1e-2,
            atol=5e-3 * np.nanmax(np.abs(other), initial=0, where=np.isfinite(other)),
        )


def test_what_float16_cannot_hold_is_raised_with_a_remark() -> None:
    """x + 1e-10 on x of that size: the smallest float16 is 6e-8, and the documented clamp makes
    1e-7 of it.
    """
    path = next(path for path in DEFECTS if path.stem == BEYOND_FLOAT16)
    with remarks() as said:
        result = converted("fp16.io32", onnx.load(path))
    onnx.checker.check_model(result, full_check=True)
    assert said[0] == "1 weight of 1 tensor was raised to 1e-07; the smallest was 1e-10"
    (named,) = said[1:]
    assert "is 1e-10, and float16 has no such number; to keep it: " in named


def test_blocked_operators_and_nodes_stay_in_float32() -> None:
    model = model_of(UNNAMED)
    model.graph.node[1].name = "the_abs"
    for option in ("op_block_list=['Abs']", "node_block_list=['the_abs']"):
        result = onnx.shape_inference.infer_shapes(
            converted(f"fp16({option})", copy_of(model))
        )
        (node,) = (node for node in result.graph.node if node.op_type == "Abs")
        kinds = {
            info.name: info.type.tensor_type.elem_type for info in result.graph.value_info
        }
        assert kinds[node.output[0]] == TensorProto.FLOAT


@pytest.mark.parametrize(
    ("mean", "stays"),
    [
        ("m = Div(s, n)", True),
        ("m = Mul(s, n)", True),
        ("m = Mul(n, s)", True),
        ("m = Div(n, s)", False),
        ("m = Mul(s, x)", False),
        ("a = Div(s, n) m = Add(a, s)", False),
    ],
)
def test_a_sum_that_is_scaled_to_a_mean_at_once_stays_in_float32(
    mean: str, stays: bool
) -> None:
    model = model_of(
        f"agraph (float[4,8] x) => (float[4,8] z) <float[1] n = {{8}}> {{ s = ReduceSum(x) {mean} "
        f"z = Sub(m, x) }}"
    )
    result = onnx.shape_inference.infer_shapes(converted("fp16", model))
    kinds = {info.name: info.type.tensor_type.elem_type for info in result.graph.value_info}
    assert kinds["s"] == (TensorProto.FLOAT if stays else TensorProto.FLOAT16)
    if stays:  # no Cast between the two, which would overflow as the sum does
        (reader,) = (node for node in result.graph.node if "s" in node.input)
        assert reader.output[0] == "m"


def test_a_model_in_float16_already_is_left_alone_with_a_remark() -> None:
    model = model_of("agraph (float16[2] x) => (float16[2] z) { z = Neg(x) }")
    with remarks() as said:
        assert convert_float_to_float16(copy_of(model)) == model
    assert said == ["nothing was converted: the model has no float32 tensor"]


def test_what_is_float32_in_a_model_of_both_types_is_converted_and_its_casts_go() -> None:
    result = converts(
        """agraph (float[3] x, float16[3] h) => (float[3] z) { a = Cast<to = 1>(h) b = Exp(x)
              c = Add(a, b)
        d = Cast<to = 10>(c) e = Neg(d) f = Cast<to = 1>(e) z = Mul(f, c) }""",
        x=floats(3),
        h=floats(3).astype(np.float16),
    )
    assert ops(result) == {"Cast": 2, "Exp": 1, "Add": 1, "Neg": 1, "Mul": 1}


def test_functions_are_inlined_to_be_converted_unless_their_name_is_blocked() -> None:
    model = model_of(
        """agraph (float[3] x) => (float[3] z) { c = local.Twice(x) z = local.Twice(c) }
        <opset_import: ["" : 17], domain: "local"> Twice (v) => (r)
        { c = Constant<value_float = 2.0>() r = Mul(v, c) }"""
    )
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    assert ops(result) == {"Cast": 2, "Constant": 2, "Mul": 2}
    kept = convert_float_to_float16(model, keep_io_types=True, op_block_list=["Twice"])
    assert ops(kept) == {"Twice": 2}


def test_only_the_inputs_and_outputs_that_are_named_keep_their_type() -> None:
    model = model_of("agraph (float[2] x, float[2] y) => (float[2] z) { z = Add(x, y) }")
    assert types(convert_float_to_float16(model, keep_io_types=["y"])) == [
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]


def test_what_only_moves_values_stays_float32_between_operators_that_do() -> None:
    result = converts(
        """agraph (float[3] x, int64[1] k, int64 axis) => (float[M,1] z) <int64[2] s = {3,1}>
        { v, i = TopK(x, k) r = Reshape(v, s) z = CumSum(r, axis) }""",
        x=floats(3),
        k=np.array([3]),
        axis=np.int64(0),
    )
    assert "Cast" not in ops(result)


def test_an_output_that_is_a_cast_of_an_input_keeps_its_name() -> None:
    model = model_of(
        "agraph (float[2] x) => (float[2] z, float[2] y) { z = Cast<to = 1>(x) y = Exp(z) }"
    )
    result = converted("fp16", model)
    assert [info.name for info in (*result.graph.input, *result.graph.output)] == [
        "x",
        "z",
        "y",
    ]
    assert types(result) == [TensorProto.FLOAT16] * 3


def test_metadata_and_versions_are_kept() -> None:
    model = model_of(UNNAMED)
    model.producer_name, model.doc_string = "someone", "a model"
    onnx.helper.set_model_props(model, {"key": "value"})
    result = converted("fp16", copy_of(model))
    for name in (
        "producer_name",
        "doc_string",
        "metadata_props",
        "ir_version",
        "opset_import",
    ):
        assert getattr(result, name) == getattr(model, name)


def test_a_sparse_constant_reaches_a_reader_in_float16() -> None:
    values = onnx.helper.make_tensor("values", TensorProto.FLOAT, [1], [3.0])
    indices = onnx.helper.make_tensor("indices", TensorProto.INT64, [1], [1])
    sparse = onnx.helper.make_sparse_tensor(values, indices, [2])
    model = model_of("agraph (float[2] x) => (float[2] z) { c = Identity(x) z = Mul(x, c) }")
    model.graph.node[0].CopyFrom(
        onnx.helper.make_node("Constant", [], ["c"], sparse_value=sparse)
    )
    result = converted("fp16.io32", copy_of(model))
    np.testing.assert_allclose(
        run(result, x=floats(2))[0], run(model, x=floats(2))[0], rtol=1e-3
    )


def test_what_the_clamp_did_is_remarked() -> None:
    text = """agraph (float[3] x) => (float[3] z) <float[3] conv3 = {20000, -90000, 1e-9}> { z = Mul(x, conv3) }"""
    with remarks() as said:
        converted("fp16.io32", model_of(text))
    assert said == [
        "2 weights of 'conv3' were clipped at 10000; the largest was 9e+04",
        "1 weight of 1 tensor was raised to 1e-07; the smallest was 1e-09",
    ]


def test_many_clipped_tensors_are_summed_up() -> None:
    names = [f"w{number}" for number in range(8)]
    weights = ", ".join(f"float[3,3] {name} = {{20000,0,0,0,0,0,0,0,0}}" for name in names)
    nodes = " ".join(f"{name}x = MatMul(x, {name})" for name in names)
    total = ", ".join(f"{name}x" for name in names)
    with remarks() as said:
        converted(
            "fp16",
            model_of(
                f"agraph (float[3] x) => (float[3] z) <{weights}> {{ {nodes} z = Sum({total}) }}"
            ),
        )
    assert len(said) == 6
    assert (
        said[-1]
        == "3 weights of 3 more tensors were clipped at 10000; the largest was 2e+04"
    )


def test_where_nobody_collects_remarks_they_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    converted(
        "fp16",
        model_of(
            "agraph (float[N,1] x) => (float[N,1] z) <float[1,1] w = {2e4}> { z = MatMul(x, w) }"
        ),
    )
    assert "1 weight of 'w' was clipped at 10000" in caplog.text


def test_a_model_is_converted_from_its_file_with_external_data(tmp_path: Path) -> None:
    x, weight = floats(2, 300), floats(300, 100, seed=1)
    model = model_of(
        "agraph (float[2,300] x, float[300,100] w) => (float[2,100] z) { z = MatMul(x, w) }"
    )
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save_model(
        copy_of(model),
        str(tmp_path / "m.onnx"),
        save_as_external_data=True,
        location="m.bin",
    )
    result = convert_float_to_float16_model_path(tmp_path / "m.onnx", keep_io_types=True)
    onnx.checker.check_model(result, full_check=True)
    assert [tensor.data_type for tensor in result.graph.initializer] == [TensorProto.FLOAT16]
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], rtol=1e-2, atol=0.1)
    stays = convert_float_to_float16_model_path(
        tmp_path / "m.onnx", keep_io_types=True, op_block_list=["MatMul"]
    )
    np.testing.assert_array_equal(numpy_helper.to_array(stays.graph.initializer[0]), weight)


def test_what_is_rounded_together_is_accounted_for_apart() -> None:
    names = {
        "a": [1.0, 1e-9],
        "b": [2.0, 3.0],
        "c": [-1e-10, 2e4],
        "d": [float("inf"), -3e4],
    }
    weights = [
        numpy_helper.from_array(np.array(values, np.float32), name)
        for name, values in names.items()
    ]
    model = model_of(
        "agraph (float[2] x, float[2] a, float[2] b, float[2] c, float[2] d) => (float[2] z) { z "
        "= Sum(x, a, b, c, d) }"
    )
    del model.graph.input[1:]
    model.graph.initializer.extend(weights)
    with remarks() as said:
        result = converted("fp16", model)
    assert said == [
        "1 weight of 'c' was clipped at 10000; the largest was 2e+04",
        "1 weight of 'd' was clipped at 10000; the largest was 3e+04",
        "2 weights of 2 tensors were raised to 1e-07; the smallest was 1e-10",
    ]
    low = np.float32(1e-7)
    expected = [[1.0, low], [2.0, 3.0], [-low, 1e4], [np.inf, -1e4]]
    for tensor, values in zip(result.graph.initializer, expected, strict=True):
        np.testing.assert_array_equal(
            numpy_helper.to_array(tensor), np.array(values, np.float16)
        )
