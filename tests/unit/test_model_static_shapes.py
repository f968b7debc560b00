"""Sizes that constants decide: what a value fits into by a byte is what
ONNX's reference implementation makes of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_harness.errors import ModelError
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.scanned import ScannedNode
from onnx_harness.model.static_shapes import Static, result_of
from tests.models import model, save

W = "w = ConstantOfShape <value = float {0.0}> (ws)"
OF_WEIGHT = f"ws = Constant <value_ints = [3, 50]> ()  {W}  v = MatMul (r, w)"

# The nodes of a graph with an input x of the dimensions before them; v is its largest value.
LARGEST = {
    "Cast": ("8", "v = Cast <to = 11> (x)"),
    "ConstantOfShape of int8": (
        "2",
        "s = Constant <value_ints = [9, 7]> ()  v = ConstantOfShape <value = int8[1] {1}> (s)",
    ),
    "ConstantOfShape": (
        "2",
        "s = Constant <value_ints = [9, 7]> ()  v = ConstantOfShape (s)",
    ),
    "Expand": ("4,1", "s = Constant <value_ints = [3, 1, 5]> ()  v = Expand (x, s)"),
    "Tile": ("4,3", "s = Constant <value_ints = [5, 6]> ()  v = Tile (x, s)"),
    "Range": (
        "1",
        "a = Constant <value = int64 {0}> ()  b = Constant <value = int64 {100}> ()  "
        "c = Constant <value = int64 {7}> ()  v = Range (a, b, c)",
    ),
    "Range downwards": (
        "1",
        "a = Constant <value = int64 {100}> ()  b = Constant <value = int64 {0}> ()  "
        "c = Constant <value = int64 {-7}> ()  v = Range (a, b, c)",
    ),
    "Concat": ("2,3", "v = Concat <axis = -1> (x, x, x)"),
    "Concat of a shape": (
        "1",
        "a = Constant <value_ints = [9]> ()  b = Constant <value_ints = [8, 7]> ()  "
        "s = Concat <axis = 0> (a, b)  v = ConstantOfShape (s)",
    ),
    "MatMul": (
        "2,1,3,4",
        f"ws = Constant <value_ints = [5, 4, 7]> ()  {W}  v = MatMul (x, w)",
    ),
    "Reshape": (
        "4,6",
        f"s = Constant <value_ints = [0, 2, -1]> ()  r = Reshape (x, s)  {OF_WEIGHT}",
    ),
    "Flatten": (
        "4,3,2",
        f"f = Flatten (x)  s = Constant <value_ints = [-1, 3]> ()  r = Reshape (f, s)  {OF_WEIGHT}",
    ),
    "Transpose": ("3,4,2", f"r = Transpose (x)  {OF_WEIGHT.replace('3, 50', '3, 90')}"),
    "Transpose by perm": ("3,4,2", f"r = Transpose <perm = [2, 1, 0]> (x)  {OF_WEIGHT}"),
    "Transpose by another perm": (
        "4,3,2",
        f"r = Transpose <perm = [2, 0, 1]> (x)  {OF_WEIGHT}",
    ),
    "Shape": (
        "2,3,4,5",
        "p = Shape <start = 1, end = 3> (x)  t = Constant <value_ints = [10]> ()  "
        "s = Mul (p, t)  v = ConstantOfShape (s)",
    ),
    "RandomNormal": ("2", "v = RandomNormal <shape = [9, 7], dtype = 11> ()"),
    "OneHot": (
        "1",
        "i = Constant <value_ints = [1, 2, 3]> ()  d = Constant <value = int64 {50}> ()  "
        "o = Constant <value = float[2] {0.0, 1.0}> ()  v = OneHot (i, d, o)",
    ),
    "Pad": ("2,3", "s = Constant <value_ints = [1, 2, 3, 4]> ()  v = Pad (x, s)"),
    "Resize": (
        "1,1,2,2",
        's = Constant <value_ints = [1, 1, 20, 30]> ()  v = Resize <mode = "nearest"> (x, , , s)',
    ),
    "Div, towards zero": (
        "1",
        "a = Constant <value_ints = [-7]> ()  b = Constant <value_ints = [2]> ()  "
        "c = Constant <value_ints = [60]> ()  d = Div (a, b)  s = Add (c, d)  "
        "v = ConstantOfShape (s)",
    ),
    "Pow and Sub": (
        "1",
        "a = Constant <value_ints = [2]> ()  b = Constant <value_ints = [6, 5]> ()  "
        "c = Constant <value_ints = [99]> ()  d = Pow (a, b)  s = Sub (c, d)  "
        "v = ConstantOfShape (s)",
    ),
    "Unsqueeze of a number": (
        "1",
        "a = Constant <value = int64 {99}> ()  b = Constant <value_ints = [0]> ()  "
        "s = Unsqueeze (a, b)  v = ConstantOfShape (s)",
    ),
    "Add of an outer product": ("9,1", "t = Transpose (x)  v = Add (x, t)"),
}


def read(dims: str, nodes: str) -> onnx.ModelProto:
    rest = "k = ReduceSum <keepdims = 0> (u)  y = Reshape (k, one)"
    cast = "u = Cast <to = 1> (v)  one = Constant <value_ints = [1]> ()"
    return model(f"(float[{dims}] x) => (float[1] y) {{ {nodes}  {cast}  {rest} }}")


@pytest.mark.parametrize("kind", LARGEST)
def test_a_value_is_as_large_as_the_reference_makes_it(tmp_path: Path, kind: str) -> None:
    dims, nodes = LARGEST[kind]
    made = read(dims, nodes)
    watched = onnx.ModelProto()
    watched.CopyFrom(made)
    watched.graph.output.append(onnx.helper.make_empty_tensor_value_info("v"))
    x = np.zeros([int(dim) for dim in dims.split(",")], np.float32)
    outputs = ReferenceEvaluator(watched).run(None, {"x": x})
    assert isinstance(outputs, list)
    value = outputs[1]
    # What follows v is a float, and no larger where v is one or wider.
    size = max(value.nbytes, value.size * 4)
    path = save(made, tmp_path / "m.onnx")
    check_bounds(path, size)
    name = "v" if size == value.nbytes else "u"
    with pytest.raises(ModelError, match=f"value '{name}' of .* takes {size:,} bytes"):
        check_bounds(path, size - 1)


@pytest.mark.parametrize(
    ("dims", "nodes"),
    [
        # Of no elements, whatever the other sides are.
        (
            "1",
            "s = Constant <value_ints = [9007199254740992, 1099511627776, 0]> ()  "
            "v = ConstantOfShape (s)",
        ),
        ("0,1,9000", "s = Constant <value_ints = [1, 9000, 1]> ()  v = Expand (x, s)"),
        # ONNX Runtime refuses it, and says so.
        ("2,3", "s = Constant <value_ints = [9000000, 9000000]> ()  v = Reshape (x, s)"),
        # An operator of somebody else's may do anything.
        ("1", "s = Constant <value_ints = [1099511627776]> ()  v = my.ConstantOfShape (s)"),
    ],
)
def test_what_isnt_large_passes(tmp_path: Path, dims: str, nodes: str) -> None:
    made = read(dims, nodes)
    made.opset_import.append(onnx.helper.make_opsetid("my", 1))
    check_bounds(save(made, tmp_path / "m.onnx"), 1 << 20)


def test_pads_of_some_axes_are_not_followed(tmp_path: Path) -> None:
    nodes = (
        "s = Constant <value_ints = [0, 0, 0, 9000000]> ()  a = Constant <value_ints = [0, 1]> ()  "
        "z = Constant <value = float {0.0}> ()  v = Pad (x, s, z, a)"
    )
    made = read("2,3", nodes)
    made.opset_import[0].version = 18
    check_bounds(save(made, tmp_path / "m.onnx"), 1 << 20)


def test_of_a_value_that_isnt_known_nothing_follows() -> None:
    for node in (ScannedNode("Add"), ScannedNode("MatMul"), ScannedNode("Concat")):
        for inputs in ([Static(), Static((3, 3))], [Static((3, 3)), Static()]):
            assert result_of(node, inputs).dims is None


def test_numbers_stay_small_however_they_are_multiplied() -> None:
    node, value = ScannedNode("Mul"), Static((1,), (1 << 62,), 7)
    for _ in range(5):
        value = result_of(node, [value, value])
    assert value.values == (1 << 80,)
