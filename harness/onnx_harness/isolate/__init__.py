"""The worker process: where untrusted models are transformed and first run.

It has limits on time and memory.
"""

from onnx_harness.isolate.limits import Limits, default_memory_bytes
from onnx_harness.isolate.notes import RISK, note_stage, noted, noting, risking
from onnx_harness.isolate.worker import Worker

__all__ = [
    "RISK",
    "Limits",
    "Worker",
    "default_memory_bytes",
    "note_stage",
    "noted",
    "noting",
    "risking",
]
