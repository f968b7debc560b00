"""Validate and benchmark ONNX models.

Every optimization, every FP16 configuration, every execution provider.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_harness.api import Verdict, compare, verify

__all__ = ["Verdict", "compare", "verify"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API when it's asked for: the package's import brings nothing of weight."""
    if name in __all__:
        from onnx_harness import api

        return getattr(api, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
