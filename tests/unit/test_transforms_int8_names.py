"""int8 and int4: names of a model that onnxruntime.quantization would give to tensors of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_harness.errors import NotApplicable
from onnx_harness.transforms.quantization.aliases import Aliases
from tests.unit.test_transforms_int8 import quantized, weighted
from tests.unit.transform_models import floats, ops, run

PLAIN = {"x": "x", "w": "w", "b": "b", "h": "h", "r": "r", "u": "u", "o": "o", "y": "y"}


def _weighted(text: str, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    keywords: dict[str, Any] = dict(shapes)
    return weighted(text, **keywords)


def convolutions(**names: str) -> onnx.ModelProto:
    """Two convolutions with one bias."""
    n = PLAIN | names
    return _weighted(
        f"agraph (float[1,4,8,8] {n['x']}) => (float[1,4,6,6] {n['y']}) {{"
        f"{n['h']} = Conv<pads=[1,1,1,1]>({n['x']}, {n['w']}, {n['b']})"
        f"{n['r']} = Relu({n['h']})"
        f"{n['o']} = Conv({n['r']}, {n['u']}, {n['b']})"
        f"{n['y']} = Relu({n['o']}) }}",
        shapes={n["w"]: (4, 4, 3, 3), n["b"]: (4,), n["u"]: (4, 4, 3, 3)},
    )


def products(**names: str) -> onnx.ModelProto:
    """Two products by constant matrices."""
    n = PLAIN | names
    return _weighted(
        f"agraph (float[N,32] {n['x']}) => (float[N,32] {n['y']}) {{"
        f"{n['h']} = MatMul({n['x']}, {n['w']})"
        f"{n['r']} = Add({n['h']}, {n['b']})"
        f"{n['o']} = MatMul({n['r']}, {n['u']})"
        f"{n['y']} = Relu({n['o']}) }}",
        shapes={n["w"]: (32, 32), n["b"]: (32,), n["u"]: (32, 32)},
    )


NAMES = [
    {"h": "b2"},  # the number that a second copy of a shared bias gets
    {"o": "r_scale"},
    {"h": "w_scale"},
    {"h": "w_quantized", "o": "w_zero_point"},
    {"h": "b_quantized"},
    {"o": "r_QuantizeLinear_Output"},
    {"o": "r_DequantizeLinear_Output"},
    {"b": "w_scale"},
    {"u": "w_Q4", "b": "w_scales"},
    {"h": "x_quantized", "r": "x_scale"},
    {"y": "x_scale"},
    {"x": "y_scale", "w": "y_quantized"},
]


@pytest.mark.parametrize(
    ("build", "variant", "shape"),
    [
        (convolutions, "int8.dynamic", (1, 4, 8, 8)),
        (convolutions, "int8.static", (1, 4, 8, 8)),
        (products, "int8.dynamic", (3, 32)),
        (products, "int8.static", (3, 32)),
        (products, "int4", (3, 32)),
    ],
)
@pytest.mark.parametrize("names", NAMES, ids=lambda names: "-".join(names.values()))
def test_names_change_no_value(
    names: dict[str, str],
    build: Callable[..., onnx.ModelProto],
    variant: str,
    shape: tuple[int, ...],
) -> None:
    x, source = floats(*shape), (PLAIN | names)["x"]
    expected = run(quantized(build(), variant, [{"x": x}]), x=x)[0]
    result = quantized(build(**names), variant, [{source: x}])
    np.testing.assert_array_equal(run(result, **{source: x})[0], expected)
    onnx.checker.check_model(result, full_check=True)


def test_other_names_stay() -> None:
    result = quantized(products(), "int8.static", [{"x": floats(3, 32)}])
    names = {tensor.name for tensor in result.graph.initializer}
    assert {"w_quantized", "w_scale", "w_zero_point", "x_scale"} <= names
    assert [info.name for info in (*result.graph.input, *result.graph.output)] == ["x", "y"]


def test_a_name_that_is_taken_gets_a_number() -> None:
    result = quantized(products(h="w_scale"), "int8.static", [{"x": floats(3, 32)}])
    assert "w_scale_1" in {tensor.name for tensor in result.graph.initializer}


def test_messages_of_the_library_have_the_model_s_names() -> None:
    aliases = Aliases(products())
    assert aliases.in_words(f"no range for {aliases.of_value('h')}_x") == "no range for h_x"


@pytest.mark.parametrize("variant", ["int8.dynamic", "int8.static", "int4"])
def test_a_weight_behind_an_identity_is_a_weight(variant: str) -> None:
    x, direct = floats(3, 32), products()
    shared = products(w="w_itself", u="u_itself")
    for name in ("w", "u"):
        shared.graph.node.insert(0, helper.make_node("Identity", [f"{name}_itself"], [name]))
    for node in shared.graph.node:
        if node.op_type == "MatMul":
            node.input[1] = node.input[1].removesuffix("_itself")
    results = [quantized(model, variant, [{"x": x}]) for model in (shared, direct)]
    assert "Identity" not in ops(results[0])
    np.testing.assert_array_equal(*(run(result, x=x)[0] for result in results))


def test_a_weight_that_is_an_output_too_keeps_its_identity() -> None:
    model = products()
    model.graph.node.append(helper.make_node("Identity", ["w"], ["weights"]))
    model.graph.output.append(helper.make_tensor_value_info("weights", 1, [32, 32]))
    x = floats(3, 32)
    result = run(quantized(model, "int8.dynamic"), x=x)[1]
    np.testing.assert_allclose(result, run(model, x=x)[1], atol=0.02)


def test_weights_that_are_inputs_too_are_why_nothing_is_quantized() -> None:
    model = products()
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    with pytest.raises(
        NotApplicable, match=r"3 of 3 initializers \('w', \.\.\.\) are inputs too"
    ):
        quantized(
            model,
            "int8.static(op_types_to_quantize=['Conv', 'MatMul'])",
            [{"x": floats(3, 32)}],
        )


def test_where_there_is_no_such_operator_its_weights_are_no_reason() -> None:
    model = products()
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    with pytest.raises(NotApplicable, match=r"no Conv works on float tensors$"):
        quantized(
            model, "int8.static(op_types_to_quantize=['Conv'])", [{"x": floats(3, 32)}]
        )
