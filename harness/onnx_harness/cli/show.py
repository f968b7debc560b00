"""Write for people and scripts: rich on a terminal, plain lines elsewhere, JSON.

What a model brings along (names, messages that quote them) is never read as markup, and its control
characters are
escaped: every such text goes through :func:`text`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnx_harness.report.escape import printable

# Where nobody set a width and nothing is a terminal (a file, a pipe, a CI log).
_PLAIN_WIDTH = 120


def console() -> Console:
    """Standard output as it is now."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Standard error as it is now."""
    return _console(sys.stderr)


def text(content: object, style: str = "") -> Text:
    """Text that may come from a model: printable, with its line ends, and no markup."""
    return Text("\n".join(printable(line) for line in str(content).split("\n")), style)


def labelled(label: str, style: str, content: object) -> Text:
    """A coloured word of ours, then plain text that may come from a model."""
    return Text.assemble((label, style), text(content))


def write_json(value: object) -> None:
    """Write one JSON document to standard output.

    Strict (no NaN), ASCII, its keys in the order given.
    """
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n")
    # here a reader who has left is noticed; later it would be the interpreter's own error
    sys.stdout.flush()


def size(count: int) -> str:
    """Bytes in decimal units: ``4.7 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def shape(dims: Iterable[int | str | None] | None) -> str:
    """``[batch, 3, ?]``; ``any shape`` for an unknown rank."""
    if dims is None:
        return "any shape"
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def figure(value: float | None) -> str:
    """Three digits; a dash for what doesn't exist."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.3g}"


def facts(rows: Mapping[str, object]) -> Padding:
    """Names on the left, values on the right.

    A value is a text of a model, or what rich shows by itself.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(text(name), value if isinstance(value, Text | Table) else text(value))
    return indented(grid)


def indented(what: RenderableType) -> Padding:
    """``what`` two columns to the right, and no wider than it is."""
    return Padding(what, (0, 0, 0, 2), expand=False)


def table(
    columns: Iterable[str | tuple[str, str]], rows: Iterable[Iterable[object]]
) -> Table:
    """A table whose long cells are folded, never cut.

    Args:
        columns: heads; with ``"right"`` for numbers, ``"whole"`` for what shouldn't be folded.
        rows: cells; what isn't a rich Text is taken as a text of a model.
    """
    drawn = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    for column in columns:
        head, kind = column if isinstance(column, tuple) else (column, "")
        drawn.add_column(
            text(head),
            overflow="fold",
            justify="right" if kind == "right" else "left",
            no_wrap=kind in ("right", "whole"),
        )
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return drawn


def _console(file: IO[str]) -> Console:
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PLAIN_WIDTH
    return console


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
