"""Small pieces of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; a cell's ``|`` is escaped, and its line breaks become blanks."""
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return (
        "| "
        + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells)
        + " |"
    )


def code(text: object) -> str:
    """Return a text as code."""
    return f"`{text}`"


def codes(names: Sequence[object]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(map(code, names))
