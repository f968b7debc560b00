"""Sizes that aren't numbers yet.

Sums, products and quotients of the names of dynamic dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MOST_PARTS = 200  # of one term; what is longer counts as unknown


@dataclass(frozen=True, slots=True)
class Op:
    """An operation on two terms.

    Attributes:
        sign: ``+``, ``-``, ``*``, ``//`` (rounded down, as sizes are) or ``min``.
        left: operand.
        right: operand.
        parts: how many operations it holds, itself included.
    """

    sign: str
    left: Term
    right: Term
    parts: int = field(default=1, compare=False)


Term = int | str | Op
"""A size: a number, a dimension's name, or an operation on such."""

Maybe = Term | None
"""A size of which perhaps nothing is known."""


def add(left: Maybe, right: Maybe) -> Maybe:
    """``left + right``."""
    if isinstance(left, int) and not isinstance(right, int):
        left, right = right, left
    if right == 0:
        return left
    if (
        isinstance(left, Op)
        and left.sign == "+"
        and isinstance(left.right, int)
        and isinstance(right, int)
    ):
        return add(left.left, left.right + right)
    return _made("+", left, right)


def subtract(left: Maybe, right: Maybe) -> Maybe:
    """``left - right``."""
    if isinstance(right, int):
        return add(left, -right)
    return 0 if left is not None and left == right else _made("-", left, right)


def multiply(left: Maybe, right: Maybe) -> Maybe:
    """``left * right``."""
    if isinstance(left, int) and not isinstance(right, int):
        left, right = right, left
    if right == 1:
        return left
    return 0 if right == 0 and left is not None else _made("*", left, right)


def divide(left: Maybe, right: Maybe) -> Maybe:
    """``left // right``: what both are multiplied with goes first."""
    if left is None or right is None or right == 0:
        return None
    if right == 1:
        return left
    top, bottom = reduced(left, right)
    return top if bottom == 1 else _made("//", top, bottom)


def reduced(left: Term, right: Term) -> tuple[Term, Term]:
    """Both without the factors that they share.

    Sizes are positive, so that neither order nor divisibility changes.
    """
    above, below = _factors(left), _factors(right)
    for factor in list(below):
        if not isinstance(factor, int) and factor in above:
            above.remove(factor)
            below.remove(factor)
    shares = []
    for factors in (above, below):
        whole_factors = []
        for factor in factors:
            if isinstance(factor, int):
                whole_factors.append(factor)
        shares.append(math.prod(whole_factors))
    up, down = shares
    shared = math.gcd(up, down) or 1
    sides = []
    for factors, number in ((above, up), (below, down)):
        sides.append(
            product(
                [
                    *(factor for factor in factors if not isinstance(factor, int)),
                    number // shared,
                ]
            )
        )
    top, bottom = sides
    return (left, right) if top is None or bottom is None else (top, bottom)


def least(left: Maybe, right: Maybe) -> Maybe:
    """The smaller of both."""
    return left if left is not None and left == right else _made("min", left, right)


def product(terms: Sequence[Maybe]) -> Maybe:
    """Of all; 1 of none."""
    result: Maybe = 1
    for term in terms:
        result = multiply(result, term)
    return result


def total(terms: Sequence[Maybe]) -> Maybe:
    """Of all; 0 of none."""
    result: Maybe = 0
    for term in terms:
        result = add(result, term)
    return result


def names(term: Term) -> frozenset[str]:
    """The dimensions that a term speaks of."""
    seen: set[str] = set()
    waiting = [term]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            seen.add(part)
        elif isinstance(part, Op):
            waiting += [part.left, part.right]
    return frozenset(seen)


def value(term: Term, sizes: Mapping[str, Any]) -> Any:
    """Return what a term comes to.

    Args:
        term: to evaluate.
        sizes: numbers, or arrays of numbers that broadcast, by dimension.
    """
    if isinstance(term, int):
        return term
    if isinstance(term, str):
        return sizes[term]
    return _apply(term.sign, value(term.left, sizes), value(term.right, sizes))


def _apply(sign: str, left: Any, right: Any) -> Any:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return left // np.where(right == 0, 1, right)
        case _:
            return np.minimum(left, right)


def _made(sign: str, left: Maybe, right: Maybe) -> Maybe:
    if left is None or right is None:
        return None
    if isinstance(left, int) and isinstance(right, int):
        return int(_apply(sign, left, right))
    parts = 1 + sum(side.parts for side in (left, right) if isinstance(side, Op))
    return Op(sign, left, right, parts) if parts <= _MOST_PARTS else None


def _factors(term: Term) -> list[Term]:
    if isinstance(term, Op) and term.sign == "*":
        return [*_factors(term.left), *_factors(term.right)]
    return [term]
