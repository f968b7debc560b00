"""Limits of a Range that become constants with an axis of one, which ONNX Runtime refuses."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_harness.transforms.simplify import simplify
from tests.unit.transform_models import copy_of, model_of, ops, run, same_bits


@pytest.mark.parametrize("size", [4, 7])
def test_a_range_takes_a_size_with_an_axis_that_becomes_constant(size: int) -> None:
    model = model_of(
        f"""agraph (float[{size},3] x) => (float[m] y)
        <int64 zero = {{0}}, int64 one = {{1}}, int64[1] begin = {{0}}, int64[1] end = {{1}}> {{
        s = Shape(x) n = Slice(s, begin, end) r = Range(zero, n, one) f = Cast<to = 1>(r)
        c = ReduceSum<keepdims = 0>(x, end) y = Add(c, f) }}"""
    )
    x = np.arange(3 * size, dtype=np.float32).reshape(size, 3)
    simplified = simplify(copy_of(model))
    assert ops(simplified) == {"ReduceSum": 1, "Add": 1}
    assert same_bits(run(simplified, x=x), run(model, x=x))


def test_a_branch_that_gives_a_limit_with_an_axis_is_put_in_place() -> None:
    model = model_of(
        """agraph (float[2,3] x) => (float[m] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] three = {3}, int64 six = {6}> {
        s = Size(x) b = Equal(s, six)
        n = If<then_branch = yes () => (int64[1] a) { a = Identity(three) },
               else_branch = no () => (int64[1] c) { c = Add(three, three) }>(b)
        r = Range(zero, n, one) f = Cast<to = 1>(r) m = ReduceMean<axes = [0], keepdims = 0>(x)
        y = Add(m, f) }"""
    )
    x = np.ones((2, 3), np.float32)
    simplified = simplify(copy_of(model))
    assert ops(simplified) == {"ReduceMean": 1, "Add": 1}
    assert ops(simplify(copy_of(simplified))) == ops(simplified)
    assert same_bits(run(simplified, x=x), run(model, x=x))
