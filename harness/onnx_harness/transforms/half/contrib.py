"""The operators that ONNX Runtime adds to the standard's.

Their schemas, and which of them stay float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

DOMAIN = "com.microsoft"
# Of the standard domain too, before the standard had them: LayerNormalization,
# SimplifiedLayerNormalization.
_DOMAINS = frozenset({"", DOMAIN})

# Operators whose schema takes float16, and why they stay float32 nevertheless. Kernels are those of
# ONNX Runtime's docs/OperatorKernels.md: what its CUDA provider has in float32 alone would move to
# the CPU.
STAYS_FLOAT32: Mapping[str, str] = {
    "BeamSearch": "scores add up, and ties change what is kept",
    "CropAndResize": "coordinates: above 2048 they are off by a pixel",
    "DequantizeBFP": "scales are often too small for float16",
    "DequantizeLinear": "scales are often too small for float16",
    "DequantizeWithOrder": "scales are often too small for float16",
    "GridSample": "coordinates, and CUDA has no kernel",
    "IsAllFinite": "what it looks for is what float16 would make",
    "MatMulIntegerToFloat": "scales are often too small for float16",
    "QAttention": "scales are often too small for float16",
    "QOrderedLayerNormalization": "scales are often too small for float16",
    "QuantizeBFP": "scales are often too small for float16",
    "QuantizeLinear": "scales are often too small for float16",
    "QuantizeWithOrder": "scales are often too small for float16",
    "Rfft": "sums over a whole signal: above 65504 they overflow",
    "Irfft": "sums over a whole signal: above 65504 they overflow",
    "SampleOp": "an example of an operator",
    "Unique": "rounding makes values equal",
    "WhisperBeamSearch": "scores add up, and ties change what is kept",
}

# Operators that read scales of their quantized weights in float16, and the place of the input that
# these are.
SCALED = frozenset({"GatherBlockQuantized", "MatMulBnb4", "MatMulNBits"})
SCALES = 2


def schema(op_type: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    """Return ONNX Runtime's own schema of an operator.

    It has the same attributes as onnx's where it's read here.

    Args:
        op_type: the operator.
        opset: the version of its domain that the model imports.
        domain: of the operator.

    Returns:
        The newest schema up to the opset; None for an operator that ONNX Runtime doesn't have
        either, or without it.
    """
    if domain not in _DOMAINS:
        return None
    versions = _schemas().get((domain, op_type), {})
    fitting = [version for version in versions if version <= opset]
    return versions[max(fitting)] if fitting else None


@cache
def _schemas() -> Mapping[tuple[str, str], dict[int, onnx.defs.OpSchema]]:
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
    except ImportError:  # it comes with the extra of a provider
        return {}
    schemas: dict[tuple[str, str], dict[int, onnx.defs.OpSchema]] = {}
    for operator in get_all_operator_schema():
        if operator.domain in _DOMAINS:
            schemas.setdefault((operator.domain, operator.name), {})[
                operator.since_version
            ] = operator
    return schemas
