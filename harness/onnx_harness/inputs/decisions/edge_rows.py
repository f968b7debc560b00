"""Rows on the threshold of every branch, and next to it."""

from __future__ import annotations

import numpy as np

from onnx_harness.inputs.decisions.boxes import Boxes, moved_to
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.domain import Domain
from onnx_harness.inputs.decisions.ensembles import Bools, Ensemble, Ints, Mode
from onnx_harness.inputs.decisions.packing import Pins, pack
from onnx_harness.inputs.decisions.points import WALKS, Points, packs
from onnx_harness.inputs.decisions.space import Asked

_TRIES = 5  # for a row whose sides of a branch end in leaves that differ
_MANY, _TRIES_OF_MANY = 20_000, 2  # branches
_MORE_TRIES = 24  # where a sigmoid hides the difference
# Of a probability; what is judged by the noise of float32 shows a hundredth of it.
_VISIBLE = 1e-4


def edge_rows(chooser: Points, question: Asked, boxes: Boxes) -> tuple[Floats, Floats]:
    """Return rows on each threshold and next to it.

    Where there are such, their two sides end in leaves that differ.

    Returns:
        The two rows between which a branch decides, of all branches; and further ones.
    """
    ensemble = question.ensemble
    inner = np.flatnonzero(
        (ensemble.mode[boxes.nodes] != Mode.LEAF)
        & boxes.open
        & (question.slot[boxes.nodes] >= 0)
    )
    every, boxes = boxes, boxes.of(inner)
    nodes = boxes.nodes
    best = np.zeros((len(nodes), len(chooser.domain.slots)))
    gain = np.full(len(nodes), -1.0)
    todo = np.arange(len(nodes))
    values = ensemble.weights @ np.random.default_rng(0).uniform(
        0.5, 1.5, ensemble.weights.shape[1]
    )
    affordable = 4 * WALKS
    for _ in range(_tries(ensemble)):
        part = boxes.of(todo)
        points = chooser.of(part, chooser.backgrounds)
        sides = []
        for holds, children in ((True, ensemble.yes), (False, ensemble.no)):
            moved = moved_to(
                points,
                question.slot[part.nodes],
                chooser.domain.edge(question, part, holds=holds),
            )
            leaves = ensemble.leaf_of(
                question.features(chooser.domain.slots, moved), children[part.nodes]
            )
            sides.append(values[leaves])
        differs = np.abs(sides[0] - sides[1])
        if (
            ensemble.saturating
            and (affordable := affordable - len(todo) * len(ensemble.roots)) > 0
        ):
            differs *= np.exp(-chooser.margins(question, moved))
        better = differs > gain[todo]
        best[todo[better]], gain[todo[better]] = points[better], differs[better]
        seen = gain[gain > 0]
        usual = float(np.median(seen)) if seen.size else 0.0
        todo = np.flatnonzero(gain < (_VISIBLE if ensemble.saturating else usual))
        if not todo.size:
            break
    packed, served = _packed_edges(chooser, question, every, boxes, best)
    first, others = _on_edges(chooser, question, boxes, best, ~served)
    return np.concatenate([*packed[:2], first]), np.concatenate([*packed[2:], others])


def _tries(ensemble: Ensemble) -> int:
    if ensemble.saturating:
        return _MORE_TRIES
    return _TRIES if len(ensemble.branches) < _MANY else _TRIES_OF_MANY


