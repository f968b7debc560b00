"""What holds of every comparison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.accuracy.failures import Check
from onnx_harness.accuracy.measure import extent, measure
from onnx_harness.accuracy.tolerance import Tolerance, choose
from onnx_harness.transforms import Precision
from tests.comparing import compare

Array = Any

FP32 = choose(Precision.FP32, None, None)
DTYPES = [
    np.float16,
    np.float32,
    np.float64,
    np.int8,
    np.uint8,
    np.int32,
    np.int64,
    np.uint64,
    np.bool_,
]
shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
moderate = st.floats(-1e6, 1e6, width=32)
tolerances = st.builds(
    Tolerance,
    rtol=st.floats(1e-6, 1.0),
    atol=st.none() | st.floats(1e-6, 1.0),
    k=st.floats(1e-6, 1e-1),
    signed_zero=st.just(False),
)


@st.composite
def any_array(draw: st.DrawFn) -> Array:
    return draw(npst.arrays(draw(st.sampled_from(DTYPES)), shapes))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(npst.array_shapes(max_dims=3, max_side=6))
    arrays = npst.arrays(np.float32, shape, elements=moderate)
    return draw(arrays), draw(arrays)


def run(reference: Any, candidate: Any, tolerance: Tolerance = FP32) -> Comparison:
    return compare(
        [{"y": reference}], [{"y": candidate}], lambda _: tolerance, set_names=["one"]
    )


values = st.recursive(
    any_array() | st.none() | st.floats() | st.integers(-100, 100) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values)
def test_anything_passes_against_itself(value: Any) -> None:
    comparison = run(value, value)
    assert comparison.passed
    assert all(
        accuracy.minimum_tolerance == 0.0 for accuracy in comparison.record.outputs.values()
    )


@given(any_array())
def test_a_copy_with_other_strides_passes(array: Array) -> None:
    assert run(array, array.copy(order="F")).passed
    assert run(array, array.copy()).passed


@given(
    npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=5), elements=moderate),
    tolerances,
    st.data(),
)
def test_one_element_beyond_its_bound_fails_and_is_found(
    array: Array, tolerance: Tolerance, data: st.DataObject
) -> None:
    reference = array.astype(np.float64)
    at = data.draw(st.integers(0, reference.size - 1))
    rtol, atol = tolerance.bounds(extent(reference)[0])
    allowed = rtol * abs(reference.flat[at]) + atol
    assume(allowed > 0)
    candidate = reference.copy()
    candidate.flat[at] += (
        data.draw(st.sampled_from([-1.0, 1.0])) * allowed * data.draw(st.floats(1.001, 1e3))
    )
    comparison = run(reference, candidate, tolerance)
    (failure,) = comparison.failures
    assert failure.check is Check.ELEMENTS
    assert failure.what.startswith("1 of ")
    where = [int(axis) for axis in np.unravel_index(at, reference.shape)]
    assert f"at {where}" in failure.what


@given(
    npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=5), elements=moderate),
    tolerances,
    st.data(),
)
def test_elements_within_their_bounds_pass(
    array: Array, tolerance: Tolerance, data: st.DataObject
) -> None:
    reference = array.astype(np.float64)
    rtol, atol = tolerance.bounds(extent(reference)[0])
    shares = data.draw(
        npst.arrays(np.float64, reference.shape, elements=st.floats(-0.999, 0.999))
    )
    assert run(
        reference, reference + shares * (rtol * np.abs(reference) + atol), tolerance
    ).passed


@given(pairs(), tolerances)
def test_the_minimum_tolerance_is_the_smallest_that_passes(
    pair: tuple[Array, Array], tolerance: Tolerance
) -> None:
    minimum = run(*pair, tolerance).record.outputs["y"].minimum_tolerance
    assume(minimum is not None and minimum > 1e-30)
    assert minimum is not None
    assert run(*pair, tolerance.scaled(minimum / tolerance.rtol * (1 + 1e-12))).passed
    assert not run(*pair, tolerance.scaled(minimum / tolerance.rtol * (1 - 1e-9))).passed


@given(pairs(), tolerances)
def test_it_passes_exactly_when_the_minimum_is_not_above_the_one_used(
    pair: tuple[Array, Array], tolerance: Tolerance
) -> None:
    comparison = run(*pair, tolerance)
    accuracy = comparison.record.outputs["y"]
    minimum = math.inf if accuracy.minimum_tolerance is None else accuracy.minimum_tolerance
    assert comparison.passed == (minimum <= accuracy.rtol)


@given(pairs(), tolerances)
def test_a_looser_tolerance_never_fails_what_a_tighter_passed(
    pair: tuple[Array, Array], tolerance: Tolerance
) -> None:
    if run(*pair, tolerance).passed:
        assert run(*pair, tolerance.scaled(2)).passed


@given(pairs())
def test_distances_do_not_depend_on_the_side(pair: tuple[Array, Array]) -> None:
    there = measure(*pair, rtol=1e-4, atol=1e-4)
    back = measure(*reversed(pair), rtol=1e-4, atol=1e-4)
    assert (there.max_abs, there.error, there.cosine) == (
        back.max_abs,
        back.error,
        back.cosine,
    )
    assert (there.nonfinite, there.signed_zero) == (back.nonfinite, back.signed_zero)


@given(pairs())
def test_the_figures_are_numpy_s(pair: tuple[Array, Array]) -> None:
    reference, candidate = (array.astype(np.float64) for array in pair)
    assume(not np.array_equal(reference, candidate))
    gap = np.abs(candidate - reference)
    found = measure(*pair, rtol=1e-3, atol=1e-3)
    assert found.max_abs == gap.max()
    assert found.beyond == np.count_nonzero(gap > 1e-3 * np.abs(reference) + 1e-3)
    assert np.isclose(found.error, np.sum(gap**2))
    assert found.worst_at == np.argmax(gap / (1e-3 * np.abs(reference) + 1e-3))


@given(npst.arrays(np.float32, npst.array_shapes(max_dims=2, max_side=5)), st.data())
def test_a_value_that_stops_being_finite_fails_whatever_the_tolerance(
    array: Array, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, array.size - 1))
    intruder = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    assume(
        not (math.isnan(array.flat[at]) and math.isnan(intruder))
        and array.flat[at] != intruder
    )
    candidate = array.copy()
    candidate.flat[at] = intruder
    for left, right in ((array, candidate), (candidate, array)):
        comparison = run(left, right, Tolerance(rtol=1e30, atol=1e38))
        assert [failure.check for failure in comparison.failures] == [Check.NONFINITE]
        assert comparison.record.outputs["y"].minimum_tolerance is None


@given(npst.arrays(st.sampled_from(DTYPES), shapes))
def test_another_dtype_fails_whatever_the_values(array: Array) -> None:
    with np.errstate(all="ignore"):
        other = array.astype(np.float64 if array.dtype != np.float64 else np.float32)
    assert Check.DTYPE in [failure.check for failure in run(array, other).failures]


@given(npst.arrays(np.float32, shapes), shapes)
def test_another_shape_fails_whatever_the_values(
    array: Array, shape: tuple[int, ...]
) -> None:
    assume(shape != array.shape)
    assert [failure.check for failure in run(array, np.resize(array, shape)).failures] == [
        Check.SHAPE
    ]


@given(
    npst.arrays(
        np.int64, npst.array_shapes(max_dims=1), elements=st.integers(-(2**63), 2**63 - 1)
    ),
    st.data(),
)
def test_any_change_of_an_integer_fails(array: Array, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, array.size - 1))
    candidate = array.copy()
    candidate[at] = data.draw(
        st.integers(-(2**63), 2**63 - 1).filter(lambda value: value != array[at])
    )
    comparison = run(array, candidate)
    assert [failure.check for failure in comparison.failures] == [Check.ELEMENTS]
    assert f"at [{at}]" in comparison.failures[0].what
