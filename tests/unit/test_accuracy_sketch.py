"""The distribution of an output's errors: what it counts, and what follows from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnx_harness.accuracy.compare import ComparedSet, compare
from onnx_harness.accuracy.measure import Array
from onnx_harness.accuracy.sketch import MOST_SAMPLED
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.report.rejudge import Bounds, usable
from onnx_harness.results.cells import ErrorSketch, OutputAccuracy


def compared(*pairs: tuple[Array, Array]) -> OutputAccuracy:
    """Compare an output of several input sets under rtol 1e-3, atol 1e-5."""
    sets = [
        ComparedSet(str(place), {"y": a}, {"y": b}) for place, (a, b) in enumerate(pairs)
    ]
    comparison = compare(sets, lambda _: Tolerance(rtol=1e-3, atol=1e-5))
    return comparison.record.outputs["y"]


def errors_of(*pairs: tuple[Array, Array]) -> ErrorSketch:
    errors = compared(*pairs).errors
    assert errors is not None
    return errors


def test_elements_are_counted_by_their_share_of_what_is_allowed() -> None:
    reference = np.array([0.0, 0.0, 0.0, 1.0], np.float32)
    candidate = np.array([0.0, 0.75e-5, 2.5e-5, 1.0], np.float32)
    assert errors_of((reference, candidate)).shares == {"-1": 1, "1": 1}
    assert errors_of((reference, candidate)).equal == 2


def test_the_greatest_errors_are_kept_by_the_size_of_the_reference() -> None:
    reference = np.array([0.0, 1.5, -1.25, 5.0], np.float64)
    error = np.array([1e-6, -2e-3, 1e-3, 4e-3])
    greatest = errors_of((reference, reference + error)).greatest
    assert set(greatest) == {"-1023", "0", "2"}
    assert greatest["0"] == pytest.approx(2e-3, rel=2e-3)
    assert greatest["0"] >= 2e-3


def test_input_sets_are_added_up() -> None:
    first = np.array([1.0, 2.0], np.float32)
    errors = errors_of((first, first), (first, np.array([1.5, 2.0], np.float32)))
    assert errors.equal == 3
    assert sum(errors.shares.values()) == 1
    assert errors.greatest == {"0": pytest.approx(0.5, rel=2e-3)}


def test_a_large_output_is_sampled_and_its_greatest_error_is_not() -> None:
    reference = np.ones(4 * MOST_SAMPLED, np.float32)
    candidate = reference + 1e-3
    candidate[5] = 3.0
    errors = errors_of((reference, candidate))
    assert errors.equal + sum(errors.shares.values()) == MOST_SAMPLED
    assert errors.greatest == {"0": pytest.approx(2.0, rel=2e-3)}


def test_integers_and_text_have_no_distribution() -> None:
    assert compared((np.array([1, 2]), np.array([1, 3]))).errors is None
    words = np.array(["a", "b"], object)
    assert compared((words, words)).errors is None


def test_what_is_not_finite_is_in_no_count() -> None:
    reference = np.array([1.0, np.nan, np.inf], np.float32)
    errors = errors_of((reference, np.array([1.5, np.nan, 0.0], np.float32)))
    assert (errors.equal, sum(errors.shares.values()), set(errors.greatest)) == (0, 1, {"0"})


MAGNITUDES = st.floats(-1e3, 1e3, width=32)
ARRAYS = arrays.arrays(np.float32, 6, elements=MAGNITUDES)


@given(
    reference=ARRAYS,
    candidate=ARRAYS,
    rtol=st.floats(0, 10),
    atol=st.floats(0, 100),
)
def test_other_bounds_are_decided_as_the_elements_would(
    reference: Array, candidate: Array, rtol: float, atol: float
) -> None:
    """Two sets of inputs, of which the figures without the distribution say little."""
    record = compared((reference, candidate), (candidate, reference))
    decided = usable(record, Bounds(rtol, atol), one_set=False)
    margins = []
    for one, two in ((reference, candidate), (candidate, reference)):
        wide, other = one.astype(np.float64), two.astype(np.float64)
        margins.append(np.max(np.abs(wide - other) - (atol + rtol * np.abs(wide))))
    if decided is True:
        assert max(margins) <= 1e-9
    if decided is False:
        assert max(margins) > -1e-9


def test_bounds_of_another_shape_are_decided_now() -> None:
    reference = np.linspace(1, 100, 500, dtype=np.float32)
    record = compared((reference, reference * np.float32(1.01)), (reference, reference))
    assert usable(record, Bounds(0.03, 0.0), one_set=False) is True
    assert usable(record, Bounds(0.001, 0.1), one_set=False) is False
    without = OutputAccuracy(
        record.max_abs, None, 0.01, 1.0, 40.0, 0, record.minimum_tolerance, 1e-3, 1e-5
    )
    assert usable(without, Bounds(0.03, 0.0), one_set=False) is None
