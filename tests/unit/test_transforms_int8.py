"""int8: what is quantized, from which ranges, what is refused, and that the library leaves nothing
behind.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import registry as library

from onnx_harness.errors import NotApplicable, UsageError
from onnx_harness.names import parse_variant
from onnx_harness.transforms import bind, int8
from onnx_harness.transforms.quantization import preparing
from onnx_harness.transforms.quantization.operators import DYNAMIC_OPS, STATIC_OPS
from tests.unit.transform_models import copy_of, floats, model_of, ops, run

Samples = list[dict[str, Any]]


def quantized(
    model: onnx.ModelProto, text: str, samples: Samples | None = None
) -> onnx.ModelProto:
    """The model after the chain ``text``, which must be a valid model.

    The one passed in stays as it is.
    """
    result = copy_of(model)
    for step in parse_variant(text).steps:
        result = bind(step)(result, samples or [])
    onnx.checker.check_model(result, full_check=True)
    return result


def weighted(
    text: str, opset: int = 17, ir_version: int = 8, **shapes: tuple[int, ...]
) -> onnx.ModelProto:
    """``text`` with random weights of these shapes."""
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}'
    )
    tensors = [
        numpy_helper.from_array(floats(*shape, seed=i), name)
        for i, (name, shape) in enumerate(shapes.items())
    ]
    model.graph.initializer.extend(tensors)
    if ir_version < 4:
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        )
    onnx.checker.check_model(model, full_check=True)
    return model


def dense(**changes: Any) -> onnx.ModelProto:
    return weighted(
        "agraph (float[N,16] x) => (float[N,8] y) { p = MatMul(x, w)  y = Add(p, b) }",
        **changes,
        w=(16, 8),
        b=(8,),
    )


def convolution(**changes: Any) -> onnx.ModelProto:
    return weighted(
        "agraph (float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, w, b)  y = Relu(c) }",
        **changes,
        w=(4, 3, 3, 3),
        b=(4,),
    )


def two_layers() -> onnx.ModelProto:
    return weighted(
        (
            "agraph (float[N,16] x) => (float[N,8] y) { [first] h = MatMul(x, v)  [second] y = "
            "MatMul(h, w) }"
        ),
        v=(16, 16),
        w=(16, 8),
    )


def samples_for(model: onnx.ModelProto, scale: float = 1.0, count: int = 3) -> Samples:
    sizes = [dim.dim_value or 4 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return [{"x": scale * floats(*sizes, seed=seed)} for seed in range(7, 7 + count)]


def signal_db(model: onnx.ModelProto, other: onnx.ModelProto, x: Any) -> float:
    y, z = run(model, x=x)[0], run(other, x=x)[0]
    return float(10 * np.log10((y**2).sum() / ((y - z) ** 2).sum()))


def weights(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Type and shape of each initializer."""
    return {
        each.name: (each.data_type, tuple(each.dims)) for each in model.graph.initializer
    }


def scale_of(model: onnx.ModelProto, name: str) -> Any:
    return next(
        numpy_helper.to_array(each)
        for each in model.graph.initializer
        if each.name == f"{name}_scale"
    )


@pytest.mark.parametrize("build", [dense, convolution])
@pytest.mark.parametrize(
    "text",
    [
        "int8.dynamic",
        "int8.static",
        "int8.dynamic(per_channel=True)",
        "int8.static(per_channel=True)",
        *("int8.static(activation_type='int8')", "int8.static(calibration='percentile')"),
        *(
            "int8.dynamic(weight_type='uint8')",
            "simplify+int8.static",
            "optimize+int8.dynamic",
        ),
    ],
)
def test_the_result_computes_the_same_but_for_noise_under_the_same_names(
    build: Any, text: str
) -> None:
    model = build()
    result = quantized(model, text, samples_for(model))
    assert signal_db(model, result, samples_for(model)[0]["x"]) > 20
    for what in ("input", "output"):
        before, after = getattr(model.graph, what), getattr(result.graph, what)
        assert [each.SerializeToString() for each in before] == [
            each.SerializeToString() for each in after
        ]


def test_dynamic_quantizes_weights_now_and_activations_as_it_runs() -> None:
    result = quantized(dense(), "int8.dynamic")
    assert ops(result)["DynamicQuantizeLinear"] == ops(result)["MatMulInteger"] == 1
    assert weights(result)["w_quantized"] == (TensorProto.INT8, (16, 8))


