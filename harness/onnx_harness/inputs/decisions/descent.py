"""Follow trees from their roots down: the boxes of all their nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_harness.inputs.decisions.boxes import Boxes, joined
from onnx_harness.inputs.decisions.cuts import Floats
from onnx_harness.inputs.decisions.domain import Domain
from onnx_harness.inputs.decisions.ensembles import Ints, Mode
from onnx_harness.inputs.decisions.space import Asked

_BATCH = 1 << 22  # numbers of the boxes that are worked on at a time: tree nodes times slots


def boxes_of(domain: Domain, question: Asked) -> Iterator[Boxes]:
    """The boxes of all tree nodes, some trees at a time."""
    ensemble = question.ensemble
    width = len(domain.slots) + int(domain.first[-1]) // 8 + 1
    sizes = np.diff(np.append(np.sort(ensemble.roots), len(ensemble.mode)))
    order = np.argsort(ensemble.roots, kind="stable")
    start = 0
    while start < len(order):
        total = np.cumsum(sizes[start:]) * width
        stop = start + max(1, int(np.searchsorted(total, _BATCH)))
        yield _descend(domain, question, ensemble.roots[order[start:stop]])
        start = stop


def _descend(domain: Domain, question: Asked, roots: Ints) -> Boxes:
    """The boxes of some trees' nodes, level by level."""
    level = domain.whole(roots)
    levels = [level]
    # A cycle would make it go on for ever; ONNX Runtime refuses those.
    for _ in range(len(question.ensemble.mode)):
        inner = np.flatnonzero(question.ensemble.mode[level.nodes] != Mode.LEAF)
        if not inner.size:
            break
        parents = level.of(inner)
        sides = [_side(domain, question, parents, holds=holds) for holds in (True, False)]
        level = joined(sides)
        levels.append(level)
    return joined(levels)


def _side(domain: Domain, question: Asked, parents: Boxes, *, holds: bool) -> Boxes:
    """The boxes of the children on one side."""
    at = parents.nodes
    low, high, elements = parents.low.copy(), parents.high.copy(), parents.elements.copy()
    slot, rows = question.slot[at], np.arange(len(at))
    equal = np.isfinite(question.span[at, 1])
    numeric = (slot >= 0) & ~np.isin(at, list(question.allowed)) & ~equal
    lower = numeric & (question.low_holds[at] == holds)
    upper = numeric & ~lower
    high[rows[lower], slot[lower]] = np.minimum(
        high[rows[lower], slot[lower]], question.below[at[lower]]
    )
    low[rows[upper], slot[upper]] = np.maximum(
        low[rows[upper], slot[upper]], question.above[at[upper]]
    )
    same = equal & ((question.ensemble.mode[at] == Mode.NEQ) != holds)
    low[rows[same], slot[same]] = np.maximum(
        low[rows[same], slot[same]], question.span[at[same], 0]
    )
    high[rows[same], slot[same]] = np.minimum(
        high[rows[same], slot[same]], question.span[at[same], 1]
    )
    _cut_out(domain, question, at, np.flatnonzero(equal & ~same), low, high)
    for row in (
        rows[(slot >= 0) & np.isin(at, list(question.allowed))] if question.allowed else ()
    ):
        first = domain.first[slot[row]]
        last = domain.first[slot[row] + 1]
        allowed = question.allowed[int(at[row])]
        elements[row, first:last] &= allowed if holds else ~allowed
    within = parents.open & (low <= high).all(axis=1)
    for number in domain.finite:
        within &= elements[:, domain.first[number] : domain.first[number + 1]].any(axis=1)
    children = (question.ensemble.yes if holds else question.ensemble.no)[at]
    return Boxes(children, low, high, elements, within)


def _cut_out(
    domain: Domain, question: Asked, at: Ints, rows: Ints, low: Floats, high: Floats
) -> None:
    """Take what equals the split from the ends of boxes.

    Within one it stays, and few points meet it.
    """
    slot, span = question.slot[at], question.span[at]
    after, before = (
        domain.stepped(question, at, span[:, 1], 1),
        domain.stepped(question, at, span[:, 0], -1),
    )
    for row in rows:
        first = low[row, slot[row]]
        last = high[row, slot[row]]
        if span[row, 0] <= first <= span[row, 1]:
            low[row, slot[row]] = after[row]
        if span[row, 0] <= last <= span[row, 1]:
            high[row, slot[row]] = before[row]
