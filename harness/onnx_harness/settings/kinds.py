"""The types of value that a setting has, on a command line and in pyproject.toml."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_harness.names import check_name

TABLE = "tool.onnx-harness"


_SIZE = re.compile(r"([0-9.]+)\s*([kMGT]?)(i?)B?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value, as a command line and as pyproject.toml have it.

    Attributes:
        words: what a message calls it: ``a whole number``.
        read: the value of a key of pyproject.toml; raises TypeError where it's of another type.
        arguments: of argparse's ``add_argument``.
    """

    words: str
    read: Callable[[Any], object]
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """A setting, declared once for pytest, the commands and pyproject.toml.

    Attributes:
        key: of pyproject.toml, and the name of the attribute of :class:`Settings`.
        kind: of its value.
        help: for ``--help``; empty where it's no option of a command line.
        metavar: the placeholder of its value; empty for a flag.
        holds: whether a value is in its range.
        range: the words for the range.
    """

    key: str
    kind: Kind
    help: str
    metavar: str
    holds: Callable[[Any], bool]
    range: str

    @property
    def flag(self) -> str:
        """The spelling on a command line, without its dashes."""
        return self.key.replace("_", "-")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of argparse's ``add_argument``, but for the spelling."""
        placeholder = {"metavar": self.metavar} if self.metavar else {}
        return {**self.kind.arguments, **placeholder, "default": None, "help": self.help}


def byte_count(word: str) -> int:
    """``4G``, ``500MiB``, ``1000000``: what an option or a key takes as a size.

    Raises:
        argparse.ArgumentTypeError: it's none.
    """
    match = _SIZE.fullmatch(word.strip())
    try:
        number = float(match[1]) if match else -1.0
    except ValueError:
        number = -1.0
    if match is None or number <= 0:
        raise argparse.ArgumentTypeError(
            f"{word!r} isn't a size; write 500M, 4G or a number of bytes"
        )
    base = 1024 if match[3] else 1000
    return int(number * base ** " kmgt".index(match[2].lower() or " "))


def named_path(word: str) -> Path:
    """Return the path that a word names.

    An empty one, as from an unset variable, would be the working directory.

    Raises:
        argparse.ArgumentTypeError: it's empty.
    """
    if not word.strip():
        raise argparse.ArgumentTypeError("it is empty; name a folder, or leave it out")
    return Path(word)


def _read_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _read_whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _read_size(value: Any) -> int:
    return byte_count(value) if isinstance(value, str) else _read_whole(value)


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_path(value: Any) -> Path:
    if not isinstance(value, str):
        raise TypeError
    return named_path(value)


def _read_words(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if (
        not isinstance(words, list)
        or not words
        or not all(isinstance(word, str) for word in words)
    ):
        raise TypeError
    return tuple(words)


def _read_paths(value: Any) -> tuple[Path, ...]:
    return tuple(named_path(word) for word in _read_words(value))


def _read_chains(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(chain, str) for chain in value.values()
    ):
        raise TypeError
    chains: dict[str, str] = {}
    for name, chain in value.items():
        chains[check_name(name, f"in [{TABLE}.variants]: variant")] = chain
    return chains


NUMBER = Kind("a number", _read_number, {"type": float})


TEXT = Kind("a string", _read_text, {})


WHOLE = Kind("a whole number", _read_whole, {"type": int})


BYTES = Kind("a whole number", _read_size, {"type": byte_count})


FLAG = Kind("true or false", _read_flag, {"action": "store_true"})


PATH = Kind("a string", _read_path, {"type": named_path})


WORDS = Kind("a string or a list of strings", _read_words, {"action": "append"})


PATHS = Kind(
    "a string or a list of strings", _read_paths, {"action": "append", "type": named_path}
)


CHAINS = Kind('a table of name = "chain"', _read_chains, {})


def job_word(word: str) -> int:
    """``auto``, which is 0, or a number of processes.

    Raises:
        argparse.ArgumentTypeError: it's neither.
    """
    if word == "auto":
        return 0
    if not (word.isascii() and word.isdecimal() and int(word)):
        raise argparse.ArgumentTypeError(
            f"{word!r} is no number of processes; write auto, or 1 or more"
        )
    return int(word)


def shard_word(word: str) -> tuple[int, int]:
    """``2/5`` as (2, 5).

    Raises:
        argparse.ArgumentTypeError: it's no part of a number of parts.
    """
    part, slash, parts = word.partition("/")
    if not (
        slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)
    ):
        raise argparse.ArgumentTypeError(
            f"{word!r} isn't a shard; write I/N, with I from 1 to N, such as 2/5"
        )
    return int(part), int(parts)


def _read_jobs(value: Any) -> int:
    return job_word(value if isinstance(value, str) else str(_read_whole(value)))


def _read_shard(value: Any) -> tuple[int, int]:
    if not isinstance(value, str):
        raise TypeError
    return shard_word(value)


JOBS = Kind('a whole number or "auto"', _read_jobs, {"type": job_word})


SHARD = Kind('a string such as "2/5"', _read_shard, {"type": shard_word})
