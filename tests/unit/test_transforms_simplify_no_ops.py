"""``simplify`` and nodes that do nothing, or what another one could do: pools of single elements,
Resize by 1, cuts in a row, a Split that is joined again, a scale before a convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.transforms.simplify import simplify
from tests.unit.transform_models import floats, ops, run, same_bits

SPECIAL = [np.nan, -0.0, 0.0, np.inf, -np.inf, 1e-42, -3e38, 7]


def model(text: str, declared: str, **constants: Any) -> onnx.ModelProto:
    """A model of ``text`` from x to z."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> agraph ({declared} x) => (float z) {{ {text} }}'
    )
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def left(source: onnx.ModelProto, *feeds: np.ndarray) -> dict[str, int]:
    """Operators that are left, once the values are seen to be the same bits."""
    shape = source.graph.output[0].type.tensor_type.shape
    for axis in range(run(source, x=feeds[0])[0].ndim):
        shape.dim.add(dim_param=f"d{axis}")
    result = simplify(source)
    onnx.checker.check_model(result, full_check=True)
    for x in feeds:
        assert same_bits(run(source, x=x), run(result, x=x))
    return ops(result)


def images() -> np.ndarray:
    return np.resize(np.array(SPECIAL, np.float32), (2, 3, 4, 5))


@pytest.mark.parametrize(
    "text",
    [
        "y = MaxPool<kernel_shape = [1, 1]>(x)",
        "y = AveragePool<kernel_shape = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]>(x)",
        'y = Resize<mode = "linear">(x, , ones)',
        'y = Resize<mode = "cubic">(x, , , sizes)',
        "p, q = Split<axis = 2>(x, parts) y = Concat<axis = -2>(p, q)",
    ],
)
def test_what_does_nothing_is_removed(text: str) -> None:
    source = model(
        f"{text} z = Neg(y)",
        "float[2,3,4,5]",
        ones=np.ones(4, np.float32),
        sizes=np.array([2, 3, 4, 5]),
        parts=np.array([1, 3]),
    )
    assert left(source, images()) == {"Neg": 1}


@pytest.mark.parametrize(
    "text",
    [
        "y = MaxPool<kernel_shape = [1, 1], strides = [2, 1]>(x)",
        "y = MaxPool<kernel_shape = [1, 2]>(x)",
        "y = AveragePool<kernel_shape = [2, 2], pads = [0, 1, 1, 0]>(x)",
        "y = Resize(x, , twice)",
        "p, q = Split<axis = 2>(x, parts) y = Concat<axis = 2>(q, p)",
        "p, q = Split<axis = 2>(x, halves) y = Concat<axis = 1>(p, q)",
    ],
)
def test_what_does_something_stays(text: str) -> None:
    source = model(
        f"{text} z = Neg(y)",
        "float[2,3,4,5]",
        twice=np.array([1, 1, 2, 1], np.float32),
        parts=np.array([1, 3]),
        halves=np.array([2, 2]),
    )
    assert left(source, images()) == {**ops(source)}


def test_a_reduction_of_ones_that_keeps_them_is_removed() -> None:
    numbers = np.arange(8).reshape(4, 1, 2)
    for text in (
        "ReduceSum(x, at)",
        "ReduceMin<axes = [1]>(x)",
        "ReduceMax<axes = [-2]>(x)",
    ):
        source = model(
            f"y = {text} n = Neg(y) z = Cast<to = 1>(n)", "int64[N,1,2]", at=np.array([1])
        )
        assert left(source, numbers) == {"Neg": 1, "Cast": 1}
    longer = model("y = ReduceMax<axes = [0]>(x) z = Cast<to = 1>(y)", "int64[N,1,2]")
    assert left(longer, numbers) == {"ReduceMax": 1, "Cast": 1}
    floating = model("y = ReduceSum(x, at) z = Neg(y)", "float[N,1,2]", at=np.array([1]))
    special = np.array(SPECIAL, np.float32).reshape(4, 1, 2)
    assert left(floating, special) == {"ReduceSum": 1, "Neg": 1}


CUTS = [(0, 4, 1), (2, -2, 1), (-3, 2**63 - 1, 1), (1, 9, 2), (-1, -(2**63), -1), (6, 1, -2)]