def _packed_edges(
    chooser: Points, question: Asked, every: Boxes, boxes: Boxes, points: Floats
) -> tuple[list[Floats], Bools]:
    """Rows that lie on many thresholds each: below, above, and further.

    And which branches they serve.

    Args:
        chooser: fills the rows up.
        question: the trees.
        every: the boxes of all nodes of the branches' trees.
        boxes: of the branches.
        points: of each branch, one whose two sides end in leaves that differ.
    """
    at, count = boxes.nodes, len(boxes.nodes)
    served = np.zeros(count, bool)
    if not packs(chooser.domain, question.ensemble):
        return [], served
    slot, branches = question.slot[at], np.arange(count)
    sides = [chooser.domain.edge(question, boxes, holds=holds) for holds in (True, False)]
    below, above = np.minimum(*sides), np.maximum(*sides)
    inside = (below >= boxes.low[branches, slot]) & (above <= boxes.high[branches, slot])
    branches = branches[inside & ~np.isfinite(question.span[at, 1])]
    place = np.zeros(len(question.ensemble.mode), np.int64)
    place[every.nodes] = np.arange(len(every.nodes))
    low, high = boxes.low[branches], boxes.high[branches]
    for values, children in zip(
        sides, (question.ensemble.yes, question.ensemble.no), strict=True
    ):
        moved = moved_to(points[branches], slot[branches], values[branches])
        leaves = place[
            question.ensemble.leaf_of(
                question.features(chooser.domain.slots, moved), children[at[branches]]
            )
        ]
        low, high = np.maximum(low, every.low[leaves]), np.minimum(high, every.high[leaves])
    rows = pack(
        low,
        high,
        chooser.domain.low,
        chooser.domain.high,
        Pins(slot[branches], below[branches], above[branches]),
    )
    filled = chooser.filled(rows)
    ends = [np.where(rows.pinned, numbers, filled) for numbers in (rows.low, rows.high)]
    served[branches] = (chooser.shows(question, ends[0]) & chooser.shows(question, ends[1]))[
        rows.row
    ]
    return [*ends, np.where(rows.pinned, _before(chooser.domain, rows.low), filled)], served


def _before(domain: Domain, values: Floats) -> Floats:
    """The number before each, in its slot's type."""
    columns = [
        slot.grid.step(values[:, number], -1) for number, slot in enumerate(domain.slots)
    ]
    return np.stack(columns, axis=1)


def _on_edges(
    chooser: Points, question: Asked, boxes: Boxes, points: Floats, alone: Bools
) -> tuple[Floats, Floats]:
    """Return rows of a branch each.

    They are those of its two sides for branches that are ``alone``, and further ones.
    """
    at = boxes.nodes
    slot, rows = question.slot[at], np.arange(len(at))
    below, above = (
        chooser.domain.edge(question, boxes, holds=True),
        chooser.domain.edge(question, boxes, holds=False),
    )
    below, above = np.minimum(below, above), np.maximum(below, above)
    finite = (
        np.isin(at, list(question.allowed)) if question.allowed else np.zeros(len(at), bool)
    )
    third = np.where(
        question.strict[at],
        chooser.domain.stepped(question, at, above, 1),
        chooser.domain.stepped(question, at, below, -1),
    )
    edge_points: list[Floats] = []
    about: list[Ints] = []
    for values in (below, above, third):
        inside = finite | (
            (values >= boxes.low[rows, slot]) & (values <= boxes.high[rows, slot])
        )
        inside &= alone
        if values is third:
            inside &= ~finite
        edge_points.append(moved_to(points[inside], slot[inside], values[inside]))
        about.append(rows[inside])
    looks = np.asarray(
        [
            slot_.missing is not None and np.isnan(slot_.missing)
            for slot_ in chooser.domain.slots
        ],
        bool,
    )
    if looks.any():
        lacking = looks[slot] & ~finite
        edge_points.append(
            moved_to(points[lacking], slot[lacking], np.full(int(lacking.sum()), np.nan))
        )
    for row in np.flatnonzero(np.isin(at, list(question.tried))) if question.tried else ():
        values = question.tried[int(at[row])]
        values = values[
            (values >= boxes.low[row, slot[row]]) & (values <= boxes.high[row, slot[row]])
        ]
        edge_points.append(
            moved_to(points[[row] * len(values)], np.full(len(values), slot[row]), values)
        )
    # Both rows of a branch stand together: where there is no room for all, neither says much by
    # itself.
    together = np.argsort(np.concatenate(about[:2]), kind="stable")
    return np.concatenate(edge_points[:2])[together], np.concatenate(edge_points[2:])
