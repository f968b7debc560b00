"""The distance between two arrays of one shape, in one pass of cache-sized pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.accuracy.sketch import Sketch

Array = NDArray[Any]
Float64s = NDArray[np.float64]

# Elements worked on at a time: their few float64 copies stay in a core's cache, however large the
# output. Measured on 20 MB of float32: 7 ns an element, 10 with pieces a quarter as large, 15 with
# pieces twice as large.
CHUNK = 1 << 14
# A rounding of the division and one of the product: what keeps `minimum_tolerance` on the passing
# side.
_ROUNDING = 1 + 8 * float(np.finfo(np.float64).eps)


@dataclass(slots=True)
class Measured:
    """Sums, extremes and counts over the elements of a pair of arrays. Positions are flat indexes.

    Sums and differences are over the elements that are finite on both sides.

    Attributes:
        size: elements.
        finite: elements finite on both sides.
        max_abs: greatest absolute difference.
        greatest_at: where the greatest absolute difference is.
        max_rel: greatest relative difference where the reference isn't 0.
        error: sum of squared differences.
        signal: sum of squared reference elements.
        candidate: sum of squared candidate elements.
        product: sum of the products of the two.
        nonfinite: elements where one side is NaN or infinite and the other isn't the same.
        nonfinite_at: the first of them.
        signed_zero: elements that are zero on both sides with different signs.
        signed_zero_at: the first of them.
        beyond: elements beyond the bounds.
        worst: greatest difference in units of what is allowed there.
        worst_at: where that is.
        rtol: relative bound that `beyond` was counted with.
        atol: absolute bound.
        equal: the two have the same bits.
        sketch: the distribution of the errors; None where it wasn't asked for.
        labels: of the elements, in C order; empty: they're told apart by their indexes.
    """

    size: int
    rtol: float
    atol: float
    finite: int = 0
    max_abs: float = 0.0
    greatest_at: int | None = None
    max_rel: float | None = None
    error: float = 0.0
    signal: float = 0.0
    candidate: float = 0.0
    product: float = 0.0
    nonfinite: int = 0
    nonfinite_at: int | None = None
    signed_zero: int = 0
    signed_zero_at: int | None = None
    beyond: int = 0
    worst: float = 0.0
    worst_at: int | None = None
    equal: bool = False
    sketch: Sketch | None = None
    labels: Sequence[str] = ()

    @property
    def rel_l2(self) -> float | None:
        """||candidate - reference|| / ||reference||.

        None where the reference is zero and the candidate isn't.
        """
        if self.error == 0:
            return 0.0
        return _finite(math.sqrt(self.error / self.signal)) if self.signal > 0 else None

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the two.

        None where one of them is zero, or their squares are beyond float64.
        """
        if self.equal and self.signal > 0:
            return 1.0
        length = math.sqrt(self.signal) * math.sqrt(self.candidate)
        if length == 0 or not math.isfinite(self.product / length):
            return None
        return min(1.0, max(-1.0, self.product / length))

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(||reference||^2 / ||candidate - reference||^2).

        None when they're equal or the reference is zero.
        """
        if self.error == 0 or self.signal == 0:
            return None
        return _finite(10 * (math.log10(self.signal) - math.log10(self.error)))

    @property
    def minimum_tolerance(self) -> float | None:
        """The smallest rtol that no element is beyond, atol scaled in proportion.

        That is ``rtol * max(|d| / allowed)``.

        Where rtol is 0 there's nothing to scale, and it's the smallest atol instead. None when none
        is large enough.
        """
        if self.rtol == 0:
            return _finite(self.max_abs)
        if self.beyond == 0:
            return min(self.rtol, self.rtol * self.worst * _ROUNDING)
        return _finite(self.rtol * self.worst * _ROUNDING)


def is_text(array: Array) -> bool:
    """Decide whether elements are strings, or objects that only equality means something for."""
    return array.dtype.kind in "OUST"


def is_float(array: Array) -> bool:
    """Decide whether elements are floating-point.

    Both numpy's own dtypes and those added to it (bfloat16, float8) are.
    """
    return array.dtype.kind in "fc" or (
        array.dtype.kind == "V" and "float" in array.dtype.name
    )


def real_parts(flat: Array) -> Array:
    """Return complex numbers as pairs of reals, narrow floats as float32, which holds them.

    Anything else as it is.

    Args:
        flat: numbers in one dimension.
    """
    if flat.dtype.kind == "c":
        flat = np.ascontiguousarray(flat)
        return flat.view(flat.real.dtype)
    if flat.dtype.kind == "V" or flat.dtype == np.float16:
        # Extremes of narrow floats take ten times as long.
        return flat.astype(np.float32)
    return flat


def extent(array: Array) -> tuple[float, bool]:
    """The greatest finite magnitude in an array, and whether all its elements are one and the same.

    Returns:
        (0.0, ...) for text, and where nothing is finite.
    """
    flat = array.ravel()
    if flat.size == 0:
        return 0.0, False
    if is_text(flat):
        return 0.0, bool(np.all(flat == flat[0]))
    flat = real_parts(flat)
    low, high = flat.min(), flat.max()
    constant = bool(low == high) or bool(flat[0] != flat[0] and np.isnan(flat).all())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = flat[np.isfinite(flat)]
        if finite.size == 0:
            return 0.0, constant
        low, high = finite.min(), finite.max()
    # By way of Python's numbers: the magnitude of the least int8 isn't an int8.
    return float(max(abs(low.item()), abs(high.item()))), constant


def same_bits(first: Array, second: Array) -> bool:
    """Decide whether two arrays have one dtype, one shape and one content.

    NaN payloads and signs of zero are included.
    """
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if is_text(first):
        return bool(np.all(first == second))
    left_bits, right_bits = _bits(first), _bits(second)
    step = 16 * CHUNK
    for start in range(0, left_bits.size, step):
        if not np.array_equal(
            left_bits[start : start + step], right_bits[start : start + step]
        ):
            return False
    return True


def measure(
    reference: Array, candidate: Array, *, rtol: float, atol: float, sketched: bool = False
) -> Measured:
    """Measure ``candidate`` against ``reference``, which has as many elements.

    Args:
        reference: numbers or text of any dtype and shape.
        candidate: the same number of elements; they're paired in C order.
        rtol: relative bound of an element.
        atol: absolute bound of an element.
        sketched: keep the distribution of the errors too; not for text.
    """
    result = Measured(size=reference.size, rtol=rtol, atol=atol)
    if is_text(reference):
        _measure_text(result, reference.ravel(), candidate.ravel())
        return result
    if sketched:
        result.sketch = Sketch(reference.size)
    if same_bits(reference, candidate):
        if result.sketch is not None:
            result.sketch.add_equal(reference.size)
        scale, _ = extent(reference)
        result.equal = True
        result.finite = reference.size
        result.max_rel = 0.0 if scale > 0 else None
        # A stand-in for the three sums: all that is read of them is whether they are 0, so they
        # needn't be computed.
        result.signal = result.candidate = result.product = scale
        return result
    flat_reference, flat_candidate = reference.ravel(), candidate.ravel()
    if reference.dtype.kind == "c":
        flat_reference, flat_candidate = (
            real_parts(flat_reference),
            real_parts(flat_candidate),
        )
    # Overflow and 0/0 are expected here, and dealt with by value.
    with np.errstate(all="ignore"):
        for start in range(0, flat_reference.size, CHUNK):
            _measure_chunk(
                result,
                start,
                flat_reference[start : start + CHUNK],
                flat_candidate[start : start + CHUNK],
            )
    return result


def _finite_positions(
    result: Measured, start: int, reference: Array, candidate: Array
) -> NDArray[np.intp]:
    """The positions where both are finite; what differs elsewhere is added to ``result``."""
    finite = np.isfinite(reference) & np.isfinite(candidate)
    same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
    wrong = np.flatnonzero(~(finite | same))
    if wrong.size:
        result.nonfinite += wrong.size
        if result.nonfinite_at is None:
            result.nonfinite_at = start + int(wrong[0])
    return np.flatnonzero(finite)


def _measure_chunk(
    result: Measured, start: int, reference_chunk: Array, candidate_chunk: Array
) -> None:
    """Add one piece to ``result``."""
    reference = reference_chunk.astype(np.float64)
    candidate = candidate_chunk.astype(np.float64)
    positions: NDArray[np.intp] | None = None
    signal, power = _dot(reference, reference), _dot(candidate, candidate)
    if not (math.isfinite(signal) and math.isfinite(power)):
        positions = _finite_positions(result, start, reference, candidate)
        reference_chunk, reference = reference_chunk[positions], reference[positions]
        candidate_chunk, candidate = candidate_chunk[positions], candidate[positions]
        signal, power = _dot(reference, reference), _dot(candidate, candidate)
    if reference.size == 0:
        return

    def place(index: int) -> int:
        return start + (index if positions is None else int(positions[index]))

    result.finite += reference.size
    result.signal += signal
    result.candidate += power
    result.product += _dot(reference, candidate)
    difference = _difference(reference_chunk, candidate_chunk, reference, candidate)
    result.error += _dot(difference, difference)
    np.abs(difference, out=difference)
    furthest = int(difference.argmax())
    if difference[furthest] > result.max_abs:
        result.max_abs = float(difference[furthest])
        result.greatest_at = place(furthest)
    if np.count_nonzero(difference) < difference.size:
        signs_differ = np.signbit(reference) != np.signbit(candidate)
        flipped = np.flatnonzero((difference == 0) & signs_differ)
        if flipped.size:
            result.signed_zero += flipped.size
            if result.signed_zero_at is None:
                result.signed_zero_at = place(int(flipped[0]))

    magnitude = np.abs(reference, out=reference)
    if result.sketch is not None:
        result.sketch.add_errors(difference, magnitude)
    allowed = np.multiply(magnitude, result.rtol, out=candidate)
    allowed += result.atol
    result.beyond += int(np.count_nonzero(difference > allowed))
    _see_relative(result, difference, magnitude)
    # With both bounds 0 every difference is infinitely beyond them: the greatest is then the worst.
    exact = result.rtol == 0 and result.atol == 0
    ratio = difference if exact else np.divide(difference, allowed, out=allowed)
    if result.atol == 0:
        ratio[difference == 0] = 0.0
    if result.sketch is not None and not exact:
        result.sketch.add_shares(ratio)
    index = int(ratio.argmax())
    if ratio[index] > result.worst:
        result.worst = float(ratio[index])
        result.worst_at = place(index)


def _see_relative(result: Measured, difference: Float64s, magnitude: Float64s) -> None:
    """Keep the greatest relative difference where the reference isn't 0.

    Args:
        result: what was measured so far.
        difference: its magnitude by element.
        magnitude: of the reference by element; overwritten.
    """
    nonzero = np.count_nonzero(magnitude)
    if nonzero:
        if nonzero < magnitude.size:
            magnitude[magnitude == 0] = math.inf
        greatest = float(np.divide(difference, magnitude, out=magnitude).max())
        result.max_rel = max(result.max_rel or 0.0, greatest)


def _measure_text(result: Measured, reference: Array, candidate: Array) -> None:
    unequal = np.flatnonzero(reference.astype(object) != candidate.astype(object))
    result.equal = unequal.size == 0
    result.beyond = unequal.size
    if unequal.size:
        result.worst = math.inf
        result.worst_at = int(unequal[0])


def _difference(
    reference_chunk: Array, candidate_chunk: Array, reference: Float64s, candidate: Float64s
) -> Float64s:
    """The candidate less the reference.

    For 64-bit integers its magnitude, which float64 copies can't give.
    """
    if (
        reference_chunk.dtype == candidate_chunk.dtype
        and reference_chunk.dtype.kind in "iu"
        and reference_chunk.dtype.itemsize == 8
    ):
        gap = np.maximum(reference_chunk, candidate_chunk) - np.minimum(
            reference_chunk, candidate_chunk
        )
        return gap.view(np.uint64).astype(np.float64)
    return np.subtract(candidate, reference)


def _dot(first: Float64s, second: Float64s) -> float:
    # Not `@`: BLAS would start its own threads, and they'd still be spinning when the latency stage
    # begins.
    return float(np.einsum("i,i->", first, second))


def _bits(array: Array) -> Array:
    flat = np.ascontiguousarray(array).ravel()
    return flat.view(
        {1: np.uint8, 2: np.uint16, 4: np.uint32}.get(flat.dtype.itemsize, np.uint64)
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
