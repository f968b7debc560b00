"""A random graph while it grows.

Its values with their shapes, which the makers of nodes choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, np.nan, np.inf, -np.inf)
BATCH = 2
DTYPES: dict[str, Any] = {
    "f": np.float32,
    "d": np.float64,
    "h": np.float16,
    "i": np.int64,
    "j": np.int32,
    "u": np.uint8,
    "b": np.bool_,
}
CODES = {
    kind: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for kind, dtype in DTYPES.items()
}


@dataclass(slots=True)
class Value:
    """A tensor of the graph being made.

    Its name, a letter for its dtype, and its shape at a batch of ``BATCH``.
    """

    name: str
    kind: str
    shape: Shape


@dataclass(slots=True)
class Graph:
    """A graph being made, and those around it, whose values it may read."""

    random: Random
    opset: int
    outer: Graph | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    counter: list[int] = field(default_factory=lambda: [0])
    depth: int = 0

    def fresh(self) -> str:
        """A name; sibling branches begin from the same one, as those of exporters do."""
        self.counter[0] += 1
        return f"v{self.counter[0]}"

    def visible(self) -> list[Value]:
        """Return the values that a node here may read."""
        return self.values + (self.outer.visible() if self.outer is not None else [])

    def pick(self, kinds: str = "", test: Callable[[Value], bool] = lambda _: True) -> Value:
        """A value that fits, or a constant where there's none."""
        fitting = []
        for value in self.visible():
            if (not kinds or value.kind in kinds) and test(value):
                fitting.append(value)
        # Later ones oftener: chains are what rules look for.
        return (
            fitting[min(int(self.random.random() ** 2 * len(fitting)), len(fitting) - 1)]
            if fitting
            else _none()
        )

    def add(
        self, op: str, inputs: Sequence[str], kind: str, shape: Shape, **attributes: Any
    ) -> Value:
        """Add a node with one output, and return that."""
        name = self.fresh()
        unnamed = "" if self.random.random() < 0.5 else f"n_{name}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=unnamed, **attributes))
        value = Value(name, kind, tuple(int(size) for size in shape))
        self.values.insert(0, value)
        return value

    def constant(self, array: Array) -> str:
        """Name a new constant: an initializer of this graph, or a node in one of its forms."""
        name, tensor = (
            self.fresh(),
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape)),
        )
        tensor.name = name
        way = self.random.random()
        if way < 0.5:
            self.initializers.append(tensor)
        elif (
            way < 0.6
            and self.opset >= 12
            and array.dtype == np.int64
            and array.ndim == 1
            and array.size
        ):
            self.nodes.append(
                helper.make_node("Constant", [], [name], value_ints=array.tolist())
            )
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def number(self, kind: str, shape: Shape) -> str:
        """A constant of special or ordinary numbers."""
        return self.constant(numbers(self.random, kind, shape))


class NoneFits(Exception):
    """No value of the graph is what a node needs."""


def _none() -> Value:
    raise NoneFits


def numbers(random: Random, kind: str, shape: Shape) -> Array:
    """An array of that kind: all one special value, special ones mixed, or ordinary ones."""
    size = int(np.prod(shape))
    if kind in "fdh":
        way = random.random()
        if way < 0.4:
            flat = [random.choice(SPECIAL)] * size
        elif way < 0.6:
            flat = [random.choice(SPECIAL) for _ in range(size)]
        else:
            flat = [random.uniform(-2, 2) for _ in range(size)]
    elif kind == "b":
        flat = [random.random() < 0.5 for _ in range(size)]
    else:
        flat = []
        for _ in range(size):
            flat.append(
                random.choice((0, 1, 1, 2, 3) if kind == "u" else (0, 1, 1, 2, -1, -3))
            )
    with np.errstate(all="ignore"):
        return np.array(flat, DTYPES[kind]).reshape(shape)
