"""Mutants as mutmut leaves them: which line each changes, and how its tests ended."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from io import StringIO
from pathlib import Path

ORIGINAL = "orig"
_NUMBER = re.compile(r"^(?P<function>.+)__mutmut_(?P<which>\d+|orig)$")
_ZIP = re.compile(r",?\s*\bstrict=\w+|,(?=\s*\))")
_KILLED = {1, 3}  # pytest: a test failed, or none could be collected with the mutant in
_TIMED_OUT = {24, 36, 152, -24}  # 36 is mutmut's own, the others are SIGXCPU's
# mutmut calls 255 a time-out too; it ends so where it failed itself, and then nothing was noticed.
_UNREACHED = {33, 34, 5}  # no test, skipped, none collected


class End(StrEnum):
    """How the tests of a mutant ended."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"
    UNREACHED = "unreached"
    BROKEN = "broken"
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake that mutmut put in.

    Attributes:
        file: below the source root, such as ``onnx_harness/gate/rules.py``.
        line: the first line of ``file`` that it changes, from 1.
        was: the lines that it changes, without indentation.
        now: what it makes of them.
        end: how its tests ended.
        key: what mutmut calls it.
    """

    file: str
    line: int
    was: str
    now: str
    end: End
    key: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it changes a sentence alone: messages are for people, and tests don't quote each.

        Or how strict a zip is: an assertion that its sides are as long, which no input breaks.
        """
        was, now = (_ZIP.sub("", text) for text in (self.was, self.now))
        return _without_sentences(was) == _without_sentences(now)


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A mutant that no test can notice, or a kind of them, as a person has written it down.

    Attributes:
        file: below the source root; of a kind also ``*``: any.
        was: the line; of a kind a regular expression for the part of it that changes.
        now: what becomes of the line; of a kind of that part, with ``\\1`` for its first group.
        why: no test can notice it.
        is_kind: whether it is a kind.
    """

    file: str
    was: str
    now: str
    why: str
    is_kind: bool = False

    def fits(self, mutant: Mutant) -> bool:
        """Whether ``mutant`` is the one that is meant, or of the kind."""
        if self.file not in (mutant.file, "*"):
            return False
        if not self.is_kind:
            return (self.was, self.now) == (mutant.was, mutant.now)
        return any(
            mutant.was[: found.start()] + found.expand(self.now) + mutant.was[found.end() :]
            == mutant.now
            for found in re.finditer(self.was, mutant.was)
        )


def read_equivalents(path: Path) -> list[Equivalent]:
    """Read the file of reasons.

    Raises:
        ValueError: an entry lacks a field, or gives no reason.
    """
    tables = tomllib.loads(path.read_text("utf-8"))
    fields = {"file", "was", "is", "why"}
    reasons = []
    for table, is_kind in (("mutant", False), ("kind", True)):
        for entry in tables.get(table, []):
            if entry.keys() != fields or not entry["why"].strip():
                raise ValueError(
                    f"{path.name}: an entry needs {', '.join(sorted(fields))}: {entry}"
                )
            reasons.append(
                Equivalent(entry["file"], entry["was"], entry["is"], entry["why"], is_kind)
            )
    return reasons


def read_mutants(folder: Path, source: Path) -> Iterator[Mutant]:
    """Yield the mutants of all files below ``folder``.

    Args:
        folder: where mutmut wrote the files with mutants, and beside each a ``.meta`` and a
            ``.spans``.
        source: the source root that they were made from.
    """
    for meta in sorted(folder.rglob("*.py.meta")):
        made = meta.with_suffix("")
        file = made.relative_to(folder).as_posix()
        ended = json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
        yield from _of_file(made, file, source / file, ended)


def _of_file(
    made: Path, file: str, source: Path, codes: dict[str, int | None]
) -> Iterator[Mutant]:
    lines = made.read_text("utf-8").splitlines()
    spans = json.loads(Path(f"{made}.spans").read_text("utf-8"))["spans"]
    starts = first_lines(source.read_text("utf-8"))
    for full_name, code in codes.items():
        name = full_name.rpartition(".")[2]
        match = _NUMBER.match(name)
        if match is None:
            raise ValueError(
                f"{made}: mutmut called a mutant {name!r}: its version isn't the locked one"
            )
        original = f"{match['function']}__mutmut_{ORIGINAL}"
        before, after = (_body(lines, spans[key]) for key in (original, name))
        place, was, now = _change(before, after)
        line = starts[match["function"]] + place
        yield Mutant(file, line, was, now, _end(code), full_name)


def _body(lines: list[str], span: list[int]) -> list[str]:
    """The lines of one copy of a function, from its ``def`` on, under one name."""
    body = lines[span[0] - 1 : span[1]]
    first = next(
        index for index, line in enumerate(body) if re.match(r"\s*(async )?def ", line)
    )
    renamed = re.sub(r"__mutmut_(\d+|orig)\(", "(", body[first])
    return [renamed, *body[first + 1 :]]


def _change(before: list[str], after: list[str]) -> tuple[int, str, str]:
    """Where two copies differ, counted from the ``def``, and the lines of each."""
    changes = SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    [first, *_] = [change for change in changes if change[0] != "equal"]
    _, start, end, start_after, end_after = first
    return start, _joined(before[start:end]), _joined(after[start_after:end_after])


def _joined(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines)


def first_lines(source: str) -> dict[str, int]:
    """The line of each function's ``def``, by the name that mutmut gives to the function."""
    return {name: node.lineno for name, node in _functions(source)}


def patterns(file: str, source: str, lines: set[int]) -> list[str]:
    """What mutmut is to be asked for, to try every mutant on ``lines`` of ``file``."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    touched = (
        name
        for name, node in _functions(source)
        if not lines.isdisjoint(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    )
    return [f"{module}.{name}__mutmut_*" for name in touched]


def _functions(source: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            yield f"x_{node.name}", node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"xǁ{node.name}ǁ{inner.name}", inner


def _end(code: int | None) -> End:
    if code is None:
        return End.UNTRIED
    if code in _KILLED:
        return End.KILLED
    if code in _TIMED_OUT:
        return End.TIMED_OUT
    if code == 0:
        return End.SURVIVED
    return End.UNREACHED if code in _UNREACHED else End.BROKEN


def _without_sentences(line: str) -> list[str]:
    """The tokens of a line; of a literal with blanks in it, only that there is one."""
    tokens: list[str] = []
    # A line out of a longer statement ends before its brackets do.
    with contextlib.suppress(tokenize.TokenError, IndentationError):
        for token in tokenize.generate_tokens(StringIO(line).readline):
            if token.type in (tokenize.NL, tokenize.NEWLINE):
                continue
            text = token.string
            is_sentence = token.type == tokenize.STRING and text[0] in "\"'" and " " in text
            tokens.append('""' if is_sentence else text)
    return tokens
