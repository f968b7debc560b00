"""Nodes that move values or reckon with shapes."""

from __future__ import annotations

import math

import numpy as np
from onnx import helper, numpy_helper

from onnx_harness.fuzz.graph import CODES, Graph, Shape, Value, numbers


def identity(g: Graph) -> None:
    """Add an Identity of anything."""
    x = g.pick()
    g.add("Identity", [x.name], x.kind, x.shape)


def transpose(g: Graph) -> None:
    """Add a Transpose, its order written or left to the default."""
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    perm = list(range(len(x.shape)))
    g.random.shuffle(perm)
    if g.random.random() < 0.15:
        g.add("Transpose", [x.name], x.kind, x.shape[::-1])
    else:
        g.add(
            "Transpose", [x.name], x.kind, tuple(x.shape[axis] for axis in perm), perm=perm
        )


def _factors(g: Graph, size: int) -> Shape:
    shape: list[int] = []
    while size > 1 and len(shape) < 3 and g.random.random() < 0.8:
        factors = []
        for factor in range(1, size + 1):
            if size % factor == 0:
                factors.append(factor)
        part = g.random.choice(factors)
        shape.append(part)
        size //= part
    shape.append(size)
    g.random.shuffle(shape)
    return tuple(shape)


def reshape(g: Graph) -> None:
    """Add a Reshape to factors of the size, written with zeros and -1 or computed."""
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
                part = g.add(
                    "Gather", [shape_of, g.constant(np.array([axis], np.int64))], "i", (1,)
                ).name
            else:
                scalar = g.add(
                    "Gather", [shape_of, g.constant(np.array(axis, np.int64))], "i", ()
                ).name
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
        return g.add(
            "Unsqueeze", [name], kind, tuple(result), axes=[axis % total for axis in axes]
        ).name
    return g.add(
        "Unsqueeze", [name, g.constant(np.array(axes, np.int64))], kind, tuple(result)
    ).name


def unsqueeze(g: Graph) -> None:
    """Add an Unsqueeze of one axis or two."""
    x = g.pick("fi", lambda value: len(value.shape) < 4)
    total = len(x.shape) + g.random.randint(1, 2)
    axes = g.random.sample(range(total), total - len(x.shape))
    _unsqueeze_by(
        g,
        x.name,
        x.kind,
        x.shape,
        [axis - total if g.random.random() < 0.4 else axis for axis in axes],
    )


def squeeze(g: Graph) -> None:
    """Add a Squeeze of some axes of size 1, or of all."""
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


def flatten(g: Graph) -> None:
    """Add a Flatten at any axis."""
    x = g.pick("f", lambda value: len(value.shape) > 0)
    axis = g.random.randint(0, len(x.shape))
    g.add(
        "Flatten",
        [x.name],
        x.kind,
        (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))),
        axis=axis,
    )


def slices(g: Graph) -> None:
    """Add a Slice, bounds beyond the axis and negative steps included."""
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
    parts = [
        g.constant(np.array(numbers, np.int64)) for numbers in (starts, ends, written, steps)
    ]
    g.add("Slice", [x.name, *parts], x.kind, tuple(shape))


