"""The input columns that reach a model's trees, and what each branch asks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.inputs.decisions.columns import Column
from onnx_harness.inputs.decisions.cuts import Floats, Grid, cut, direction
from onnx_harness.inputs.decisions.ensembles import Bools, Ensemble, Ints, Mode
from onnx_harness.inputs.graph.signature import Input

UNKNOWN_TEXT = "(none of these)"
_STRICT = (Mode.LT, Mode.GTE)
_HOLDS_BELOW = (Mode.LEQ, Mode.LT)
_PROBED = (0.0, 1.0, -1.0, 7.5)


@dataclass(frozen=True, eq=False)
class Slot:
    """One column of one input.

    Attributes:
        source: the input.
        place: which element of its row.
        dtype: of the input.
        elements: all values worth telling apart, where it is looked up in a table; else empty, and
            any number goes.
        missing: a value that is replaced by an Imputer, or NaN where a branch looks for it; None
            where there is none.
        low: least number that it may hold, by the card or by what else the graph asks.
        high: greatest number.
    """

    source: str
    place: int
    dtype: np.dtype[Any]
    elements: tuple[Any, ...] = ()
    missing: float | None = None
    low: float = -np.inf
    high: float = np.inf

    @property
    def grid(self) -> Grid:
        """The numbers that its type can hold."""
        return Grid(self.dtype)


@dataclass(frozen=True, eq=False)
class Asked:
    """What the branches of an ensemble ask of the slots.

    Arrays are by tree node, as the ensemble's.

    Attributes:
        ensemble: the trees.
        columns: by feature; None where the column can't be followed back.
        slot: which slot a branch looks at, [N]; -1 where it isn't known, or where nothing there
            moves it.
        below: the greatest number on the lower side, [N].
        above: the least number on the upper side, [N].
        low_holds: whether the comparison holds on the lower side, [N].
        span: for equalities: the numbers that are equal, [N, 2]; NaN elsewhere.
        strict: whether the threshold itself lies on the upper side, [N].
        allowed: for branches on a slot with elements: for which of them the comparison holds.
    """

    ensemble: Ensemble
    columns: list[Column | None]
    slot: Ints
    below: Floats
    above: Floats
    low_holds: Bools
    span: Floats
    strict: Bools
    allowed: dict[int, Bools]

    def features(self, slots: Sequence[Slot], rows: Floats) -> NDArray[Any]:
        """The features that arrive for rows of slots, [R, S] to [R, F].

        For columns that aren't known, 0.
        """
        place = {(slot.source, slot.place): number for number, slot in enumerate(slots)}
        width = int(self.ensemble.feature.max()) + 1 if self.ensemble.feature.size else 0
        found = np.zeros((len(rows), max(width, len(self.columns))))
        for feature in np.unique(self.ensemble.feature[self.slot >= 0]):
            column = self.columns[feature]
            assert column is not None
            number = place[column.slot]
            found[:, feature] = column.apply(values_of(slots[number], rows[:, number])).astype(
                np.float64
            )
        return found


def values_of(slot: Slot, numbers: Floats) -> NDArray[Any]:
    """What an input holds for a slot's numbers: the elements that they count, or the numbers in the
    input's type.
    """
    if not slot.elements:
        return numbers.astype(slot.dtype)
    found = np.empty(len(numbers), object)
    found[:] = [slot.elements[int(number)] for number in numbers]
    return found if slot.dtype == object else found.astype(slot.dtype)


def slots_of(
    asked: Sequence[tuple[Ensemble, Sequence[Column]]], inputs: Mapping[str, Input]
) -> list[Slot]:
    """The slots that the branches of some ensembles look at, by their columns."""
    elements: dict[tuple[str, int], dict[Any, None]] = {}
    lacking: dict[tuple[str, int], float | None] = {}
    for ensemble, columns in asked:
        branches = ensemble.branches
        seen = np.unique(ensemble.feature[branches])
        looks = set(np.unique(ensemble.feature[branches][ensemble.missing[branches]]).tolist())
        for feature in seen[seen < len(columns)].tolist():
            column = columns[feature]
            known = elements.setdefault(column.slot, {})
            lacking.setdefault(column.slot, None)
            first = next((step for step in column.maps if step.kind in ("onehot", "lookup")), None)
            if first is not None:
                known.update(dict.fromkeys(first.keys))
                if first.is_open and inputs[column.source].is_string:
                    known[UNKNOWN_TEXT] = None
            imputer = next((step for step in column.maps if step.kind == "impute"), None)
            if imputer is not None:
                lacking[column.slot] = imputer.numbers[0]
            elif feature in looks and inputs[column.source].is_float and not known:
                lacking[column.slot] = float("nan")
    return [
        Slot(
            source,
            place,
            inputs[source].dtype,
            tuple(known),
            None if known else lacking[source, place],
        )
        for (source, place), known in elements.items()
    ]


def asked_of(ensemble: Ensemble, columns: Sequence[Column], slots: Sequence[Slot]) -> Asked:
    """What the branches of an ensemble ask of the slots."""
    count = len(ensemble.mode)
    found = Asked(
        ensemble,
        list(columns),
        np.full(count, -1),
        np.full(count, -np.inf),
        np.full(count, np.inf),
        np.zeros(count, bool),
        np.full((count, 2), np.nan),
        np.isin(ensemble.mode, _STRICT),
        {},
    )
    place = {(slot.source, slot.place): number for number, slot in enumerate(slots)}
    branches = ensemble.branches
    order = branches[np.argsort(ensemble.feature[branches], kind="stable")]
    for group in np.split(order, np.flatnonzero(np.diff(ensemble.feature[order])) + 1):
        feature = int(ensemble.feature[group[0]]) if group.size else -1
        if not 0 <= feature < len(columns) or columns[feature].slot not in place:
            continue
        number = place[columns[feature].slot]
        if slots[number].elements:
            _ask_elements(found, slots[number], columns[feature], group, number)
        else:
            _ask_numbers(found, slots[number], columns[feature], group, number)
    return found


def _ask_elements(asked: Asked, slot: Slot, column: Column, group: Ints, number: int) -> None:
    images = column.apply(values_of(slot, np.arange(len(slot.elements), dtype=np.float64))).astype(
        np.float64
    )
    for at in group.tolist():
        asked.allowed[at] = asked.ensemble.holds(np.full(len(images), at), images)
        asked.slot[at] = number


def _ask_numbers(asked: Asked, slot: Slot, column: Column, group: Ints, number: int) -> None:
    grid, apply = slot.grid, _applied(column)
    rising = direction(grid, apply)
    if rising == 0:
        return  # nothing that the input holds moves it
    ensemble = asked.ensemble
    asked.slot[group] = number
    strict = asked.strict[group]
    equal = np.isin(ensemble.mode[group], (Mode.EQ, Mode.NEQ, Mode.MEMBER))
    for is_strict in (False, True):
        mine = group[(strict == is_strict) & ~equal]
        if mine.size:
            asked.below[mine] = cut(grid, apply, rising, ensemble.split[mine], strict=is_strict)
    asked.low_holds[group] = np.isin(ensemble.mode[group], _HOLDS_BELOW) == (rising > 0)
    if equal.any():
        mine = group[equal]
        wanted = np.asarray(
            [ensemble.members.get(at, ensemble.split[[at]])[0] for at in mine.tolist()]
        )
        ends = [cut(grid, apply, rising, wanted, strict=is_strict) for is_strict in (True, False)]
        low, high = np.minimum(*ends), np.maximum(*ends)
        asked.span[mine] = np.stack([grid.step(low, 1), high], axis=1)
        asked.below[mine] = low
    asked.above[group] = grid.step(asked.below[group], 1)


def _applied(column: Column) -> Any:
    return partial(_apply, column)


def _apply(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    return column.apply(values)
