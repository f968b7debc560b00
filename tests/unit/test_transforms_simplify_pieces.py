"""Rules of ``simplify`` about pieces and detours, each with twins where nothing may be done."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.test_transforms_simplify_pairs import left
from tests.unit.transform_models import floats, ops, run, same_bits

# Numbers that the graphs name: i0 is [0], n2 is a 2 without an axis.
AXES = {f"i{number}": np.asarray([number]) for number in range(6)} | {
    "back_1": np.asarray([-1])
}
SCALARS = {f"n{number}": np.asarray(number) for number in (0, 1, 2)}
PARTS = "j = Concat<axis = 2>(x, x, x) e = Neg(x) k = Concat<axis = 2>(x, e) "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # slices side by side are one
        (
            "a = Slice(x, i0, i1, i2) b = Slice(x, i1, i2, i2) z = Concat<axis = 2>(a, b)",
            "Slice",
        ),
        (
            "a = Slice(x, i0, i1, i2) b = Slice(x, i1, i5, i2) o = Neg(x)"
            " z = Concat<axis = 2>(o, a, b)",
            "Neg Concat",
        ),
        (
            "a = Slice(s, i0, i1, i0) b = Slice(s, i1, i2, i0) z = Concat<axis = -2>(a, b)",
            "Slice",
        ),
        # … but for a gap, the other order, another axis, and another tensor
        (
            "a = Slice(x, i0, i1, i2) b = Slice(x, i2, i3, i2) z = Concat<axis = 2>(a, b)",
            "Slice Slice Concat",
        ),
        (
            "a = Slice(x, i1, i2, i2) b = Slice(x, i0, i1, i2) z = Concat<axis = 2>(a, b)",
            "Slice Slice Concat",
        ),
        (
            "a = Slice(x, i0, i1, i2) b = Slice(x, i1, i2, i2) z = Concat<axis = 1>(a, b)",
            "Slice Slice Concat",
        ),
        (
            "e = Neg(x) a = Slice(x, i0, i1, i2) b = Slice(e, i1, i2, i2)"
            " z = Concat<axis = 2>(a, b)",
            "Neg Slice Slice Concat",
        ),
        (
            "a = Slice(x, i0, i1, i2) b = Slice(x, i1, i2, i2) j = Concat<axis = 2>(a, b)"
            " e = Neg(a) f = Neg(b) z = Concat<axis = 2>(j, e, f)",
            "Slice Slice Neg Neg Concat",
        ),
        # a slice of a part needs no Concat
        (PARTS + "z = Slice(k, i3, i5, i2)", "Neg Slice"),
        (PARTS + "z = Slice(k, i1, i2, i2)", "Slice"),
        (PARTS + "z = Slice(k, i2, i4, i2)", "Neg Concat Slice"),
        (PARTS + "z = Slice(k, back_1, i5, i2)", "Neg Concat Slice"),
        ("k = Concat<axis = 0>(s, s) z = Slice(k, i3, i4, i0)", "Concat Slice"),
        # a Split at the joints
        (PARTS + "a, b = Split<axis = 2>(k) c0 = Abs(a) z = Mul(c0, b)", "Neg Abs Mul"),
        (PARTS + "a, b = Split<axis = 2>(k, uneven) z = Abs(b)", "Neg Concat Split Abs"),
        # indices of indices
        ("a = Gather<axis = 2>(x, pick) z = Gather<axis = 2>(a, again)", "Gather"),
        ("a = Gather<axis = 2>(x, pick) z = Gather<axis = 1>(a, again)", "Gather Gather"),
        ("a = Gather<axis = 1>(x, n1) z = Unsqueeze(a, i1)", "Gather"),
        ("a = Gather<axis = 1>(x, n1) z = Unsqueeze(a, i2)", "Gather Unsqueeze"),
        (
            "a = Gather<axis = 1>(x, n1) u = Unsqueeze(a, i1) z = Add(u, a)",
            "Gather Unsqueeze Add",
        ),
        # two pads of one number
        ("a = Pad(x, pads) z = Pad(a, pads)", "Pad"),
        ("a = Pad(x, pads, half) z = Pad(a, pads, half)", "Pad"),
        ("a = Pad(x, pads, half) z = Pad(a, pads)", "Pad Pad"),
        ('a = Pad<mode = "edge">(x, pads) z = Pad(a, pads)', "Pad Pad"),
        ("a = Pad(x, pads) z = Pad(a, less)", "Pad Pad"),
        # what is widened by the operator anyway
        ("a = Expand(row, shape) z = Add(x, a)", "Add"),
        ("h = Shape(x) f = ConstantOfShape<value = float[1] {2.0}>(h) z = Mul(f, x)", "Mul"),
        ("h = Shape(s) f = ConstantOfShape<value = float[1] {2.0}>(h) z = Pow(s, f)", "Pow"),
        (
            "h = Shape(s) f = ConstantOfShape<value = float[1] {2.0}>(h) z = Neg(f)",
            "Shape ConstantOfShape Neg",
        ),
        ("t = Gather(s, i0) a = Expand(t, wide) z = Add(t, a)", "Gather Expand Add"),
        # what is undone behind elementwise operators
        (
            "a = Transpose<perm = [0, 2, 1]>(x) b = Relu(a) k = Neg(b) z = Transpose<perm = [0, 2, 1]>(k)",
            "Relu Neg",
        ),
        (
            "a = Transpose<perm = [0, 2, 1]>(x) b = Relu(a) z = Transpose<perm = [1, 2, 0]>(b)",
            "Transpose Relu Transpose",
        ),
        (
            "a = Transpose<perm = [0, 2, 1]>(x) b = Softmax(a) z = Transpose<perm = [0, 2, 1]>(b)",
            "Transpose Softmax Transpose",
        ),
        (
            "a = Transpose<perm = [0, 2, 1]>(x) b = Relu(a) d = Transpose<perm = [0, 2, 1]>(b)"
            " e = Transpose<perm = [0, 2, 1]>(d) z = Add(e, b)",
            "Transpose Relu Add",
        ),
        ("a = Reshape(x, flat) b = Exp(a) z = Reshape(b, back)", "Exp"),
        (
            "a = Unsqueeze(s, i0) b = Neg(a) k = Squeeze(b, i0) z = Abs(k)",
            "Neg Abs",
        ),
        ("a = Reshape(x, flat) b = Exp(a) z = Reshape(b, other)", "Reshape Exp Reshape"),
        # the greatest, the least, both and either of one thing
        ("m = Max(x, x) n = Min(m, m, m) z = Neg(n)", "Neg"),
        ("a = And(c, c) b = Or(a, a) z = Cast<to = 1>(b)", "Cast"),
    ],
)
def test_a_detour_is_taken_only_where_it_leads_elsewhere(text: str, expected: str) -> None:
    constants = {
        **AXES,
        **SCALARS,
        "uneven": np.asarray([2, 4]),
        "pick": np.asarray([2, 0]),
        "again": np.asarray([[1, -1], [0, 1]]),
        "pads": np.asarray([0, 1, 0, 1, 0, 2]),
        "less": np.asarray([0, -1, 0, 0, 0, 0]),
        "half": np.asarray(0.5, np.float32),
        "row": np.asarray([1, 2, 3], np.float32),
        "shape": np.asarray([2, 2, 3]),
        "wide": np.asarray([4, 2]),
        "flat": np.asarray([4, 3]),
        "back": np.asarray([2, 2, 3]),
        "other": np.asarray([2, 6]),
    }
    read = {name: value for name, value in constants.items() if _reads(text, name)}
    assert sorted(expected.split()) == sorted(
        op for op, count in left(text, 17, **read).items() for _ in range(count)
    )


def _reads(text: str, name: str) -> bool:
    return any(name == word.strip(" ,()") for word in text.replace("(", " ").split())


def test_a_slice_of_a_part_may_have_short_numbers() -> None:
    """Bounds of int32 stand beside new ones of int64 nowhere."""
    text = (
        "(float[2,3] x) => (float[2,2] z) <int32[1] a={1}, int32[1] b={3}, int32[1] d={1}>"
    )
    made = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g {text}'
        "{ n = Neg(x) k = Concat<axis = 1>(x, n) z = Slice(k, a, b, d) }"
    )
    result, _ = simplify_with_report(made)
    onnx.checker.check_model(result, full_check=True)
    assert ops(result) == {"Slice": 1}
    assert same_bits(run(made, x=floats(2, 3)), run(result, x=floats(2, 3)))
