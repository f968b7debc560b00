"""The ``extra_options`` of onnxruntime.quantization, written ``Key=value``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_harness.errors import did_you_mean

# From the docstrings of quantize_static and quantize_dynamic, onnxruntime 1.32: those whose value
# can be written.
_BOOLS = (
    *("ActivationSymmetric", "ActivationRestrictedAsymmetric", "WeightSymmetric", "EnableSubgraph"),
    *("ForceQuantizeNoInputCheck", "MatMulConstBOnly", "AddQDQPairToWeight", "DedicatedQDQPair"),
    "CalibTensorRangeSymmetric",
    "CalibMovingAverage",
    "QuantizeBias",
    "SmoothQuant",
    "SmoothQuantFolding",
    "UseQDQContribOps",
    "QDQKeepRemovableActivations",
)
_FLOATS = ("CalibMovingAverageConstant", "SmoothQuantAlpha", "MinimumRealRange", "CalibPercentile")
_INTS = ("CalibMaxIntermediateOutputs",)
_TENSOR_TYPE = "DefaultTensorType"
# As onnx.TensorProto numbers them, written down because options are checked before onnx is
# imported.
_TENSOR_TYPES = {"FLOAT": 1, "FLOAT16": 10, "BFLOAT16": 16, "DOUBLE": 11}
KNOWN = (*_BOOLS, *_FLOATS, *_INTS, _TENSOR_TYPE)


def extra_options(written: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that words such as ``"ActivationSymmetric=true"`` say, or a mapping's.

    Another one is ``"DefaultTensorType=FLOAT"``.

    Raises:
        ValueError: one isn't known, or its value isn't of its type.
    """
    if isinstance(written, Mapping):
        items = [(str(key), value) for key, value in written.items()]
    else:
        items = [_item(text) for text in written]
    return {key: _value(key, value) for key, value in items}


def _item(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(
            f"extra_options: {text!r} has no value; one is written ActivationSymmetric=true"
        )
    return key.strip(), value.strip()


def _value(key: str, value: Any) -> Any:
    if key not in KNOWN:
        raise ValueError(f"extra_options: '{key}' isn't known. {did_you_mean(key, KNOWN, most=30)}")
    try:
        return _converted(key, value)
    except (ValueError, KeyError):
        kind = "true or false" if key in _BOOLS else "a number"
        expected = f"one of {', '.join(_TENSOR_TYPES)}" if key == _TENSOR_TYPE else kind
        raise ValueError(f"extra_options: {key} is {expected}; {value!r} isn't") from None


def _converted(key: str, value: Any) -> Any:
    if key in _BOOLS:
        return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
    if key == _TENSOR_TYPE:
        return value if value in _TENSOR_TYPES.values() else _TENSOR_TYPES[str(value).upper()]
    return float(value) if key in _FLOATS else int(value)
