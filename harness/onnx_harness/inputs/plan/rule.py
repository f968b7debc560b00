"""The rule of one input: how its values are made, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from onnx_harness.cards.toml import Scalar
from onnx_harness.inputs.graph.standardization import Standardization


class Make(StrEnum):
    """The ways in which values are made."""

    CHOICES = "choices"  # set k holds choices[k % n] throughout
    MASK = "mask"
    IDS = "ids"
    INTEGERS = "integers"
    LENGTH = "length"
    POSITIONS = "positions"
    AMONG = "among"  # each of the choices, and others where those are taken
    AXES = "axes"  # 0, 1, 2 …: distinct axes
    TARGET = "target"  # -1, 1, 1 …: a shape that anything can be brought into
    BOXES = "boxes"  # rows of two corners, the lesser one first
    BOOLS = "bools"
    TEXTS = "texts"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule for one input.

    Attributes:
        make: how.
        why: one sentence for a person.
        certain: whether the graph, the type or the card settles it; if not, the search may fill in
            constants.
        low: least value.
        high: greatest value.
        dim: values stay below that dimension's size (or, for LENGTH, at most reach it).
        choices: for CHOICES, or what TEXTS and AMONG are taken from.
        is_closed: for TEXTS and AMONG: whether nothing else is taken.
        columns: likewise, where each column has choices of its own.
        salient: constants that elements are compared with: some elements hold them.
        edges: likewise, where a last bit decides: elements of one further set hold them and what
            lies next to them.
        around: for SIGNAL: what its values lie around; None for zero.
        generators: for SIGNAL: set k takes ``generators[k % n]``.
        lag: for CHOICES: how many controls come before it that take turns of themselves; see
            :func:`in_turn`.
        elements: of a vector, those that are controls of themselves, with the values that they take
            in turn.
    """

    make: Make
    why: str
    certain: bool = True
    low: float | None = None
    high: float | None = None
    dim: str | None = None
    choices: tuple[Scalar, ...] = ()
    generators: tuple[str, ...] = ()
    lag: int = 0
    elements: tuple[tuple[int, tuple[Scalar, ...]], ...] = ()
    is_closed: bool = False
    columns: tuple[tuple[Scalar, ...], ...] = ()
    salient: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    around: Standardization | None = None

    def choice(self, turn: int) -> Scalar:
        """Return what a control holds in its turn."""
        return in_turn(self.choices, turn, self.lag)


def placed_around(rule: Rule, around: Standardization | None) -> Rule:
    """Return the rule of a signal whose values lie around constants; others stay as they are."""
    free = rule.make is Make.SIGNAL and rule.low is None and rule.high is None
    if around is None or not free:
        return rule
    why = f"{rule.why} They lie around the constants that are subtracted: {around.why}."
    return replace(rule, around=around, why=why)


def in_turn(values: Sequence[Scalar], turn: int, lag: int) -> Scalar:
    """The value for a turn.

    Two controls don't go in step: of 0 and 1 the second, whose lag is 1, takes 0, 1, 1, 0.
    """
    return values[(turn + lag * (turn // len(values))) % len(values)]
