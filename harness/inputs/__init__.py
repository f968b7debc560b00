"""Random inputs for any model: what its graph and its card allow, seeded."""

from harness.inputs.explain import Explanation, describe
from harness.inputs.recorded import load_npz, save_npz
from harness.inputs.search import TryRun, generate
from harness.inputs.sets import Array, InputSet, Value

__all__ = ["Array", "Explanation", "InputSet", "TryRun", "Value", "describe", "generate", "load_npz", "save_npz"]
