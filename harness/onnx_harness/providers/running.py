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
    "tensor(bfloat16)",
    "tensor(float8e4m3fn)",
    "tensor(float8e4m3fnuz)",
    "tensor(float8e5m2)",
    "tensor(float8e5m2fnuz)",
    "tensor(float8e8m0)",
}
_PACKED_TYPES = {
    f"tensor({name})" for name in ("int4", "uint4", "int2", "uint2", "float4e2m1")
}


def run(session: ort.InferenceSession, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``session`` on what it takes of ``values``; outputs by name.

    It runs on copies: ONNX Runtime 1.32 lets BatchNormalization in training mode write its running
    statistics into the caller's arrays, and what runs next would be judged on other inputs.

    Raises:
        InputError: a value is of a type that can't be handed to ONNX Runtime, or had back, from
            Python.
        Exception: whatever ONNX Runtime raises about the model.
    """
    inputs = [info for info in session.get_inputs() if info.name in values]
    outputs = session.get_outputs()
    names = [info.name for info in outputs]
    types = {info.type for info in (*inputs, *outputs)}
    if types.isdisjoint(_RAW_TYPES | _PACKED_TYPES):
        copies = {info.name: _copy(values[info.name]) for info in inputs}
        results = session.run(names, copies)
        return dict(zip(names, results, strict=True))
    for type_name in sorted(types):
        if type_name in _PACKED_TYPES or not type_name.startswith("tensor("):
            raise InputError(
                f"a value of type {type_name} can't be handed over between Python and ONNX Runtime"
            )
    feeds = {info.name: _ort_value(values[info.name], info.type) for info in inputs}
    results = [_array(value) for value in session.run_with_ort_values(names, feeds)]
    return dict(zip(names, results, strict=True))


def feeds_for(session: ort.InferenceSession, values: Mapping[str, Any]) -> dict[str, Any]:
    """Cast float32 tensors of ``values`` where a transformed model has inputs of a half type.

    The transformed model's check has allowed these.
    """
    import ml_dtypes
    import numpy as np

    half_types = {"tensor(float16)": np.float16, "tensor(bfloat16)": ml_dtypes.bfloat16}
    feeds = dict(values)
    # What an unusual set holds may be infinite in a half type.
    with np.errstate(over="ignore"):
        for info in session.get_inputs():
            if info.name not in feeds or info.type not in half_types:
                continue
            if feeds[info.name].dtype == np.float32:
                feeds[info.name] = feeds[info.name].astype(half_types[info.type])
    return feeds


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [tensor.copy() for tensor in value]
    return value.copy()


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
        raise InputError(
            f"an output of type {value.data_type()} lies on {value.device_name()}, out of numpy's "
            "reach"
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.element_type())
    shape = tuple(value.shape())
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=dtype).reshape(
        shape
    )
