"""Faults that usual sizes don't show: each is caught by a size that is there for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_harness.cell.comparison import Pair, compare_models
from onnx_harness.cell.matrix import card_for
from onnx_harness.inputs.plan import search
from onnx_harness.settings import Settings
from tests.models import model, save

PICTURE = "(float[1,1,height,width] x) => (float[1,1,?,?] y) "
SERIES = "(float[1,seq] x) => (float[?,?] y) "
ROWS = "(float[b,n,16] x) => (float[?,?,?] y) "
MANY = "(float[batch,4] x) => (float[?,4] y, int64[?,4] i) "
BRANCHES = (
    "y = If (c) <then_branch = then () => (float[?,?] a) { k = Constant <value_float = FACTOR> () "
    "a = Mul(x, k) }, else_branch = other () => (float[?,?] b) { b = Neg(x) }> }"
)


def pool(kind: str, rest: str) -> str:
    """A pooling of pictures by two."""
    return f"{PICTURE} {{ y = {kind} <strides = [2,2], {rest}> (x) }}"


def part(start: int, end: int) -> str:
    """A part of each series of rows."""
    return (
        f"{ROWS} {{ one = Constant <value_ints = [1]> () s = Constant <value_ints = [{start}]> () "
        f"e = Constant <value_ints = [{end}]> () y = Slice(x, s, e, one) }}"
    )


def branches(compared: str, number: int, factor: str) -> str:
    """Another factor from some length on."""
    return (
        f"{SERIES} {{ l = Shape <start = 1, end = 2> (x) n = Squeeze(l) "
        f"m = Constant <value_int = {number}> () c = {compared}(n, m) "
        + BRANCHES.replace("FACTOR", factor)
    )


def greatest(count: int) -> str:
    """As many rows as there are, up to a number."""
    return (
        f"{MANY} {{ k = Constant <value_ints = [{count}]> () s = Shape <end = 1> (x) "
        "m = Min(k, s) y, i = TopK <axis = 0> (x, m) }"
    )


def window(compared: str, number: str) -> str:
    """Each element with its neighbours in a window, added up."""
    return (
        "(float[1,seq,8] x) => (float[?,?,?] y) { zero = Constant <value_int = 0> () "
        "l = Shape <start = 1, end = 2> (x) n = Squeeze(l) one = Constant <value_int = 1> () "
        "p = Range(zero, n, one) first = Constant <value_ints = [0]> () "
        "second = Constant <value_ints = [1]> () a = Unsqueeze(p, first) b = Unsqueeze(p, second) "
        f"d = Sub(a, b) f = Cast <to = 1> (d) u = Abs(f) w = Constant <value_float = {number}> () "
        f"c = {compared}(u, w) m = Cast <to = 1> (c) y = MatMul(m, x) }}"
    )


def diagonal(number: int) -> str:
    """A matrix without what is far below its diagonal."""
    return (
        "(float[1,seq,seq] x) => (float[?,?,?] y) "
        f"{{ k = Constant <value_int = {number}> () y = Trilu <upper = 1> (x, k) }}"
    )


# The model, a wrong one in its place, and a part of the name of the set that tells them apart.
FAULTS = {
    "a pooling that rounds up": (
        pool("MaxPool", "kernel_shape = [2,2]"),
        pool("MaxPool", "kernel_shape = [2,2], ceil_mode = 1"),
        "1x1x101x149",
    ),
    "padding that is that of even sizes": (
        pool("AveragePool", 'kernel_shape = [3,3], auto_pad = "SAME_UPPER"'),
        pool("AveragePool", "kernel_shape = [3,3], pads = [0,0,1,1]"),
        "1x1x101x149",
    ),
    "one more of the first": (part(0, 77), part(0, 78), "(n = 78)"),
    "one more of the last": (part(-50, 2**40), part(-51, 2**40), "(n = 51)"),
    "a branch for long inputs": (
        branches("Greater", 5000, "2.0"),
        branches("Greater", 5000, "3.0"),
        "(seq = 5001)",
    ),
    "from a length on for beyond it": (
        branches("Greater", 20, "2.0"),
        branches("GreaterOrEqual", 20, "2.0"),
        "(seq = 20)",
    ),
    "a window of one less": (
        window("LessOrEqual", "512.0"),
        window("Less", "512.0"),
        "(seq = 513)",
    ),
    "a window of one more": (
        window("LessOrEqual", "512.0"),
        window("LessOrEqual", "513.0"),
        "(seq = 514)",
    ),
    "another diagonal": (diagonal(-256), diagonal(-255), "(seq = 257)"),
    "one less of the greatest": (greatest(6000), greatest(5999), "(batch = 6000)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_sizes_show_what_the_usual_ones_do_not(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    right, wrong, shown_by = FAULTS[fault]
    a = save(model(right, opset=19), tmp_path / "a.onnx")
    b = save(model(wrong, opset=19), tmp_path / "b.onnx")
    pair = Pair(a, b, card_for(a), "cpu", None, False, Settings())
    caught = compare_models(pair)
    assert str(caught.reason).startswith("on unusual inputs alone, "), caught
    assert any(shown_by in line for line in caught.lines), caught.lines
    honest = compare_models(Pair(a, a, card_for(a), "cpu", None, False, Settings()))
    assert honest.reason is None
    # Without those sizes nothing shows.
    monkeypatch.setattr(search, "size_edges", lambda *_: iter(()))
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "blind"))
    assert compare_models(pair).reason is None
