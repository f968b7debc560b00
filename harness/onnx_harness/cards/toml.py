"""Strict reading of a card's TOML.

Every value is asked for by type, and every error names file, line and key.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_harness.errors import CardError, NameGrammarError, did_you_mean
from onnx_harness.names import check_name

Scalar = bool | int | float | str

_HEADER = re.compile(r"\s*\[(?P<array>\[?)\s*(?P<name>[^\]]+?)\s*\]")
_KEY = re.compile(
    r"""\s*(?P<name>(?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_KEY_PART = re.compile(r"""([\w-]+)|"([^"]*)"|'([^']*)'""")


def read_toml(path: Path) -> Section:
    """The top table of the file in ``path``.

    Raises:
        CardError: it can't be read or isn't TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return Section(path, text, (), tomllib.loads(text))
    except OSError as error:
        raise CardError(f"card {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CardError(
            f"card {path} isn't UTF-8 text (byte {error.start}); TOML has to be"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"card {path} isn't TOML: {error}{_line_hint(text)}") from None
    except RecursionError:
        raise CardError(f"card {path} nests deeper than any card does") from None


def _line_hint(text: str) -> str:
    """Return what to do about a key behind a heading, as messages and documents write them."""
    for line in text.splitlines():
        heading = _HEADER.match(line)
        # What a terminal acts upon isn't shown.
        if heading is None or not line.isprintable():
            continue
        if _KEY.match(line[heading.end() :]):
            key = line[heading.end() :].strip()
            return f". Mend: put `{key}` on a line of its own, below `{heading[0].strip()}`"
    return ""


@dataclass(frozen=True, slots=True)
class Section:
    """A value of the card, usually a table, and where it stands, so that every error can say so.

    Attributes:
        where: keys from the top of the file; a number is a position in an array of tables.
    """

    file: Path
    text_of_file: str
    where: tuple[str | int, ...]
    value: Any

    @property
    def data(self) -> dict[str, Any]:
        """The table's keys and values."""
        if not isinstance(self.value, dict):
            raise self.error(None, f"is {_shown(self.value)}, but should be a table")
        return self.value

    @property
    def key(self) -> str:
        """The name that this value stands under."""
        return str(self.where[-1])

    def error(self, key: str | None, what: str) -> CardError:
        """Return an error about ``key`` of this table, or about the value itself.

        The caller raises it.
        """
        where = self.where if key is None else (*self.where, key)
        spelled = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in where
        ).lstrip(".")
        return CardError(f"{self.place(key)}: {spelled or 'the card'} {what}")

    def place(self, key: str | None = None) -> str:
        """Where ``key`` of this table, or the value itself, stands: ``card FILE, line N``."""
        line = _line_of(self.text_of_file, self.where if key is None else (*self.where, key))
        return f"card {self.file}{f', line {line}' if line else ''}"

    def allow(self, *allowed: str) -> None:
        """Refuse every key but the known ones."""
        for key in self.data:
            if key not in allowed:
                raise self.error(key, f"isn't a key of a card. {did_you_mean(key, allowed)}")

    def section(self, key: str) -> Section:
        """The table under ``key``; an empty one when there is none."""
        section = Section(
            self.file, self.text_of_file, (*self.where, key), self.data.get(key, {})
        )
        _ = section.data
        return section

    def entries(self) -> list[Section]:
        """Every value of the table, of whatever type."""
        sections: list[Section] = []
        for key, value in self.data.items():
            sections.append(Section(self.file, self.text_of_file, (*self.where, key), value))
        return sections

    def sections(self) -> list[Section]:
        """Every value of the table, each of which has to be a table."""
        return [self.section(key) for key in self.data]

    def array(self, key: str) -> list[Section]:
        """The ``[[key]]`` tables, in order."""
        tables = self.data.get(key, [])
        if not isinstance(tables, list):
            raise self.error(
                key, f"is a table, but should be an array of tables: write [[{key}]]"
            )
        sections: list[Section] = []
        for index, table in enumerate(tables):
            sections.append(
                Section(self.file, self.text_of_file, (*self.where, key, index), table)
            )
        return sections

    def own_text(self) -> str:
        """This value, which has to be text that isn't blank."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.error(None, f"is {_shown(self.value)}, but should be text")
        return self.value

    def text(self, key: str) -> str | None:
        """The text under ``key``, or None."""
        return self._entry(key).own_text() if key in self.data else None

    def needed_text(self, key: str) -> str:
        """The text under ``key``, which has to be there."""
        text = self.text(key)
        if text is None:
            raise self.error(key, "is missing")
        return text

    def flag(self, key: str) -> bool | None:
        """The truth value under ``key``, or None."""
        value = self.data.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.error(key, f"is {_shown(value)}, but should be true or false")

    def number(self, key: str) -> float | None:
        """The finite number under ``key``, or None."""
        value = self.data.get(key)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.error(key, f"is {_shown(value)}, but should be a finite number")
        return float(value)

    def scalars(self, key: str) -> tuple[Scalar, ...]:
        """The list under ``key``, or its only value; empty when there is none."""
        if key not in self.data:
            return ()
        values = self.data[key] if isinstance(self.data[key], list) else [self.data[key]]
        if not values or not all(
            isinstance(value, bool | int | float | str) for value in values
        ):
            raise self.error(
                key,
                f"is {_shown(self.data[key])}, but should list numbers, truth values or text",
            )
        return tuple(values)

    def names(self, key: str) -> tuple[str, ...]:
        """Names of variants or providers; ``+`` joins the steps of a variant."""
        names = self.scalars(key)
        for name in names:
            try:
                for part in str(name).split("+"):
                    check_name(part, "its")
            except NameGrammarError as error:
                raise self.error(
                    key, f"holds {name!r}, which isn't an id: {error}"
                ) from None
        return tuple(str(name) for name in names)

    def whole_numbers(self) -> tuple[int, ...]:
        """This value as sizes: whole numbers from 0, or a single one."""
        numbers = self.value if isinstance(self.value, list) else [self.value]
        if not numbers or not all(_is_size(number) for number in numbers):
            raise self.error(
                None, f"is {_shown(self.value)}, but should be a size or a list of sizes"
            )
        return tuple(numbers)

    def shapes(self, key: str) -> tuple[tuple[int, ...], ...]:
        """The list of shapes under ``key``; empty when there is none."""
        if key not in self.data:
            return ()
        shapes = self.data[key]
        if (
            not isinstance(shapes, list)
            or not shapes
            or not all(
                isinstance(shape, list) and all(_is_size(size) for size in shape)
                for shape in shapes
            )
        ):
            raise self.error(
                key, f"is {_shown(shapes)}, but should list shapes, such as [[1, 3, 64, 64]]"
            )
        return tuple(tuple(shape) for shape in shapes)

    def _entry(self, key: str) -> Section:
        return Section(self.file, self.text_of_file, (*self.where, key), self.data[key])


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    return "a table" if isinstance(value, dict) else f"{value!r}"


def _line_of(text: str, where: tuple[str | int, ...]) -> int | None:
    """The line on which ``where`` is written, or the nearest thing around it.

    None when nothing of it is.

    tomllib keeps no positions. This reads headers and ``key =`` only, which is enough to point a
    person at a line.
    """
    best: tuple[int, int | None] = (0, None)
    header: tuple[str | int, ...] = ()
    arrays: dict[tuple[str | int, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEADER.match(line):
            header = _dotted(match["name"])
            if match["array"]:
                arrays[header] = arrays.get(header, -1) + 1
                header = (*header, arrays[header])
            header_key = header
        elif match := _KEY.match(line):
            header_key = (*header, *_dotted(match["name"]))
        else:
            continue
        if header_key == where[: len(header_key)] and len(header_key) > best[0]:
            best = (len(header_key), number)
    return best[1]


def _dotted(name: str) -> tuple[str | int, ...]:
    parts = []
    for part in _KEY_PART.finditer(name):
        parts.append(part.group(1) or part.group(2) or part.group(3))
    return tuple(parts)