def test_static_puts_quantization_around_operators() -> None:
    model = dense()
    result = quantized(model, "int8.static", samples_for(model))
    assert {"QuantizeLinear", "DequantizeLinear", "MatMul"} <= ops(result).keys()
    assert weights(result)["w_quantized"] == (TensorProto.INT8, (16, 8))


def test_the_ranges_come_from_the_samples() -> None:
    model = dense()
    small, large = (
        quantized(model, "int8.static", samples_for(model, scale)) for scale in (1.0, 10.0)
    )
    np.testing.assert_allclose(scale_of(large, "x"), 10 * scale_of(small, "x"), rtol=1e-6)
    assert scale_of(large, "w") == scale_of(small, "w")


def test_every_sample_counts_whatever_its_shape() -> None:
    model = dense()
    wide = [*samples_for(model), {"x": 10 * floats(2, 16, seed=9)}]
    for calibration in int8.CALIBRATIONS:
        text = f"int8.static(calibration='{calibration}')"
        assert scale_of(quantized(model, text, wide), "x") > scale_of(
            quantized(model, text, wide[:-1]), "x"
        )


def test_names_that_the_model_does_not_take_are_left_out_of_samples() -> None:
    model = dense()
    samples = [{**sample, "gone": floats(2)} for sample in samples_for(model)]
    assert scale_of(quantized(model, "int8.static", samples), "x")


@pytest.mark.parametrize(("channels", "shape"), [(False, ()), (True, (8,))])
@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_per_channel_is_a_scale_for_each_column(
    text: str, channels: bool, shape: tuple[int, ...]
) -> None:
    model = dense()
    result = quantized(model, f"{text}(per_channel={channels})", samples_for(model))
    assert weights(result)["w_scale"] == (TensorProto.FLOAT, shape)


def test_per_channel_brings_an_old_model_to_the_opset_that_can_say_so() -> None:
    model = convolution(opset=9, ir_version=3)
    result = quantized(model, "int8.static(per_channel=True)", samples_for(model))
    assert [entry.version for entry in result.opset_import if entry.domain == ""] == [13]
    assert [each.name for each in result.graph.input] == ["x"]
    assert signal_db(model, result, samples_for(model)[0]["x"]) > 20


def test_reduced_range_leaves_7_bits() -> None:
    full, reduced = (
        quantized(dense(), "int8.dynamic"),
        quantized(dense(), "int8.dynamic(reduce_range=True)"),
    )
    assert scale_of(reduced, "w") == pytest.approx(2 * scale_of(full, "w"), rel=0.02)


def test_uint8_weights_are_uint8() -> None:
    assert (
        weights(quantized(dense(), "int8.dynamic(weight_type='uint8')"))["w_quantized"][0]
        == TensorProto.UINT8
    )


def test_int8_activations_are_symmetric() -> None:
    model = dense()
    samples = [{"x": abs(sample["x"])} for sample in samples_for(model)]
    result = quantized(model, "int8.static(activation_type='int8')", samples)
    points = [each for each in result.graph.initializer if each.name.endswith("_zero_point")]
    assert points
    assert all(not numpy_helper.to_array(each).any() for each in points)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ("nodes_to_exclude=['first']", {"v"}),
        ("nodes_to_quantize=['second']", {"v"}),
        ("nodes_to_quantize=['first']", {"w"}),
        ("nodes_to_quantize=['first','second'], nodes_to_exclude=['second']", {"w"}),
    ],
)
@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_lists_of_nodes_are_honoured(text: str, options: str, left: set[str]) -> None:
    model = two_layers()
    result = quantized(model, f"{text}({options})", samples_for(model))
    assert weights(result).keys() & {"v", "w"} == left


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ("op_types_to_quantize=['Conv']", {"Conv"}),
        ("op_types_to_exclude=['Conv']", {"MatMul"}),
        ("op_types_to_quantize=['Conv','MatMul'], op_types_to_exclude=['Conv']", {"MatMul"}),
    ],
)
@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_lists_of_operators_are_honoured(text: str, options: str, kinds: set[str]) -> None:
    model = weighted(
        "agraph (float[N,3,8,8] x) => (float[N,4,6,5] y) { c = Conv(x, v)  y = MatMul(c, w) }",
        v=(4, 3, 3, 3),
        w=(6, 5),
    )
    result = quantized(model, f"{text}({options})", samples_for(model))
    weight = {"Conv": "v", "MatMul": "w"}
    assert {
        kind for kind, name in weight.items() if f"{name}_quantized" in weights(result)
    } == kinds


