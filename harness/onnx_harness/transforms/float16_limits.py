"""The limits of the float16 clamp, as bits of the formats that they are compared in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of an IEEE 754 binary interchange format in an unsigned integer of its size."""

    unsigned: str
    sign: int
    infinity: int


LAYOUTS = {
    2: Layout("uint16", 0x8000, 0x7C00),
    4: Layout("uint32", 1 << 31, 0xFF << 23),
    8: Layout("uint64", 1 << 63, 0x7FF << 52),
}


@lru_cache(maxsize=64)
def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The native dtype that chunks are worked on in.

    It holds the values exactly, but for those of a longdouble.
    """
    import numpy as np

    if np.issubdtype(dtype, np.floating):
        return dtype.newbyteorder("=") if dtype.itemsize in LAYOUTS else np.dtype(np.float32)
    import ml_dtypes

    try:
        ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    except (TypeError, ValueError):
        is_supported = False
    else:
        is_supported = dtype.kind != "c"
    if not is_supported:
        raise TypeError(f"only floating dtypes are converted to float16, not {dtype}")
    return np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Limits:
    """The two limits as bits of the formats that they are compared in.

    Attributes:
        half: in float16, where every value that needs the clamp is at or beyond them.
        single: the same two values in float32. A magnitude brought between them rounds as one
            brought between the limits themselves, since rounding is monotone.
        counted: the least value that isn't raised and the greatest that isn't lowered, in the
            working dtype.
    """

    half: tuple[int, int]
    single: tuple[int, int]
    counted: tuple[int, int]

    @classmethod
    @lru_cache(maxsize=64, typed=True)
    def of(
        cls, dtype: np.dtype[Any], working: np.dtype[Any], low: float, high: float
    ) -> Limits:
        """Return those of an array's dtype, and of the dtype that it's worked on in.

        Raises:
            ValueError: the least magnitude rounds to 0 in float16.
        """
        import numpy as np

        first = _compared_in(dtype, low)
        exact = first.type(low), _compared_in(first, high).type(high)
        halves = np.float16(exact[0]), np.float16(exact[1])
        if not halves[0]:
            raise ValueError(
                f"min_positive_val is {low:g}, which is 2^-25 in {dtype} and rounds to 0 in float16"
            )
        least = working.type(exact[0])
        greatest = working.type(exact[1])
        if least < exact[0]:
            least = np.nextafter(least, working.type(np.inf))
        if greatest > exact[1]:
            greatest = np.nextafter(greatest, working.type(0))
        return cls(
            half=(_bits(halves[0]), _bits(halves[1])),
            single=(_bits(np.float32(halves[0])), _bits(np.float32(halves[1]))),
            counted=(_bits(least), _bits(greatest)),
        )


def _compared_in(dtype: np.dtype[Any], limit: float) -> np.dtype[Any]:
    """Return what numpy compares an array of ``dtype`` and a limit in."""
    import numpy as np

    try:
        # An int would take the dtype of the array, and bfloat16 makes 65536 of 65504.
        return np.result_type(
            dtype, limit if isinstance(limit, np.floating) else float(limit)
        )
    except TypeError:  # bfloat16 and float16 have no dtype in common
        return np.dtype(np.float64)


def _bits(value: np.floating[Any]) -> int:
    return int(value.view(LAYOUTS[value.itemsize].unsigned))
