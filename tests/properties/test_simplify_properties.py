"""``simplify`` on random models: valid, the interface kept, and the same outputs to the bit
wherever the model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxruntime import GraphOptimizationLevel

from onnx_harness.fuzz.models import feeds, random_model
from onnx_harness.transforms import remarks
from onnx_harness.transforms.simplify import simplify_with_report

Array = npt.NDArray[Any]
REASSOCIATE = {"fuse affine", "fuse matmul"}
BATCHES = (2, 1, 3, 0)
_NEAR_THE_GREATEST = 2.0**-10


def session(
    model: onnx.ModelProto,
    level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_DISABLE_ALL,
    *,
    reuse: bool = True,
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.enable_mem_reuse = level, reuse
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def outputs(
    opened: onnxruntime.InferenceSession, inputs: Mapping[str, Array]
) -> list[Array] | None:
    """None where ONNX Runtime refuses: a shape that was right for one batch may be wrong for
    another.
    """
    try:
        return list(
            opened.run(None, {info.name: inputs[info.name] for info in opened.get_inputs()})
        )
    except Exception:  # ONNX Runtime's errors have no base class of their own
        return None


def assert_same(expected: Array, got: Array, exactly: bool) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    if not exactly:
        # In another order a sum near the greatest number overflows, or doesn't.
        near = float(np.finfo(expected.dtype).max) * _NEAR_THE_GREATEST
        great = (np.abs(got) > near) & (np.abs(expected) > near)
        expected = np.where(great & np.isinf(got), got, expected)
        got = np.where(great & np.isinf(expected), expected, got)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    zero = (expected == 0) & (got == 0) if not exactly else finite
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))
    scale = float(np.abs(expected[finite]).max(initial=1))
    np.testing.assert_allclose(
        got[finite], expected[finite], rtol=0, atol=0 if exactly else 1e-5 * scale
    )


def by_name(model: onnx.ModelProto) -> dict[str, bytes]:
    """The initializers: the order is all that an edit in place makes different."""
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes()
        for tensor in model.graph.initializer
    }


def check(seed_of_model: Random, size: int) -> None:
    model = random_model(seed_of_model, size)
    try:
        onnx.checker.check_model(model, full_check=True)
        before = session(model)
    except Exception:
        # What the checker, inference and ONNX Runtime raise has no common base.
        assume(False)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with remarks() as noted:
        result, report = simplify_with_report(model)
    assert not [note for note in noted if "left out" in note or "onnx-ir" in note]
    assert model.SerializeToString(deterministic=True) == copy.SerializeToString(
        deterministic=True
    )
    in_place, _ = simplify_with_report(copy, in_place=True)
    assert in_place is copy
    assert by_name(in_place) == by_name(result)
    in_place.graph.ClearField("initializer")
    in_place.graph.initializer.extend(result.graph.initializer)
    assert in_place.SerializeToString(deterministic=True) == result.SerializeToString(
        deterministic=True
    )
    onnx.checker.check_model(result, full_check=True)
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    after = session(result)
    for batch in BATCHES:
        inputs = feeds(Random(batch), batch)
        expected = outputs(before, inputs)
        if expected is None:
            continue
        got = outputs(after, inputs)
        assert got is not None
        for one, other in zip(expected, got, strict=True):
            assert_same(one, other, exactly=not REASSOCIATE & report.keys())


@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_a_simplified_model_is_the_same_model(seed: int, size: int) -> None:
    check(Random(seed), size)


@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_and_so_is_a_small_one(random: Random, size: int) -> None:
    check(random, size)
