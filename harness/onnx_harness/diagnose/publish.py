"""A case made public: what identifies its model is replaced as long as it fails as before.

What can't be replaced is listed. Everything is replaced at once where that works; else one after
another, and where that doesn't work, in part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from onnx_harness.diagnose import renaming, strings
from onnx_harness.diagnose.case_data import Data, Place, data_of, flat_with, with_data
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.redraw import replacements, says_nothing, scale_of
from onnx_harness.diagnose.smaller_case import Array

if TYPE_CHECKING:
    from onnx_harness.diagnose.reduce import Reducer

_MOST_GROUPS = 64
_APART = 1 << 31  # more than there are arrays: what differs has nothing in common

Arrays = dict[Place, Array]


def publish(reducer: Reducer) -> tuple[str, ...]:
    """Replace names, strings and numbers of a reducer's case by what says nothing.

    Args:
        reducer: its case and its fault are replaced.

    Returns:
        What stays, a line each: names, strings, and how many values of which array.
    """
    lines = []
    for replaced in (_names, _strings, _numbers):
        lines += replaced(reducer)
    return tuple(lines)


def _names(reducer: Reducer) -> list[str]:
    old = renaming.new_names(reducer.case).old
    foreign = renaming.foreign_operators(reducer.case)
    original, fault = reducer.case, reducer.observer.fault
    lines = [f"operators of other domains: {_listed(foreign)}"] if foreign else []

    def takes(stay: Sequence[str], *, typed: bool = True, remarks: bool = False) -> bool:
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

    def fails(chosen: tuple[int, ...]) -> bool:
        stay = [item for number in chosen for item in groups[number]]
        if not takes(stay):
            return False
        accepted.append(tuple(stay))
        return True

    minimal_part(range(len(groups)), fails, passes_empty=True)
    return accepted[-1]


@dataclass(slots=True)
class _Entry:
    """Arrays that are replaced together.

    Attributes:
        label: for a person.
        array: that all places hold.
        places: of the array.
        changed: the array of the same role in the other model; None where it's the same.
        changed_places: of that one.
        left: positions in the flat array whose values stay.
        difference: whether the difference between the two stays.
    """

    label: str
    array: Array
    places: list[Place]
    changed: Array | None = None
    changed_places: list[Place] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    difference: bool = False

    def arrays(self, first: Array, second: Array | None = None) -> Arrays:
        """Return what to put where."""
        arrays = dict.fromkeys(self.places, first)
        arrays.update(dict.fromkeys(self.changed_places, first if second is None else second))
        return arrays

    @property
    def line(self) -> str | None:
        """What stays, in words; None where nothing does."""
        size = self.array.size
        if self.left:
            values = "value" if size == 1 else "values"
            return f"{self.label}: {len(self.left)} of {size} {values} ({self.array.dtype.name})"
        if self.difference and self.changed is not None:
            places = int(np.count_nonzero(_differs(self.array, self.changed)))
            return f"{self.label}: the difference of the two models at {places} of {size} places"
        return None


def _numbers(reducer: Reducer) -> list[str]:
    entries = _entries(data_of(reducer.case))
    for entry in entries:
        entry.left = _telling(entry)
    with contextlib.suppress(OutOfBudget):
        if not _all_at_once(reducer, entries):
            for number, entry in enumerate(entries):
                _replace(reducer, entry, number)
    return [entry.line for entry in entries if entry.line is not None]


def _entries(arrays: Iterable[Data]) -> list[_Entry]:
    """Group what is equal, and pair what differs between the two models.

    What says nothing is left out.
    """
    entries: dict[tuple[object, ...], _Entry] = {}
    by_key: dict[tuple[str, ...], _Entry] = {}
    for data in arrays:
        array = data.array
        partner = by_key.get(data.key) if data.place.owner == 1 else None
        if partner is not None and _is_cast(partner.array, array):
            partner.places.append(data.place)
            continue
        if partner is not None and _alike(partner.array, array) and partner.changed is None:
            partner.changed = array
            partner.changed_places.append(data.place)
            continue
        content = (array.dtype.name, array.shape, array.tobytes())
        # A scalar may be the same by chance.
        found = content if array.size > 1 else (*content, data.key)
        entry = entries.setdefault(found, _Entry(data.label, array, []))
        entry.places.append(data.place)
        if data.place.owner == 0:
            by_key[data.key] = entry
    telling = []
    for entry in entries.values():
        changed = entry.array if entry.changed is None else entry.changed
        if not (says_nothing(entry.array) and says_nothing(changed)):
            telling.append(entry)
    return telling


def _all_at_once(reducer: Reducer, entries: Sequence[_Entry]) -> bool:
    """Replace all arrays; whether the case fails as before with one of the candidates of each."""
    columns = [_candidates(entry, number) for number, entry in enumerate(entries)]
    if not entries or not all(columns):
        return not entries
    original = reducer.case
    for row in zip_longest(*columns):
        chosen: Arrays = {}
        for candidates, arrays in zip(columns, row, strict=True):
            chosen.update(candidates[-1] if arrays is None else arrays)
        if reducer.takes(with_data(original, chosen)):
            for entry in entries:
                entry.left = []
            return True
    return False


def _replace(reducer: Reducer, entry: _Entry, number: int) -> None:
    """Replace one array, or as much of it as can be."""
    original = reducer.case
    candidates = _candidates(entry, number)
    for arrays in candidates:
        if reducer.takes(with_data(original, arrays)):
            entry.left = []
            return
    if entry.changed is not None and _with_difference(reducer, entry, number):
        return
    drawn = replacements(entry.array, number)
    if entry.array.size > 1 and drawn:
        _replace_part(reducer, entry, drawn[min(1, len(drawn) - 1)])


def _with_difference(reducer: Reducer, entry: _Entry, number: int) -> bool:
    """Replace a pair of arrays, with the difference that they have."""
    assert entry.changed is not None
    if entry.array.dtype.kind == "b":
        return False
    for first in replacements(entry.array, number):
        with np.errstate(all="ignore"):
            second = np.asarray(first + (entry.changed - entry.array)).astype(first.dtype)
        if reducer.takes(with_data(reducer.case, entry.arrays(first, second))):
            entry.left, entry.difference = [], True
            return True
    return False


def _replace_part(reducer: Reducer, entry: _Entry, drawn: Array) -> None:
    """Replace the values of an array that may be another, in few steps."""
    original = reducer.case
    groups = np.array_split(np.array(entry.left), min(len(entry.left), _MOST_GROUPS))

    def fails(chosen: tuple[int, ...]) -> bool:
        left = [int(place) for group in chosen for place in groups[group]]
        first = flat_with(drawn, entry.array, left)
        second = None
        if entry.changed is not None:
            second = flat_with(drawn, entry.changed, left)
        if not reducer.takes(with_data(original, entry.arrays(first, second))):
            return False
        entry.left = left
        return True

    minimal_part(range(len(groups)), fails, passes_empty=True)


def _candidates(entry: _Entry, number: int) -> list[Arrays]:
    """Return replacements of an entry, the least telling first.

    For two models: the same for both; with another difference where they differ; nothing in common.
    """
    drawn = replacements(entry.array, number)
    if entry.changed is None:
        return [entry.arrays(first) for first in drawn]
    apart = replacements(entry.changed, number + _APART)
    candidates = [entry.arrays(first) for first in drawn[:1]]
    for first in drawn:
        candidates.append(entry.arrays(first, _another(entry, first, number)))
    candidates.extend(entry.arrays(*pair) for pair in zip(drawn, apart, strict=False))
    return candidates


def _another(entry: _Entry, first: Array, number: int) -> Array:
    """Return an array that differs from a replacement where the two models differ."""
    assert entry.changed is not None
    mask = _differs(entry.array, entry.changed)
    generator = np.random.default_rng([number, 1])
    if entry.array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            difference = entry.changed.astype(np.float64) - entry.array.astype(np.float64)
        step = generator.uniform(0.5, 1.0, mask.shape) * scale_of(difference)
        other = first + step * generator.choice((-1.0, 1.0), mask.shape)
    else:
        other = next(iter(replacements(first, number + 1)), first)
    with np.errstate(all="ignore"):
        return np.where(mask, np.asarray(other).astype(first.dtype), first)


def _telling(entry: _Entry) -> list[int]:
    """Return the positions of values that say something: not 0, 1 or -1, unless all are."""
    flat = entry.array.reshape(-1)
    if flat.dtype.kind == "c":
        return list(range(flat.size))
    telling = ~np.isin(np.abs(flat.astype(np.float64)), (0, 1))
    if entry.changed is not None:
        telling |= _differs(entry.array, entry.changed).reshape(-1)
    if not telling.any():
        return list(range(flat.size))
    return [int(place) for place in np.flatnonzero(telling)]


def _is_cast(first: Array, second: Array) -> bool:
    """Return whether an array is another one, perhaps rounded to its own type."""
    if first.shape != second.shape:
        return False
    with np.errstate(all="ignore"):
        return first.astype(second.dtype).tobytes() == second.tobytes()


def _alike(first: Array, second: Array) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape


def _differs(first: Array, second: Array) -> Array:
    """Return where two arrays differ; NaN is the same as NaN."""
    return np.asarray((first != second) & ~((first != first) & (second != second)))


def _grouped(items: Sequence[str]) -> list[list[str]]:
    """Return at most so many groups of items that a search over them ends."""
    size = -(-len(items) // _MOST_GROUPS)
    return [list(items[start : start + size]) for start in range(0, len(items), max(size, 1))]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
