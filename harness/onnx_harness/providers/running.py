"""Running a session on named values, whatever their types."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import InputError

if TYPE_CHECKING:
    import onnxruntime as ort

# ONNX Runtime's arrays carry these to and from Python only as raw bytes; the names are its own.
_RAW_TYPES = {
    f"tensor({name})"
    for name in ("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0")
}
_PACKED_TYPES = {f"tensor({name})" for name in ("int4", "uint4", "int2", "uint2", "float4e2m1")}


def run(session: ort.InferenceSession, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``session`` on what it takes of ``values``; outputs by name.

    It runs on copies: ONNX Runtime 1.32 lets BatchNormalization in training mode write its running statistics into the
    caller's arrays, and what runs next would be judged on other inputs.

    Raises:
        InputError: a value is of a type that can't be handed to ONNX Runtime, or had back, from Python.
        Exception: whatever ONNX Runtime raises about the model.
    """
    inputs = [info for info in session.get_inputs() if info.name in values]
    outputs = session.get_outputs()
    names = [info.name for info in outputs]
    types = {info.type for info in (*inputs, *outputs)}
    if not types & (_RAW_TYPES | _PACKED_TYPES):
        copies = {info.name: _copy(values[info.name]) for info in inputs}
        return dict(zip(names, session.run(names, copies), strict=True))
    for kind in sorted(types):
        if kind in _PACKED_TYPES or not kind.startswith("tensor("):
            raise InputError(f"a value of type {kind} can't be handed over between Python and ONNX Runtime")
    feeds = {info.name: _ort_value(values[info.name], info.type) for info in inputs}
    return dict(zip(names, map(_array, session.run_with_ort_values(names, feeds)), strict=True))


def feeds_for(session: ort.InferenceSession, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with float32 tensors cast where a transformed model takes a half type; its check allowed that."""
    import ml_dtypes
    import numpy as np

    halves = {"tensor(float16)": np.float16, "tensor(bfloat16)": ml_dtypes.bfloat16}
    taken = {info.name: halves[info.type] for info in session.get_inputs() if info.type in halves}
    with np.errstate(over="ignore"):  # what an unusual set holds may be infinite in a half type
        return {
            name: value.astype(taken[name]) if name in taken and value.dtype == np.float32 else value
            for name, value in values.items()
        }


def _copy(value: Any) -> Any:
    return [each.copy() for each in value] if isinstance(value, list) else value.copy()


def _ort_value(array: Any, kind: str) -> ort.OrtValue:
    import numpy as np
    import onnx
    import onnxruntime as ort

    array = np.array(array, order="C")  # a copy, too
    if kind not in _RAW_TYPES:
        return ort.OrtValue.ortvalue_from_numpy(array)
    raw = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, element)


def _array(value: ort.OrtValue) -> Any:
    import numpy as np
    import onnx

    if value.data_type() not in _RAW_TYPES:
        return value.numpy()
    if value.device_name() != "cpu":
        raise InputError(f"an output of type {value.data_type()} lies on {value.device_name()}, out of numpy's reach")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.element_type())
    shape = tuple(value.shape())
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=dtype).reshape(shape)
