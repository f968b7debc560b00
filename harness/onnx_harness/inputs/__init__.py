"""Random inputs for any model: what its graph and its card allow, seeded."""

from onnx_harness.inputs.plan.explain import Explanation, describe, reached
from onnx_harness.inputs.plan.search import TryRun, generate
from onnx_harness.inputs.recorded.npz import load_npz, load_npz_sets, save_npz
from onnx_harness.inputs.values.sets import Array, InputSet, Value

__all__ = [
    "Array",
    "Explanation",
    "InputSet",
    "TryRun",
    "Value",
    "describe",
    "generate",
    "load_npz",
    "load_npz_sets",
    "reached",
    "save_npz",
]
