"""Delta debugging: a smallest part of a list that still does what the whole does.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE Transactions on
Software Engineering 28(2), 2002: the algorithm ddmin. Every set is tried once; what was tried is
remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

Item = TypeVar("Item")


class OutOfBudget(Exception):
    """No further trial fits the budget."""


@dataclass(frozen=True, slots=True)
class Minimal(Generic[Item]):
    """The result of a search.

    Attributes:
        items: the smallest part found, in the order of the list.
        proven: whether it fails, and passes without any one of its items.
        exhausted: whether the budget ended the search.
        trials: sets that were tried.
    """

    items: tuple[Item, ...]
    proven: bool
    trials: int
    exhausted: bool = False

    @property
    def trials_in_words(self) -> str:
        """The number of trials with its noun."""
        return "1 trial" if self.trials == 1 else f"{self.trials} trials"


def minimal_part(
    items: Sequence[Item],
    fails: Callable[[tuple[Item, ...]], bool],
    *,
    passes_empty: bool = False,
    guesses: Sequence[tuple[Item, ...]] = (),
) -> Minimal[Item]:
    """Find a part of a list that fails, and passes without any one of its items.

    With n items of which one is at fault it takes at most 2 log2(n) + 1 trials.

    Args:
        items: the whole, which fails.
        fails: whether a part does. It may raise `OutOfBudget`.
        passes_empty: whether the empty part is known to pass.
        guesses: parts that are tried first, such as what is suspected.

    Returns:
        The part. Where no trial fits the budget any more it is the smallest so far, not proven. An
        empty one means that none of the items is at fault.
    """
    search = _Search(tuple(items), fails)
    if passes_empty:
        search.results[()] = False
    exhausted = False
    try:
        for guess in guesses:
            if len(guess) < len(search.smallest) and search.fails(guess):
                search.smallest = guess
        if not passes_empty and search.fails(()):
            search.smallest = ()
        search.reduce()
        proven = search.is_minimal()
    except OutOfBudget:
        proven, exhausted = False, True
    return Minimal(search.smallest, proven, search.trials, exhausted)


class _Search(Generic[Item]):
    """The state of a search: the smallest part that fails so far, and what was tried."""

    def __init__(
        self, items: tuple[Item, ...], fails: Callable[[tuple[Item, ...]], bool]
    ) -> None:
        self.smallest = items
        self.results: dict[tuple[Item, ...], bool] = {items: True}
        self.trials = 0
        self._fails = fails

    def fails(self, part: tuple[Item, ...]) -> bool:
        if part not in self.results:
            self.trials += 1
            self.results[part] = self._fails(part)
        return self.results[part]

    def reduce(self) -> None:
        """Take away chunks, large ones first, as long as what is left fails."""
        count = 2
        while len(self.smallest) > 1:
            chunks = _split(self.smallest, min(count, len(self.smallest)))
            reduced = self._chunk(chunks) if count == 2 else None
            if reduced is not None:
                self.smallest = reduced
                continue
            reduced = self._complement(chunks)
            if reduced is not None:
                self.smallest, count = reduced, max(count - 1, 2)
            elif count >= len(self.smallest):
                return
            else:
                count *= 2

    def is_minimal(self) -> bool:
        """Return whether the part passes without any one of its items, trying what wasn't tried."""
        return not any(self.fails(_without(self.smallest, item)) for item in self.smallest)

    def _chunk(self, chunks: Sequence[tuple[Item, ...]]) -> tuple[Item, ...] | None:
        return next((chunk for chunk in chunks if self.fails(chunk)), None)

    def _complement(self, chunks: Sequence[tuple[Item, ...]]) -> tuple[Item, ...] | None:
        for chunk in chunks:
            remaining = tuple(item for item in self.smallest if item not in chunk)
            if remaining != self.smallest and self.fails(remaining):
                return remaining
        return None


def _split(items: tuple[Item, ...], count: int) -> list[tuple[Item, ...]]:
    """Split into that many chunks of nearly equal length."""
    bounds = [len(items) * number // count for number in range(count + 1)]
    return [items[start:end] for start, end in pairwise(bounds)]


def _without(items: tuple[Item, ...], item: Item) -> tuple[Item, ...]:
    return tuple(kept_item for kept_item in items if kept_item != item)