def test_softmax_stays_in_float_unless_told_otherwise() -> None:
    model = weighted(
        "agraph (float[N,16] x) => (float[N,8] y) { p = MatMul(x, w)  y = Softmax(p) }",
        w=(16, 8),
    )
    samples = samples_for(model)
    result = quantized(model, "int8.static", samples)
    assert "y_scale" not in weights(result)
    assert "y_scale" in weights(
        quantized(model, "int8.static(op_types_to_exclude=[])", samples)
    )


@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_weights_in_constant_nodes_are_found(text: str) -> None:
    model = dense()
    for tensor in list(model.graph.initializer):
        model.graph.node.insert(
            0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        )
    model.graph.ClearField("initializer")
    result = quantized(model, text, samples_for(model))
    assert weights(result)["w_quantized"][0] == TensorProto.INT8
    assert "Constant" not in ops(result)


# Without reduce_range, processors that lack VNNI saturate in the sum of two products, by up to 0.8
# here.
@pytest.mark.parametrize("text", ["int8.dynamic(reduce_range=True)", "int8.static"])
def test_a_body_comes_after_what_it_reads_from_outside(text: str) -> None:
    # The library sorts nodes by their inputs, and this If has but one: its condition.
    model = weighted(
        """agraph (float[N,16] x, bool on) => (float[N,8] y) {
            p = MatMul(x, w)
            q = If (on) <then_branch = a () => (float[N,8] u) { u = Neg(p) },
                         else_branch = b () => (float[N,8] v) { v = Abs(p) }>
            y = Neg(q)
        }""",
        w=(16, 8),
    )
    samples = [{**sample, "on": np.array(True)} for sample in samples_for(model)]
    result = quantized(model, text, samples)
    np.testing.assert_allclose(
        run(result, **samples[0])[0], run(model, **samples[0])[0], atol=0.3
    )


@pytest.mark.parametrize(
    "text", ["int8.dynamic", "int8.static", "int8.static(calibration='entropy')"]
)
def test_a_model_without_anything_to_quantize_is_not_applicable(text: str) -> None:
    model = model_of("agraph (float[4] x) => (float[4] y) { y = Exp(x) }")
    with pytest.raises(
        NotApplicable,
        match="there is nothing to quantize: outside the bodies of If, Loop and Scan",
    ):
        quantized(model, text, samples_for(model))


def test_weights_that_are_computed_are_nothing_to_quantize_dynamically() -> None:
    model = model_of("agraph (float[4,4] x) => (float[4,4] y) { y = MatMul(x, x) }")
    with pytest.raises(
        NotApplicable, match=r"no Attention, Conv, .* works on float tensors"
    ):
        quantized(model, "int8.dynamic")


@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_a_quantized_model_is_not_quantized_again(text: str) -> None:
    model = quantized(dense(), "int8.dynamic")
    with pytest.raises(
        NotApplicable,
        match=r"quantized already: it holds (DynamicQuantizeLinear|MatMulInteger)",
    ):
        quantized(model, text, samples_for(model))


@pytest.mark.parametrize(
    ("text", "why"),
    [("int8.dynamic", "from float16 at all"), ("int8.static", "below opset 19")],
)
def test_what_the_library_would_break_in_float16_is_refused(text: str, why: str) -> None:
    model = dense()
    with pytest.raises(NotApplicable, match=why):
        quantized(model, f"fp16+{text}", samples_for(model))


def test_a_float16_model_of_a_new_opset_is_calibrated_on_float32_samples() -> None:
    model = dense(opset=19, ir_version=9)
    result = quantized(model, "fp16+int8.static", samples_for(model))
    x = samples_for(model)[0]["x"]
    error = run(result, x=x.astype(np.float16))[0].astype(np.float32) - run(model, x=x)[0]
    assert abs(error).max() < 0.5


def test_a_model_without_inputs_cannot_be_calibrated() -> None:
    model = weighted("agraph () => (float[8,8] y) { y = MatMul(v, w) }", v=(8, 8), w=(8, 8))
    with pytest.raises(NotApplicable, match="takes no inputs"):
        quantized(model, "int8.static", [{}])


def test_without_samples_nothing_can_be_calibrated() -> None:
    with pytest.raises(ValueError, match="calibrated on input sets, and got none"):
        quantized(dense(), "int8.static")


