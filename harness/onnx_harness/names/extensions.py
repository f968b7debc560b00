"""Names that other packages add through entry points.

Loaded when asked for, and never in the way of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from onnx_harness.errors import words_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extension:
    """An entry point of another package.

    Attributes:
        name: the entry point's.
        distribution: the package that declares it, with its version.
        loaded: what it names; None where that can't be loaded.
        problem: why it can't be; None where it can.
    """

    name: str
    distribution: str
    loaded: object = None
    problem: str | None = None

    def sentence(self, problem: str | None = None) -> str:
        """The problem in a sentence: this one's own, or one that its reader found."""
        return (
            f"Entry point '{self.name}' of {self.distribution} can't be loaded: "
            f"{problem or self.problem}."
        )


@cache
def extensions(group: str) -> tuple[Extension, ...]:
    """The entry points of ``group``, those that cannot be loaded included."""
    return tuple(map(_load, _entry_points(group)))


def registered(
    ours: Mapping[str, T],
    others: Iterable[Extension],
    declared: Callable[[object], Iterable[tuple[Iterable[str], T]]],
    what: str,
) -> tuple[Mapping[str, T], tuple[str, ...]]:
    """Join what this package has under a name with what others add.

    Args:
        ours: by name.
        others: from :func:`extensions`.
        declared: reads what a loaded entry point declares: each thing with the names that it
            claims.
        what: the word for such a thing: ``transform``.

    Returns:
        Everything by name, and a sentence for each thing that is left out: it can't be loaded, is
        no such thing, or claims a name that is taken.
    """
    things = dict(ours)
    problems = []
    for extension in others:
        if extension.problem is not None:
            problems.append(extension.sentence())
            continue
        claims = list(declared(extension.loaded))
        if not claims:
            problems.append(extension.sentence(f"its module declares no {what.upper()}"))
        for names, thing in claims:
            duplicates = [name for name in names if name in things]
            if duplicates:
                problems.append(
                    extension.sentence(f"there is a {what} called '{duplicates[0]}' already")
                )
            else:
                things.update(dict.fromkeys(names, thing))
    return things, tuple(problems)


def _entry_points(group: str) -> Iterable[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: (point.name, point.value))


def _load(point: EntryPoint) -> Extension:
    distribution = (
        "an unnamed package"
        if point.dist is None
        else f"{point.dist.name} {point.dist.version}"
    )
    try:
        return Extension(point.name, distribution, point.load())
    except (
        Exception,
        SystemExit,
    ) as error:  # its module runs as it's imported: it may raise anything
        return Extension(point.name, distribution, problem=words_of(error))
