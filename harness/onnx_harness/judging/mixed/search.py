"""The smallest set of nodes that has to stay float32, by an oracle that costs a run.

A ranking cut, then thinned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# The cuts that are tried first: how many roundings a node may be worth and still not be suspect.
_CUTS = (1e5, 300.0, 30.0, 6.0)
# A prefix of the ranking that is longer than the last one that fails by no more than this isn't
# bisected further: thinning it costs no more.
_FEW = 6

Oracle = Callable[[frozenset[int]], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search.

    Attributes:
        nodes: the places of those that stay float32.
        wide: a larger set that passes as well: what the first of the ranking came to.
        minimal: whether each of ``nodes`` was tried without; a budget may have ended the search
            before.
    """

    nodes: frozenset[int]
    wide: frozenset[int]
    minimal: bool


def smallest_set(
    passes: Oracle,
    suspicion: Sequence[float],
    price: Sequence[float],
    spent: Callable[[], bool],
) -> Found | None:
    """Search for a small and cheap set of nodes in float32 with which a mix passes.

    It is assumed, and not relied on, that a larger set is no worse. What is given back is a set
    that passed.

    Args:
        passes: whether a mix passes with these places in float32.
        suspicion: of each node: the likeliest are tried first.
        price: of each node in float32: between equals the dearest is given up first.
        spent: whether the budget is.

    Returns:
        None where even all of them fail.
    """
    ranking = sorted(
        range(len(suspicion)), key=lambda place: (-suspicion[place], price[place], place)
    )
    prefix = _prefix(passes, ranking, suspicion, spent)
    if prefix is None:
        return None
    nodes, minimal = _thinned(passes, ranking[:prefix], suspicion, price, spent)
    return Found(nodes, frozenset(ranking[:prefix]), minimal)


def _prefix(
    passes: Oracle,
    ranking: Sequence[int],
    suspicion: Sequence[float],
    spent: Callable[[], bool],
) -> int | None:
    """Return how many of the first of the ranking pass."""
    sizes = [sum(suspicion[place] >= cut for place in ranking) for cut in _CUTS]
    low, high = 0, None
    for size in sorted({*sizes, len(ranking)} - {0}):
        if passes(frozenset(ranking[:size])):
            high = size
            break
        low = size
    if high is None:
        return None
    while high - low > max(_FEW, low // 2) and not spent():
        middle = (low + high) // 2
        if passes(frozenset(ranking[:middle])):
            high = middle
        else:
            low = middle
    return high


def _thinned(
    passes: Oracle,
    chosen: Sequence[int],
    suspicion: Sequence[float],
    price: Sequence[float],
    spent: Callable[[], bool],
) -> tuple[frozenset[int], bool]:
    """Give back nodes of a set that passes, the least suspect first.

    They're given back in pieces that grow while that goes well.
    """
    nodes = frozenset(chosen)
    waiting = sorted(
        chosen, key=lambda place: (_magnitude(suspicion[place]), -price[place], -place)
    )
    size = max(1, len(waiting) // 4)
    at = 0
    while at < len(waiting):
        if spent():
            return nodes, False
        piece = waiting[at : at + size]
        if len(nodes) > len(piece) and passes(nodes.difference(piece)):
            nodes = nodes.difference(piece)
            at += len(piece)
            size *= 2
        elif len(piece) == 1:
            at += 1
        else:
            size = max(1, len(piece) // 2)
    return nodes, True


def _magnitude(suspicion: float) -> int:
    """Suspicions of one magnitude are equal: they are guesses."""
    return len(f"{suspicion:.0f}")
