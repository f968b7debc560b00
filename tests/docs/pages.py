"""Documentation pages: where they lie, and the blocks in them that are made from the code."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.blocks import BLOCKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end of generated -->)",
    re.DOTALL,
)


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages of docs/, and those elsewhere in the repository."""
    others = (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "AGENTS.md",
        "reports/README.md",
        "examples/README.md",
    )
    return [
        *sorted((root / "docs").glob("*.md")),
        *(root / name for name in others if (root / name).is_file()),
    ]


def rendered(text: str) -> str:
    """Return a page with its generated blocks made anew.

    Raises:
        KeyError: there is no such block.
    """
    return _BLOCK.sub(
        lambda match: f"{match['begin']}\n{BLOCKS[match['name']]()}\n\n{match['end']}", text
    )


def stale(root: Path = ROOT) -> list[Path]:
    """Return the pages whose generated blocks aren't what the code gives."""
    return [
        page for page in pages(root) if rendered(text := page.read_text("utf-8")) != text
    ]
