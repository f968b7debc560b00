"""A set that a diagnosis names, tried again without each of its members.

Passes, rules or nodes of a transform, or ONNX Runtime's optimizers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from onnx_harness.cell.state import Task
from onnx_harness.diagnose import attempts
from onnx_harness.diagnose.budget import DEFAULT_SECONDS
from onnx_harness.diagnose.faulty_optimizers import optimizers_at
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
    members = cause.passes or cause.rules or cause.optimizers
    if not members:
        return None
    with tempfile.TemporaryDirectory(prefix="onnx-harness-minimal-") as folder:
        runner = TrialRunner(Question(task, bound, Path(folder)), DEFAULT_SECONDS)
        try:
            trial = _without_others(runner, cause)
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


def _without_others(runner: TrialRunner, cause: Cause) -> Callable[[Collection[str]], Trial]:
    """Return what gives the trial in which only some parts, or only some optimizers, work."""
    question = runner.question
    names = [step.name for step in question.bound.changing]
    count = names.index(cause.transform) + 1 if cause.transform else 0
    base = Trial(count, cause.level or "disable", question.task.cell.provider)
    if cause.optimizers:
        every = optimizers_at(runner, base)
        return lambda chosen: replace(base, disabled=_but(every, chosen))
    parts = runner.ask(attempts.parts_of, count)
    return lambda chosen: replace(base, level="disable", off=_but(parts, chosen))


def _but(names: Sequence[str], chosen: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in chosen)
