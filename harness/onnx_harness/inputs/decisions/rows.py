"""Make rows of input columns that visit every leaf of the trees.

Further ones lie on every threshold and next to it.

The box of a tree node, the values that lead to it, is known exactly: an interval of each column (or
a part of its elements), cut in two at each branch above it. Every row is a point of such a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.descent import boxes_of
from onnx_harness.inputs.decisions.domain import Domain
from onnx_harness.inputs.decisions.edge_rows import edge_rows
from onnx_harness.inputs.decisions.ensembles import Bools
from onnx_harness.inputs.decisions.leaf_rows import leaf_rows
from onnx_harness.inputs.decisions.points import Points
from onnx_harness.inputs.decisions.space import Asked, Slot


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that were made.

    Attributes:
        leaves: rows that visit every leaf that can be, [R, S].
        steady: which of them lie far enough from all thresholds that a few last bits decide
            nothing, [R].
        edges: rows on thresholds and next to them: of each branch those of its two sides first,
            [R', S].
        unreachable: branches and leaves that no input reaches.
    """

    leaves: Floats
    steady: Bools
    edges: Floats
    unreachable: int


def rows_of(
    questions: Sequence[Asked], slots: Sequence[Slot], rng: np.random.Generator
) -> Rows:
    """Make the rows for some ensembles that look at ``slots``."""
    domain = Domain.of(slots)
    chooser = Points(domain, questions, rng)
    leaves: list[Floats] = []
    edges: tuple[list[Floats], list[Floats]] = ([], [])
    unreachable = 0
    for question in questions:
        visited = np.zeros(len(question.ensemble.mode), bool)
        for boxes in boxes_of(domain, question):
            unreachable += int((~boxes.open).sum())
            leaves.append(leaf_rows(chooser, question, boxes, visited))
            for more, points in zip(edges, edge_rows(chooser, question, boxes), strict=True):
                more.append(points)
    empty = np.zeros((0, len(slots)))
    rows = np.concatenate([empty, *leaves, chooser.missing_rows()])
    first, others = edges
    return Rows(
        rows, chooser.is_steady(rows), np.concatenate([empty, *first, *others]), unreachable
    )


def reachable(questions: Sequence[Asked], slots: Sequence[Slot]) -> list[Bools]:
    """Return which tree nodes of each ensemble some input reaches."""
    domain = Domain.of(slots)
    reached = []
    for question in questions:
        open_ = np.zeros(len(question.ensemble.mode), bool)
        for boxes in boxes_of(domain, question):
            open_[boxes.nodes] = boxes.open
        reached.append(open_)
    return reached
