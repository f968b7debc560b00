"""What a caller asks of a float16 conversion: names that a model lacks, and the options of the
libraries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxconverter_common import float16

from onnx_harness.errors import NotApplicable, UsageError
from onnx_harness.names import parse_variant
from onnx_harness.transforms import bind, remarks
from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.half import schemas
from tests.unit.transform_models import copy_of, floats, model_of, ops, run

TEXT = (
    "agraph (float[3] x) => (float[3] z) <float[3] w = {1, 2, 3}> { a = Softmax(x) b = Mul(a, "
    "w) z = Neg(b) }"
)


def named_model() -> onnx.ModelProto:
    model = model_of(TEXT)
    for node in model.graph.node:
        node.name = f"make_{node.output[0]}"
    return model


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"op_block_list": ["SoftMax"]}, "no operator 'SoftMax'. Did you mean 'Softmax'?"),
        ({"node_block_list": ["make_c", "make_a"]}, "no node 'make_c'. Did you mean 'make_"),
        (
            {"force_fp16_inputs": {"SoftMax": [0]}},
            "no operator 'SoftMax'. Did you mean 'Softmax'",
        ),
        ({"keep_io_types": ["X"]}, "no input or output 'X'"),
    ],
)
def test_a_name_that_the_model_does_not_have_is_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as error:
        convert_float_to_float16(named_model(), **options)
    assert words in str(error.value)


def test_settings_that_models_share_may_name_what_one_lacks() -> None:
    result = convert_float_to_float16(
        named_model(), op_block_list=["LSTM", "Softmax"], allow_missing=True
    )
    assert ops(result)["Cast"] == 2
    assert convert_float_to_float16(
        named_model(), force_fp16_inputs={"GroupNorm": [0]}, allow_missing=True
    )
    variant = parse_variant("fp16.io32(allow_missing=True, op_block_list=['LSTM'])")
    assert bind(variant.steps[0])(named_model())


def test_the_default_list_names_what_it_likes() -> None:
    assert convert_float_to_float16(named_model())


def test_names_of_functions_and_of_what_they_hold_are_the_models() -> None:
    text = """agraph (float[3] x) => (float[3] z) { z = local.Twice(x) }
        <opset_import: ["" : 17], domain: "local"> Twice (v) => (r) { r = Add(v, v) }"""
    for name in ("Twice", "Add"):
        convert_float_to_float16(model_of(text), op_block_list=[name])


def test_a_variant_names_the_inputs_and_outputs_that_keep_their_type() -> None:
    result = bind(parse_variant("fp16(keep_io_types=['z'])").steps[0])(named_model())
    types = [
        info.type.tensor_type.elem_type
        for info in (*result.graph.input, *result.graph.output)
    ]
    assert types == [TensorProto.FLOAT16, TensorProto.FLOAT]


def test_what_is_clamped_is_warned_of_in_the_librarys_words() -> None:
    model = model_of(
        "agraph (float[1,2] x) => (float[1,1] z) <float[2,1] w = {20000, 1e-9}> { z = MatMul(x, "
        "w) }"
    )
    with pytest.warns(UserWarning, match="the float32 number") as caught:
        convert_float_to_float16(model)
    assert sorted(str(each.message).split(" will be ")[1] for each in caught) == [
        "truncated to 10000.0",
        "truncated to 1e-07",
    ]


def test_all_constants_become_float16_where_it_is_forced() -> None:
    model = named_model()
    plain = convert_float_to_float16(model, op_block_list=["Mul"])
    forced = convert_float_to_float16(
        model, op_block_list=["Mul"], force_fp16_initializers=True
    )
    assert plain.graph.initializer[0].data_type == TensorProto.FLOAT
    assert forced.graph.initializer[0].data_type == TensorProto.FLOAT16
    onnx.checker.check_model(forced, full_check=True)
    x = floats(3).astype(np.float16)
    np.testing.assert_allclose(run(forced, x=x)[0], run(plain, x=x)[0], rtol=1e-2)


def test_an_input_that_would_stay_float32_becomes_float16_where_it_is_forced() -> None:
    model = model_of(
        """agraph (float[1,1,4,4] x) => (float[1,1,2,2] z)
        <float[8] roi = {0, 0, 0, 0, 1, 1, 0.5, 0.5}, int64[4] sizes = {1, 1, 2, 2}> {
        z = Resize<coordinate_transformation_mode = "tf_crop_and_resize", mode = "linear">(x, roi, , sizes) }"""
    )
    plain = convert_float_to_float16(model, keep_io_types=True)
    forced = convert_float_to_float16(
        model, keep_io_types=True, force_fp16_inputs={"Resize": [1, 2]}
    )
    assert [each.graph.initializer[0].data_type for each in (plain, forced)] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]
    onnx.checker.check_model(forced, full_check=True)


def test_what_is_blocked_computes_in_bfloat16_where_that_is_asked_for() -> None:
    model = named_model()
    result = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=["Softmax"],
        use_bfloat16_as_blocked_nodes_dtype=True,
    )
    onnx.checker.check_model(result, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(result)
    kinds = {
        info.name: info.type.tensor_type.elem_type for info in inferred.graph.value_info
    }
    assert (kinds["a"], kinds["b"]) == (TensorProto.BFLOAT16, TensorProto.FLOAT16)


def weights_model(blocked: str) -> onnx.ModelProto:
    model = model_of(
        f"agraph (float[2,40] x) => (float[2,40] z) <float[40] b = {{{','.join('1' * 40)}}}> {{ "
        f"{blocked} }}"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats(40, 40), "w"))
    return model


def test_a_conversion_of_next_to_nothing_does_not_apply() -> None:
    step = bind(parse_variant("fp16.io32(op_block_list=['MatMul'])").steps[0])
    model = weights_model("y = Add(x, b) z = Neg(y)")
    model.graph.node[1].CopyFrom(onnx.helper.make_node("MatMul", ["y", "w"], ["z"]))
    with pytest.raises(
        NotApplicable, match=r"2% of the float32 weights would be converted.* MatMul"
    ):
        step(copy_of(model))
    plain = bind(parse_variant("fp16.io32").steps[0])
    assert plain(copy_of(model))


@pytest.mark.parametrize("variant", ["fp16.io32", "bf16.io32", "fp16.onnxmltools"])
def test_a_float16_model_is_not_converted_again(variant: str) -> None:
    model = model_of(
        "agraph (float16[2] x) => (float16[2] z) <float16[2] w = {1, 2}> { z = Mul(x, w) }"
    )
    with pytest.raises(NotApplicable, match="float16"):
        bind(parse_variant(variant).steps[0])(model)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "agraph (float[3] x) => (float[3] z) <int64 axis = {0}> { z = CumSum(x, axis) }",
            "CumSum",
        ),
        ("agraph (int64[3] x) => (int64[3] z) { z = Neg(x) }", "no float32 tensor"),
    ],
)
@pytest.mark.parametrize("variant", ["fp16", "fp16.io32", "bf16.io32"])
def test_a_model_that_computes_nothing_in_half_does_not_apply(
    text: str, why: str, variant: str
) -> None:
    with pytest.raises(NotApplicable, match=f"nothing is converted.*{why}"):
        bind(parse_variant(variant).steps[0])(model_of(text))


@pytest.mark.parametrize(
    "body",
    [
        "z = Neg(x)",
        "a = CumSum(x, axis) b = Exp(x) z = Mul(a, b)",
        "b = Constant<value_float = 2.0>() z = Mul(x, b)",
    ],
)
def test_a_model_without_weights_that_computes_in_half_does(body: str) -> None:
    step = bind(parse_variant("fp16.io32").steps[0])
    assert step(
        model_of(f"agraph (float[3] x) => (float[3] z) <int64 axis = {{0}}> {{ {body} }}")
    )


def test_that_nothing_was_converted_is_said() -> None:
    model = model_of(
        "agraph (float[3] x) => (float[3] z) <int64 axis = {0}> { z = CumSum(x, axis) }"
    )
    with remarks() as said:
        convert_float_to_float16(model, keep_io_types=True)
    assert said == ["nothing was converted: what the model computes stays float32 (CumSum)"]


@pytest.mark.parametrize(
    "default", [float16.DEFAULT_OP_BLOCK_LIST, schemas.DEFAULT_OP_BLOCK_LIST]
)
def test_a_default_list_with_more_on_it_is_no_misspelling(default: Iterable[str]) -> None:
    op_types = [*default, "Mul"]
    converted = convert_float_to_float16(named_model(), op_block_list=op_types)
    assert "Mul" in {node.op_type for node in converted.graph.node}
    with pytest.raises(UsageError, match="'Mull'"):
        convert_float_to_float16(named_model(), op_block_list=[*op_types, "Mull"])
    with pytest.raises(UsageError, match="'TopK'"):
        convert_float_to_float16(named_model(), op_block_list=["TopK"])
