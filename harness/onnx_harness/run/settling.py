"""Settle the latencies that are doubtful beside the pinned reference, by fresh measurements."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import named
from onnx_harness.gate import verdicts
from onnx_harness.gate.pinned import Pinned
from onnx_harness.results.cells import CellResult, PinnedRecord


def settled(
    pinned: Pinned,
    timed: Mapping[str, tuple[Cell, CellResult]],
    sets_of: Callable[[Cell], Sequence[Mapping[str, Any]]],
    say: Callable[[str], None],
) -> Iterator[CellResult]:
    """The verdicts on times beside the reference; doubtful ones are measured again.

    Args:
        pinned: the reference, in lockstep with which the cells were timed.
        timed: by id, a cell that was timed, and its verdict.
        sets_of: the input sets to time a cell on.
        say: takes a line for each part of a measurement that is made again, before it is made.

    Yields:
        The newer state of each cell that has an accepted level; of one that is measured again,
        twice.
    """
    decided = pinned.decide()
    for name, first in decided.items():
        yield replace(timed[name][1], pinned=first)
    waiting = deque(pinned.doubtful())
    count, done, turns = len(waiting), 0, Counter[str]()
    while waiting:  # a part of each in turn: see `verdicts.PART_PAIRS`
        name = waiting.popleft()
        cell, result = timed[name]
        turns[name] += 1
        share = f"{done} of {count} settled"
        say(
            f"doubtful latencies measured again, on fresh pairs in turn, {share}: {name}, turn "
            f"{turns[name]}"
        )
        try:
            sets = sets_of(cell)
            record: PinnedRecord | None = pinned.again(name, dict(sets[0]))
        except Exception as error:
            # As in `Runner.time`: whatever a model does, the run goes on.
            record = verdicts.without_second(decided[name], named(error))
        if record is None:
            waiting.append(name)
            continue
        done += 1
        yield replace(result, pinned=record)
