"""Nodes that take the place of one that draws: the same values, from a table, in each run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.rewrite import fresh_name

# Values of a table: a prime, so that no row of a tensor begins like the one before it. They stay
# float32, as what repeats by a size does, and conversions refuse where a tenth of 1,024 weights or
# more is all that is converted: two tables are below that in a model of any size.
PERIOD = 509
# How far the next drawing node, and the next iteration of a loop, are along in the table. Primes.
_NODE_STRIDE, _ITERATION_STRIDES = 7_919, (1_009, 2_003, 4_001)
# ConstantOfShape and NonZero, which cut a table before Slice can, are of this version.
FIRST_OPSET = 9
_SLICE_OPSET, _AXES_AS_INPUT, _ALLOWZERO_OPSET, _CASTLIKE_OPSET = 10, 13, 14, 15


class Refused(Exception):
    """A node that can't be replaced; the message is the reason."""


class Surroundings(Protocol):
    """The model around a drawing node.

    Attributes:
        number: of the nodes that were replaced before it.
        taken: names that are in use; grows.
        types: element types of tensors by name, as far as they can be inferred.
    """

    number: int
    taken: set[str]
    types: dict[str, int]

    @property
    def opset(self) -> int:
        """The version of the standard operators."""

    def table(self, distribution: str) -> str:
        """Return the name of the table of values of a distribution."""


