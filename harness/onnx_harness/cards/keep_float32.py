"""Writing ``[fp16] keep_float32`` into a card."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from onnx_harness.cards.card import read
from onnx_harness.errors import CardError

_SECTION = re.compile(
    r"^\[fp16\][^\n]*\n(?:(?!\[[^\n]*\][ \t]*(?:#[^\n]*)?$)[^\n]*\n?)*", re.MULTILINE
)


def write_keep_float32(card: Path, names: Sequence[str]) -> None:
    """Write the nodes that conversions to float16 leave in float32.

    What else the card says stays as it is.

    Args:
        card: the file; it's made where there is none.
        names: of the nodes; empty: the section goes.

    Raises:
        CardError: the card can't be read, or not with the new section: it's left as it was.
    """
    before = card.read_text(encoding="utf-8") if card.is_file() else None
    if before is not None:
        read(card)
    # JSON's strings are TOML's.
    lines = "".join(f"    {json.dumps(name)},\n" for name in names)
    section = f"[fp16]\nkeep_float32 = [\n{lines}]\n" if names else ""
    text = before or ""
    match = _SECTION.search(text)
    if match is not None:
        gap = "\n" if section and match.end() < len(text) else ""
        text = text[: match.start()] + section + gap + text[match.end() :]
    elif section:
        text = f"{text.rstrip()}\n\n{section}" if text.strip() else section
    card.write_text(text, encoding="utf-8")
    try:
        written = read(card).keep_float32
    except CardError:
        written = None
    if written != tuple(names):
        card.write_text(before, encoding="utf-8") if before is not None else card.unlink()
        raise CardError(
            f"card {card}: [fp16] keep_float32 can't be written there: write it yourself: "
            f"{list(names)!r}"
        )
