"""Random valid models, small and nasty: what a simplifier meets in real ones, in any order and combination.

Shapes are followed beside the graph for one size of its dynamic dimension. At another size a model may be one that
ONNX Runtime refuses: whoever runs it there has to see that the simplified one isn't asked to do better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, np.nan, np.inf, -np.inf)
BATCH = 2
_DTYPES: dict[str, Any] = {
    "f": np.float32,
    "d": np.float64,
    "h": np.float16,
    "i": np.int64,
    "j": np.int32,
    "u": np.uint8,
    "b": np.bool_,
}
_CODES = {kind: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for kind, dtype in _DTYPES.items()}


@dataclass(slots=True)
class Value:
    """A tensor of the graph being made: its name, a letter for its dtype, and its shape at a batch of ``BATCH``."""

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
        return self.values + (self.outer.visible() if self.outer is not None else [])

    def pick(self, kinds: str = "", test: Callable[[Value], bool] = lambda _: True) -> Value:
        """A value that fits, or a constant where there's none."""
        fitting = [value for value in self.visible() if (not kinds or value.kind in kinds) and test(value)]
        # Later ones oftener: chains are what rules look for.
        return fitting[min(int(self.random.random() ** 2 * len(fitting)), len(fitting) - 1)] if fitting else _none()

    def add(self, op: str, inputs: Sequence[str], kind: str, shape: Shape, **attributes: Any) -> Value:
        name = self.fresh()
        unnamed = "" if self.random.random() < 0.5 else f"n_{name}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=unnamed, **attributes))
        value = Value(name, kind, tuple(int(size) for size in shape))
        self.values.insert(0, value)
        return value

    def constant(self, array: Array) -> str:
        """The name of a constant: an initializer of this graph, or of a node in one of its forms."""
        name, tensor = self.fresh(), numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape))
        tensor.name = name
        way = self.random.random()
        if way < 0.5:
            self.initializers.append(tensor)
        elif way < 0.6 and self.opset >= 12 and array.dtype == np.int64 and array.ndim == 1 and array.size:
            self.nodes.append(helper.make_node("Constant", [], [name], value_ints=array.tolist()))
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def number(self, kind: str, shape: Shape) -> str:
        """A constant of special or ordinary numbers."""
        return self.constant(numbers(self.random, kind, shape))


class _NoneFits(Exception):
    pass


def _none() -> Value:
    raise _NoneFits


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
        flat = [random.choice((0, 1, 1, 2, 3) if kind == "u" else (0, 1, 1, 2, -1, -3)) for _ in range(size)]
    with np.errstate(all="ignore"):
        return np.array(flat, _DTYPES[kind]).reshape(shape)


def _unary(g: Graph) -> None:
    x = g.pick("f")
    g.add(g.random.choice(("Neg", "Abs", "Relu", "Identity", "Sign", "Floor", "Sigmoid")), [x.name], x.kind, x.shape)


def _identity(g: Graph) -> None:
    x = g.pick()
    g.add("Identity", [x.name], x.kind, x.shape)


def _with_constant(g: Graph) -> None:
    x = g.pick("fij")
    kept = [size if g.random.random() < 0.6 else 1 for size in x.shape]
    shape = tuple(kept[g.random.randint(0, len(kept)) :])
    if g.random.random() < 0.15:
        shape = (1,) * g.random.randint(0, 2) + shape
    op = g.random.choice(("Add", "Sub", "Mul", "Div"))
    if op == "Div" and x.kind in "ij":
        name = g.constant(np.array(numbers(g.random, "u", shape), _DTYPES[x.kind]) + 1)
    else:
        name = g.number(x.kind, shape)
    inputs = [x.name, name] if g.random.random() < 0.7 or (op == "Div" and x.kind in "ij") else [name, x.name]
    g.add(op, inputs, x.kind, np.broadcast_shapes(x.shape, shape))


def _two(g: Graph) -> None:
    x = g.pick("f")
    y = g.pick(x.kind, lambda value: value.shape == x.shape)
    g.add(g.random.choice(("Add", "Sub", "Mul", "Max", "Min")), [x.name, y.name], x.kind, x.shape)


