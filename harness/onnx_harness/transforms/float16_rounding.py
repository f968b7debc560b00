"""Round floats to float16, by ONNX Runtime's cast where that is faster than numpy's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]
    Bits = npt.NDArray[np.unsignedinteger[Any]]
    Caster = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float16]], None]


# From here on a call of ONNX Runtime is faster than numpy's cast, which takes one value at a time.
_WORTH_A_SESSION = 1 << 13


def from_longdouble(chunk: Floats) -> npt.NDArray[np.float32]:
    """Round to float32 as numpy's cast to float16 does, but to no zero and to no infinity."""
    import numpy as np

    singles = chunk.astype(np.float32)
    limits = np.finfo(np.float32)
    for lost, signed in (
        ((singles == 0) & (chunk != 0), limits.smallest_subnormal),
        (np.isinf(singles) & np.isfinite(chunk), limits.max),
    ):
        singles[lost] = np.copysign(signed, singles[lost])
    return singles


def to_odd_single(chunk: Floats) -> npt.NDArray[np.float32]:
    """Round float64 to float32 so that rounding on to float16 gives what rounding once would.

    That is rounding to odd (Boldo and Melquiond, "When double rounding is odd", 2005): an inexact
    value goes to the neighbour with an odd significand. So none becomes zero or infinite either.
    """
    import numpy as np

    singles = chunk.astype(np.float32)
    bits, back, exact = (
        singles.view(np.uint32),
        singles.astype(np.float64).view(np.uint64),
        chunk.view(np.uint64),
    )
    # Both have the same sign, so the greater bits are the greater magnitude: rounded up, not
    # towards zero.
    np.subtract(bits, back > exact, out=bits)
    np.bitwise_or(bits, back != exact, out=bits)
    return singles


def round_to_half(chunk: Floats, halves: npt.NDArray[np.float16]) -> None:
    """Round a chunk to float16, into an array of its size."""
    import numpy as np

    cast = (
        _ort_cast() if chunk.dtype == np.float32 and chunk.size >= _WORTH_A_SESSION else None
    )
    if cast is None:
        np.copyto(halves, chunk, casting="same_kind")
    else:
        cast(chunk, halves)


@cache
def _ort_cast() -> Caster | None:
    """ONNX Runtime's cast, which runs at the speed of memory.

    None without ONNX Runtime, or if it rounds otherwise.
    """
    import numpy as np

    try:
        import onnx
        import onnxruntime
    except ImportError:  # it comes with the extra of a provider
        return None
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> cast (float[n] x) => (float16[n] y) { y = '
        "Cast<to = 10>(x) }"
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def cast(chunk: npt.NDArray[np.float32], halves: npt.NDArray[np.float16]) -> None:
        binding = session.io_binding()  # one a call, since threads share the session
        binding.bind_input("x", "cpu", 0, np.float32, chunk.shape, chunk.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float16, halves.shape, halves.ctypes.data)
        session.run_with_iobinding(binding)

    # Ties and their neighbours at every exponent of float16: a build that truncates or flushes
    # shows here.
    ties = np.ldexp(np.float32(1 + 2.0**-11), np.arange(-25, 16)).astype(np.float32)
    subnormals = np.arange(1, 64, dtype=np.float32) * np.float32(2.0**-25)
    probes = np.concatenate([ties, 3 * ties, np.nextafter(ties, np.float32(0)), subnormals])
    probes = np.concatenate([probes, -probes])
    probes = probes[np.abs(probes) < 65520]
    halves = np.empty(probes.shape, np.float16)
    cast(probes, halves)
    return cast if halves.tobytes() == probes.astype(np.float16).tobytes() else None
