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

WHERE_ALL_IS = "all are in results.json, which --report-dir DIR writes"

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


def told(failures: Iterable[CellResult], width: int, *, whole: bool = False) -> list[Told]:
    """Group failing cells by cause, and say each cause once.

    Args:
        failures: in the order in which they ended.
        width: of the terminal, in columns.
        whole: leave no line out, however many there are.
    """
    return [_told(cause, width, whole) for cause in causes(failures)]


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


def _told(cause: Cause, width: int, whole: bool) -> Told:
    cell, others = cause.worst, cause.cells[1:]
    more = f" and {figures.counted(len(others), 'cell')} more" if others else ""
    reason = printable(cell.reason or f"{cell.status} at {cell.stage}")
    summary = f"{len(cause.cells)} cells: {reason}" if others else reason
    lines = [f"{printable(cell.id)}: {cell.status} at {cell.stage}"]
    lines += _explained(figures.explanation(cell), width, whole)
    if others:
        lines += wrapped(f"the same: {_listed(others)}", width, "  ")
    return Told(cell, f"{printable(cell.id)}{more}", summary, tuple(lines))


def _explained(explanation: Sequence[str], width: int, whole: bool) -> Iterator[str]:
    """Yield the lines of an explanation: of a long one the first, each mend, and the last."""
    blocks = [wrapped(printable(text), width, "  ") for text in explanation]
    total = sum(map(len, blocks))
    if whole or total <= MOST_LINES:
        for block in blocks:
            yield from block
        return
    first = [line for block in blocks for line in block][: MOST_LINES - 2]
    started = 0
    shown: list[str] = []
    for text, block in zip(explanation[:-1], blocks[:-1], strict=True):
        if started + len(block) > len(first) and _stays(text):
            first = first[:started]  # without what would be its beginning
            shown += block
        started += len(block)
    left_out = total - len(first) - len(shown) - len(blocks[-1])
    yield from first
    yield from shown
    if left_out > 0:
        yield f"  ({figures.counted(left_out, 'line')} left out here; {WHERE_ALL_IS})"
    # The last is the command that runs the cell alone, or the cause, where it was searched for.
    yield from blocks[-1]


def _stays(text: str) -> bool:
    return "mend: " in text.lower() or text.lstrip().startswith(_COPIED)


def _listed(cells: Sequence[CellResult]) -> str:
    names = ", ".join(printable(cell.id) for cell in cells[:MOST_OTHERS])
    more = len(cells) - MOST_OTHERS
    return f"{names} and {more} more" if more > 0 else names