class Writer:
    """The nodes that take the place of a drawing node."""

    def __init__(
        self, work: Surroundings, node: onnx.NodeProto, iterations: tuple[str, ...]
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.node = node
        self.attributes = {
            attribute.name: helper.get_attribute_value(attribute)
            for attribute in node.attribute
        }
        self._work = work
        self._iterations = iterations
        self._stem = f"seeded_{node.name or node.output[0]}"

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = output or fresh_name(f"{self._stem}_{op_type.lower()}", self._work.taken)
        label = fresh_name(f"{self._stem}_{op_type}", self._work.taken)
        self.nodes.append(helper.make_node(op_type, inputs, [name], label, **attributes))
        return name

    def constant(self, value: object, dtype: type[np.generic]) -> str:
        """Add a constant, and return its name."""
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def type_of(self, name: str) -> int | None:
        """Return the element type of a tensor; None where it can't be inferred."""
        return self._work.types.get(name)

    def shape(self) -> str:
        """Return the name of the shape to draw: the attribute's, or that of the first input."""
        if "shape" in self.attributes:
            return self.constant(self.attributes["shape"], np.int64)
        return self.add("Shape", self.node.input[0])

    def draw(self, distribution: str, shape: str) -> str:
        """Add nodes that give values of a distribution, float32, of a shape.

        The table is repeated as often as it takes, and cut. That is the least memory: indices
        would take twice what the values do.
        """
        one = self.constant([1], np.int64)
        # The product of no dimensions, a scalar's, is undefined for some providers.
        dimensions = self.add("Concat", shape, one, axis=0)
        count = self.add("ReduceProd", dimensions, keepdims=1)
        turns = self.add("Div", count, self.constant([PERIOD], np.int64))
        repeats = self.add("Add", turns, self.constant([2], np.int64))
        repeated = self.add("Tile", self._work.table(distribution), repeats)
        flat = self._cut(repeated, self._start(), count)
        options: dict[str, Any] = (
            {"allowzero": 1} if self._work.opset >= _ALLOWZERO_OPSET else {}
        )
        return self.add("Reshape", flat, shape, **options)

    def _start(self) -> str:
        """Return the name of the node's first place in a table, of one dimension."""
        start = self.constant([self._work.number * _NODE_STRIDE % PERIOD], np.int64)
        if not self._iterations:
            return start
        for depth, iteration in enumerate(self._iterations):
            stride = _ITERATION_STRIDES[depth % len(_ITERATION_STRIDES)]
            steps = self.add("Mul", iteration, self.constant([stride], np.int64))
            start = self.add("Add", start, steps)
        period = self.constant([PERIOD], np.int64)
        turns = self.add("Mul", self.add("Div", start, period), period)
        return self.add("Sub", start, turns)

    def _cut(self, name: str, start: str, count: str) -> str:
        """Add a slice of so many elements from a start on, both of one dimension."""
        if self._work.opset >= _SLICE_OPSET:
            return self.add("Slice", name, start, self.add("Add", start, count))
        filling = numpy_helper.from_array(np.array([1], np.int64))
        ones = self.add("ConstantOfShape", count, value=filling)
        places = self.add("Squeeze", self.add("NonZero", ones), axes=[0])
        return self.add("Gather", name, self.add("Add", places, start))

    def unsqueezed(self, name: str, axis: int) -> str:
        """Add an Unsqueeze of one axis, as the model's opset writes it."""
        if self._work.opset < _AXES_AS_INPUT:
            return self.add("Unsqueeze", name, axes=[axis])
        return self.add("Unsqueeze", name, self.constant([axis], np.int64))

    def scaled(self, name: str, factor: float, offset: float) -> str:
        """Add nodes that multiply by a factor and add an offset, where they change anything."""
        if factor != 1:
            name = self.add("Mul", name, self.constant(factor, np.float32))
        if offset != 0:
            name = self.add("Add", name, self.constant(offset, np.float32))
        return name

    def as_float32(self, name: str) -> str:
        """Add a Cast to float32, where a tensor may be of another type."""
        if self.type_of(name) == TensorProto.FLOAT:
            return name
        return self.add("Cast", name, to=TensorProto.FLOAT)

    def from_float32(self, name: str, dtype: int) -> str:
        """Add a Cast of a float32 tensor; one to float32 would keep converters from it."""
        return name if dtype == TensorProto.FLOAT else self.add("Cast", name, to=dtype)

    def finish(self, name: str, given: int, dtype: int | None, like: str = "") -> None:
        """Give the drawing node's output its value.

        Args:
            name: the value, which the last node gives.
            given: its element type.
            dtype: the output's; None: that of ``like``, which couldn't be inferred.
            like: a tensor.
        """
        output = self.node.output[0]
        if dtype == given:
            self.nodes[-1].output[0] = output
        elif dtype is not None:
            self.add("Cast", name, output=output, to=dtype)
        elif self._work.opset >= _CASTLIKE_OPSET:
            self.add("CastLike", name, like, output=output)
        else:
            raise Refused("gives values of a type that can't be inferred")


def _normal(writer: Writer) -> None:
    drawn = writer.draw("normal", writer.shape())
    scale = writer.attributes.get("scale", 1.0)
    mean = writer.attributes.get("mean", 0.0)
    _finish_draw(writer, writer.scaled(drawn, scale, mean))


def _uniform(writer: Writer) -> None:
    drawn = writer.draw("uniform", writer.shape())
    low = writer.attributes.get("low", 0.0)
    high = writer.attributes.get("high", 1.0)
    _finish_draw(writer, writer.scaled(drawn, high - low, low))


def _finish_draw(writer: Writer, name: str) -> None:
    like = writer.node.input[0] if writer.node.input else ""
    default = writer.type_of(like) if like else TensorProto.FLOAT
    writer.finish(name, TensorProto.FLOAT, writer.attributes.get("dtype", default), like)


def _bernoulli(writer: Writer) -> None:
    probability = writer.node.input[0]
    coins = writer.draw("coin", writer.shape())
    heads = writer.add("Less", coins, writer.as_float32(probability))
    dtype = writer.attributes.get("dtype", writer.type_of(probability))
    writer.finish(heads, TensorProto.BOOL, dtype, probability)


def _multinomial(writer: Writer) -> None:
    """Choose by the Gumbel-max trick: the greatest log-probability after Gumbel noise.

    Maddison, Tarlow and Minka, "A* Sampling", 2014, section 2.
    """
    logits = writer.as_float32(writer.node.input[0])
    samples = writer.constant([writer.attributes.get("sample_size", 1)], np.int64)
    sizes = writer.add("Shape", logits)
    batch, classes = (
        writer.add("Gather", sizes, writer.constant([axis], np.int64), axis=0)
        for axis in (0, 1)
    )
    noise = writer.draw("gumbel", writer.add("Concat", batch, samples, classes, axis=0))
    noisy = writer.add("Add", noise, writer.unsqueezed(logits, 1))
    chosen = writer.add("ArgMax", noisy, axis=2, keepdims=0)
    dtype = writer.attributes.get("dtype", TensorProto.INT32)
    writer.finish(chosen, TensorProto.INT64, dtype)


def _dropout(writer: Writer) -> None:
    """Drop elements by coins where training mode is on, as ONNX's operator 13 defines it."""
    data, ratio, training = (*writer.node.input, "", "")[:3]
    dtype = writer.type_of(data)
    if dtype is None:
        raise Refused("gives values of a type that can't be inferred")
    share = writer.constant(0.5, np.float32)
    if ratio:
        share = writer.as_float32(ratio)
    coins = writer.draw("coin", writer.add("Shape", data))
    mask_name = writer.node.output[1] if len(writer.node.output) > 1 else ""
    survives = writer.add("Not", writer.add("Less", coins, share))
    mask = writer.add("Or", survives, writer.add("Not", training), output=mask_name)
    one = writer.constant(1, np.float32)
    growth = writer.add("Div", one, writer.add("Sub", one, share))
    factor = writer.add("Where", training, growth, one)
    scaled = writer.add("Mul", data, writer.from_float32(factor, dtype))
    zero = writer.from_float32(writer.constant(0, np.float32), dtype)
    writer.add("Where", mask, scaled, zero, output=writer.node.output[0])


REPLACE: dict[str, Callable[[Writer], None]] = {
    "RandomNormal": _normal,
    "RandomNormalLike": _normal,
    "RandomUniform": _uniform,
    "RandomUniformLike": _uniform,
    "Bernoulli": _bernoulli,
    "Multinomial": _multinomial,
    "Dropout": _dropout,
}
"""What writes the nodes in the place of one, by its operator."""