@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_a_model_over_2_gb_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "MAX_BYTES", 10)
    with pytest.raises(NotApplicable, match="up to 2 GB"):
        quantized(dense(), text, samples_for(dense()))


def test_every_operator_excluded_is_not_every_operator_included() -> None:
    with pytest.raises(NotApplicable, match="is excluded"):
        quantized(
            dense(),
            "int8.dynamic(op_types_to_quantize=['MatMul'], op_types_to_exclude=['MatMul'])",
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int8.dynamic(weight_type='int4')", "weight_type 'int4' isn't known.*int8, uint8"),
        (
            "int8.static(calibration='min')",
            "calibration 'min' isn't known. Did you mean 'minmax'",
        ),
        ("int8.dynamic(op_types_to_quantize=['Matmul'])", "Did you mean 'MatMul'"),
        (
            "int8.dynamic(op_types_to_exclude=['Softmax'])",
            "'Softmax' is no operator that can be quantized so",
        ),
        ("int8.dynamic(calibration='minmax')", "has no option 'calibration'"),
        (
            "int8.static(activation_type='int8', weight_type='uint8')",
            "no activations in int8 with weights in uint8",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_runs(
    text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bind(parse_variant(text).steps[0])


def test_the_operators_written_down_are_the_library_s() -> None:
    assert set(DYNAMIC_OPS) == set(library.IntegerOpsRegistry)
    assert set(STATIC_OPS) == {*library.QLinearOpsRegistry, *library.QDQRegistry}


@pytest.mark.parametrize(
    "text", ["int8.dynamic", "int8.static", "int8.static(calibration='entropy')"]
)
def test_the_library_is_quiet_and_leaves_nothing_behind(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = (list(root.handlers), root.level, root.manager.disable)
    quantized(dense(), text, samples_for(dense()))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert (list(root.handlers), root.level, root.manager.disable) == before
    assert not list(tmp_path.iterdir())


def test_a_failure_of_the_library_leaves_nothing_behind_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    disabled = logging.getLogger().manager.disable
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        quantized(dense(), "int8.static", [{"x": floats(3, 5)}])
    assert logging.getLogger().manager.disable == disabled
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["int8.dynamic", "int8.static"])
def test_the_same_model_and_samples_give_the_same_bytes_and_keep_metadata(text: str) -> None:
    model = convolution()
    model.metadata_props.add(key="author", value="somebody")
    one, other = (quantized(model, text, samples_for(model)) for _ in range(2))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(
        deterministic=True
    )
    assert {entry.key: entry.value for entry in one.metadata_props} == {"author": "somebody"}


def test_what_onnx_infers_no_type_of_is_quantized_as_float() -> None:
    """A Scaler's result, for one; scikit-learn's pipelines begin with it."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> '
        "g (float[n,4] x) => (float[n,2] y) { "
        "s = ai.onnx.ml.Scaler <offset: floats = [0.5], scale: floats = [2.0]> (x) y = MatMul(s, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(floats(4, 2), "w"))
    result = quantized(model, "int8.dynamic")
    assert ops(result)["MatMulInteger"] == 1
    assert signal_db(model, result, floats(3, 4, seed=1)) > 20


def test_functions_are_inlined_since_the_library_would_leave_them_out() -> None:
    numbers = ",".join(["0.5"] * 64)
    model = model_of(
        f"agraph (float[N,8] x) => (float[N,8] z) <float[8,8] w = {{{numbers}}}> "
        "{ y = MatMul(x, w) z = local.Turn(y) } "
        '<opset_import: ["" : 17], domain: "local"> Turn (v) => (r) { r = Neg(v) }'
    )
    result = quantized(model, "int8.dynamic(reduce_range=True)")

    x = floats(2, 8)
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], atol=0.1)


def test_a_pad_that_reflects_survives_the_conversion_to_a_later_opset() -> None:
    numbers = ",".join(["0.5"] * 16)
    model = model_of(
        f"agraph (float[2,2] x) => (float[2,4] z) <float[4,4] w = {{{numbers}}}> "
        '{ y = Pad<mode = "reflect", pads = [0, 1, 0, 1], value = 0.0>(x) z = MatMul(y, w) }',
        opset=9,
    )
    result = quantized(model, "int8.dynamic(reduce_range=True)")

    x = floats(2, 2)
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], atol=0.1)
