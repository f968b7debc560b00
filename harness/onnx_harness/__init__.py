"""Validate and benchmark ONNX models: every optimization, every FP16 configuration, every execution provider."""

__version__ = "0.1.0"
