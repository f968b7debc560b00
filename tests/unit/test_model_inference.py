"""Types that onnx infers, and functions that it inlines, of models whose weights stay out of its
way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.model.inference import infer_types
from onnx_harness.model.inlining import inline_functions
from tests.models import model

LARGE = np.ones((64, 64), np.float32)
FUNCTION = """<ir_version: 9, opset_import: ["" : 17, "mine" : 1]> small (float[n,64] x) => (float[n,64] y) {
    y = mine.twice(x)
}
<domain: "mine", opset_import: ["" : 17]> twice (a) => (b) { w = Add(a, a)  b = Identity(w) }"""


def product() -> onnx.ModelProto:
    made = model("(float[n,64] x) => (float[n,64] y) { z = MatMul(x, w)  y = Relu(z) }")
    made.graph.initializer.append(numpy_helper.from_array(LARGE, "w"))
    return made


def typed(made: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        info.name: [
            dim.dim_value or dim.dim_param for dim in info.type.tensor_type.shape.dim
        ]
        for info in made.graph.value_info
    }


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of the weights of each model that goes through onnx."""
    sizes: list[int] = []

    def recording(function: Any) -> Any:
        def record(given: onnx.ModelProto, *rest: Any, **options: Any) -> Any:
            sizes.append(sum(tensor.ByteSize() for tensor in given.graph.initializer))
            return function(given, *rest, **options)

        return record

    monkeypatch.setattr(
        onnx.shape_inference, "infer_shapes", recording(onnx.shape_inference.infer_shapes)
    )
    inline = onnx.inliner.inline_selected_functions
    monkeypatch.setattr(onnx.inliner, "inline_selected_functions", recording(inline))
    return sizes


def test_types_are_inferred_without_the_weights_and_the_model_stays_as_it_was(
    passed: list[int],
) -> None:
    made = product()
    before = made.SerializeToString()
    inferred = infer_types(made)
    assert typed(inferred) == {"z": ["n", 64]}
    assert passed == [0]
    assert [info.name for info in inferred.graph.input] == ["x"]
    assert [(tensor.name, list(tensor.dims)) for tensor in inferred.graph.initializer] == [
        ("w", [64, 64])
    ]
    assert made.SerializeToString() == before


def test_a_small_constant_says_what_shape_comes_of_it() -> None:
    made = model(
        "(float[n,64] x) => (float[a,b,c] y) { z = Reshape(x, shape)  y = Relu(z) }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array([-1, 8, 8]), "shape"))
    assert typed(infer_types(made))["z"][1:] == [8, 8]


def test_weights_without_their_data_are_known_by_their_shape() -> None:
    made = product()
    made.graph.initializer[0].ClearField("raw_data")
    assert typed(infer_types(made)) == {"z": ["n", 64]}


def test_where_onnx_gives_up_the_model_stays_as_it_is_unless_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("no inference")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", fails)
    made = product()
    assert infer_types(made) is made
    with pytest.raises(ValueError, match="no inference"):
        infer_types(made, required=True)


def test_functions_are_inlined_without_the_weights_and_the_model_stays_as_it_was(
    passed: list[int],
) -> None:
    made = onnx.parser.parse_model(FUNCTION)
    made.graph.initializer.append(numpy_helper.from_array(LARGE, "w"))
    before = made.SerializeToString()
    inlined = inline_functions(made)
    assert passed == [0]
    assert [node.op_type for node in inlined.graph.node] == ["Add", "Identity"]
    # A name inside the function isn't taken for the weight's.
    assert inlined.graph.node[0].output[0] != "w"
    assert numpy_helper.to_array(inlined.graph.initializer[0]).shape == LARGE.shape
    assert made.SerializeToString() == before
    assert inline_functions(inlined) is inlined


OTHER_VERSION = """<ir_version: 9, opset_import: ["" : 22, "mine" : 1]>
small (float[n,64] x) => (float[n,64] y) { z = mine.outer(x)  y = mine.plain(z) }
<domain: "mine", opset_import: ["" : VERSION, "mine" : 1]> outer (a) => (b) { c = OP(a)  b = mine.plain(c) }
<domain: "mine", opset_import: ["" : 22]> plain (a) => (b) { b = Abs(a) }"""


@pytest.mark.parametrize(
    ("version", "op", "inlined", "left"),
    [
        (22, "Cos", ["Cos", "Abs", "Abs"], set()),
        (21, "Neg", ["Neg", "Abs", "Abs"], set()),
        (13, "Neg", ["Neg", "Abs", "Abs"], set()),
        # Cos takes bfloat16 since opset 22.
        (21, "Cos", ["outer", "Abs"], {"outer", "plain"}),
        (12, "Neg", ["outer", "Abs"], {"outer", "plain"}),
        (21, "Unheard", ["outer", "Abs"], {"outer", "plain"}),
    ],
)
def test_a_function_of_another_opset_is_inlined_where_its_operators_are_the_same(
    version: int, op: str, inlined: list[str], left: set[str]
) -> None:
    made = onnx.parser.parse_model(
        OTHER_VERSION.replace("VERSION", str(version)).replace("OP(", f"{op}(")
    )
    before = made.SerializeToString()
    result = inline_functions(made)
    assert [node.op_type for node in result.graph.node] == inlined
    assert {function.name for function in result.functions} == left
    assert made.SerializeToString() == before


def test_the_operators_of_a_branch_inside_a_function_count_too() -> None:
    made = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 22, "mine" : 1]>
        small (float[n] x, bool c) => (float[n] y) { y = mine.choose(x, c) }
        <domain: "mine", opset_import: ["" : 21]> choose (a, c) => (b) {
          b = If (c) <then_branch = t () => (d) { d = Cos(a) }, else_branch = e () => (d) { d = Neg(a) }>
        }""")
    assert inline_functions(made) is made


def test_versions_of_other_domains_have_to_agree() -> None:
    made = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 22, "mine" : 1]>
        small (float[n] x) => (float[n] y) { z = mine.one(x)  y = mine.two(z) }
        <domain: "mine", opset_import: ["" : 22, "far" : 1]> one (a) => (b) { b = Neg(a) }
        <domain: "mine", opset_import: ["" : 22, "far" : 2]> two (a) => (b) { b = Neg(a) }""")
    result = inline_functions(made)
    assert [node.op_type for node in result.graph.node] == ["Neg", "two"]