def _cast(g: Graph) -> None:
    x = g.pick("fdhijub")
    kind = g.random.choice("fdijub" if x.kind != "f" else "dh")  # NaN to an integer is undefined
    if x.kind in "dh":
        kind = g.random.choice("fdh")
    y = g.add("Cast", [x.name], kind, x.shape, to=_CODES[kind])
    if g.random.random() < 0.6:
        back = g.random.choice("fdh") if kind in "fdh" else g.random.choice("ijubfd")
        y = g.add("Cast", [y.name], back, x.shape, to=_CODES[back])
    if y.kind in "dhub":
        target = "f" if y.kind in "dh" else "i"
        g.add("Cast", [y.name], target, x.shape, to=_CODES[target])


def _transpose(g: Graph) -> None:
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    perm = list(range(len(x.shape)))
    g.random.shuffle(perm)
    if g.random.random() < 0.15:
        g.add("Transpose", [x.name], x.kind, x.shape[::-1])
    else:
        g.add("Transpose", [x.name], x.kind, tuple(x.shape[axis] for axis in perm), perm=perm)


def _factors(g: Graph, size: int) -> Shape:
    shape: list[int] = []
    while size > 1 and len(shape) < 3 and g.random.random() < 0.8:
        part = g.random.choice([each for each in range(1, size + 1) if size % each == 0])
        shape.append(part)
        size //= part
    shape.append(size)
    g.random.shuffle(shape)
    return tuple(shape)


def _reshape(g: Graph) -> None:
    x = g.pick("fi", lambda value: 0 < math.prod(value.shape) < 500)
    shape = _factors(g, int(np.prod(x.shape)))
    written: list[int] = list(shape)
    for axis in range(min(len(written), len(x.shape))):
        if written[axis] == x.shape[axis] and g.random.random() < 0.5:
            written[axis] = 0
    if g.random.random() < 0.5:
        written[g.random.randrange(len(written))] = -1
    if g.random.random() < 0.3 and len(written) > 1:
        name = _computed_shape(g, x, shape)
    else:
        name = g.constant(np.array(written, np.int64))
    g.add("Reshape", [x.name, name], x.kind, shape)


def _computed_shape(g: Graph, x: Value, shape: Shape) -> str:
    """The shape as exporters write it: dimensions of x, gathered and concatenated with numbers."""
    shape_of = g.add("Shape", [x.name], "i", (len(x.shape),)).name
    parts = []
    for size in shape:
        if size in x.shape and g.random.random() < 0.7:
            axis = x.shape.index(size)
            if g.random.random() < 0.5:
                part = g.add("Gather", [shape_of, g.constant(np.array([axis], np.int64))], "i", (1,)).name
            else:
                scalar = g.add("Gather", [shape_of, g.constant(np.array(axis, np.int64))], "i", ()).name
                part = _unsqueeze_by(g, scalar, "i", (), [0])
            parts.append(part)
        else:
            parts.append(g.constant(np.array([size], np.int64)))
    return g.add("Concat", parts, "i", (len(shape),), axis=0).name


def _unsqueeze_by(g: Graph, name: str, kind: str, shape: Shape, axes: list[int]) -> str:
    total = len(shape) + len(axes)
    result = list(shape)
    for axis in sorted(axis % total for axis in axes):
        result.insert(axis, 1)
    if g.opset < 13:
        return g.add("Unsqueeze", [name], kind, tuple(result), axes=[axis % total for axis in axes]).name
    return g.add("Unsqueeze", [name, g.constant(np.array(axes, np.int64))], kind, tuple(result)).name


def _unsqueeze(g: Graph) -> None:
    x = g.pick("fi", lambda value: len(value.shape) < 4)
    total = len(x.shape) + g.random.randint(1, 2)
    axes = g.random.sample(range(total), total - len(x.shape))
    _unsqueeze_by(g, x.name, x.kind, x.shape, [axis - total if g.random.random() < 0.4 else axis for axis in axes])


def _squeeze(g: Graph) -> None:
    x = g.pick("fi", lambda value: 1 in value.shape)
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    axes = g.random.sample(ones, g.random.randint(1, len(ones)))
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    written = [axis - len(x.shape) if g.random.random() < 0.4 else axis for axis in axes]
    if g.opset < 13:
        g.add("Squeeze", [x.name], x.kind, shape, axes=axes)
    elif g.random.random() < 0.15:
        g.add("Squeeze", [x.name], x.kind, tuple(size for size in x.shape if size != 1))
    else:
        g.add("Squeeze", [x.name, g.constant(np.array(written, np.int64))], x.kind, shape)


