"""A case made public: what identifies its model is replaced as long as it fails as before.

What can't be replaced is listed. Everything is replaced at once where that works, else as much as
can be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnx_harness.diagnose import renaming, strings
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.replaced_numbers import replace_numbers

if TYPE_CHECKING:
    from onnx_harness.diagnose.reduce import Reducer

_MOST_GROUPS = 64


def publish(reducer: Reducer) -> tuple[str, ...]:
    """Replace names, strings and numbers of a reducer's case by what says nothing.

    Args:
        reducer: its case and its fault are replaced.

    Returns:
        What stays, a line each: names, strings, and how many values of which array.
    """
    lines = []
    for replaced in (_names, _strings, replace_numbers):
        lines += replaced(reducer)
    return tuple(lines)


def _names(reducer: Reducer) -> list[str]:
    old = renaming.new_names(reducer.case).old
    foreign = renaming.foreign_operators(reducer.case)
    original, fault = reducer.case, reducer.observer.fault
    lines = [f"operators of other domains: {_listed(foreign)}"] if foreign else []

    def takes(
        stay: Sequence[str],
        *,
        typed: bool = True,
        remarks: bool = False,
    ) -> bool:
        names = renaming.new_names(original, stay)
        renamed = renaming.renamed_case(original, names, typed=typed, remarks=remarks)
        return reducer.takes_with(renamed, renaming.renamed_fault(fault, names))

    stay: Sequence[str] = old
    with contextlib.suppress(OutOfBudget):
        if takes((), typed=False) or takes(()) or takes((), remarks=True):
            stay = ()
        else:
            remarks = not takes(old)
            stay = _needed(old, lambda chosen: takes(chosen, remarks=remarks), old)
    if stay:
        lines.append(f"names: {_listed(stay)}")
    if renaming.has_remarks(reducer.case):
        lines.append("documentation, metadata or the producer of the model")
    return lines


def _strings(reducer: Reducer) -> list[str]:
    words = strings.strings_of(reducer.case)
    if not words:
        return []
    original = reducer.case

    def takes(stay: Sequence[str]) -> bool:
        return reducer.takes(strings.replaced_strings(original, stay))

    stay: Sequence[str] = words
    with contextlib.suppress(OutOfBudget):
        stay = () if takes(()) else _needed(words, takes, words)
    return [f"strings: {_listed(stay)}"] if stay else []


def _needed(
    items: Sequence[str], takes: Callable[[Sequence[str]], bool], otherwise: Sequence[str]
) -> Sequence[str]:
    """Return the least of some items that have to stay, as far as time allows."""
    groups = _grouped(items)
    accepted = [tuple(otherwise)]

    def fails(
        chosen: tuple[int, ...],
    ) -> bool:
        stay = [item for number in chosen for item in groups[number]]
        if not takes(stay):
            return False
        accepted.append(tuple(stay))
        return True

    minimal_part(range(len(groups)), fails, passes_empty=True)
    return accepted[-1]


def _grouped(items: Sequence[str]) -> list[list[str]]:
    """Return at most so many groups of items that a search over them ends."""
    size = -(-len(items) // _MOST_GROUPS)
    return [
        list(items[start : start + size]) for start in range(0, len(items), max(size, 1))
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
