"""Rows that visit every leaf."""

from __future__ import annotations

import numpy as np

from onnx_harness.inputs.decisions.boxes import Boxes
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.ensembles import Bools, Ints, Mode
from onnx_harness.inputs.decisions.packing import pack
from onnx_harness.inputs.decisions.points import Points, at_roots, packs
from onnx_harness.inputs.decisions.space import Asked

_STEPS_AT_ONCE = 1 << 21  # rows times trees that are walked at a time


def leaf_rows(chooser: Points, question: Asked, boxes: Boxes, visited: Bools) -> Floats:
    """Rows that visit the leaves which none has visited yet."""
    ensemble = question.ensemble
    todo = np.flatnonzero((ensemble.mode[boxes.nodes] == Mode.LEAF) & boxes.open)
    packed, todo = _packed_leaves(chooser, question, boxes, todo)
    rows_of_leaves: list[Floats] = [packed]
    trees = len(ensemble.roots)
    step = max(64, min(2048, _STEPS_AT_ONCE // max(trees, 1)))
    while todo.size:
        todo = todo[~visited[boxes.nodes[todo]]]
        batch, todo = todo[:step], todo[step:]
        if not batch.size:
            continue
        points = chooser.of(boxes.of(batch), chooser.backgrounds)
        leaves = ensemble.leaf_of(
            question.features(chooser.domain.slots, points), at_roots(question, len(points))
        )
        chosen = []
        for row, reached in enumerate(leaves):
            if not visited[boxes.nodes[batch[row]]]:
                chosen.append(row)
                visited[reached] = True
        rows_of_leaves.append(points[chosen])
    return np.concatenate([np.zeros((0, len(chooser.domain.slots))), *rows_of_leaves])


def _packed_leaves(
    chooser: Points, question: Asked, boxes: Boxes, leaves: Ints
) -> tuple[Floats, Ints]:
    """Rows that visit many leaves each, and the leaves that need rows of their own."""
    if not packs(chooser.domain, question.ensemble):
        return np.zeros((0, len(chooser.domain.slots))), leaves
    part = boxes.of(leaves)
    rows = pack(part.low, part.high, chooser.domain.low, chooser.domain.high)
    points = chooser.filled(rows)
    return points, leaves[~chooser.shows(question, points)[rows.row]]
