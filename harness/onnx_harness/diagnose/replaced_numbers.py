"""The numbers of a case, replaced by others as long as it fails as before.

All are replaced at once where that works. Else those are searched for that have to stay; they are
replaced one after another, the least telling replacement first, and at last in part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_harness.diagnose.case_data import Data, Place, data_of, flat_with, with_data
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.redraw import replacements, says_nothing, scale_of
from onnx_harness.diagnose.smaller_case import Array

if TYPE_CHECKING:
    from onnx_harness.diagnose.reduce import Reducer

_MOST_GROUPS = 64
_APART = 1 << 31  # more than there are arrays: what differs has nothing in common

Arrays = dict[Place, Array]


@dataclass(slots=True)
class _Entry:
    """Arrays that are replaced together.

    Attributes:
        label: for a person.
        number: that decides the draw.
        array: that all places hold.
        places: of the array.
        changed: the array of the same role in the other model; None where it's the same.
        changed_places: of that one.
        replaced: whether no value stays.
        stays: positions in the flat array whose values stay, where some are replaced.
        further: what else stays, in words.
    """

    label: str
    number: int
    array: Array
    places: list[Place]
    changed: Array | None = None
    changed_places: list[Place] = field(default_factory=list)
    replaced: bool = False
    stays: Array | None = None
    further: str = ""

    def put(
        self,
        first: Array,
        second: Array | None = None,
    ) -> Arrays:
        """Return what to put where."""
        arrays = dict.fromkeys(self.places, first)
        arrays.update(
            dict.fromkeys(self.changed_places, first if second is None else second)
        )
        return arrays

    def telling(self) -> Array:
        """Return the positions of values that say something: not 0, 1 or -1, unless all are."""
        flat = self.array.reshape(-1)
        if flat.dtype.kind == "c":
            return np.arange(flat.size)
        telling = ~np.isin(np.abs(flat.astype(np.float64)), (0, 1))
        if self.changed is not None:
            telling |= _differs(self.array, self.changed).reshape(-1)
        return np.flatnonzero(telling) if telling.any() else np.arange(flat.size)

    @property
    def line(self) -> str | None:
        """The words on what stays; None where nothing does."""
        size = self.array.size
        if self.replaced:
            return f"{self.label}: {self.further}" if self.further else None
        stays = self.telling() if self.stays is None else self.stays
        values = "value" if size == 1 else "values"
        return f"{self.label}: {len(stays)} of {size} {values} ({self.array.dtype.name})"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Arrays to put in the places of an entry, and what they still say."""

    arrays: Arrays
    further: str = ""


def replace_numbers(reducer: Reducer) -> list[str]:
    """Replace the numbers of a reducer's case.

    Returns:
        What stays, a line for each array: values, signs, or the difference of two models.
    """
    entries = _entries(data_of(reducer.case))
    with contextlib.suppress(OutOfBudget):
        _all_at_once(reducer, entries)
        _all_but_few(reducer, [entry for entry in entries if not entry.replaced])
        for entry in entries:
            if not entry.replaced:
                _replace(reducer, entry)
        for entry in entries:
            if not entry.replaced:
                _replace_part(reducer, entry)
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
        content: tuple[object, ...] = (array.dtype.name, array.shape, array.tobytes())
        if array.size == 1:  # it may be the same by chance
            content = (*content, data.key)
        entry = entries.setdefault(content, _Entry(data.label, len(entries), array, []))
        entry.places.append(data.place)
        if data.place.owner == 0:
            by_key[data.key] = entry
    telling = []
    for entry in entries.values():
        changed = entry.array if entry.changed is None else entry.changed
        if not (says_nothing(entry.array) and says_nothing(changed)):
            telling.append(entry)
    return telling


def _all_at_once(
    reducer: Reducer,
    entries: Sequence[_Entry],
) -> None:
    """Replace all arrays by one of the candidates of each."""
    original = reducer.case
    remaining = [_candidates(entry) for entry in entries]
    chosen: list[_Candidate | None] = [None] * len(entries)
    while True:
        exhausted = True
        for at, candidates in enumerate(remaining):
            following = next(candidates, None)
            if following is not None:
                chosen[at], exhausted = following, False
        if exhausted:
            return
        if _takes(reducer, original, entries, chosen):
            return


def _all_but_few(
    reducer: Reducer,
    entries: Sequence[_Entry],
) -> None:
    """Replace all arrays but those that the failure needs."""
    if len(entries) < 2:
        return
    original = reducer.case
    candidates = [_scaled(entry) for entry in entries]

    def fails(
        stay: tuple[int, ...],
    ) -> bool:
        chosen = [None if at in stay else item for at, item in enumerate(candidates)]
        return _takes(reducer, original, entries, chosen)

    minimal_part(range(len(entries)), fails, passes_empty=True)


