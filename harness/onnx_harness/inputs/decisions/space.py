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
_MOST_BETWEEN = 512  # integers that are tried beside the members of a set
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
    """The questions that the branches of an ensemble ask of the slots.

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
        tried: for branches that ask whether a number is in a set: the slot's numbers for each
            member, and for the integers between them.
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
    tried: dict[int, Floats]

    def features(self, slots: Sequence[Slot], rows: Floats) -> NDArray[Any]:
        """The features that arrive for rows of slots, [R, S] to [R, F].

        For columns that aren't known, 0.
        """
        place = {(slot.source, slot.place): number for number, slot in enumerate(slots)}
        width = int(self.ensemble.feature.max()) + 1 if self.ensemble.feature.size else 0
        features = np.zeros((len(rows), max(width, len(self.columns))))
        for feature in np.unique(self.ensemble.feature[self.slot >= 0]):
            column = self.columns[feature]
            assert column is not None
            number = place[column.slot]
            features[:, feature] = column.apply(
                values_of(slots[number], rows[:, number])
            ).astype(np.float64)
        return features


def values_of(slot: Slot, numbers: Floats) -> NDArray[Any]:
    """Return what an input holds for a slot's numbers.

    The elements that they count, or the numbers in the input's type.
    """
    if not slot.elements:
        return numbers.astype(slot.dtype)
    values = np.empty(len(numbers), object)
    values[:] = [slot.elements[int(number)] for number in numbers]
    return values if slot.dtype == object else values.astype(slot.dtype)


def slots_of(
    traced: Sequence[tuple[Ensemble, Sequence[Column]]], inputs: Mapping[str, Input]
) -> list[Slot]:
    """The slots that the branches of some ensembles look at, by their columns."""
    elements: dict[tuple[str, int], dict[Any, None]] = {}
    lacking: dict[tuple[str, int], float | None] = {}
    for ensemble, columns in traced:
        branches = ensemble.branches
        seen = np.unique(ensemble.feature[branches])
        looks = set(
            np.unique(ensemble.feature[branches][ensemble.missing[branches]]).tolist()
        )
        for feature in seen[seen < len(columns)].tolist():
            column = columns[feature]
            element_set = elements.setdefault(column.slot, {})
            lacking.setdefault(column.slot, None)
            first = next(
                (step for step in column.maps if step.kind in ("onehot", "lookup")), None
            )
            if first is not None:
                element_set.update(dict.fromkeys(first.keys))
                if first.is_open and inputs[column.source].is_string:
                    element_set[UNKNOWN_TEXT] = None
            imputer = next((step for step in column.maps if step.kind == "impute"), None)
            if imputer is not None:
                lacking[column.slot] = imputer.numbers[0]
            elif feature in looks and inputs[column.source].is_float and not element_set:
                lacking[column.slot] = float("nan")
    slots: list[Slot] = []
    for (source, place), element in elements.items():
        slots.append(
            Slot(
                source,
                place,
                inputs[source].dtype,
                tuple(element),
                None if element else lacking[source, place],
            )
        )
    return slots


def asked_of(ensemble: Ensemble, columns: Sequence[Column], slots: Sequence[Slot]) -> Asked:
    """Return what the branches of an ensemble ask of the slots."""
    count = len(ensemble.mode)
    question = Asked(
        ensemble,
        list(columns),
        np.full(count, -1),
        np.full(count, -np.inf),
        np.full(count, np.inf),
        np.zeros(count, bool),
        np.full((count, 2), np.nan),
        np.isin(ensemble.mode, _STRICT),
        allowed={},
        tried={},
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
            _ask_elements(question, slots[number], columns[feature], group, number)
        else:
            _ask_numbers(question, slots[number], columns[feature], group, number)
    return question


def _ask_elements(
    question: Asked, slot: Slot, column: Column, group: Ints, number: int
) -> None:
    images = column.apply(
        values_of(slot, np.arange(len(slot.elements), dtype=np.float64))
    ).astype(np.float64)
    for at in group.tolist():
        question.allowed[at] = question.ensemble.holds(np.full(len(images), at), images)
        question.slot[at] = number


def _ask_numbers(
    question: Asked, slot: Slot, column: Column, group: Ints, number: int
) -> None:
    grid, apply = slot.grid, _applied(column)
    rising = direction(grid, apply)
    if rising == 0:
        return  # nothing that the input holds moves it
    ensemble = question.ensemble
    question.slot[group] = number
    strict = question.strict[group]
    equal = np.isin(ensemble.mode[group], (Mode.EQ, Mode.NEQ, Mode.MEMBER))
    for is_strict in (False, True):
        mine = group[(strict == is_strict) & ~equal]
        if mine.size:
            question.below[mine] = cut(
                grid, apply, rising, ensemble.split[mine], strict=is_strict
            )
    question.low_holds[group] = np.isin(ensemble.mode[group], _HOLDS_BELOW) == (rising > 0)
    if equal.any():
        mine = group[equal]
        below = np.asarray(
            [ensemble.members.get(at, ensemble.split[[at]])[0] for at in mine.tolist()]
        )
        ends = [
            cut(grid, apply, rising, below, strict=is_strict) for is_strict in (True, False)
        ]
        low, high = np.minimum(*ends), np.maximum(*ends)
        question.span[mine] = np.stack([grid.step(low, 1), high], axis=1)
        question.below[mine] = low
    for at in group[ensemble.mode[group] == Mode.MEMBER].tolist():
        values = _around(ensemble.members.get(at, ensemble.split[[at]]))
        ends = [
            cut(grid, apply, rising, values, strict=is_strict) for is_strict in (True, False)
        ]
        question.tried[at] = np.maximum(*ends)
    question.above[group] = grid.step(question.below[group], 1)


def _around(members: Floats) -> Floats:
    """Return the members of a set, and the integers between them and next to them, sorted."""
    first = np.floor(members.min()) - 1
    last = np.ceil(members.max()) + 1
    if last - first > _MOST_BETWEEN:
        return np.unique(members)
    return np.union1d(members, np.arange(first, last + 1))


def _applied(column: Column) -> Any:
    return partial(_apply, column)


def _apply(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    return column.apply(values)
