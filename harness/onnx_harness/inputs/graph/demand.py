"""A demand on an input's values, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The subject of a demand."""

    BOUND = "bound"  # low <= value <= high
    CHOICE = "choice"  # compared with constants: a control value
    MASK = "mask"  # 0 or 1
    NONZERO = "nonzero"  # divides integers, and a zero kills the process
    LENGTH = "length"  # counts elements of a dimension
    SHAPE = "shape"  # becomes a shape, an axis or a count
    LOOSE = "loose"  # reaches an index in a way that wasn't followed
    LOWER = "lower"  # a floor that values are compared with
    UPPER = "upper"  # a ceiling that values are compared with
    BOXES = "boxes"  # holds two corners a row, within a picture
    KEYS = "keys"  # looked up in a table of texts or integers
    AMONG = "among"  # compared with constants, element by element
    ANGLE = "angle"  # a position that a sine or cosine is taken of
    MISSING = "missing"  # asked whether it is NaN
    CUT = "cut"  # cut off at a constant


@dataclass(frozen=True, slots=True)
class Demand:
    """One demand on an input's values, with its reason.

    Attributes:
        kind: what it is about.
        why: the end of a sentence, such as ``it indexes the 30522 rows of 'embeddings' in Gather
            'lookup'``.
        low: least value, for BOUND.
        high: greatest value, for BOUND; for LENGTH when the dimension's size is fixed.
        dim: a dynamic dimension: values are at most its size - 1 (BOUND) or its size (LENGTH).
        values: constants or keys; for CUT: what comes to the constant, and to its neighbours.
        role: which argument of a shape-like operator it becomes, such as ``Reshape shape``.
        otherwise: for CHOICE: a value for which an equality doesn't hold, where no other choice is
            one.
        is_closed: for KEYS: whether nothing else is taken.
        element: for CHOICE: which element of a vector it is about; None for an input of one number.
    """

    kind: Kind
    why: str
    low: float | None = None
    high: float | None = None
    dim: str | None = None
    values: tuple[Any, ...] = ()
    role: str = ""
    otherwise: tuple[float, ...] = ()
    is_closed: bool = False
    element: int | None = None
