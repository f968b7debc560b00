"""Sets of rows that were made on purpose.

How many rows a set can have, and what the other inputs hold beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.values.sets import Value

INDEX = 72
"""A multiple of 4: of the signals that sets take turns with, the structured one."""

Attempt = Callable[[dict[str, Value]], Any]
"""Runs the reference: its outputs by name, or None where it doesn't run."""

_MOST_ROWS = 1 << 16  # of a set
_MOST_ELEMENTS = 1 << 22
_MOST_SETS = 64  # of each kind, where a set can't have as many rows as there are
# Of a set, where each row becomes an output of its own: a sequence of maps.
_ROWS_IN_MAPS = 256


class Batch:
    """The number of rows a set can have, and sets of that many.

    Args:
        model: its outputs count.
        recipe: of the model.
        base: what the first set ran with.
        sources: the inputs that the rows are for.
    """

    def __init__(
        self, model: onnx.ModelProto, recipe: Recipe, base: Guess, sources: Sequence[str]
    ) -> None:
        self.recipe, self.base = recipe, base
        firsts = [(recipe.inputs[name].dims or (1,))[0] for name in sources]
        pinned = recipe.pinned(0)
        self.names = [dim for dim in firsts if isinstance(dim, str)]
        fixed = [dim for dim in firsts if isinstance(dim, int)]
        names = []
        for name in self.names:
            if not self._is_open(name, pinned):
                names.append(base.sizes.get(name, 1))
        fixed += names
        self.fixed = fixed[0] if fixed else None
        width = 0
        for name in sources:
            width += int(
                np.prod(
                    [dim for dim in recipe.inputs[name].dims or () if isinstance(dim, int)]
                )
            )
        most = max(1, min(_MOST_ROWS, _MOST_ELEMENTS // max(width, 1)))
        self.most = min(most, _ROWS_IN_MAPS) if _gives_sequences(model) else most

    def _is_open(self, name: str, pinned: Mapping[str, int]) -> bool:
        dimension = self.recipe.dimensions.get(name)
        return (
            name not in pinned and dimension is not None and dimension.role is not Role.FIXED
        )

    def parts(self, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The rows, as many in each part as a set can have.

        The first ones alone where there are too many.
        """
        size = self.fixed or self.most
        rows = rows[: size * _MOST_SETS]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            if self.fixed and len(part) < size:
                part = np.concatenate(
                    [part, np.resize(part, (size - len(part), *part.shape[1:]))]
                )
            yield part

    def values(
        self,
        seed: int,
        count: int,
        fill: Callable[[dict[str, Value]], None],
        further: Mapping[str, int] | None = None,
    ) -> dict[str, Value]:
        """The values of all inputs for a set of ``count`` rows.

        Args:
            seed: of the run.
            count: of the rows.
            fill: puts them in the place of what the inputs hold.
            further: sizes of other dimensions.
        """
        sizes, requested = self.base.sizes, dict(further or {})
        if self.fixed is None:
            requested |= dict.fromkeys(self.names, count)
        if requested:
            sizes = self.recipe.fit(sizes | requested, {*self.recipe.pinned(0), *requested})
        values = self.recipe.values(INDEX, seed, replace(self.base, sizes=sizes))
        fill(values)
        return values


def _gives_sequences(model: onnx.ModelProto) -> bool:
    return any(not info.type.HasField("tensor_type") for info in model.graph.output)
