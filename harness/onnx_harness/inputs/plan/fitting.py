"""Sizes of dynamic dimensions that fit together.

The nearest ones to those wanted that every operator can take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.shapes import Relation, Sort

Sizes = dict[str, int]

_MOST_MOVES = 12
_LONGEST = 1 << 15  # sizes looked at for one dimension by itself
_LARGE = (500, 1000, 4096, 30_000)  # that a table may be too short for
_SIDE = 640  # and for each of two that depend on one another
_MOST_PAIRS = 6
# Relative; of the sizes that are that much further than the nearest, the roundest is taken.
_NEARBY = 0.1


def telling(relations: Sequence[Relation]) -> list[Relation]:
    """The relations that not all sizes fulfil, each once."""
    telling_relations = []
    for relation in dict.fromkeys(relations):
        names = sorted(_names(relation))
        rng = np.random.default_rng(0)
        sample = {}
        for name in names:
            sample[name] = np.concatenate(
                [np.arange(1, 9), rng.integers(1, 200, 56), _LARGE]
            )
        if not np.all(holds(relation, sample)):
            telling_relations.append(relation)
    return telling_relations


def holds(relation: Relation, sizes: Mapping[str, Any]) -> Any:
    """Return whether sizes, or arrays of sizes, fulfil a relation."""
    first = terms.value(relation.left, sizes)
    second = terms.value(relation.right, sizes)
    match relation.sort:
        case Sort.EQUAL:
            return first == second
        case Sort.AT_LEAST:
            return first >= second
        case Sort.MULTIPLE:
            return first % np.where(second == 0, 1, second) == 0


def fitted(relations: Sequence[Relation], preferred: Sizes, movable: Sequence[str]) -> Sizes:
    """The sizes next to ``preferred`` that fulfil the relations, or as many of them as can be.

    Args:
        relations: from :func:`telling`.
        preferred: of every dimension.
        movable: the dimensions that may take other sizes, the most willing first.
    """
    sizes = dict(preferred)
    for _ in range(_MOST_MOVES):
        unmet = broken(relations, sizes)
        moves = list(_single(relations, unmet, sizes, preferred, movable))
        if not moves:
            moves = list(_double(relations, unmet, sizes, preferred, movable))
        if not moves:
            break
        sizes |= min(moves, key=lambda move: move[:3])[3]
    return sizes


def broken(relations: Sequence[Relation], sizes: Sizes) -> list[Relation]:
    """The relations that ``sizes`` don't fulfil."""
    return [relation for relation in relations if not holds(relation, sizes)]


def spoken(
    name: str,
    relations: Sequence[Relation],
    sizes: Sequence[Sizes],
    preferred: Sequence[Sizes],
) -> str:
    """Return what the relations make of one dimension, for a sentence.

    Empty where they change nothing about it.

    Args:
        name: of the dimension.
        relations: from :func:`telling`.
        sizes: that were chosen; relations that they don't fulfil go unmentioned.
        preferred: in their place, if it weren't for the relations.
    """
    held_relations = []
    for r in relations:
        if name in _names(r) and all(holds(r, size) for size in sizes):
            held_relations.append(r)
    said = ""
    alone = [relation for relation in held_relations if len(_names(relation)) == 1]
    if not all(
        holds(relation, sizes_of_set) for relation in alone for sizes_of_set in preferred
    ):
        numbers = np.arange(1, _LONGEST + 1)
        fulfilled = []
        for relation in alone:
            fulfilled.append(
                np.broadcast_to(holds(relation, {name: numbers}), numbers.shape)
            )
        tightest = min(range(len(alone)), key=lambda place: int(fulfilled[place].sum()))
        pattern = _pattern(numbers[np.logical_and.reduce(fulfilled)])
        said += f", {pattern}, since {alone[tightest].why}"
    if shared := [relation for relation in held_relations if len(_names(relation)) > 1]:
        others = sorted(set().union(*map(_names, shared)) - {name})
        said += f", chosen together with {' and '.join(others)}, since {shared[0].why}"
    return said


