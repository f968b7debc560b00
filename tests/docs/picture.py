"""Draw docs/table.svg, the terminal of a real run: ``python -m tests.docs.picture``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from models.half_limits import unscaled_attention
from tests.docs.pages import DOCS

COLUMNS = 118
_MODEL = "attention.onnx"
_VARIANTS = ("original", "simplify", "fp16.io32", "fp16.mixed")
# rich's picture asks a server for its font, which a page that is read offline can't.
_FONT_FROM_AFAR = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def run(folder: Path) -> str:
    """Return what pytest prints for a model that float16 breaks, with its colours."""
    unscaled_attention(folder / _MODEL)
    (folder / "pyproject.toml").touch()  # so that it's a repository of its own
    words = [_MODEL, *(f"--variant={variant}" for variant in _VARIANTS)]
    options = ["--color=yes", "--no-header", "-p", "no:cacheprovider"]
    environment = os.environ | {"COLUMNS": str(COLUMNS)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"$ pytest {' '.join(words).replace('--variant=', '--variant ')}\n{ended.stdout}"


def draw(text: str) -> str:
    """Return a terminal with ``text``, which may hold colours, as an SVG."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS + 12, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(text))
    svg = console.export_svg(title="onnx-harness", theme=SVG_EXPORT_THEME, unique_id="table")
    return _FONT_FROM_AFAR.sub("", svg)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (DOCS / "table.svg").write_text(draw(run(Path(name))), "utf-8")