def _takes(
    reducer: Reducer,
    original: Any,
    entries: Sequence[_Entry],
    chosen: Sequence[_Candidate | None],
) -> bool:
    """Check a case with a candidate for each entry that has one, and note what was replaced."""
    arrays: Arrays = {}
    for candidate in chosen:
        arrays.update({} if candidate is None else candidate.arrays)
    if not reducer.takes(with_data(original, arrays)):
        return False
    for entry, candidate in zip(entries, chosen, strict=True):
        entry.replaced = candidate is not None
        entry.further = "" if candidate is None else candidate.further
    return True


def _replace(
    reducer: Reducer,
    entry: _Entry,
) -> None:
    """Replace one array, of two models last with the difference that they have."""
    original = reducer.case
    for candidate in (*_candidates(entry), *_with_difference(entry)):
        if _takes(reducer, original, [entry], [candidate]):
            return


def _replace_part(
    reducer: Reducer,
    entry: _Entry,
) -> None:
    """Replace the values of an array that may be another, in few steps."""
    drawn = _scaled_array(entry)
    if drawn is None or entry.array.size < 2:
        return
    original, telling = reducer.case, entry.telling()
    groups = np.array_split(telling, min(len(telling), _MOST_GROUPS))

    def fails(
        chosen: tuple[int, ...],
    ) -> bool:
        stays = np.concatenate([groups[number] for number in chosen])
        first = flat_with(drawn, entry.array, stays)
        second = None if entry.changed is None else flat_with(drawn, entry.changed, stays)
        if not reducer.takes(with_data(original, entry.put(first, second))):
            return False
        entry.stays = stays
        return True

    minimal_part(range(len(groups)), fails, passes_empty=True)


def _candidates(entry: _Entry) -> Iterator[_Candidate]:
    """Yield replacements of an entry, the least telling first.

    For two models: the same for both; with another difference where they differ; nothing in common.
    """
    if entry.changed is None:
        for drawn in replacements(entry.array, entry.number):
            yield _Candidate(entry.put(drawn.array), _signs(entry, drawn.signs))
        return
    first = next(replacements(entry.array, entry.number), None)
    if first is not None:
        yield _Candidate(entry.put(first.array))
    for drawn in replacements(entry.array, entry.number):
        arrays = entry.put(drawn.array, _another(entry, drawn.array))
        yield _Candidate(arrays, _signs(entry, drawn.signs))
    apart = replacements(entry.changed, entry.number + _APART)
    for drawn, twin in zip(replacements(entry.array, entry.number), apart, strict=False):
        signs = _signs(entry, drawn.signs or twin.signs)
        yield _Candidate(entry.put(drawn.array, twin.array), signs)


def _with_difference(entry: _Entry) -> Iterator[_Candidate]:
    """Yield replacements of an entry in which two models have the difference that they had."""
    if entry.changed is None or entry.array.dtype.kind == "b":
        return
    places = int(np.count_nonzero(_differs(entry.array, entry.changed)))
    words = f"the difference of the two models at {places} of {entry.array.size} places"
    for drawn in replacements(entry.array, entry.number):
        with np.errstate(all="ignore"):
            second = drawn.array + (entry.changed - entry.array)
        yield _Candidate(entry.put(drawn.array, np.asarray(second)), words)


def _scaled(entry: _Entry) -> _Candidate | None:
    """Return the candidate that has the scale of the array, and for two models a difference."""
    drawn = _scaled_array(entry)
    if drawn is None:
        return None
    second = None if entry.changed is None else _another(entry, drawn)
    return _Candidate(entry.put(drawn, second))


def _scaled_array(entry: _Entry) -> Array | None:
    """Return the second replacement, the first where there is no other."""
    array = None
    for at, drawn in enumerate(replacements(entry.array, entry.number)):
        array = drawn.array
        if at:
            break
    return array


def _signs(
    entry: _Entry,
    stay: bool,
) -> str:
    return f"the signs of {entry.array.size} values" if stay else ""


def _another(
    entry: _Entry,
    first: Array,
) -> Array:
    """Return an array that differs from a replacement where the two models differ."""
    assert entry.changed is not None
    mask = _differs(entry.array, entry.changed)
    moved = first
    if entry.array.dtype.kind == "f":
        generator = np.random.default_rng([entry.number, 1])
        with np.errstate(all="ignore"):
            difference = entry.changed.astype(np.float64) - entry.array.astype(np.float64)
        step = generator.uniform(0.5, 1.0, mask.shape) * scale_of(difference)
        moved = np.asarray(first + step * generator.choice((-1.0, 1.0), mask.shape))
    else:
        for drawn in replacements(first, entry.number + 1):
            moved = drawn.array
            break
    with np.errstate(all="ignore"):
        return np.where(mask, moved.astype(first.dtype), first)


def _is_cast(
    first: Array,
    second: Array,
) -> bool:
    """Return whether an array is another one, perhaps rounded to its own type."""
    if first.shape != second.shape:
        return False
    with np.errstate(all="ignore"):
        return first.astype(second.dtype).tobytes() == second.tobytes()


def _alike(
    first: Array,
    second: Array,
) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape


def _differs(
    first: Array,
    second: Array,
) -> Array:
    """Return where two arrays differ; NaN is the same as NaN."""
    return np.asarray((first != second) & ~((first != first) & (second != second)))