def concat(g: Graph) -> None:
    """Add a Concat along any axis."""
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    axis = g.random.randrange(len(x.shape))
    parts = [x]
    for _ in range(g.random.randint(0, 2)):
        parts.append(
            g.pick(
                x.kind,
                lambda v: (
                    len(v.shape) == len(x.shape)
                    and all(
                        a == b
                        for n, (a, b) in enumerate(zip(v.shape, x.shape, strict=True))
                        if n != axis
                    )
                ),
            )
        )
    shape = list(x.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    if max(shape, default=0) < 40:
        g.add("Concat", [part.name for part in parts], x.kind, tuple(shape), axis=axis)


def shape(g: Graph) -> None:
    """Add a Shape, of some axes where the version allows it."""
    x = g.pick("fi")
    if g.opset >= 15 and g.random.random() < 0.4:
        start = g.random.randint(-5, 5)
        end = g.random.randint(-5, 5)
        rank = len(x.shape)
        bounds = []
        for bound in (start, end):
            bounds.append(min(max(bound + rank if bound < 0 else bound, 0), rank))
        low, high = bounds
        g.add("Shape", [x.name], "i", (max(high - low, 0),), start=start, end=end)
    else:
        g.add("Shape", [x.name], "i", (len(x.shape),))


def size(g: Graph) -> None:
    """Add a Size."""
    g.add("Size", [g.pick("fi").name], "i", ())


def gather(g: Graph) -> None:
    """Add a Gather by constant indices, none of them too."""
    x = g.pick("fi", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis = g.random.randrange(len(x.shape))
    shape = g.random.choice(((), (1,), (2,), (0,)))
    indices = np.array(
        [
            g.random.randrange(-x.shape[axis], x.shape[axis])
            for _ in range(int(np.prod(shape)))
        ],
        np.int64,
    ).reshape(shape)
    g.add(
        "Gather",
        [x.name, g.constant(indices)],
        x.kind,
        x.shape[:axis] + shape + x.shape[axis + 1 :],
        axis=axis,
    )


def expand(g: Graph) -> None:
    """Add an Expand of axes of size 1."""
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    shape = tuple(size if size != 1 or g.random.random() < 0.5 else 3 for size in x.shape)
    dims = []
    for a, b in zip(x.shape, shape, strict=True):
        dims.append(1 if g.random.random() < 0.3 and a == b else b)
    written = tuple(dims)
    g.add("Expand", [x.name, g.constant(np.array(written, np.int64))], x.kind, shape)


def split(g: Graph) -> None:
    """Add a Split into two parts, one of them perhaps empty."""
    x = g.pick("f", lambda value: len(value.shape) > 0 and value.shape[0] >= 2)
    first = g.random.randint(0, x.shape[0])
    sizes = [first, x.shape[0] - first]
    if g.opset < 13:
        y = g.add("Split", [x.name], "f", (first, *x.shape[1:]), axis=0, split=sizes)
    else:
        y = g.add(
            "Split",
            [x.name, g.constant(np.array(sizes, np.int64))],
            "f",
            (first, *x.shape[1:]),
            axis=0,
        )
    g.nodes[-1].output.append(f"{y.name}_rest")
    g.values.insert(0, Value(f"{y.name}_rest", "f", (sizes[1], *x.shape[1:])))


def sequence(g: Graph) -> None:
    """Add a sequence that is made and taken apart."""
    if g.opset < 11:
        return
    x, y = g.pick("f"), g.pick("f")
    name = g.fresh()
    at = g.constant(np.array(g.random.choice((0, 1, -1)), np.int64))
    way = g.random.random()
    if way < 0.5 or not x.shape or min(x.shape) < 1:
        place = g.random.choice((0, 1, -1))
        g.nodes.append(helper.make_node("SequenceConstruct", [x.name, y.name], [name]))
        g.add(
            "SequenceAt",
            [name, g.constant(np.array(place, np.int64))],
            "f",
            (x, y)[place].shape,
        )
    elif way < 0.7:
        g.nodes.append(helper.make_node("SequenceConstruct", [x.name, x.name], [name]))
        g.add("ConcatFromSequence", [name], "f", (2 * x.shape[0], *x.shape[1:]), axis=0)
    elif x.shape[-1] >= 2:
        keep = g.random.choice((0, 1))
        shape = (*x.shape[:-1], 1) if keep else x.shape[:-1]
        g.nodes.append(
            helper.make_node("SplitToSequence", [x.name], [name], axis=-1, keepdims=keep)
        )
        g.add("SequenceAt", [name, at], "f", shape)


def filled(g: Graph) -> None:
    """Add a ConstantOfShape of a computed shape."""
    if g.opset < 9:
        return
    x, kind = g.pick("f"), g.random.choice("fib")
    shape = g.add("Shape", [x.name], "i", (len(x.shape),))
    value = numbers(g.random, kind, (1,))
    y = g.add(
        "ConstantOfShape", [shape.name], kind, x.shape, value=numpy_helper.from_array(value)
    )
    if kind != "f":
        g.add("Cast", [y.name], "f", x.shape, to=CODES["f"])


def concat_empty(g: Graph) -> None:
    """A tensor joined with a slice of itself that holds nothing."""
    x = g.pick("fi", lambda value: len(value.shape) > 0)
    if g.opset >= 10:
        none = g.constant(np.zeros(1, np.int64))
        empty = g.add("Slice", [x.name, none, none, none], x.kind, (0, *x.shape[1:]))
    else:
        empty = g.add(
            "Slice", [x.name], x.kind, (0, *x.shape[1:]), starts=[0], ends=[0], axes=[0]
        )
    parts = [x.name, empty.name] if g.random.random() < 0.5 else [empty.name, x.name]
    g.add("Concat", parts, x.kind, x.shape, axis=0)
