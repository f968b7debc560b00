"""Numbers of any values of a model, in one more output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_harness.model.watch import (
    GREATEST_MAGNITUDE,
    LEAST,
    SUM_OF_SQUARES,
    Reduction,
    watch,
)
from tests.models import model

BRANCHES = """(bool c, float[n] x) => (float[n] y) {
    w = Neg(x)
    y = If (c) <
        then_branch = a () => (float[n] p) { p = Add(w, w) },
        else_branch = b () => (float[n] q) { q = Mul(w, w) }
    >
}"""
LOOP = """(int64 m, float[n] x) => (float[n] y) {
    t = Constant <value = bool {1}> ()
    y = Loop (m, t, x) <
        body = b (int64 i, bool k, float[n] v) => (bool l, float[n] u) { l = Identity(k)  u = Add(v, v) }
    >
}"""


def floats(node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    for name in node.output:
        if name in "wpqyu":
            yield name, name


def numbers(
    text: str, reduction: Reduction, opset: int = 17, **values: Any
) -> dict[str, float]:
    made = model(text, opset=opset)
    names = watch(made, floats, "told", reduction, with_empty=True)
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(["told"], values)[0].tolist(), strict=True))


X = np.array([1, -3, 2], np.float32)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (GREATEST_MAGNITUDE, {"w": 3, "p": 6, "q": 0, "y": 6}),
        (LEAST, {"w": -2, "p": -4, "q": np.inf, "y": -4}),
        (SUM_OF_SQUARES, {"w": 14, "p": 56, "q": 0, "y": 56}),
    ],
)
def test_a_branch_that_is_not_taken_counts_as_no_elements(
    reduction: Reduction, expected: dict[str, float]
) -> None:
    assert numbers(BRANCHES, reduction, c=np.array(True), x=X) == expected


@pytest.mark.parametrize("opset", [11, 17, 18])
@pytest.mark.parametrize(
    ("reduction", "u", "y"),
    [(GREATEST_MAGNITUDE, 24, 24), (LEAST, -24, -24), (SUM_OF_SQUARES, 14 * 84, 14 * 64)],
)
def test_a_loop_counts_over_all_its_runs(
    opset: int, reduction: Reduction, u: float, y: float
) -> None:
    assert numbers(LOOP, reduction, opset, m=np.array(3), x=X) == {"u": u, "y": y}


def test_a_loop_that_never_runs_and_a_value_without_elements_count_as_none() -> None:
    assert numbers(LOOP, SUM_OF_SQUARES, m=np.array(0), x=X) == {"u": 0, "y": 14}
    assert numbers(LOOP, LEAST, m=np.array(1), x=X[:0]) == {"u": np.inf, "y": np.inf}


def test_values_of_other_types_are_cast_where_that_is_asked_for() -> None:
    made = model("(int64[n] x) => (int64[n] y) { y = Neg(x) }")
    assert watch(made, lambda node: [(node.output[0], "y")], "told", casts={"y"}) == ["y"]
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert session.run(["told"], {"x": np.array([3, -7])})[0].tolist() == [7]


def test_where_nothing_is_watched_there_is_no_output() -> None:
    made = model(BRANCHES)
    before = made.SerializeToString()
    assert watch(made, lambda _: [], "told") == []
    assert made.SerializeToString() == before
