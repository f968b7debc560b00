"""Arrays for the laws of the clamp: any dtype, any layout, and values where rounding and clamping
turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.properties.clamp_oracle import Floats, Limits

# The limits of the documentation, those of ONNX Runtime's own tool, and the widest that hold in any
# dtype here.
WIDEST = (float(np.nextafter(np.float32(2.0**-25), np.float32(1))), 65504.0)
NAMED_LIMITS = ((1e-7, 1e4), (5.96e-8, 65504.0), WIDEST, (1.0, 1.0))
DTYPES = [
    np.dtype(each)
    for each in (
        np.float32,
        np.float64,
        np.float16,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e4m3fnuz,
    )
]


def around(
    halves: npt.ArrayLike, midway: npt.ArrayLike, nudge: npt.ArrayLike, single: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Float16 values given by their bits, or the points midway to the next, so many steps of
    float32 or float64 off.
    """
    magnitude = np.asarray(halves, np.int64) & 0x7FFF
    step = np.ldexp(1.0, np.maximum(magnitude >> 10, 1) - 25)
    value = (magnitude - (np.maximum(magnitude >> 10, 1) - 1) * 1024) * step + np.where(
        midway, step / 2, 0.0
    )
    # Adding to the bits of a float64 goes to its neighbours; those of float32 are 2^29 as far.
    # What goes below zero that way is a NaN, which is as good.
    bits = value.view(np.int64) + np.asarray(nudge, np.int64) * np.where(single, 1 << 29, 1)
    found = np.abs(np.atleast_1d(bits).view(np.float64))
    return np.where(np.atleast_1d(halves).astype(np.int64) & 0x8000, -found, found)


def cast(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> Floats:
    with np.errstate(all="ignore"):
        narrowed: Floats = values.astype(dtype)
    return narrowed


def bulk(seed: int, size: int, dtype: np.dtype[Any]) -> Floats:
    """Random values: half of any bits at all, half around those of float16."""
    rng = np.random.default_rng(seed)
    # The bits are drawn in the dtype itself, so that its subnormals and its NaN payloads come up as
    # well.
    anything = rng.integers(0, 256, (size - size // 2) * dtype.itemsize, np.uint8).view(
        dtype
    )
    turning = around(
        rng.integers(0, 1 << 16, size // 2),
        rng.integers(0, 2, size // 2),
        rng.integers(-2, 3, size // 2),
        rng.integers(0, 2, size // 2),
    )
    return rng.permutation(np.concatenate([anything, cast(turning, dtype)]))


LIMITS: st.SearchStrategy[Limits] = st.sampled_from(NAMED_LIMITS) | st.tuples(
    st.floats(2.0**-24, 1.0), st.floats(1.0, 65504.0)
)
_NEAR_LIMITS = [
    np.nextafter(np.float32(each), np.float32(to))
    for pair in NAMED_LIMITS
    for each in pair
    for to in (0, 9e9)
]
_TURNING = st.builds(
    lambda *how: float(around(*how)[0]),
    st.integers(0, 0xFFFF),
    st.booleans(),
    st.integers(-2, 2),
    st.booleans(),
)
VALUES = (
    st.floats(allow_subnormal=True)
    | st.floats(width=32, allow_subnormal=True)
    | _TURNING
    | st.sampled_from([float(sign * each) for each in _NEAR_LIMITS for sign in (1, -1)])
)
LAYOUTS: dict[str, Callable[[Floats], Floats]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "transposed": np.transpose,
    "backwards": np.flip,
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array,
    "repeated": lambda array: (
        np.broadcast_to(array[:1], array.shape) if array.ndim else array
    ),
    "unaligned": lambda array: (
        np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:]
        .view(array.dtype)
        .reshape(array.shape)
    ),
    "big-endian": lambda array: (
        # ml_dtypes knows no byte orders
        array.astype(array.dtype.newbyteorder(">"))
        if np.issubdtype(array.dtype, np.floating)
        else array
    ),
}


@st.composite
def arrays(draw: st.DrawFn) -> Floats:
    """Small arrays of any dtype, shape and layout, some of them read-only."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    values = cast(
        draw(hnp.arrays(np.float64, shape, elements=VALUES)), draw(st.sampled_from(DTYPES))
    )
    array = np.asarray(LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](values))
    if draw(st.booleans()):
        array.flags.writeable = False
    return array
