"""The ranges of the slots of some trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_harness.inputs.decisions.boxes import Boxes
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Ints, Mode
from onnx_harness.inputs.decisions.space import Asked, Slot


@dataclass(frozen=True, eq=False)
class Domain:
    """The slots, and the ends of what each can hold.

    Attributes:
        slots: the slots.
        first: where the elements of each slot begin among those of all, [S + 1].
        low: least number of each slot, [S]; 0 for one with elements.
        high: greatest, [S].
        finite: the slots with elements.
        numeric: the others.
    """

    slots: Sequence[Slot]
    first: Ints
    low: Floats
    high: Floats
    finite: Sequence[int]
    numeric: Sequence[int]

    @classmethod
    def of(cls, slots: Sequence[Slot]) -> Domain:
        """Return the domain of some slots."""
        sizes = [len(slot.elements) for slot in slots]
        return cls(
            slots,
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.asarray(
                [0.0 if slot.elements else max(slot.low, slot.grid.least) for slot in slots]
            ),
            np.asarray(
                [
                    0.0 if slot.elements else min(slot.high, slot.grid.greatest)
                    for slot in slots
                ]
            ),
            [number for number, size in enumerate(sizes) if size],
            [number for number, size in enumerate(sizes) if not size],
        )

    def whole(self, nodes: Ints) -> Boxes:
        """Return a box of everything that can be for each of some tree nodes."""
        count = len(nodes)
        return Boxes(
            nodes,
            np.tile(self.low, (count, 1)),
            np.tile(self.high, (count, 1)),
            np.ones((count, int(self.first[-1])), bool),
            np.ones(count, bool),
        )

    def edge(self, question: Asked, boxes: Boxes, *, holds: bool) -> Floats:
        """The number next to the threshold on one side, or an element of that side, [n]."""
        at = boxes.nodes
        numbers = np.where(
            question.low_holds[at] == holds, question.below[at], question.above[at]
        )
        equal = np.isfinite(question.span[at, 1])
        same = (question.ensemble.mode[at] == Mode.NEQ) != holds
        numbers = np.where(
            equal,
            np.where(
                same,
                question.span[at, 1],
                self.stepped(question, at, question.span[at, 1], 1),
            ),
            numbers,
        )
        for row in (
            np.flatnonzero(np.isin(at, list(question.allowed))) if question.allowed else ()
        ):
            slot = question.slot[at[row]]
            allowed = question.allowed[int(at[row])]
            mask = boxes.elements[row, self.first[slot] : self.first[slot + 1]] & (
                allowed if holds else ~allowed
            )
            numbers[row] = int(np.argmax(mask))
        return np.where(np.isfinite(numbers), numbers, 0.0)

    def stepped(self, question: Asked, at: Ints, values: Floats, count: int) -> Floats:
        """Return the number ``count`` steps from each, in its slot's type, [n]."""
        stepped = values.copy()
        for number in np.unique(question.slot[at]):
            mine = (question.slot[at] == number) & np.isfinite(values)
            if number >= 0 and not self.slots[number].elements and mine.any():
                stepped[mine] = self.slots[number].grid.step(values[mine], count)
        return stepped
