"""The parts of the experiment's table: rows, the steps of a row, and counts over outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from onnx_harness.selftest.bench import Bench, Outcome


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a row that is done at once and kept.

    Attributes:
        key: unique within the row, the same in every run: what was done under it isn't done again.
        run: does it.
        kind: of what is judged, where a sample has to have some of each.
    """

    key: str
    run: Callable[[], Outcome]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: as the command takes it.
        title: what is counted.
        goal: what to reach, in words.
        steps: what it's made of.
        figure: the counts of all outcomes, in words.
        reached: whether they are what is asked for.
    """

    name: str
    title: str
    goal: str
    steps: Callable[[Bench], Iterator[Step]]
    figure: Callable[[Sequence[Outcome]], str]
    reached: Callable[[Sequence[Outcome]], bool]


def sampled(steps: Sequence[Step], count: int | None) -> list[Step]:
    """Return so many steps, as evenly over their kinds as can be, in their order.

    Within a kind they are drawn at random, the same ones in every run.

    Args:
        steps: all of a row.
        count: how many; None: all.
    """
    if count is None or count >= len(steps):
        return list(steps)
    kinds: dict[str, list[int]] = {}
    for place, step in enumerate(steps):
        kinds.setdefault(step.kind, []).append(place)
    ranked = []
    for kind, places in kinds.items():
        Random(kind).shuffle(places)
        ranked += [(rank, place) for rank, place in enumerate(places)]
    chosen = sorted(place for _, place in sorted(ranked)[:count])
    return [steps[place] for place in chosen]


def total(outcomes: Sequence[Outcome]) -> int:
    """Return how many things were judged."""
    return sum(outcome.count for outcome in outcomes)


def bad(outcomes: Sequence[Outcome]) -> int:
    """Return how many of them are what they shouldn't be."""
    return sum(outcome.bad for outcome in outcomes)


def summed(outcomes: Sequence[Outcome], figure: str) -> int:
    """Return the sum of a further figure; an outcome that lacks it counts as 0."""
    return round(sum(outcome.figures.get(figure, 0) for outcome in outcomes))


def none_bad(outcomes: Sequence[Outcome]) -> bool:
    """Return whether all is as it should be."""
    return bad(outcomes) == 0


def compared_sides(outcomes: Sequence[Outcome], sides: Sequence[tuple[str, str]]) -> str:
    """Return what each side of a comparison got right, and what that took, in words.

    Args:
        outcomes: with the figures ``right``, ``nodes`` and ``runs`` of each side.
        sides: the name of each, and what its figures begin with.
    """
    parts = []
    for name, prefix in sides:
        right, nodes, runs = (
            summed(outcomes, f"{prefix}{figure}") for figure in ("right", "nodes", "runs")
        )
        parts.append(
            f"{name}: {right} of {total(outcomes)} right, {nodes} nodes, {runs} runs"
        )
    return "; ".join(parts)


def some_and_none_bad(outcomes: Sequence[Outcome]) -> bool:
    """Return whether something was judged, and all of it is as it should be."""
    return total(outcomes) > 0 and none_bad(outcomes)
