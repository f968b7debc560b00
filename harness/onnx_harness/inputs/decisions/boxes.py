"""The boxes of tree nodes.

An interval of every column, or a part of its elements, leads to each node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Bools, Ints


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of some tree nodes.

    Attributes:
        nodes: which, [n].
        low: least number of each slot, [n, S].
        high: greatest, [n, S].
        elements: which elements may be, those of all slots in a row, [n, M].
        open: whether anything is in it, [n].
    """

    nodes: Ints
    low: Floats
    high: Floats
    elements: Bools
    open: Bools

    def of(self, places: Ints) -> Boxes:
        """Return some of the boxes, by their positions."""
        return Boxes(
            self.nodes[places],
            self.low[places],
            self.high[places],
            self.elements[places],
            self.open[places],
        )


def moved_to(points: Floats, slot: Ints, values: Floats) -> Floats:
    """Points with one slot of each at another number."""
    moved = points.copy()
    moved[np.arange(len(moved)), slot] = values
    return moved


def joined(parts: Sequence[Boxes]) -> Boxes:
    """Return the boxes of all parts, in order."""
    names = ("nodes", "low", "high", "elements", "open")
    return Boxes(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in names)
    )
