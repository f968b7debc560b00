"""ONNX Runtime's own CPU provider: the reference of accuracy, and in every distribution."""

from __future__ import annotations

from onnx_harness.providers import Provider

PROVIDER = Provider(
    name="cpu",
    ort_name="CPUExecutionProvider",
    extra="cpu",
    summary="ONNX Runtime's CPU kernels",
    fallback=(),  # nothing stands behind it
)
