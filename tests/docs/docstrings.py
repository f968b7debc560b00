"""Google docstrings, read into their sections and written as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Warns")

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_ENTRY = re.compile(r"(?P<name>[*.\w]+): (?P<meaning>.*)")


@dataclass(frozen=True, slots=True)
class Doc:
    """A docstring in its parts.

    Attributes:
        prose: the paragraphs before the first section, in Markdown.
        entries: by section, the meaning of each name in Markdown; ``""`` is text without a name.
    """

    prose: str = ""
    entries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first paragraph in one line."""
        return " ".join(self.prose.split("\n\n")[0].split())


def read(documented: object) -> Doc:
    """Return the docstring of a function or a class."""
    text = inspect.getdoc(documented) or ""
    prose: list[str] = []
    bodies: dict[str, list[str]] = {}
    lines = prose
    for line in text.splitlines():
        heading = line.removesuffix(":")
        if line.endswith(":") and heading in SECTIONS:
            lines = bodies.setdefault(heading, [])
        else:
            lines.append(line)
    entries = {heading: _entries(body) for heading, body in bodies.items()}
    return Doc(markdown("\n".join(prose).strip()), entries)


def markdown(text: str) -> str:
    """Return reStructuredText's literals and roles as Markdown's."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _entries(body: list[str]) -> dict[str, str]:
    """Return what a section says of each name; continued lines are indented further."""
    entries: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc("\n".join(body)).splitlines():
        match = None if line.startswith(" ") else _ENTRY.fullmatch(line)
        if match:
            name = match["name"]
            entries[name] = match["meaning"]
        else:
            entries[name] = f"{entries.get(name, '')} {line.strip()}".strip()
    return {key: markdown(meaning) for key, meaning in entries.items()}
