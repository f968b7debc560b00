"""AutoCast of nvidia-modelopt, which needs packages of its own: called in another environment."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_harness.errors import UsageError
from onnx_harness.judging.emulation import half_verdict
from onnx_harness.model.file import Model
from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import MOVES
from onnx_harness.selftest.mixed_rows import Workplace

_SCRIPT = """
import sys
import onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
before, inputs, after = sys.argv[1:]
onnx.save(convert_to_mixed_precision(before, keep_io_types=True, calibration_data=inputs), after)
"""
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Converted:
    """The model that AutoCast made, judged.

    Attributes:
        nodes: of the model's own that give float32, those that only move values not counted.
        right: whether the outputs pass, float16 rounded as hardware does.
    """

    nodes: int
    right: bool


def check(python: Path) -> None:
    """See that an interpreter has AutoCast.

    Raises:
        UsageError: it hasn't.
    """
    if not python.is_file():
        raise UsageError(f"--autocast {python}: there is no such file")
    command = [str(python), "-c", "import modelopt.onnx.autocast"]
    finished = _ended(command)
    if finished.returncode != 0:
        said = (finished.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"--autocast {python} has no AutoCast: {said}")


def convert(python: Path, place: Workplace) -> Converted | None:
    """Have AutoCast convert a model by its first usual input set.

    Args:
        python: the interpreter.
        place: the model and what its outputs are judged by.

    Returns:
        None where it ends in an error.
    """
    reference = place.standard.reference
    inputs: Mapping[str, Any] = reference.sets[reference.usual[0]].values
    with tempfile.TemporaryDirectory(prefix="onnx-harness-autocast-") as name:
        file, after = Path(name) / "inputs.npz", Path(name) / "after.onnx"
        np.savez(file, **inputs)
        command = [str(python), "-c", _SCRIPT, str(place.model.path), str(file), str(after)]
        if _ended(command).returncode != 0 or not after.is_file():
            return None
        right = half_verdict(place.standard, Model(after)).passed
        return Converted(_float32_nodes(place.model.load(), onnx.load(after)), right)


def _float32_nodes(before: onnx.ModelProto, after: onnx.ModelProto) -> int:
    own = {node.name for node in before.graph.node if node.op_type not in MOVES}
    kinds = {}
    inferred = infer_types(after).graph
    for info in (*inferred.value_info, *inferred.output):
        kinds[info.name] = info.type.tensor_type.elem_type
    count = 0
    for node in after.graph.node:
        single = any(kinds.get(name) == onnx.TensorProto.FLOAT for name in node.output)
        count += node.name in own and single
    return count


def _ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_SECONDS, check=False, env={}
    )
