"""Simulated float16 beside onnx's reference implementation, which computes in numpy's float16
operator by operator.

The cases are those of ONNX's own node tests that compute in float16. One unit in the last place is
for the order of sums; an operator that is spelt out as a graph of many nodes may gather two.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.simulation import simulated

# No kernel in ONNX Runtime in float32 either, a float8 type that the reference refuses, an input
# that is no array.
NOT_COMPARED = (
    "test_dequantizelinear_e4m3fn_float16", "test_flexattention_fp16", "test_range_float16_type_positive_delta",
    "test_swiglu_float16",
)  # fmt: skip
LEAST_CASES = 25
"""So many the installed onnx has at least: a check on none of them would pass too."""


def ulps(expected: Any, got: Any) -> int:
    """The greatest distance in units in the last place of float16; NaN is no distance from NaN."""

    def places(array: Any) -> Any:
        bits = np.asarray(array, np.float16).reshape(-1).view(np.int16).astype(np.int32)
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    both = np.isnan(expected).reshape(-1) & np.isnan(got).reshape(-1)
    return int(np.where(both, 0, np.abs(places(expected) - places(got))).max(initial=0))


def cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cases' own arithmetic
        found = collect_testcases(None)
    models = {case.name: case.model for case in found if case.model is not None}
    mine = {name for name, model in models.items() if computes_in_half(model)}
    return [
        case
        for case in found
        if case.name in mine and not case.name.startswith(NOT_COMPARED)
    ]


def distance(case: Any) -> int:
    """How far the simulated model is from the reference implementation, over all float16 outputs of
    a case.
    """
    model = case.model
    feeds = dict(
        zip([info.name for info in model.graph.input], case.data_sets[0][0], strict=False)
    )
    with np.errstate(all="ignore"):
        expected = ReferenceEvaluator(model).run(None, feeds)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wide = {
        name: value.astype(np.float32) if value.dtype == np.float16 else value
        for name, value in feeds.items()
    }
    got = open_cpu(simulated(copy, model)).run(None, wide)
    pairs = [pair for pair in zip(expected, got, strict=True) if pair[0].dtype == np.float16]
    return max((ulps(one, other) for one, other in pairs), default=0)


def test_the_official_cases_give_what_the_reference_gives() -> None:
    found = cases()
    assert len(found) >= LEAST_CASES
    far = {
        case.name: apart
        for case in found
        if (apart := distance(case)) > (2 if "expanded" in case.name else 1)
    }
    assert far == {}


def test_without_rounding_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product, and the difference of it from what it was rounded from: nothing in float16,
    something in float32.
    """
    text = "(float16[n] x) => (float16[n] y) { a = Mul(x, w)  b = Mul(a, w)  y = Sub(b, x) }"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {text}')
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([1.001], np.float16), "w")
    )
    x = np.linspace(1, 2, 50).astype(np.float16)

    class Case:
        def __init__(self) -> None:
            self.name, self.model = "mine", model
            self.data_sets: list[Any] = [([x], [])]

    assert distance(Case()) == 0
    monkeypatch.setattr(
        "onnx_harness.judging.simulation.with_rounded", lambda node, _: [node]
    )
    assert distance(Case()) > 1
