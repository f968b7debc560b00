"""What stays float32 for the range of numbers that something after it brings back."""

from __future__ import annotations

import ast

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnx_harness.transforms import remarks
from onnx_harness.transforms.bf16 import convert_float_to_bfloat16
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.unit.transform_models import copy_of, model_of

pytestmark = pytest.mark.filterwarnings("ignore:the float32 number:UserWarning")


def float32_values(text: str, opset: int = 18) -> set[str]:
    """Names of the values that stay float32, of those that the model itself names."""
    return float32_outputs(model_of(text, opset))


def float32_outputs(model: onnx.ModelProto) -> set[str]:
    """Names of the outputs of a model's nodes that stay float32."""
    result = convert_float_to_float16(model, keep_io_types=False)
    onnx.checker.check_model(result, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(result)
    named = {name for node in model.graph.node for name in node.output}
    values = (*inferred.graph.value_info, *inferred.graph.output)
    return {
        info.name
        for info in values
        if info.name in named and info.type.tensor_type.elem_type == TensorProto.FLOAT
    }


@pytest.mark.parametrize(
    ("nodes", "stays"),
    [
        ("e = Exp(x) d = Add(e, one) l = Log(d) z = Tanh(l)", {"e", "d", "l"}),
        ("e = Exp(x) s = ReduceSum(e, last) d = Div(e, s) z = Tanh(d)", {"e", "s", "d"}),
        (
            """e = Exp(x) n = Neg(x) f = Exp(n) a = Sub(e, f) b = Add(e, f) d = Div(a, b)
            z = Tanh(d)""",
            {"e", "f", "a", "b", "d"},
        ),
    ],
)
def test_an_exponential_stays_up_to_its_logarithm_or_share(
    nodes: str, stays: set[str]
) -> None:
    values = float32_values(
        f"""agraph (float[3,8] x) => (float[3,8] z)
        <float one = {{1}}, int64[1] last = {{1}}> {{ {nodes} }}"""
    )
    assert values == stays


def test_the_default_of_an_input_counts_as_the_number_that_it_is() -> None:
    graph = "{ e = Exp(x) d = Add(e, one) l = Log(d) z = Tanh(l) }"
    values = float32_values(
        f"agraph (float[3,8] x, float[1] one) => (float[3,8] z) <float[1] one = {{1}}> {graph}"
    )
    assert values == {"e", "d", "l"}


@pytest.mark.parametrize(
    "nodes",
    [
        "m = ReduceMax(x, last) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, last) z = Div(e, s)",
        "a = Abs(x) n = Neg(a) e = Exp(n) d = Add(e, one) z = Log(d)",
        "n = Neg(x) e = Exp(n) d = Add(e, one) z = Div(x, d)",
        "e = Exp(x) z = Add(e, one)",
    ],
)
def test_an_exponential_that_is_bounded_or_used_as_it_is_becomes_float16(nodes: str) -> None:
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    constants = {"one": "float one = {1}", "last": "int64[1] last = {1}"}
    used = ", ".join(text for name, text in constants.items() if name in words)
    assert (
        float32_values(f"agraph (float[3,8] x) => (float[3,8] z) <{used}> {{ {nodes} }}")
        == set()
    )


def test_a_mean_of_powers_stays_up_to_its_root() -> None:
    values = float32_values(
        """agraph (float[1,4,8,8] x) => (float[1,4,1,1] z) <float[1] p3 = {3}> {
        p = Pow(x, p3) m = GlobalAveragePool(p) i = Reciprocal(p3) r = Pow(m, i) z = Tanh(r) }"""
    )
    assert {"p", "m", "r"} <= values


def test_squares_averaged_over_neighbours_stay_up_to_the_quotient() -> None:
    values = float32_values(
        """agraph (float[1,8,6,6] x) => (float[1,8,6,6] z)
        <int64[1] one = {1}, int64[10] ends = {0,0,2,0,0,0,0,2,0,0}, float a = {1e-4},
        float two = {2}, float b = {0.75}> {
        q = Mul(x, x) u = Unsqueeze(q, one) p = Pad(u, ends)
        v = AveragePool<kernel_shape = [5, 1, 1]>(p) s = Squeeze(v, one) m = Mul(s, a)
        k = Add(m, two) r = Pow(k, b) d = Div(x, r) z = Tanh(d) }"""
    )
    assert values == {"q", "u", "p", "v", "s", "m", "k", "r", "d"}


def test_what_is_scaled_beyond_float16_stays_up_to_what_brings_it_back() -> None:
    values = float32_values(
        """agraph (float[3,8] x, float[8,8] w) => (float[3,8] z)
        <float far = {1048576}, float one = {1}> {
        h = MatMul(x, w) n = Mul(h, far) o = Add(n, one) l = Log(o) t = Tanh(l)
        z = MatMul(t, w) }"""
    )
    assert {"n", "o", "l"} <= values
    assert {"t", "h"}.isdisjoint(values)


@pytest.mark.parametrize(
    ("means", "stays"),
    [("0.5, 20, 300000", True), ("20000, 30000, 40000", True), ("0, 1e9, 1e9", False)],
)
def test_an_input_is_centred_by_means_in_float32_and_masked_in_float16(
    means: str, stays: bool
) -> None:
    values = float32_values(
        f"""agraph (float[4,3] x) => (float[4,3] z) <float[3] m = {{{means}}}> {{
        d = Sub(x, m) z = Tanh(d) }}"""
    )
    assert ("d" in values) is stays


@pytest.mark.parametrize(
    "nodes", ["f = Floor(s) r = Sub(s, f)", "r = Mod<fmod = 1>(s, one) f = Identity(r)"]
)
def test_a_remainder_stays_with_what_it_is_left_of(nodes: str) -> None:
    values = float32_values(
        f"""agraph (float[3,8] x, float[8,8] w) => (float[3,8] z)
        <float one = {{1}}, float many = {{128}}> {{
        h = MatMul(x, w) s = Mul(h, many) {nodes} z = Mul(h, r) }}"""
    )
    assert {"s", "r"} <= values
    assert "h" not in values


def test_sums_by_a_scatter_stay_up_to_their_number() -> None:
    values = float32_values(
        """agraph (float[n] x, int64[n] at) => (float[4] z) <float[4] zeros = {0,0,0,0}> {
        h = ScatterElements<reduction = "add">(zeros, at, x) n = Size(x) f = Cast<to = 1>(n)
        d = Div(h, f) z = Tanh(d) }"""
    )
    assert {"h", "f", "d"} <= values


def test_what_makes_a_sampling_grid_stays() -> None:
    values = float32_values(
        """agraph (float[1,2,6,6] x, float[1,6] t) => (float[1,2,6,6] z)
        <int64[3] to = {1, 2, 3}, int64[4] size = {1, 2, 6, 6}, float[1,2,3] same = {1,0,0,0,1,0}> {
        u = Reshape(t, to) a = Add(u, same) g = AffineGrid(a, size) s = GridSample(x, g)
        z = Tanh(s) }""",
        opset=20,
    )
    assert {"a", "g"} <= values


@pytest.mark.parametrize(
    "nodes", ["m = Mul(f, low)", "b = Cast<to = 9>(f) m = Where(b, low, f)"]
)
def test_a_mask_of_the_lowest_is_finite_in_bfloat16(nodes: str) -> None:
    model = model_of(
        f"""agraph (float[3,8] x, int64[3,8] k) => (float[3,8] z) <float low = {{-3.4028235e38}}> {{
        f = Cast<to = 1>(k) {nodes} s = Add(x, m) z = Softmax(s) }}""",
        18,
    )
    half = convert_float_to_bfloat16(model, keep_io_types=True)
    (low,) = half.graph.initializer
    assert low.data_type == TensorProto.BFLOAT16
    assert np.isfinite(onnx.numpy_helper.to_array(low).astype(np.float32))


def test_a_filling_that_has_no_bfloat16_is_finite_there_all_the_same() -> None:
    model = model_of(
        """agraph (float[n,n] x) => (float[n,n] z) {
        s = Shape(x) f = ConstantOfShape<value = float[1] {-3.4028235e38}>(s)
        u = Trilu(f) a = Add(x, u) z = Softmax(a) }""",
        18,
    )
    half = convert_float_to_bfloat16(model, keep_io_types=True)
    (filling,) = (node for node in half.graph.node if node.op_type == "ConstantOfShape")
    lowest = onnx.numpy_helper.to_array(filling.attribute[0].t)
    assert lowest == np.float32(-3.3895314e38)


@pytest.mark.parametrize(
    ("choice", "is_floor"),
    [
        ("c = Less(m, eps) f = Where(c, eps, m)", True),
        ("c = LessOrEqual(m, eps) f = Where(c, eps, m)", True),
        ("c = Greater(eps, m) f = Where(c, eps, m)", True),
        ("c = Greater(m, eps) f = Where(c, m, eps)", True),
        ("c = Less(eps, m) f = Where(c, m, eps)", True),
        ("c = Less(m, eps) f = Where(c, m, eps)", False),
        ("c = Greater(m, eps) f = Where(c, eps, m)", False),
        ("c = Less(m, one) f = Where(c, eps, m)", False),
    ],
)
def test_a_floor_that_is_chosen_stays_up_to_the_logarithm(
    choice: str, is_floor: bool
) -> None:
    one = ", float one = {1}" if "one" in choice else ""
    values = float32_values(
        f"""agraph (float[2,2] x) => (float[2,2] z)
        <float eps = {{1e-10}}, float[2,2] w = {{1, 2, 3, 4}}{one}> {{
        m = MatMul(x, w) {choice} l = Log(f) z = Neg(l) }}"""
    )
    assert values == ({"m", "f", "l"} if is_floor else set())


def test_a_floor_that_is_chosen_stays_between_a_norm_and_its_quotient() -> None:
    values = float32_values(
        """agraph (float[2,8] x) => (float[2,8] z) <float eps = {1e-12}, int64[1] last = {1}> {
        n = ReduceL2(x, last) c = Less(n, eps) f = Where(c, eps, n) d = Div(x, f) z = Neg(d) }"""
    )
    assert values == {"n", "f", "d"}


def test_the_mend_for_a_small_number_names_all_that_reads_it() -> None:
    model = model_of(
        """agraph (float[2,2] x) => (float[2,2] z) <float eps = {1e-10}> {
        [below] c = Less(x, eps) [chosen] f = Where(c, x, eps) [last] z = Neg(f) }"""
    )
    with remarks() as notes:
        convert_float_to_float16(copy_of(model), keep_io_types=True)
    (mend,) = [
        note.split("node_block_list=")[1] for note in notes if "node_block_list" in note
    ]
    with remarks() as notes:
        names = ast.literal_eval(mend)
        convert_float_to_float16(copy_of(model), keep_io_types=True, node_block_list=names)
    assert names == ["below", "chosen"]
    assert not notes


@pytest.mark.parametrize(
    ("product", "terms", "number", "stays"),
    [
        ("s = MatMul(k, x)", 4097, 1, True),
        ("s = MatMul(k, x)", 4096, 1, False),
        ("s = MatMul(k, x)", 4097, 0.5, False),
        ('s = Einsum<equation = "ij,jk->ik">(k, x)', 4097, 1, True),
        ('s = Einsum<equation = "ij,jk->ik">(k, x)', 4097, 0.5, False),
        ('s = Einsum<equation = "ij,jk->ijk">(k, x)', 4097, 1, False),
        ('s = Einsum<equation = "jk->k">(x)', 4097, 1, True),
        ('s = Einsum<equation = "jk->k">(x)', 4096, 1, False),
    ],
)
def test_a_long_sum_spelt_as_a_product_stays(
    product: str, terms: int, number: float, stays: bool
) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        agraph (float[{terms},2] x, float d) => (float z)
        {{ {product} y = Mul(s, d) z = ReduceMax<keepdims = 0>(y) }}"""
    )
    if "(k" in product:
        ones = np.full((1, terms), number, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(ones, "k"))
    assert float32_outputs(model) == ({"s"} if stays else set())


def test_a_mean_by_a_product_with_ones_is_scaled_in_float32() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        agraph (float[8192,2] x) => (float[1,2] z) <float n = {8192}>
        { s = MatMul(k, x) y = Div(s, n) z = Neg(y) }"""
    )
    ones = np.ones((1, 8192), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ones, "k"))
    assert float32_outputs(model) == {"s", "y"}
