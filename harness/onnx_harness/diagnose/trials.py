"""The records of a diagnosis: what is asked, a trial, and what came of one.

A trial is a prefix of the chain of transforms, with parts of its last transform left out, at one of
ONNX Runtime's levels, with some of its optimizers left out, on a number of threads, on a provider,
on some input sets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from onnx_harness.cell.state import Task
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.transforms.variant import BoundVariant

# The type of an exception in a reason.
_TYPE_NAME = re.compile(
    r"\b[A-Z]\w*(?:Error|Exception|Fail|Failure|Invalid\w*|NotImplemented|Graph)\b"
)


@dataclass(frozen=True, slots=True)
class Question:
    """The subject of a diagnosis: a cell, or a model that should compute what another one does.

    Attributes:
        task: the cell; of two models, the one that is right, with no steps.
        bound: its variant.
        folder: where models are kept while the diagnosis lasts.
        candidate: the other model; None for a cell.
        float16_io: the candidate may take and give float16.
    """

    task: Task
    bound: BoundVariant
    folder: Path
    candidate: Path | None = None
    float16_io: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """A part of what a cell does.

    Attributes:
        count: changing steps of the chain that are applied.
        off: parts of the last one that are left out.
        level: ONNX Runtime's optimization level.
        disabled: its optimizers that are left out.
        threads: of the session; None leaves that to ONNX Runtime.
        provider: the execution provider's name.
        places: positions of the input sets that are run; None: all that the verdict rests on.
        attempt: its number, where it is tried several times.
        until: the stage after which it counts as passed; None: it is judged whole.
        named: give the nodes names that the last step is applied to. They have them anyhow where
            some are left out.
    """

    count: int
    level: str
    provider: str
    off: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    threads: int | None = None
    places: tuple[int, ...] | None = None
    attempt: int = 0
    until: Stage | None = None
    named: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a trial."""

    transforms: int = 0
    sessions: int = 0
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        stage: where it ended.
        reason: one sentence; None for a pass.
        places: positions of the input sets that show it, where outputs fail or the process died.
    """

    status: Status
    stage: Stage
    reason: str | None = None
    symptom: Symptom | None = None
    places: tuple[int, ...] = ()
    cost: Cost = field(default_factory=Cost)

    @property
    def fails(self) -> bool:
        """Return whether what was tried is at fault."""
        return self.status is Status.FAIL

    @property
    def manner(self) -> str:
        """Return what kind of death or of exception it ended in; empty for wrong values."""
        if self.symptom is Symptom.WRONG_VALUES or self.reason is None:
            return ""
        if self.symptom is Symptom.CRASH:
            return "hang" if is_timeout(self.reason) else "death"
        match = _TYPE_NAME.search(self.reason)
        return match[0] if match else ""

    @property
    def in_words(self) -> str:
        """Return what came of it, in a few words."""
        if self.status is Status.PASS:
            return "it passes"
        return f"{self.status} at {self.stage}: {self.reason}"


def is_timeout(reason: str) -> bool:
    """Return whether the reason of a verdict is that something did not end in time."""
    return "did not end within" in reason


def same_failure(first: Outcome, second: Outcome) -> bool:
    """Return whether two trials fail in the same way.

    At one stage, with one symptom, in one manner.
    """
    alike = first.stage is second.stage and first.symptom is second.symptom
    return first.fails and second.fails and alike and first.manner == second.manner