@pytest.mark.parametrize("first", CUTS)
@pytest.mark.parametrize("second", CUTS)
@pytest.mark.parametrize("size", ["8", "N"])
def test_two_cuts_of_an_axis_are_one(
    first: tuple[int, int, int], second: tuple[int, int, int], size: str
) -> None:
    bounds = {
        f"{word}{at}": np.array([number])
        for at, cut in enumerate((first, second))
        for word, number in zip("abc", cut, strict=True)
    }
    source = model(
        "y = Slice(x, a0, b0, at, c0) z = Slice(y, a1, b1, at, c1)",
        f"float[{size},2]",
        at=np.array([0]),
        **bounds,
    )
    sizes = (8,) if size == "8" else (1, 3, 8, 20)
    nodes = left(source, *(floats(size, 2) for size in sizes))

    if size == "8":
        assert nodes.get("Slice", 0) <= 1


def test_a_cut_of_a_size_that_is_not_known_is_merged_where_the_size_does_not_matter() -> (
    None
):
    source = model(
        "y = Slice(x, two, end, at) z = Slice(y, three, end, at)",
        "float[N,2]",
        two=np.array([2]),
        three=np.array([3]),
        end=np.array([2**63 - 1]),
        at=np.array([0]),
    )
    assert left(source, *(floats(size, 2) for size in (1, 4, 9))) == {"Slice": 1}


@pytest.mark.parametrize(
    ("scale", "attributes", "nodes"),
    [
        ([2.0, 0.5, 3.0, 1.5], "group = 2, pads = [1, 1, 1, 1]", {"Conv": 1}),
        ([2.0], "group = 2", {"Conv": 1}),
        ([-2.0, 0.5, 3.0, 1.5], "group = 2", {"Conv": 1}),
        ([-2.0, 0.5, 3.0, 1.5], "group = 2, pads = [1, 1, 1, 1]", {"Mul": 1, "Conv": 1}),
        ([0.0, 0.5, 3.0, 1.5], "group = 2", {"Mul": 1, "Conv": 1}),
        ([np.inf, 0.5, 3.0, 1.5], "group = 2", {"Mul": 1, "Conv": 1}),
    ],
)
def test_a_scale_before_a_convolution_goes_into_its_weights(
    scale: list[float], attributes: str, nodes: dict[str, int]
) -> None:
    source = model(
        f"y = Mul(s, x) z = Conv<{attributes}>(y, w)",
        "float[N,4,5,5]",
        s=np.array(scale, np.float32).reshape(1, -1, 1, 1),
        w=floats(6, 2, 3, 3),
    )
    result = simplify(source)
    x = floats(2, 4, 5, 5)

    assert ops(result) == nodes
    np.testing.assert_allclose(
        run(result, x=x)[0], run(source, x=x)[0], rtol=1e-5, atol=1e-5
    )


def test_a_sum_with_a_constant_is_clamped_at_zero_by_one_node() -> None:
    text = "a = {} b = Min(a, one) z = Max(b, nil)"
    constants = {"one": np.float32(1), "nil": np.float32(0), "k": np.float32(0.5)}
    x = np.array([*SPECIAL, -0.5, 0.5], np.float32)

    assert left(model(text.format("Add(x, k)"), "float[N]", **constants), x) == {
        "Add": 1,
        "Clip": 1,
    }
    product = model(text.format("Mul(x, k)"), "float[N]", **constants)
    assert left(product, x) == {"Mul": 1, "Min": 1, "Max": 1}


def test_functions_are_inlined_unless_a_runtime_has_kernels_for_their_domain() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "{0}" : 1]>
        agraph (float[N] x) => (float[N] z) {{ z = {0}.Same(x) }}
        <opset_import: ["" : 17], domain: "{0}"> Same (v) => (r) {{ t = Neg(v) r = Neg(t) }}
    """
    local, contrib = (
        onnx.parser.parse_model(text.format(name)) for name in ("my", "com.microsoft")
    )

    assert ops(simplify(local)) == {"Identity": 1}
    assert ops(simplify(local, inline_functions=False)) == {"Same": 1}
    assert ops(simplify(contrib)) == {"Same": 1}
