"""The distribution of an output's errors by powers of two: for a histogram and for other bounds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onnx_harness.results.cells import ErrorSketch

Float64s = NDArray[np.float64]

MOST_SAMPLED = 1 << 16
"""Elements of an output, about, that a histogram counts: of more, evenly spaced ones."""

_BINS = 1 << 11  # a float64 has 11 bits of exponent
_BIAS = 1023
_MANTISSA_BITS = 52
_ROUNDED_UP = 1.0006  # four digits err by 5e-4 at most: after this factor, never downwards


class Sketch:
    """Counts and extremes of the elements of one output, added up piece by piece.

    Args:
        size: elements of the output, of which the histogram samples at most about `MOST_SAMPLED`.
    """

    def __init__(self, size: int) -> None:
        self.step = max(1, size // MOST_SAMPLED)
        self.counts = np.zeros(_BINS, np.int64)
        self.greatest = np.zeros(_BINS)

    def add_errors(self, difference: Float64s, magnitude: Float64s) -> None:
        """Keep the greatest errors by the size of the reference.

        Args:
            difference: of n elements, |candidate - reference|.
            magnitude: of the same elements, |reference|.
        """
        exponents = magnitude.view(np.int64) >> _MANTISSA_BITS
        # Few elements are greater than all of their size before: only those are gone through singly
        above = np.flatnonzero(difference > self.greatest[exponents])
        if above.size:
            np.maximum.at(self.greatest, exponents[above], difference[above])

    def add_shares(self, shares: Float64s) -> None:
        """Count a sample of elements by their share of what is allowed to them.

        Args:
            shares: of n elements, |candidate - reference| over what is allowed there.
        """
        sample = np.ascontiguousarray(shares[:: self.step])
        self.counts += np.bincount(sample.view(np.int64) >> _MANTISSA_BITS, minlength=_BINS)

    def add_equal(self, size: int) -> None:
        """Count so many elements without an error."""
        self.counts[0] += -(-size // self.step)

    def join(self, other: Sketch) -> None:
        """Add the elements of another input set."""
        self.counts += other.counts
        np.maximum(self.greatest, other.greatest, out=self.greatest)

    def record(self) -> ErrorSketch:
        """Return it as it is kept in results.json."""
        shares = {}
        for place in np.flatnonzero(self.counts[1:]) + 1:
            shares[str(place - _BIAS)] = int(self.counts[place])
        greatest = {}
        for place in np.flatnonzero(self.greatest):
            error = float(self.greatest[place])
            if math.isfinite(error):
                greatest[str(place - _BIAS)] = float(f"{error * _ROUNDED_UP:.4g}")
        return ErrorSketch(int(self.counts[0]), shares, greatest)
