"""A set of passes, rules or nodes that a diagnosis names, tried again without each of them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from onnx_harness.cell.state import Task
from onnx_harness.diagnose import attempts
from onnx_harness.diagnose.budget import DEFAULT_SECONDS
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.results.diagnosis import Cause
from onnx_harness.transforms.variant import BoundVariant


def is_minimal(
    task: Task,
    bound: BoundVariant,
    cause: Cause,
) -> bool | None:
    """Return whether a set at fault fails by itself, and not without any one of its members.

    It's tried anew, apart from the search that named it.

    Args:
        task: the cell.
        bound: its variant.
        cause: of its failure.

    Returns:
        None where the cause names no set, or only one that a hang shows: each trial of it takes
        the whole limit.
    """
    members = cause.passes or cause.rules
    if not members:
        return None
    names = [step.name for step in bound.changing]
    count = names.index(cause.transform or "") + 1
    with tempfile.TemporaryDirectory(prefix="onnx-harness-minimal-") as folder:
        runner = TrialRunner(Question(task, bound, Path(folder)), DEFAULT_SECONDS)
        try:
            parts = runner.ask(attempts.parts_of, count)

            def trial(chosen: Collection[str]) -> Trial:
                off = tuple(name for name in parts if name not in chosen)
                return Trial(count, "disable", task.cell.provider, off)

            failure = runner.trial(trial(members))
            if not failure.fails:
                return False
            if failure.manner == "hang":
                return None
            for member in members:
                fewer = [name for name in members if name != member]
                if runner.still_fails(trial(fewer), failure):
                    return False
            return True
        finally:
            runner.close()
