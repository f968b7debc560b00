"""The ``extra_options`` of onnxruntime.quantization, written ``Key=value``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_harness.errors import NotApplicable, did_you_mean
from onnx_harness.transforms import remark

# From the docstrings of quantize_static and quantize_dynamic, onnxruntime 1.32: those whose value
# can be written.
_BOOLS = (
    *(
        "ActivationSymmetric",
        "ActivationRestrictedAsymmetric",
        "WeightSymmetric",
        "EnableSubgraph",
    ),
    *(
        "ForceQuantizeNoInputCheck",
        "MatMulConstBOnly",
        "AddQDQPairToWeight",
        "DedicatedQDQPair",
    ),
    "CalibTensorRangeSymmetric",
    "CalibMovingAverage",
    "QuantizeBias",
    "SmoothQuant",
    "SmoothQuantFolding",
    "UseQDQContribOps",
    "QDQKeepRemovableActivations",
)
_FLOATS = (
    "CalibMovingAverageConstant",
    "SmoothQuantAlpha",
    "MinimumRealRange",
    "CalibPercentile",
)
_INTS = ("CalibMaxIntermediateOutputs",)
_TENSOR_TYPE = "DefaultTensorType"
# As onnx.TensorProto numbers them, written down because options are checked before onnx is
# imported.
_TENSOR_TYPES = {"FLOAT": 1, "FLOAT16": 10, "BFLOAT16": 16, "DOUBLE": 11}
KNOWN = (*_BOOLS, *_FLOATS, *_INTS, _TENSOR_TYPE)
# Which option is read where, from the sources of onnxruntime 1.32: create_calibrator by the method,
# QDQQuantizer for static quantization alone, ONNXQuantizer for dynamic alone.
_READ_BY_METHOD = {
    "CalibMaxIntermediateOutputs": "minmax",
    "CalibMovingAverage": "minmax",
    "CalibMovingAverageConstant": "minmax",
    "CalibPercentile": "percentile",
}
_READ_WITH = {
    "CalibMovingAverageConstant": "CalibMovingAverage",
    "SmoothQuantAlpha": "SmoothQuant",
    "SmoothQuantFolding": "SmoothQuant",
}
_STATIC_ONLY = frozenset(
    {
        *(
            "AddQDQPairToWeight",
            "CalibTensorRangeSymmetric",
            "DedicatedQDQPair",
            "QuantizeBias",
        ),
        *("QDQKeepRemovableActivations", "SmoothQuant", "UseQDQContribOps"),
        *_READ_BY_METHOD,
        *_READ_WITH,
    }
)
_DYNAMIC_ONLY = frozenset({_TENSOR_TYPE, "EnableSubgraph", "MatMulConstBOnly"})
_SMOOTH_QUANT = "neural_compressor.adaptor.ox_utils.smooth_quant"


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


def static_options(
    written: Sequence[str] | Mapping[str, Any], calibration: str
) -> dict[str, Any]:
    """Return the options of static quantization, with a remark on those that it doesn't read.

    Args:
        written: as `extra_options` takes them.
        calibration: the method: ``minmax``, ``percentile`` or ``entropy``.

    Raises:
        ValueError: one isn't known, isn't of its type, or has no effect.
        NotApplicable: one takes a library that isn't installed.
    """
    options = extra_options(written)
    refuse_unread(options, calibration)
    _refuse_uninstalled(options)
    _remark_unread(options, static=True)
    return options


def dynamic_options(written: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of dynamic quantization, with a remark on those that it doesn't read.

    Args:
        written: as `extra_options` takes them.

    Raises:
        ValueError: one isn't known, or isn't of its type.
    """
    options = extra_options(written)
    _remark_unread(options, static=False)
    return options


def refuse_unread(options: Mapping[str, Any], calibration: str) -> None:
    """Refuse an option of static quantization that another one beside it keeps from being read.

    Args:
        options: as `extra_options` returns them.
        calibration: the method: ``minmax``, ``percentile`` or ``entropy``.

    Raises:
        ValueError: one has no effect.
    """
    for key in options:
        method = _READ_BY_METHOD.get(key)
        if method is not None and method != calibration.lower():
            raise ValueError(
                f"extra_options: {key} has no effect with calibration='{calibration.lower()}': "
                f"it's read with calibration='{method}'"
            )
        switch = _READ_WITH.get(key)
        if switch is not None and not options.get(switch):
            raise ValueError(
                f"extra_options: {key} has no effect without '{switch}=true' beside it"
            )


def _remark_unread(options: Mapping[str, Any], *, static: bool) -> None:
    """Remark on options that the other kind of quantization alone reads.

    A list of them may be meant for both, and so they aren't refused.

    Args:
        options: as `extra_options` returns them.
        static: the kind that runs.
    """
    unread, other = (_DYNAMIC_ONLY, "dynamic") if static else (_STATIC_ONLY, "static")
    for key in options:
        if key in unread:
            remark(f"extra_options: {key} has no effect here: int8.{other} alone reads it")


def _refuse_uninstalled(options: Mapping[str, Any]) -> None:
    """Refuse an option that takes a library which isn't there.

    Raises:
        NotApplicable: SmoothQuant is asked for without neural-compressor.
    """
    if not options.get("SmoothQuant"):
        return
    try:
        is_installed = importlib.util.find_spec(_SMOOTH_QUANT) is not None
    except ImportError:  # a package above it is missing
        is_installed = False
    if not is_installed:
        raise NotApplicable(
            f"extra_options: SmoothQuant=true takes the library neural-compressor, of a version "
            f"with {_SMOOTH_QUANT}, which isn't installed"
        )


def _item(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(
            f"extra_options: {text!r} has no value; one is written ActivationSymmetric=true"
        )
    return key.strip(), value.strip()


def _value(key: str, value: Any) -> Any:
    if key not in KNOWN:
        raise ValueError(
            f"extra_options: '{key}' isn't known. {did_you_mean(key, KNOWN, most=30)}"
        )
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
        return (
            value if value in _TENSOR_TYPES.values() else _TENSOR_TYPES[str(value).upper()]
        )
    return float(value) if key in _FLOATS else int(value)