def _flatten(g: Graph) -> None:
    x = g.pick("f", lambda value: len(value.shape) > 0)
    axis = g.random.randint(0, len(x.shape))
    g.add("Flatten", [x.name], x.kind, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))), axis=axis)


def _slice(g: Graph) -> None:
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    axes = g.random.sample(range(len(x.shape)), g.random.randint(1, min(2, len(x.shape))))
    starts = [g.random.choice((0, 1, -1, -100, 100)) for _ in axes]
    ends = [g.random.choice((1, 2, -1, 2**31, -(2**31))) for _ in axes]
    steps = [g.random.choice((1, 1, 1, 2, -1, -2)) if g.opset >= 10 else 1 for _ in axes]
    written = [axis - len(x.shape) if g.random.random() < 0.3 else axis for axis in axes]
    shape = list(x.shape)
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        shape[axis] = len(range(x.shape[axis])[slice(*bounds)])
    if g.opset < 10:
        g.add("Slice", [x.name], x.kind, tuple(shape), starts=starts, ends=ends, axes=axes)
        return
    parts = [g.constant(np.array(each, np.int64)) for each in (starts, ends, written, steps)]
    g.add("Slice", [x.name, *parts], x.kind, tuple(shape))


def _concat(g: Graph) -> None:
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    axis = g.random.randrange(len(x.shape))
    parts = [x]
    for _ in range(g.random.randint(0, 2)):
        parts.append(
            g.pick(x.kind, lambda v: len(v.shape) == len(x.shape)
                   and all(a == b for n, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if n != axis))
        )  # fmt: skip
    shape = list(x.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    if max(shape, default=0) < 40:
        g.add("Concat", [part.name for part in parts], x.kind, tuple(shape), axis=axis)


def _shape(g: Graph) -> None:
    x = g.pick("fi")
    if g.opset >= 15 and g.random.random() < 0.4:
        start, end = g.random.randint(-5, 5), g.random.randint(-5, 5)
        rank = len(x.shape)
        low, high = (min(max(each + rank if each < 0 else each, 0), rank) for each in (start, end))
        g.add("Shape", [x.name], "i", (max(high - low, 0),), start=start, end=end)
    else:
        g.add("Shape", [x.name], "i", (len(x.shape),))


def _size(g: Graph) -> None:
    g.add("Size", [g.pick("fi").name], "i", ())


def _gather(g: Graph) -> None:
    x = g.pick("fi", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis = g.random.randrange(len(x.shape))
    shape = g.random.choice(((), (1,), (2,), (0,)))
    indices = np.array(
        [g.random.randrange(-x.shape[axis], x.shape[axis]) for _ in range(int(np.prod(shape)))], np.int64
    ).reshape(shape)
    g.add("Gather", [x.name, g.constant(indices)], x.kind, x.shape[:axis] + shape + x.shape[axis + 1 :], axis=axis)


def _expand(g: Graph) -> None:
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    shape = tuple(size if size != 1 or g.random.random() < 0.5 else 3 for size in x.shape)
    written = tuple(1 if g.random.random() < 0.3 and a == b else b for a, b in zip(x.shape, shape, strict=True))
    g.add("Expand", [x.name, g.constant(np.array(written, np.int64))], x.kind, shape)


def _where(g: Graph) -> None:
    x = g.pick("f")
    kind = numbers(g.random, "b", g.random.choice(((), x.shape)))
    g.add("Where", [g.constant(kind), x.name, g.number("f", ())], "f", x.shape)


def _reduce(g: Graph) -> None:
    x = g.pick("f", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis, keep = g.random.randrange(len(x.shape)), g.random.choice((0, 1))
    shape = tuple(1 if n == axis else size for n, size in enumerate(x.shape) if keep or n != axis)
    if g.opset >= 18:
        g.add("ReduceMax", [x.name, g.constant(np.array([axis], np.int64))], "f", shape, keepdims=keep)
    else:
        g.add("ReduceMax", [x.name], "f", shape, axes=[axis], keepdims=keep)


def _pads(g: Graph, x: Value, low: int, spatial_alone: bool) -> tuple[list[int], Shape]:
    spatial = range(2, len(x.shape)) if spatial_alone else range(len(x.shape))
    begin, end = [0] * len(x.shape), [0] * len(x.shape)
    for axis in spatial:
        begin[axis], end[axis] = g.random.randint(low, 2), g.random.randint(low, 2)
    return begin + end, tuple(s + b + e for s, b, e in zip(x.shape, begin, end, strict=True))


def _pad(g: Graph, usual: bool = False) -> Value:
    x = g.pick("f", lambda value: len(value.shape) in (3, 4) and min(value.shape) > 2)
    mode = "constant" if usual else g.random.choice(("constant", "edge", "reflect"))
    low = -1 if mode == "constant" and not usual and g.random.random() < 0.5 else 0
    pads, shape = _pads(g, x, low, usual or g.random.random() < 0.5)
    value = g.random.choice((0.0, -np.inf) if usual else (0.0, -0.0, 1.0, -np.inf, np.nan))
    if g.opset < 11:
        return g.add("Pad", [x.name], "f", shape, mode=mode, pads=pads, value=value)
    inputs = [x.name, g.constant(np.array(pads, np.int64))]
    if g.random.random() < 0.7:
        inputs.append(g.constant(np.array(value, np.float32)))
    if g.opset >= 18 and g.random.random() < 0.4:
        rank = len(x.shape)
        axes = [n for n in range(rank) if pads[n] or pads[n + rank]] or [0]
        g.random.shuffle(axes)
        few = [pads[n] for n in axes] + [pads[n + rank] for n in axes]
        inputs = [x.name, g.constant(np.array(few, np.int64)), *inputs[2:]]
        inputs += [""] * (3 - len(inputs))
        written = [axis - rank if g.random.random() < 0.3 else axis for axis in axes]
        inputs.append(g.constant(np.array(written, np.int64)))
    return g.add("Pad", inputs, "f", shape, mode=mode)


def _window(g: Graph) -> None:
    """A convolution or a pooling, often of what was padded."""
    if g.random.random() < 0.5:
        x = _pad(g, usual=g.random.random() < 0.7)
    else:
        x = g.pick("f", lambda value: len(value.shape) in (3, 4))
    spatial = len(x.shape) - 2
    if min(x.shape) < 1 or max(x.shape) > 12:
        return
    kernel = [g.random.randint(1, min(3, size)) for size in x.shape[2:]]
    strides = [g.random.randint(1, 2) for _ in kernel]
    attributes: dict[str, Any] = {"strides": strides}
    pads = [0] * (2 * spatial)
    way = g.random.random()
    if way < 0.4:
        pads = [g.random.randint(0, size - 1) for size in kernel * 2]
        attributes["pads"] = pads
    elif way < 0.5:
        attributes["auto_pad"] = "VALID"
    elif way < 0.6:
        attributes["auto_pad"] = g.random.choice(("SAME_UPPER", "SAME_LOWER"))
    op = g.random.choice(("Conv", "Conv", "Conv", "MaxPool", "AveragePool", "ConvTranspose"))
    if op == "ConvTranspose":
        if "auto_pad" in attributes:
            return
        out = tuple(
            (size - 1) * s + k - a - b
            for size, s, k, a, b in zip(x.shape[2:], strides, kernel, pads[:spatial], pads[spatial:], strict=True)
        )
    elif attributes.get("auto_pad", "").startswith("SAME"):
        out = tuple(-(-size // s) for size, s in zip(x.shape[2:], strides, strict=True))
    else:
        out = tuple(
            (size + a + b - k) // s + 1
            for size, s, k, a, b in zip(x.shape[2:], strides, kernel, pads[:spatial], pads[spatial:], strict=True)
        )
    if min(out) < 1:
        return
    channels = x.shape[1]
    if "Pool" in op:
        attributes["kernel_shape"] = kernel
        if op == "AveragePool" and g.random.random() < 0.6:
            attributes["count_include_pad"] = g.random.choice((0, 1))
        if g.opset >= 10 and g.random.random() < 0.1:
            attributes["ceil_mode"] = 1
        y = g.add(op, [x.name], "f", (*x.shape[:2], *out), **attributes)
    else:
        made = g.random.choice((1, 2, 3))
        shape = (made, channels, *kernel) if op == "Conv" else (channels, made, *kernel)
        groups = 1
        if channels > 1 and g.random.random() < 0.3:
            groups = channels
            shape = (channels, 1, *kernel)
            made = channels
        inputs = [x.name, g.constant(_weights(g, shape))]
        if g.random.random() < 0.5:
            inputs.append(g.constant(_weights(g, (made,))))
        y = g.add(op, inputs, "f", (x.shape[0], made, *out), group=groups, **attributes)
    for _ in range(g.random.randint(0, 2)):
        y = _affine(g, y)


def _weights(g: Graph, shape: Shape) -> Array:
    return np.array([g.random.uniform(-1, 1) for _ in range(int(np.prod(shape)))], np.float32).reshape(shape)


def _affine(g: Graph, y: Value) -> Value:
    if g.random.random() < 0.4:
        arrays = [_weights(g, (y.shape[1],)) for _ in range(4)]
        arrays[3] = np.abs(arrays[3]) + np.float32(0.1)
        return g.add("BatchNormalization", [y.name, *(g.constant(each) for each in arrays)], "f", y.shape)
    shape: Shape = g.random.choice(((), (1,), (y.shape[1], *(1,) * (len(y.shape) - 2)), y.shape[-1:]))
    op, constant = g.random.choice(("Add", "Mul", "Sub")), g.constant(_weights(g, shape))
    inputs = [y.name, constant] if g.random.random() < 0.7 else [constant, y.name]
    return g.add(op, inputs, "f", y.shape)


def _matmul(g: Graph) -> None:
    x = g.pick("f", lambda value: len(value.shape) >= 2 and 0 < value.shape[-1] < 20)
    wide = g.random.randint(1, 3)
    y = g.add("MatMul", [x.name, g.constant(_weights(g, (x.shape[-1], wide)))], "f", (*x.shape[:-1], wide))
    if g.random.random() < 0.7:
        shape = g.random.choice(((), (1,), (wide,), (1, wide), (y.shape[-2], wide)))
        inputs = [y.name, g.constant(_weights(g, shape))]
        if g.random.random() < 0.3:
            inputs.reverse()
        g.add("Add", inputs, "f", y.shape)


def _gemm(g: Graph) -> None:
    x = g.pick("f", lambda value: len(value.shape) == 2 and min(value.shape) > 0)
    flip, turned, wide = g.random.choice((0, 1)), g.random.choice((0, 1)), g.random.randint(1, 3)
    rows, depth = x.shape[::-1] if flip else x.shape
    inputs = [x.name, g.constant(_weights(g, (wide, depth) if turned else (depth, wide)))]
    if g.opset < 11 or g.random.random() < 0.6:
        inputs.append(g.constant(_weights(g, g.random.choice(((), (wide,), (1, wide), (rows, 1), (rows, wide))))))
    attributes = {"alpha": g.random.choice((1.0, 0.5)), "beta": g.random.choice((1.0, 2.0, 0.0))}
    y = g.add("Gemm", inputs, "f", (rows, wide), transA=flip, transB=turned, **attributes)
    if g.random.random() < 0.5:
        _affine(g, y)


def _dropout(g: Graph) -> None:
    x = g.pick("f")
    y = g.add("Dropout", [x.name], "f", x.shape)
    if g.random.random() < 0.3:
        g.nodes[-1].output.append(f"{y.name}_mask")
        g.values.insert(0, Value(f"{y.name}_mask", "b", x.shape))


def _split(g: Graph) -> None:
    x = g.pick("f", lambda value: len(value.shape) > 0 and value.shape[0] >= 2)
    first = g.random.randint(0, x.shape[0])
    sizes = [first, x.shape[0] - first]
    if g.opset < 13:
        y = g.add("Split", [x.name], "f", (first, *x.shape[1:]), axis=0, split=sizes)
    else:
        y = g.add("Split", [x.name, g.constant(np.array(sizes, np.int64))], "f", (first, *x.shape[1:]), axis=0)
    g.nodes[-1].output.append(f"{y.name}_rest")
    g.values.insert(0, Value(f"{y.name}_rest", "f", (sizes[1], *x.shape[1:])))


def _sequence(g: Graph) -> None:
    if g.opset < 11:
        return
    x, y = g.pick("f"), g.pick("f")
    name = g.fresh()
    at = g.constant(np.array(g.random.choice((0, 1, -1)), np.int64))
    way = g.random.random()
    if way < 0.5 or not x.shape or min(x.shape) < 1:
        place = g.random.choice((0, 1, -1))
        g.nodes.append(helper.make_node("SequenceConstruct", [x.name, y.name], [name]))
        g.add("SequenceAt", [name, g.constant(np.array(place, np.int64))], "f", (x, y)[place].shape)
    elif way < 0.7:
        g.nodes.append(helper.make_node("SequenceConstruct", [x.name, x.name], [name]))
        g.add("ConcatFromSequence", [name], "f", (2 * x.shape[0], *x.shape[1:]), axis=0)
    elif x.shape[-1] >= 2:
        keep = g.random.choice((0, 1))
        shape = (*x.shape[:-1], 1) if keep else x.shape[:-1]
        g.nodes.append(helper.make_node("SplitToSequence", [x.name], [name], axis=-1, keepdims=keep))
        g.add("SequenceAt", [name, at], "f", shape)


def _clamps(g: Graph) -> None:
    """Two of the operators that bound a value, one after another."""
    x = g.pick("f")
    for _ in range(2):
        op = g.random.choice(("Relu", "Min", "Max", "Clip"))
        if op == "Clip":
            _clip_of(g, x)
        elif op == "Relu":
            g.add("Relu", [x.name], "f", x.shape)
        else:
            bound = g.constant(np.array(g.random.choice((*SPECIAL, 6.0)), np.float32))
            g.add(op, [x.name, bound] if g.random.random() < 0.7 else [bound, x.name], "f", x.shape)
        x = g.values[0]


def _reduce_and_back(g: Graph) -> None:
    """A reduction, and the axis that it drops put back, or another one."""
    x = g.pick("f", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis = g.random.randrange(len(x.shape))
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    y = g.add("ArgMax", [x.name], "i", shape, axis=axis, keepdims=0)
    place = axis if g.random.random() < 0.7 else 0
    back = (*shape[:place], 1, *shape[place:])
    if g.opset >= 13:
        g.add("Unsqueeze", [y.name, g.constant(np.array([place], np.int64))], "i", back)
    else:
        g.add("Unsqueeze", [y.name], "i", back, axes=[place])


def _filled(g: Graph) -> None:
    if g.opset < 9:
        return
    x, kind = g.pick("f"), g.random.choice("fib")
    shape = g.add("Shape", [x.name], "i", (len(x.shape),))
    value = numbers(g.random, kind, (1,))
    y = g.add("ConstantOfShape", [shape.name], kind, x.shape, value=numpy_helper.from_array(value))
    if kind != "f":
        g.add("Cast", [y.name], "f", x.shape, to=_CODES["f"])


def _concat_empty(g: Graph) -> None:
    """A tensor joined with a slice of itself that holds nothing."""
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    if g.opset >= 10:
        none = g.constant(np.zeros(1, np.int64))
        empty = g.add("Slice", [x.name, none, none, none], x.kind, (0, *x.shape[1:]))
    else:
        empty = g.add("Slice", [x.name], x.kind, (0, *x.shape[1:]), starts=[0], ends=[0], axes=[0])
    parts = [x.name, empty.name] if g.random.random() < 0.5 else [empty.name, x.name]
    g.add("Concat", parts, x.kind, x.shape, axis=0)


def _function(g: Graph) -> None:
    """Operators of the model's own that are called as standard ones are."""
    x = g.pick("f")
    op = g.random.choice(("Add", "Identity", "Relu", "Neg"))
    inputs = [x.name, x.name] if op == "Add" else [x.name]
    g.add(op, inputs, "f", x.shape)
    g.nodes[-1].domain = "my"


def _clip(g: Graph) -> None:
    _clip_of(g, g.pick("f"))


def _clip_of(g: Graph, x: Value) -> None:
    low, high = g.random.choice((-1.0, 0.0, 0.5)), g.random.choice((0.25, 1.0, 6.0))
    if g.opset < 11:
        g.add("Clip", [x.name], "f", x.shape, min=low, max=high)
        return
    bounds = [g.constant(np.array(each, np.float32)) if g.random.random() < 0.7 else "" for each in (low, high)]
    g.add("Clip", [x.name, *bounds], "f", x.shape)


def _classes(g: Graph) -> None:
    """What tells which is the greatest: a softmax, or what comes of one."""
    x = g.pick("f", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis = g.random.randrange(-len(x.shape), len(x.shape))
    op = g.random.choice(("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin"))
    if not op.startswith("Arg"):
        g.add(op, [x.name], "f", x.shape, axis=axis if g.opset >= 11 else axis % len(x.shape))
        return
    shape = list(x.shape)
    shape[axis] = 1
    g.add(op, [x.name], "i", tuple(shape), axis=axis if g.opset >= 11 else axis % len(x.shape), keepdims=1)


def _quantized(g: Graph) -> None:
    if g.opset < 10:
        return
    x, scale = g.pick("f"), g.constant(np.array(g.random.choice((0.1, 0.5)), np.float32))
    zero = g.constant(np.array(g.random.choice((0, 128)), np.uint8))
    q = g.add("QuantizeLinear", [x.name, scale, zero], "u", x.shape)
    g.add("DequantizeLinear", [q.name, scale, zero], "f", x.shape)


def _einsum(g: Graph) -> None:
    if g.opset < 12:
        return
    x = g.pick("f", lambda value: 2 <= len(value.shape) <= 4 and min(value.shape) > 0)
    letters = "abcd"[: len(x.shape)]
    kept = "".join(g.random.sample(letters, g.random.randint(1, len(letters))))
    shape = tuple(x.shape[letters.index(letter)] for letter in kept)
    g.add("Einsum", [x.name], "f", shape, equation=f"{letters}->{kept}")


def _if(g: Graph) -> None:
    if g.depth >= 2:
        return
    constant = g.random.random() < 0.5
    condition = g.constant(np.array(g.random.random() < 0.5)) if constant else "flag"
    before = g.counter[0]
    branches = [_body(g)]
    after, g.counter[0] = g.counter[0], before if g.random.random() < 0.3 else g.counter[0]
    branches.append(_body(g))
    g.counter[0] = max(after, g.counter[0])
    results = [branch.pick("f") for branch in branches]
    if g.opset < 11 and results[0].shape != results[1].shape:
        return  # onnx's inference and ONNX Runtime's contradict themselves there
    made = []
    for branch, result in zip(branches, results, strict=True):
        if result not in branch.values or g.random.random() < 0.3:
            result = branch.add("Identity", [result.name], "f", result.shape)
        info = helper.make_tensor_value_info(result.name, TensorProto.FLOAT, [None] * len(result.shape))
        made.append(helper.make_graph(branch.nodes, "branch", [], [info], branch.initializers))
    y = g.add("If", [condition], "f", results[0].shape, then_branch=made[0], else_branch=made[1])
    if results[0].shape != results[1].shape:
        g.values.remove(y)  # what its shape is depends on the flag
        if len(results[0].shape) == len(results[1].shape):
            g.add("Shape", [y.name], "i", (len(y.shape),))


def _loop(g: Graph) -> None:
    if g.depth >= 2:
        return
    x = g.pick("f")
    body = _body(g, carried=x)
    same = [value for value in body.values if value.kind == "f" and value.shape == x.shape]
    state = g.random.choice(same) if same else body.values[-1]
    result = body.add("Identity", [state.name], "f", x.shape)
    go_on = body.add("Identity", [body.values[-1].name], "b", ())
    number, keep, carried = body.values[-2], body.values[-1], body.values[-3]
    graph = helper.make_graph(
        body.nodes,
        "body",
        [
            helper.make_tensor_value_info(number.name, TensorProto.INT64, []),
            helper.make_tensor_value_info(keep.name, TensorProto.BOOL, []),
            helper.make_tensor_value_info(carried.name, TensorProto.FLOAT, [None] * len(x.shape)),
        ],
        [
            helper.make_tensor_value_info(go_on.name, TensorProto.BOOL, []),
            helper.make_tensor_value_info(result.name, TensorProto.FLOAT, [None] * len(x.shape)),
        ],
        body.initializers,
    )
    times = g.constant(np.array(g.random.randint(0, 3), np.int64))
    condition = g.constant(np.array(g.random.random() < 0.8)) if g.random.random() < 0.5 else ""
    g.add("Loop", [times, condition, x.name], "f", x.shape, body=graph)


def _body(g: Graph, carried: Value | None = None) -> Graph:
    body = Graph(g.random, g.opset, outer=g, counter=g.counter, depth=g.depth + 1)
    if carried is not None:
        body.values = [
            Value(g.fresh(), "f", carried.shape),
            Value(g.fresh(), "i", ()),
            Value(g.fresh(), "b", ()),
        ]
    for _ in range(g.random.randint(1, 5)):
        grow(body)
    if not any(value.kind == "f" for value in body.values):
        x = g.pick("f")
        body.add("Neg", [x.name], "f", x.shape)
    return body


_MAKERS: tuple[Callable[[Graph], object], ...] = (
    *(_unary, _identity, _with_constant, _with_constant, _two, _cast, _transpose, _transpose, _reshape, _reshape),
    *(_unsqueeze, _squeeze, _squeeze, _flatten, _slice, _slice, _concat, _shape, _size, _gather, _expand, _where),
    *(_reduce, _pad, _window, _window, _window, _matmul, _matmul, _gemm, _dropout, _split, _sequence, _function),
    *(_if, _loop, _clip, _clamps, _classes, _quantized, _einsum, _reduce_and_back, _filled, _concat_empty),
)


def grow(g: Graph) -> None:
    """Add a few nodes, if any fit."""
    before = len(g.nodes), len(g.initializers), len(g.values)
    try:
        g.random.choice(_MAKERS)(g)
    except _NoneFits:
        del g.nodes[before[0] :], g.initializers[before[1] :]
        del g.values[: len(g.values) - before[2]]


def _functions(opset: int) -> list[onnx.FunctionProto]:
    """Of the domain ``my``: each does something else than the standard operator that it's called after."""
    imports = [helper.make_opsetid("", opset)]
    bodies = {"Add": ("ab", "Max"), "Identity": ("a", "Neg"), "Relu": ("a", "Abs"), "Neg": ("a", "Identity")}
    return [
        helper.make_function("my", name, list(inputs), ["r"], [helper.make_node(op, list(inputs), ["r"])], imports)
        for name, (inputs, op) in bodies.items()
    ]


def random_model(random: Random, size: int) -> onnx.ModelProto:
    """A valid model with the inputs ``x``, ``y`` (float32), ``n`` (int64) and ``flag`` (bool)."""
    opset = random.choice((7, 9, 11, 12, 13, 15, 17, 18, 19, 21))
    g = Graph(random, opset)
    dynamic = random.random() < 0.6
    first: int | str = "N" if dynamic else BATCH
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, 3, 5, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [first, 6]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [4]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    g.values = [Value("x", "f", (BATCH, 3, 5, 4)), Value("y", "f", (BATCH, 6)), Value("n", "i", (4,))]
    for _ in range(size):
        grow(g)
    made = [value for value in g.values if value.name not in "xyn"]
    read = {name for node in _all_nodes(g.nodes) for name in node.input}
    leaves = [value for value in made if value.name not in read]
    chosen = random.sample(leaves, min(len(leaves), 6)) + random.sample(made, min(len(made), random.randint(0, 2)))
    chosen = chosen or g.values[:1]
    if random.random() < 0.1 and g.initializers:
        tensor = random.choice(g.initializers)
        chosen.append(Value(tensor.name, "", tuple(tensor.dims)))
    codes = {tensor.name: tensor.data_type for tensor in g.initializers}
    outputs = [
        helper.make_tensor_value_info(
            value.name, codes.get(value.name) or _CODES[value.kind], [None] * len(value.shape)
        )
        for value in {value.name: value for value in chosen}.values()
    ]
    used = any(node.domain == "my" for node in _all_nodes(g.nodes))
    return helper.make_model(
        helper.make_graph(g.nodes, "random", inputs, outputs, g.initializers),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("my", 1)],
        functions=_functions(opset) if used and opset >= 8 else [],
        ir_version=8 if opset < 19 else 10,
    )


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    found = []
    for node in nodes:
        found.append(node)
        for attribute in node.attribute:
            found += _all_nodes(attribute.g.node)
    return found


def feeds(random: Random, batch: int) -> dict[str, Array]:
    """Inputs of a random model, special values among them."""
    generator = np.random.default_rng(random.randrange(1 << 30))
    x = generator.standard_normal((batch, 3, 5, 4)).astype(np.float32)
    y = generator.standard_normal((batch, 6)).astype(np.float32)
    for array in (x, y):
        if array.size and random.random() < 0.5:
            flat = array.reshape(-1)
            flat[generator.integers(0, flat.size, 3)] = [random.choice(SPECIAL) for _ in range(3)]
        elif random.random() < 0.3:
            array[..., : array.shape[-1] // 2 + 1] = random.choice((0.0, -0.0, np.inf, -np.inf))
    return {"x": x, "y": y, "n": np.array([0, 1, -1, 7]), "flag": np.array(random.random() < 0.5)}
