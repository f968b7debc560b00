"""Floats to float16 without losing a sign, a zero or an infinity.

The clamp of the float16 conversions.

The values are cast first and looked at afterwards, in float16, where that is cheap: rounding is
monotone, so a value that needs the clamp lands on a limit or beyond. Only a chunk that holds such a
value is clamped, on the bits of its values and without a branch, and cast again. Nothing here does
arithmetic on subnormal numbers, so a library that makes the processor flush them to zero changes no
result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx_harness.transforms.float16_limits import LAYOUTS, Layout, Limits, working_dtype
from onnx_harness.transforms.float16_rounding import (
    from_longdouble,
    round_to_half,
    to_odd_single,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]
    Bits = npt.NDArray[np.unsignedinteger[Any]]

MIN_POSITIVE_VAL = 1e-7
MAX_FINITE_VAL = 1e4

# Half the smallest subnormal of float16: it and everything below rounds to zero.
_ROUNDS_TO_ZERO = 2.0**-25
_LARGEST = 65504.0

# Large enough for the calls to cost nothing beside the work, small enough for a core's own cache:
# four times as much takes a third longer where ONNX Runtime casts at the speed of memory.
_CHUNK = 1 << 16

# Up to here calls cost more than the work.
_SMALL = 1 << 13

# Where at most one value in so many may need the clamp, those alone are worked on.
_FEW = 16


@dataclass(frozen=True, slots=True)
class Clamped:
    """A float16 array and what it took to get there.

    Attributes:
        array: float16, with the shape and the memory order of what was converted.
        raised: how many non-zero magnitudes lay below ``min_positive_val``.
        lowered: how many finite magnitudes lay above ``max_finite_val``.
        smallest: the smallest magnitude that was raised; None where none was.
        largest: the largest magnitude that was lowered; None where none was.
    """

    array: npt.NDArray[np.float16]
    raised: int = 0
    lowered: int = 0
    smallest: float | None = None
    largest: float | None = None


def check_limits(
    min_positive_val: float = MIN_POSITIVE_VAL, max_finite_val: float = MAX_FINITE_VAL
) -> None:
    """Refuse limits that can't do what they are for.

    Raises:
        ValueError: a limit is NaN, rounds to zero or to infinity in float16, or the two are the
            wrong way round.
    """
    if min_positive_val != min_positive_val or max_finite_val != max_finite_val:
        raise ValueError("min_positive_val and max_finite_val are limits, and NaN is none")
    if min_positive_val <= _ROUNDS_TO_ZERO:
        raise ValueError(
            f"min_positive_val is {min_positive_val:g}, which rounds to 0 in float16: it must be "
            f"above 2^-25 (2.98e-8)"
        )
    if max_finite_val > _LARGEST:
        raise ValueError(
            f"max_finite_val is {max_finite_val:g}, and the largest finite float16 is {_LARGEST:g}"
        )
    if min_positive_val > max_finite_val:
        raise ValueError(
            f"min_positive_val {min_positive_val:g} is above max_finite_val {max_finite_val:g}"
        )


def convert_np_to_float16(
    array: npt.ArrayLike,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
) -> npt.NDArray[np.float16]:
    """Round to float16, bringing magnitudes into ``[min_positive_val, max_finite_val]`` first.

    The array of `clamp`, under the name and the arguments of onnxconverter-common's function.
    """
    return clamp(array, min_positive_val, max_finite_val).array


def clamp(
    array: npt.ArrayLike,
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
    places: list[npt.NDArray[np.intp]] | None = None,
) -> Clamped:
    """Round to float16, and count the changed magnitudes.

    They're brought into ``[min_positive_val, max_finite_val]`` first.

    0 < |x| < min becomes min and max < |x| < inf becomes max, each with the sign of x; NaN, 0, -0,
    inf and -inf stay. The result is rounded to the nearest, ties to even, and is bit for bit what
    onnxconverter-common's ``convert_np_to_float16`` gives, NaN payloads aside. That function
    compares and replaces in the dtype that numpy gives array and limit together (float32 for a
    float32 array and a Python float, float64 for bfloat16): so does this one, and a limit is
    rounded to that dtype before it is rounded to float16.

    Args:
        array: of any floating dtype (those of ml_dtypes included), byte order, shape and layout;
            not changed. A longdouble is rounded to float32 first, as numpy's own cast does.
        min_positive_val: smallest non-zero magnitude kept.
        max_finite_val: largest finite magnitude kept.
        places: if given, gets arrays of the places of what was raised or lowered, counted in the
            order of memory.

    Returns:
        A new array in native byte order with the shape and the memory order of ``array``, and the
        account.

    Raises:
        ValueError: the limits can't hold in float16.
        TypeError: the array isn't of a floating dtype.
    """
    import numpy as np

    check_limits(min_positive_val, max_finite_val)
    source = np.asarray(array)
    dtype = working_dtype(source.dtype)
    with np.errstate(all="ignore"):
        limits = Limits.of(source.dtype, dtype, min_positive_val, max_finite_val)
        if source.size <= _SMALL and source.dtype == dtype == np.float32 and source.ndim:
            halves = _rounded_unclamped(source, limits)
            if halves is not None:
                return Clamped(halves)
        result = np.empty_like(source, np.float16, subok=False)
        if not source.size:
            return Clamped(result)
        tally = _Tally(places=places)
        if source.dtype == dtype and source.flags.aligned and source.flags.c_contiguous:
            flat, halves = source.reshape(-1), result.reshape(-1)
            for start in range(0, flat.size, _CHUNK):
                tally.start, end = start, start + _CHUNK
                _convert(flat[start:end], halves[start:end], limits, tally)
        else:
            _convert_any(source, result, limits, tally)
    return Clamped(result, *tally.account(dtype))


def _rounded_unclamped(
    source: npt.NDArray[np.float32], limits: Limits
) -> npt.NDArray[np.float16] | None:
    """Return a small array rounded to float16; None where some of it needs the clamp.

    For few values the number of calls counts: these are a third of `_convert`'s, zeros among them.
    """
    import numpy as np

    if not source.size:
        return None
    magnitudes = source.view(np.uint32) & 0x7FFFFFFF
    if np.maximum.reduce(magnitudes, axis=None) > limits.counted[1]:
        return None
    magnitudes -= 1  # zero is the greatest now
    if np.minimum.reduce(magnitudes, axis=None) < limits.counted[0] - 1:
        return None
    return source.astype(np.float16)


def _convert_any(
    source: npt.NDArray[Any], result: npt.NDArray[np.float16], limits: Limits, tally: _Tally
) -> None:
    """Write the float16 values of an array of any layout and byte order to ``result``."""
    import numpy as np

    extended = source.dtype.kind == "f" and source.dtype.itemsize > 8
    dtype = source.dtype.newbyteorder("=") if extended else working_dtype(source.dtype)
    # It walks both in the order of memory and copies only what isn't contiguous, aligned and
    # native.
    chunks = np.nditer(  # type: ignore[call-overload]  # numpy's stubs spell the flag "contig" as "config"
        [source, result],
        flags=["external_loop", "buffered"],
        op_flags=[["readonly", "nbo", "aligned", "contig"], ["writeonly", "contig"]],
        op_dtypes=[dtype, np.float16],
        casting="unsafe",
        buffersize=_CHUNK,
    )
    with chunks:
        for chunk, halves in chunks:
            _convert(chunk, halves, limits, tally)
            tally.start += chunk.size


@dataclass(slots=True)
class _Tally:
    """The account so far.

    Magnitudes are bits of the working dtype, whose order is that of the values.

    Attributes:
        places: see `clamp`.
        start: place of the chunk at hand.
    """

    places: list[npt.NDArray[np.intp]] | None = None
    start: int = 0
    raised: int = 0
    lowered: int = 0
    smallest: int | None = None
    largest: int | None = None

    def add(
        self,
        bits: Bits,
        layout: Layout,
        limits: tuple[int, int],
        positions: npt.NDArray[np.intp] | None = None,
    ) -> None:
        """Count what of ``bits`` is beyond the limits, zeros, infinities and NaN aside.

        Args:
            bits: of the whole chunk, or of those values of it whose places in it are ``found``.
            layout: of the bits.
            limits: see `Limits.counted`.
            positions: None for the whole chunk.
        """
        import numpy as np

        turn = 1 << bits.itemsize * 8
        # Turned by one, zero is the greatest of all; turned on by infinity, infinity and NaN are
        # the smallest.
        turned: Bits = np.bitwise_and(bits, layout.sign - 1)
        turned -= 1
        raised = np.count_nonzero(turned < limits[0] - 1)
        if raised:
            least = int(turned.min()) + 1
            self.smallest = least if self.smallest is None else min(least, self.smallest)
        turned -= layout.infinity - 1
        lowered = np.count_nonzero(turned > limits[1] - layout.infinity + turn)
        if lowered:
            greatest = int(turned.max()) + layout.infinity - turn
            self.largest = greatest if self.largest is None else max(greatest, self.largest)
        self.raised += int(raised)
        self.lowered += int(lowered)
        if self.places is not None and (raised or lowered):
            magnitudes = np.bitwise_and(bits, layout.sign - 1)
            low = (magnitudes > 0) & (magnitudes < limits[0])
            places = np.flatnonzero(
                low | ((magnitudes > limits[1]) & (magnitudes < layout.infinity))
            )
            self.places.append(
                self.start + (places if positions is None else positions[places])
            )

    def account(self, dtype: np.dtype[Any]) -> tuple[int, int, float | None, float | None]:
        import numpy as np

        def value(bits: int | None) -> float | None:
            return (
                None
                if bits is None
                else float(np.array(bits, f"u{dtype.itemsize}").view(dtype))
            )

        return self.raised, self.lowered, value(self.smallest), value(self.largest)


def _convert(
    chunk: Floats, halves: npt.NDArray[np.float16], limits: Limits, tally: _Tally
) -> None:
    """Write the float16 values of ``chunk`` to ``halves``.

    Both are contiguous, aligned and one-dimensional.
    """
    import numpy as np

    if chunk.itemsize > 8:
        chunk = from_longdouble(chunk)
    singles = to_odd_single(chunk) if chunk.itemsize == 8 else chunk
    round_to_half(singles, halves)
    magnitudes = halves.view(np.uint16) & 0x7FFF
    # What isn't above the lower limit turns over to the top.
    magnitudes -= limits.half[0] + 1
    least = max(limits.half[1] - limits.half[0] - 1, 0)
    if magnitudes.max() < least:
        return
    suspects = magnitudes >= least
    count = np.count_nonzero(suspects)
    if count == np.count_nonzero(chunk == 0):  # they are the zeros, which stay
        return
    layout = LAYOUTS[chunk.itemsize]
    if count * _FEW >= chunk.size:
        suspects &= (
            chunk.view(layout.unsigned) & (layout.sign - 1)
        ) != 0  # zeros stay, and are often many
    if np.count_nonzero(suspects) * _FEW < chunk.size:
        positions = np.flatnonzero(suspects)
        values = chunk[positions]
        if (values.view(layout.unsigned) & (layout.sign - 1)).any():
            mended = np.empty(positions.shape, np.float16)
            _settle(values, singles[positions], mended, limits, tally, positions)
            halves[positions] = mended
    else:
        _settle(chunk, singles, halves, limits, tally)


def _settle(
    chunk: Floats,
    singles: Floats,
    halves: npt.NDArray[np.float16],
    limits: Limits,
    tally: _Tally,
    positions: npt.NDArray[np.intp] | None = None,
) -> None:
    """Count and clamp ``chunk``, of which ``singles`` are what is left to round.

    See `_Tally.add`.
    """
    layout = LAYOUTS[chunk.itemsize]
    tally.add(chunk.view(layout.unsigned), layout, limits.counted, positions)
    layout = LAYOUTS[singles.itemsize]
    clamped = _clamp(
        singles.view(layout.unsigned),
        layout,
        limits.half if singles.itemsize == 2 else limits.single,
    )
    round_to_half(clamped.view(singles.dtype), halves)


def _clamp(bits: Bits, layout: Layout, limits: tuple[int, int]) -> Bits:
    """Bring magnitudes between the limits; zeros, infinities, NaN and signs stay."""
    import numpy as np

    # The turns of _Tally.add: what must stay is out of the way of the maximum, then of the minimum.
    turned: Bits = np.bitwise_and(bits, layout.sign - 1)
    turned -= 1
    np.maximum(turned, limits[0] - 1, out=turned)
    turned -= layout.infinity - 1
    np.minimum(turned, limits[1] - layout.infinity + (1 << bits.itemsize * 8), out=turned)
    turned += layout.infinity
    turned |= np.bitwise_and(bits, layout.sign)
    return turned
