"""Float32 values to float16 without losing a sign, a zero or an infinity: the clamp of the float16 conversions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MIN_POSITIVE_VAL = 1e-7
MAX_FINITE_VAL = 1e4

# Half the smallest subnormal of float16: it and everything below rounds to zero.
_ROUNDS_TO_ZERO = 2.0**-25
_LARGEST = 65504.0

# What fits the second-level cache beside its copies; above it, ONNX Runtime's Cast beats numpy's scalar one.
_CHUNK = 1 << 16


def check_limits(min_positive_val: float = MIN_POSITIVE_VAL, max_finite_val: float = MAX_FINITE_VAL) -> None:
    """Refuse limits that can't do what they are for.

    Raises:
        ValueError: a limit is NaN, rounds to zero or to infinity in float16, or the two are the wrong way round.
    """
    if min_positive_val != min_positive_val or max_finite_val != max_finite_val:
        raise ValueError("min_positive_val and max_finite_val are limits, and NaN is none")
    if min_positive_val <= _ROUNDS_TO_ZERO:
        raise ValueError(
            f"min_positive_val is {min_positive_val:g}, which rounds to 0 in float16: it must be above 2^-25 (2.98e-8)"
        )
    if max_finite_val > _LARGEST:
        raise ValueError(f"max_finite_val is {max_finite_val:g}, and the largest finite float16 is {_LARGEST:g}")
    if min_positive_val > max_finite_val:
        raise ValueError(f"min_positive_val {min_positive_val:g} is above max_finite_val {max_finite_val:g}")


def convert_np_to_float16(
    array: npt.NDArray[np.floating[Any]] | np.floating[Any],
    min_positive_val: float = MIN_POSITIVE_VAL,
    max_finite_val: float = MAX_FINITE_VAL,
) -> npt.NDArray[np.float16]:
    """Round to float16, bringing magnitudes into ``[min_positive_val, max_finite_val]`` first.

    0 < |x| < min becomes min and max < |x| < inf becomes max, each with the sign of x; NaN, 0, -0, inf and -inf stay.
    Bit for bit what onnxconverter-common's function of the same name gives, NaN payloads aside.

    Args:
        array: of any floating dtype, byte order, shape and layout; not changed.
        min_positive_val: smallest magnitude kept, compared in the dtype of ``array``.
        max_finite_val: largest finite magnitude kept, compared in the dtype of ``array``.

    Returns:
        A new float16 array of the same shape, C-contiguous.

    Raises:
        ValueError: the limits can't hold in float16.
        TypeError: the array isn't of a floating dtype.
    """
    import numpy as np

    check_limits(min_positive_val, max_finite_val)
    source = np.asarray(array)
    if not np.issubdtype(source.dtype, np.floating):
        raise TypeError(f"only floating dtypes are converted to float16, not {source.dtype}")
    flat = source.reshape(-1)
    result = np.empty(flat.shape, np.float16)
    smallest, largest = source.dtype.type(min_positive_val), source.dtype.type(max_finite_val)
    for start in range(0, flat.size, _CHUNK):
        chunk = np.ascontiguousarray(flat[start : start + _CHUNK], dtype=source.dtype.newbyteorder("="))
        result[start : start + _CHUNK] = _round(_clamp(chunk, smallest, largest))
    return result.reshape(source.shape)


def _clamp(
    chunk: npt.NDArray[np.floating[Any]], smallest: np.floating[Any], largest: np.floating[Any]
) -> npt.NDArray[np.floating[Any]]:
    import numpy as np

    magnitude = np.abs(chunk)
    low = (magnitude < smallest) & (magnitude > 0)
    high = (magnitude > largest) & (magnitude < np.inf)
    if low.any() or high.any():
        chunk = np.where(low, np.copysign(smallest, chunk), np.where(high, np.copysign(largest, chunk), chunk))
    return chunk


def _round(chunk: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float16]:
    import numpy as np

    if chunk.dtype == np.float32 and chunk.size == _CHUNK:
        rounded: npt.NDArray[np.float16] = _cast_session().run(None, {"x": chunk})[0]
        return rounded
    return chunk.astype(np.float16)


@cache
def _cast_session() -> Any:
    """A session that casts float32 to float16: numpy does it one value at a time, ONNX Runtime at memory speed."""
    import onnx
    import onnxruntime

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> cast (float[n] x) => (float16[n] y) { y = Cast<to = 10>(x) }'
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