def _pattern(fitting: NDArray[Any]) -> str:
    """``multiples of 32``, ``at least 400``, ``only 224``."""
    first, last = (int(fitting[0]), int(fitting[-1])) if fitting.size else (0, 0)
    steps = set(np.diff(fitting).tolist())
    if fitting.size == 1:
        return f"only {first}"
    if steps == {1}:
        return f"at least {first}" if last == _LONGEST else f"from {first} to {last}"
    if len(steps) == 1:
        step = steps.pop()
        return (
            f"in multiples of {step}"
            if first % step == 0
            else f"{first} and every {step} from there on"
        )
    return (
        f"of those that fit ({', '.join(map(str, fitting[:3]))} …)"
        if fitting.size
        else "as near as can be"
    )


_Move = tuple[
    int, int, float, Sizes
]  # relations that it leaves broken, reluctance, distance, the sizes


def _single(
    relations: Sequence[Relation],
    unmet: Sequence[Relation],
    sizes: Sizes,
    preferred: Sizes,
    movable: Sequence[str],
) -> Iterator[_Move]:
    """The best change of each dimension by itself that mends more than it breaks."""
    numbers = np.arange(1, _LONGEST + 1)
    for reluctance, name in enumerate(movable):
        if any(name in _names(relation) for relation in unmet):
            tried = sizes | {name: numbers}
            broken_counts = _left_broken(relations, {name}, tried, numbers.shape)
            distance = np.abs(np.log(numbers / max(preferred[name], 1)))
            yield from _improving(
                unmet, broken_counts, distance, reluctance, {name: numbers}
            )


def _double(
    relations: Sequence[Relation],
    unmet: Sequence[Relation],
    sizes: Sizes,
    preferred: Sizes,
    movable: Sequence[str],
) -> Iterator[_Move]:
    """The best change of two dimensions at once, where one by itself doesn't do."""
    numbers = np.arange(1, _SIDE + 1)
    for relation in unmet[:1]:
        near = frozenset().union(
            *(_names(each) for each in relations if _names(each) & _names(relation))
        )
        willing = [name for name in movable if name in near]
        for first, second in list(combinations(willing, 2))[:_MOST_PAIRS]:
            grid = {first: numbers[:, None], second: numbers[None, :]}
            broken_counts = _left_broken(
                relations, {first, second}, sizes | grid, (_SIDE, _SIDE)
            )
            distance: NDArray[Any] = np.zeros(broken_counts.shape)
            both = {}
            for name, sizes_tried in grid.items():
                distance = distance + np.abs(np.log(sizes_tried / max(preferred[name], 1)))
                both[name] = np.broadcast_to(sizes_tried, broken_counts.shape).reshape(-1)
            reluctance = movable.index(first) + movable.index(second)
            yield from _improving(
                unmet, broken_counts.reshape(-1), distance.reshape(-1), reluctance, both
            )


def _left_broken(
    relations: Sequence[Relation],
    names: set[str],
    tried: Mapping[str, Any],
    shape: tuple[int, ...],
) -> NDArray[Any]:
    """Return how many of the relations that speak of ``names`` each try leaves broken."""
    broken_counts = np.zeros(shape, np.int64)
    for relation in relations:
        if names & _names(relation):
            broken_counts += ~np.broadcast_to(
                np.asarray(holds(relation, tried), bool), shape
            )
    return broken_counts


def _improving(
    unmet: Sequence[Relation],
    broken_counts: NDArray[Any],
    distance: NDArray[Any],
    reluctance: int,
    tried: Mapping[str, NDArray[Any]],
) -> Iterator[_Move]:
    before = sum(bool(tried.keys() & _names(relation)) for relation in unmet)
    fewest = int(broken_counts.min())
    if fewest < before:
        best = _roundest(tried, np.where(broken_counts == fewest, distance, np.inf))
        changed = {name: int(numbers[best]) for name, numbers in tried.items()}
        yield len(unmet) - before + fewest, reluctance, float(distance[best]), changed


def _roundest(tried: Mapping[str, NDArray[Any]], distance: NDArray[Any]) -> int:
    """Of the nearest, the sizes that can be halved most often.

    They leave the least over at the edges of windows.
    """
    near = distance <= distance.min() + _NEARBY
    halved = sum(np.log2(numbers & -numbers) for numbers in tried.values())
    return int(np.lexsort((distance, -np.where(near, halved, -1)))[0])


def _names(relation: Relation) -> frozenset[str]:
    return terms.names(relation.left) | terms.names(relation.right)
