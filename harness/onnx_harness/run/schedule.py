"""Decide which cells go together, in which order, and to which shard.

It goes by what earlier runs took, before a model is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx_harness.cell.matrix import Cell
from onnx_harness.results.history_rows import Measured

UNKNOWN = Measured(seconds=10.0, peak_bytes=None)
"""A cell that no run has had yet."""

UNEVEN = 1.05
"""So much longer than the shortest may the longest shard be before models are cut."""

CUT_SHARE = 0.3
"""The share of a run's time whose models, the shortest, may be cut."""

LEAST_BYTES = 600_000_000
"""The memory of a worker that has imported its libraries and holds a small model."""


@dataclass(frozen=True, slots=True)
class Group:
    """The cells of a model.

    One process judges them, so that its reference, its noise and its chains are made once.

    Attributes:
        seconds: that they are expected to take.
        peak_bytes: of memory that their process is expected to hold.
    """

    cells: tuple[Cell, ...]
    seconds: float
    peak_bytes: int


def grouped(
    cells: Iterable[Cell], past: Mapping[str, Measured], *, by_provider: bool = False
) -> list[Group]:
    """The cells model by model, in the order of the models' first cells.

    Args:
        cells: of a run.
        past: what earlier runs took, by cell id.
        by_provider: whether those of a model on two providers are two groups.
    """
    by_model: dict[object, list[Cell]] = {}
    for cell in cells:
        name = (cell.card.path, cell.provider if by_provider else "")
        by_model.setdefault(name, []).append(cell)
    return [_group(members, past) for members in by_model.values()]


def longest_first(groups: Iterable[Group]) -> list[Group]:
    """The groups by their time, the longest first.

    What is begun last is short, and no process waits for it long.
    """
    return sorted(groups, key=lambda group: -group.seconds)


def shards(
    cells: Sequence[Cell], past: Mapping[str, Measured], count: int
) -> list[tuple[Cell, ...]]:
    """Cut a run into ``count`` parts of about the same time. Every cell is in exactly one.

    A model stays in one part where that gives parts of the same time. Else those that alone take
    more than half of a part's time are cut, and then the shortest ones. The parts depend on the set
    of cells and on ``past``, not on the order of either.

    Args:
        cells: of the whole run.
        past: what earlier runs took, by cell id; the same for every shard.
        count: how many parts.
    """
    ordered = sorted(cells, key=lambda cell: cell.id)
    groups = longest_first(grouped(ordered, past))
    mean = sum(group.seconds for group in groups) / count
    parts, loads = _dealt(groups, count)
    if max(loads) <= UNEVEN * min(loads):
        return parts
    units: list[Group] = []
    remaining = mean * count
    for group in groups:
        whole = group.seconds <= mean / 2 and remaining > mean * count * CUT_SHARE
        units += [group] if whole else [_group([cell], past) for cell in group.cells]
        remaining -= group.seconds
    return _dealt(units, count)[0]


def plan_digest(parts: Sequence[Sequence[Cell]]) -> str:
    """A hash of who gets which cells: shards of one plan make one whole run."""
    ids = [sorted(cell.id for cell in part) for part in parts]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12]


def _dealt(units: Iterable[Group], count: int) -> tuple[list[tuple[Cell, ...]], list[float]]:
    """Give each unit, the longest first, to the part that has the least so far.

    Return the parts and their times.
    """
    parts: list[list[Cell]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for unit in longest_first(units):
        place = min(range(count), key=lambda index: (loads[index], index))
        parts[place] += unit.cells
        loads[place] += unit.seconds
    return [tuple(part) for part in parts], loads


def _group(cells: Sequence[Cell], past: Mapping[str, Measured]) -> Group:
    measurements = [past.get(cell.id, UNKNOWN) for cell in cells]
    peaks = []
    for measured in measurements:
        if measured.peak_bytes is not None:
            peaks.append(measured.peak_bytes)
    return Group(
        tuple(cells),
        sum(measured.seconds for measured in measurements),
        max(peaks, default=LEAST_BYTES),
    )
