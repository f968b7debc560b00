"""Judge outputs: what is right is said here alone.

Every door (pytest, the commands, the API) asks this judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx_harness.judging.emulation import judge_half
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import Verdict, verdict
from onnx_harness.model.file import Model


def judge_outputs(
    standard: Standard,
    outputs: Sequence[Mapping[str, Any]],
    candidate: Model,
    *,
    emulated: bool,
    again: Callable[[], Mapping[str, Any]] | None = None,
) -> Verdict:
    """Judge a candidate by its outputs, and by what float16 would have made of it.

    Args:
        standard: what the outputs are held to.
        outputs: the candidate's outputs by name, on each of the reference's input sets in order.
        candidate: the model that gave them.
        emulated: whether it asks for float16 and the provider computed that in float32: then the
            candidate is run once more with every float16 value rounded, and that run decides.
        again: runs the candidate on the first input set once more; None where it can't be.
    """
    outcome = verdict(standard, outputs, again)
    return judge_half(standard, candidate, outcome) if emulated else outcome
