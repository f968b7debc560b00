"""Failures by cause: cells that ended alike, told once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx_harness.report import diagnosed, figures
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.diagnosis import Diagnosis

# Figures and names in quotes differ from cell to cell where the cause is one.
_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?([eE][-+]?\d+)?%?")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|\([^)]*\)")
_OUTPUT = re.compile(r"\boutput \S+")


@dataclass(frozen=True, slots=True)
class Cause:
    """Cells that failed alike.

    Attributes:
        cells: the worst first.
    """

    cells: tuple[CellResult, ...]

    @property
    def worst(self) -> CellResult:
        """The cell that is furthest from right."""
        return self.cells[0]

    @property
    def models(self) -> list[str]:
        """The models that it is seen in, each once."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The diagnosis of the worst cell that has one."""
        diagnoses = []
        for cell in self.cells:
            if cell.diagnosis is not None:
                diagnoses.append(cell.diagnosis)
        return max(diagnoses, key=_is_found, default=None)


def causes(failures: Iterable[CellResult]) -> list[Cause]:
    """Group failing cells by what is said of them, the gravest cause first.

    Two cells have one cause where a diagnosis found the same; without one, where status, stage,
    symptom and reason are the same but for figures and names.
    """
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in failures:
        groups.setdefault(key(cell), []).append(cell)
    grouped = [
        Cause(tuple(sorted(cells, key=_badness, reverse=True))) for cells in groups.values()
    ]
    return sorted(grouped, key=_gravity, reverse=True)


def key(cell: CellResult) -> tuple[str, ...]:
    """Return what cells of one cause have in common."""
    if cell.diagnosis is not None and cell.diagnosis.found:
        return ("diagnosis", cell.status, *diagnosed.key(cell.diagnosis))
    reason = cell.reason or ""
    for name in (cell.id, cell.model, cell.variant):
        # As a word: a model may be called `a`.
        reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", reason)
    reason = _OUTPUT.sub("output", _QUOTED.sub("", reason))
    return (cell.status, cell.stage, cell.symptom or "", _NUMBER.sub("#", reason))


def _is_found(diagnosis: Diagnosis) -> bool:
    return diagnosis.found


def _badness(cell: CellResult) -> tuple[float, float]:
    worst = figures.worst_output(cell)
    if worst is None:
        return (float("inf"), 0.0)
    share = figures.tolerance_share(cell)
    return (worst[1].nonfinite, float("inf") if share is None else share)


def _gravity(cause: Cause) -> tuple[bool, int, int]:
    """Errors come last: they say something of the machine, and nothing of a model."""
    return (cause.worst.status is Status.FAIL, len(cause.cells), len(cause.models))


def sentence(grouped: Sequence[Cause]) -> str:
    """Return ``of 3 causes``; empty for one cell."""
    if sum(len(cause.cells) for cause in grouped) < 2:
        return ""
    return f"of {figures.counted(len(grouped), 'cause')}"
