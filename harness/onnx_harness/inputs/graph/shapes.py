"""Write the shapes of a graph's values as terms of its inputs' dimensions.

The demands of operators on those are collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.inputs.graph.terms import Maybe, Term

Dims = tuple[Maybe, ...]

_MOST_NUMBERS = 64  # of a constant that may become a shape
_FAR = 2**31 - 1  # a Slice that ends there or beyond ends with the axis


class Sort(StrEnum):
    """The relation of two sizes."""

    EQUAL = "equal"
    MULTIPLE = "multiple"  # the left one of the right one
    AT_LEAST = "at least"


@dataclass(frozen=True, slots=True)
class Relation:
    """An operator's demand on the sizes that reach it.

    Attributes:
        sort: how the two relate.
        left: a size.
        right: another.
        why: the end of a sentence, such as ``it is joined with other axes in Concat 'skip'``.
    """

    sort: Sort
    left: Term
    right: Term
    why: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A number that a size is compared with, or cut off at.

    Attributes:
        size: computed from shapes.
        number: of the graph.
        compared: whether it is compared, so that the number itself may fall on either side. What is
            cut off there shows that beyond the number alone.
    """

    size: Term
    number: int
    compared: bool


@dataclass
class Shapes:
    """The knowledge about a graph's shapes.

    Attributes:
        dims: by value name; None for a size of which nothing is known. Values of unknown rank are
            missing.
        numbers: by the name of a small integer value that is computed from shapes: its elements,
            row by row.
        relations: in the order of the nodes.
        meetings: likewise.
        last: by the name of a value that counts positions: the greatest of them, sign aside.
    """

    scope: Scope
    dims: dict[str, Dims] = field(default_factory=dict)
    numbers: dict[str, Dims] = field(default_factory=dict)
    relations: list[Relation] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    last: dict[str, Term] = field(default_factory=dict)

    def shape(self, name: str) -> Dims | None:
        """The dimensions of a value; what shape inference found, where nothing else is known."""
        if name in self.dims:
            return self.dims[name]
        dims = self.scope.shape(name)
        # A name is taken for the dimension only where it is an input's: exporters make up others.
        if dims is None:
            return None
        return tuple(dim if isinstance(dim, int) else None for dim in dims)

    def contents(self, name: str) -> Dims | None:
        """The elements of a small integer value; None where they aren't known."""
        if name in self.numbers:
            return self.numbers[name]
        constant = self.scope.constant(name)
        if (
            constant is None
            or constant.size > _MOST_NUMBERS
            or not np.issubdtype(constant.dtype, np.integer)
        ):
            return None
        return tuple(int(element) for element in constant.reshape(-1))

    def integers(self, node: onnx.NodeProto, slot: int, name: str) -> list[int] | None:
        """An argument that became an input in some opset, and was an attribute before.

        None where it isn't known.
        """
        if len(node.input) > slot and node.input[slot]:
            contents = self.contents(node.input[slot])
            numbers = []
            for number in contents or ():
                if isinstance(number, int):
                    numbers.append(number)
            return (
                numbers if contents is not None and len(numbers) == len(contents) else None
            )
        attribute_value = attribute(node, name, None)
        return (
            None
            if attribute_value is None
            else [int(number) for number in np.atleast_1d(attribute_value)]
        )

    def demand(self, sort: Sort, left: Maybe, right: Maybe, why: str) -> None:
        """Note a relation, unless it says nothing."""
        if left is None or right is None:
            return
        if sort is not Sort.AT_LEAST:
            left, right = terms.reduced(left, right)
        if left != right and not (isinstance(left, int) and isinstance(right, int)):
            self.relations.append(Relation(sort, left, right, why))

    def meet(self, size: Maybe, number: Maybe, *, compared: bool = False) -> None:
        """Note that two sizes are compared, or the greater one cut off, if one is a number."""
        if isinstance(size, int):
            size, number = number, size
        if size is not None and not isinstance(size, int) and isinstance(number, int):
            self.meetings.append(Meeting(size, number, compared))

    def joined(self, left: Maybe, right: Maybe, why: str) -> Maybe:
        """One size for two that have to be the same, the better known of them."""
        self.demand(Sort.EQUAL, left, right, why)
        if isinstance(left, int) or right is None:
            return left
        return right if isinstance(right, int) else left or right

    def broadcast(self, shapes: Sequence[Dims], why: str) -> Dims:
        """The shape that all of them are stretched to.

        Two dynamic sizes are taken to be equal, and not to stretch.
        """
        rank = max(map(len, shapes), default=0)
        result_dims: list[Maybe] = [1] * rank
        for shape in shapes:
            for place, dim in enumerate(shape, rank - len(shape)):
                if dim != 1:
                    result_dims[place] = (
                        dim
                        if result_dims[place] == 1
                        else self.joined(result_dims[place], dim, why)
                    )
        return tuple(result_dims)


def sliced(dim: Maybe, start: Maybe, end: Maybe, step: int) -> Maybe:
    """The size of a Slice of an axis."""
    if dim is None or start is None or end is None or step < 1:
        return None
    if isinstance(start, int) and start < 0:
        start = max(0, dim + start) if isinstance(dim, int) else terms.add(dim, start)
    if isinstance(end, int) and end < 0:
        end = terms.add(dim, end)
    elif not (isinstance(end, int) and end >= _FAR):
        end = terms.least(dim, end)
    else:
        end = dim
    length = terms.subtract(end, start)
    return length if step == 1 else terms.divide(terms.add(length, step - 1), step)
