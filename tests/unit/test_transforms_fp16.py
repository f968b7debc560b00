"""Float16 conversion through the library: what is mended on the way in, and what the options do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from harness.errors import NotApplicable
from harness.names import parse_variant
from harness.transforms import bind
from harness.transforms.float16 import check_limits, convert_np_to_float16
from harness.transforms.fp16 import convert_float_to_float16
from tests.unit.transform_models import copy_of, floats, model_of, run

# Three unnamed nodes on one input: the library would give their Casts one name.
UNNAMED = """
agraph (float[N] x) => (float[N] z)
<float[1] w = {20000}> { a = Neg(x) b = Abs(x) c = Mul(a, w) d = Div(c, w) z = Add(b, d) }
"""


def types(model: onnx.ModelProto) -> list[int]:
    return [info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)]


def converted(text: str, model: onnx.ModelProto) -> onnx.ModelProto:
    result = bind(parse_variant(text).steps[0])(model)
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


@pytest.mark.parametrize(("option", "expected"), [("", 10000.0), ("(max_finite_val=65504)", 20000.0)])
def test_weights_are_clamped_at_the_limit_that_was_asked_for(option: str, expected: float) -> None:
    (weight,) = converted(f"fp16{option}", model_of(UNNAMED)).graph.initializer
    assert numpy_helper.to_array(weight) == np.float16(expected)


def test_weights_stored_value_by_value_are_converted_too() -> None:
    model = model_of(UNNAMED)
    assert model.graph.initializer[0].float_data
    assert len(convert_float_to_float16(model).graph.initializer[0].raw_data) == 2


def test_blocked_operators_and_nodes_stay_in_float32() -> None:
    model = model_of(UNNAMED)
    model.graph.node[1].name = "the_abs"
    for option in ("op_block_list=['Abs']", "node_block_list=['the_abs']"):
        result = onnx.shape_inference.infer_shapes(converted(f"fp16({option})", copy_of(model)))
        (node,) = (node for node in result.graph.node if node.op_type == "Abs")
        kinds = {info.name: info.type.tensor_type.elem_type for info in result.graph.value_info}
        assert kinds[node.output[0]] == TensorProto.FLOAT


def test_a_model_in_float16_already_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="float16 tensors already"):
        convert_float_to_float16(model_of("agraph (float16[2] x) => (float16[2] z) { z = Neg(x) }"))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ((2.0**-25, 1e4), "rounds to 0 in float16"),
        ((0.0, 1e4), "rounds to 0 in float16"),
        ((1e-7, 65505.0), "largest finite float16 is 65504"),
        ((1e-7, float("inf")), "largest finite float16 is 65504"),
        ((2.0, 1.0), "above max_finite_val"),
        ((float("nan"), 1e4), "NaN is none"),
        ((1e-7, float("nan")), "NaN is none"),
    ],
)
def test_limits_that_cannot_hold_are_refused_with_the_reason(limits: tuple[float, float], reason: str) -> None:
    for refusing in (lambda: check_limits(*limits), lambda: convert_np_to_float16(floats(2), *limits)):
        with pytest.raises(ValueError, match=reason):
            refusing()


def test_the_clamp_keeps_signs_zeros_infinities_and_nan() -> None:
    x = np.array([1e-9, -1e-9, 2e4, -2e4, 0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], np.float32)
    expected = np.array([1e-7, -1e-7, 1e4, -1e4, 0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], np.float16)
    result = convert_np_to_float16(x)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(expected))


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array(3e5, np.float32), id="0-d"),
        pytest.param(np.zeros((0, 3), np.float32), id="empty"),
        pytest.param(floats(6, 8)[::2, ::-3], id="strided"),
        pytest.param(floats(4).astype(">f4"), id="big-endian"),
        pytest.param(floats(4).astype(np.float64), id="double"),
        pytest.param(floats(4).astype(np.float16), id="half"),
    ],
)
def test_the_clamp_takes_any_layout_and_leaves_its_input_alone(array: np.ndarray) -> None:
    before = array.copy()
    array.flags.writeable = False
    result = convert_np_to_float16(array)
    assert result.shape == array.shape
    assert result.dtype == np.dtype(np.float16)
    np.testing.assert_array_equal(result, np.clip(before, -1e4, 1e4).astype(np.float16))
    np.testing.assert_array_equal(array, before)


def test_the_clamp_takes_floats_only() -> None:
    with pytest.raises(TypeError, match="not int32"):
        convert_np_to_float16(np.array([1], np.int32))
