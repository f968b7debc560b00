"""Compare what a classifier's output is read for: its greatest elements."""

from __future__ import annotations

import numpy as np

from onnx_harness.accuracy.measure import Array

_ROWS = 1 << 12
# A float16 Softmax over thousands of classes sums to one within a few of float16's last bits, 2^-11
# each.
_SUM = 2e-3


def agreement(reference: Array, candidate: Array, k: int) -> float:
    """Return the share of rows whose ``k`` greatest elements are the reference's, in any order.

    Rows lie along the last axis.

    An element that the reference ranks level with its k-th is as good as that.

    Args:
        reference: floats of shape [..., classes].
        candidate: of the same shape.
        k: 1 is the argmax. More than there are classes: all of them.

    Returns:
        In [0, 1]; 1 where there are no rows.
    """
    classes = reference.shape[-1]
    if reference.size == 0:
        return 1.0
    k = min(k, classes)
    reference_rows, candidate_rows = (
        reference.reshape(-1, classes),
        candidate.reshape(-1, classes),
    )
    right_ones = 0
    for start in range(0, len(reference_rows), _ROWS):
        expected = reference_rows[start : start + _ROWS].astype(np.float64)
        got = candidate_rows[start : start + _ROWS].astype(np.float64)
        chosen = np.argpartition(-got, k - 1, axis=-1)[:, :k]
        least = -np.partition(-expected, k - 1, axis=-1)[:, k - 1]
        worst = np.take_along_axis(expected, chosen, axis=-1).min(axis=-1)
        right_ones += int(np.count_nonzero(worst >= least))
    return right_ones / len(reference_rows)


def changed_choices(
    reference: Array, candidate: Array, axis: int, margin: float
) -> tuple[int, int]:
    """Count the rows whose greatest element is another one.

    Only those count that leave no doubt which it is.

    Args:
        reference: floats, two elements or more along the axis.
        candidate: of the same shape.
        axis: a row lies along it.
        margin: by how much the greatest has to be above the next.

    Returns:
        The rows that changed, and those that leave no doubt.
    """
    classes = reference.shape[axis]
    arrays = []
    for array in (reference, candidate):
        arrays.append(np.moveaxis(array, axis, -1).reshape(-1, classes))
    reference_rows, candidate_rows = arrays
    changed = clear = 0
    for start in range(0, len(reference_rows), _ROWS):
        expected = reference_rows[start : start + _ROWS].astype(np.float64)
        got = candidate_rows[start : start + _ROWS].astype(np.float64)
        two = np.partition(expected, classes - 2, axis=-1)
        with np.errstate(invalid="ignore"):
            is_clear = two[:, -1] - two[:, -2] > margin
        clear += int(np.count_nonzero(is_clear))
        changed += int(
            np.count_nonzero(is_clear & (expected.argmax(axis=-1) != got.argmax(axis=-1)))
        )
    return changed, clear


def distribution_axis(array: Array) -> int | None:
    """The axis along which an array holds probabilities, none below 0, that sum to one.

    None where there is none.

    The last axis that does, of those with two elements or more.
    """
    if array.dtype.kind not in "fV" or array.size == 0:
        return None
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all() or wide.min() < 0:
        return None
    for axis in reversed(range(array.ndim)):
        if array.shape[axis] > 1 and np.allclose(
            wide.sum(axis=axis), 1.0, rtol=0, atol=_SUM
        ):
            return axis
    return None
