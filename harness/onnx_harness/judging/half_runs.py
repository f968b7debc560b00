"""Run a model of a half type in float32, on inputs and to outputs of the types that it had."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnx_harness import providers
from onnx_harness.model.file import INLINE_BYTES
from onnx_harness.providers.sessions import Purpose, open_session

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort


# Of TensorProto: onnx is imported where it's needed.
NARROW = {"float16": 10, "bfloat16": 16}


def open_simulated(model: onnx.ModelProto, size: int, *, level: str) -> ort.InferenceSession:
    """A session on the CPU; a model that no message holds goes by way of a file."""

    def opened(source: Path | bytes) -> ort.InferenceSession:
        cpu = providers.get("cpu")
        return open_session(
            source, cpu, purpose=Purpose.ACCURACY, level=level, record_placement=False
        )

    if size <= INLINE_BYTES:
        return opened(model.SerializeToString())
    with tempfile.TemporaryDirectory(prefix="onnx-harness-range-") as folder:
        from onnx_harness.model.saving import save

        file = Path(folder) / "model.onnx"
        save(model, file)
        return opened(file)


def float32_inputs(
    values: Mapping[str, Any], kinds: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """``values`` with float16 as float32, which is what the model takes now.

    Args:
        values: by input.
        kinds: of inputs: ``float16`` or ``bfloat16`` where float32 has to be numbers of that type.
    """
    kinds_by_name = kinds or {}
    return {
        name: [_widened(item) for item in value]
        if isinstance(value, list)
        else _widened(value, kinds_by_name.get(name, ""))
        for name, value in values.items()
    }


def _widened(array: Any, kind: str = "") -> Any:
    if kind and array.dtype == "float32":
        with np.errstate(over="ignore"):
            array = array.astype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    return array.astype("float32") if array.dtype.name in NARROW else array


def in_type_of(value: Any, expected: Any) -> Any:
    """An output in the type of the reference's, where that is a narrower float."""
    if (
        getattr(expected, "dtype", None) == "float16"
        and getattr(value, "dtype", None) == "float32"
    ):
        return value.astype("float16")
    return value
