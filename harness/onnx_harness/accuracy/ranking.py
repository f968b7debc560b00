"""What a classifier's output is read for: which of its elements are the greatest."""

from __future__ import annotations

import numpy as np

from onnx_harness.accuracy.measure import Array

_ROWS = 1 << 12


def agreement(reference: Array, candidate: Array, k: int) -> float:
    """The share of rows, along the last axis, whose ``k`` greatest elements are the reference's, in any order.

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
    left, right = reference.reshape(-1, classes), candidate.reshape(-1, classes)
    right_ones = 0
    for start in range(0, len(left), _ROWS):
        expected = left[start : start + _ROWS].astype(np.float64)
        got = right[start : start + _ROWS].astype(np.float64)
        chosen = np.argpartition(-got, k - 1, axis=-1)[:, :k]
        least = -np.partition(-expected, k - 1, axis=-1)[:, k - 1]
        worst = np.take_along_axis(expected, chosen, axis=-1).min(axis=-1)
        right_ones += int(np.count_nonzero(worst >= least))
    return right_ones / len(left)
