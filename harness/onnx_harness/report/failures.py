"""Failures as a terminal shows them: each cause once in full, with the cells that have it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnx_harness.report import figures
from onnx_harness.report.causes import Cause, causes
from onnx_harness.report.escape import printable
from onnx_harness.results.cells import CellResult

MOST_OTHERS = 2
MOST_LINES = 8
"""Of one cause: the rest is in the reports."""

_COPIED = (
    "alone: ",
    "kept by itself: ",
    "File ",
)  # commands and places aren't wrapped, so that they can be copied


@dataclass(frozen=True, slots=True)
class Told:
    """The text about a cause.

    Attributes:
        cell: the one that is shown.
        title: for its head line: ``yolo-simplify-cpu and 3 cells more``.
        summary: one line that begins with the reason, after the number of cells where there are
            several.
        lines: everything said, wrapped.
    """

    cell: CellResult
    title: str
    summary: str
    lines: tuple[str, ...]


def told(failures: Iterable[CellResult], width: int) -> list[Told]:
    """Group failing cells by cause, and say each cause once.

    Args:
        failures: in the order in which they ended.
        width: of the terminal, in columns.
    """
    return [_told(cause, width) for cause in causes(failures)]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Wrap a line at words, below a hanging indent; a command to copy stays one line."""
    own = text[: len(text) - len(text.lstrip())]
    if text.lstrip().startswith(_COPIED):
        return [f"{indent}{text}"]
    return textwrap.wrap(
        text.strip(),
        max(width, 40),
        initial_indent=indent + own,
        subsequent_indent=f"{indent}{own}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _told(cause: Cause, width: int) -> Told:
    cell, others = cause.worst, cause.cells[1:]
    more = f" and {figures.counted(len(others), 'cell')} more" if others else ""
    reason = printable(cell.reason or f"{cell.status} at {cell.stage}")
    summary = f"{len(cause.cells)} cells: {reason}" if others else reason
    lines = [f"{printable(cell.id)}: {cell.status} at {cell.stage}"]
    lines += _explained(figures.explanation(cell), width)
    if others:
        lines += wrapped(f"the same: {_listed(others)}", width, "  ")
    return Told(cell, f"{printable(cell.id)}{more}", summary, tuple(lines))


def _explained(explanation: Sequence[str], width: int) -> Iterator[str]:
    lines: list[str] = []
    for text in explanation:
        lines += wrapped(printable(text), width, "  ")
    if len(lines) <= MOST_LINES:
        yield from lines
        return
    # The last line is the command that runs the cell alone.
    yield from lines[: MOST_LINES - 2]
    yield from (line for line in lines[MOST_LINES - 2 : -1] if _stays(line))
    yield f"  ({len(lines) - MOST_LINES + 1} lines left out here; all are in results.json)"
    yield lines[-1]


def _stays(line: str) -> bool:
    return "Mend: " in line or line.lstrip().startswith(_COPIED)


def _listed(cells: Sequence[CellResult]) -> str:
    names = ", ".join(printable(cell.id) for cell in cells[:MOST_OTHERS])
    more = len(cells) - MOST_OTHERS
    return f"{names} and {more} more" if more > 0 else names
