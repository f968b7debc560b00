"""Nodes that compute from element to element, reduce, choose or quantize."""

from __future__ import annotations

import numpy as np

from onnx_harness.fuzz.graph import CODES, DTYPES, SPECIAL, Graph, Value, numbers


def unary(g: Graph) -> None:
    """Add an operator of one float."""
    x = g.pick("f")
    g.add(
        g.random.choice(("Neg", "Abs", "Relu", "Identity", "Sign", "Floor", "Sigmoid")),
        [x.name],
        x.kind,
        x.shape,
    )


def with_constant(g: Graph) -> None:
    """Add arithmetic with a constant that may be broadcast."""
    x = g.pick("fij")
    sizes = [size if g.random.random() < 0.6 else 1 for size in x.shape]
    shape = tuple(sizes[g.random.randint(0, len(sizes)) :])
    if g.random.random() < 0.15:
        shape = (1,) * g.random.randint(0, 2) + shape
    op = g.random.choice(("Add", "Sub", "Mul", "Div"))
    if op == "Div" and x.kind in "ij":
        name = g.constant(np.array(numbers(g.random, "u", shape), DTYPES[x.kind]) + 1)
    else:
        name = g.number(x.kind, shape)
    inputs = (
        [x.name, name]
        if g.random.random() < 0.7 or (op == "Div" and x.kind in "ij")
        else [name, x.name]
    )
    g.add(op, inputs, x.kind, np.broadcast_shapes(x.shape, shape))


def two(g: Graph) -> None:
    """Add arithmetic of two values of one shape."""
    x = g.pick("f")
    y = g.pick(x.kind, lambda value: value.shape == x.shape)
    g.add(
        g.random.choice(("Add", "Sub", "Mul", "Max", "Min")),
        [x.name, y.name],
        x.kind,
        x.shape,
    )


def cast(g: Graph) -> None:
    """Add one Cast or two, and what brings the result back to a common type."""
    x = g.pick("fdhijub")
    # NaN to an integer is undefined.
    kind = g.random.choice("fdijub" if x.kind != "f" else "dh")
    if x.kind in "dh":
        kind = g.random.choice("fdh")
    y = g.add("Cast", [x.name], kind, x.shape, to=CODES[kind])
    if g.random.random() < 0.6:
        back = g.random.choice("fdh") if kind in "fdh" else g.random.choice("ijubfd")
        y = g.add("Cast", [y.name], back, x.shape, to=CODES[back])
    if y.kind in "dhub":
        target = "f" if y.kind in "dh" else "i"
        g.add("Cast", [y.name], target, x.shape, to=CODES[target])


def where(g: Graph) -> None:
    """Add a Where by a constant condition."""
    x = g.pick("f")
    kind = numbers(g.random, "b", g.random.choice(((), x.shape)))
    g.add("Where", [g.constant(kind), x.name, g.number("f", ())], "f", x.shape)


def reduce(g: Graph) -> None:
    """Add a ReduceMax over one axis."""
    x = g.pick("f", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis = g.random.randrange(len(x.shape))
    keep = g.random.choice((0, 1))
    reduced = []
    for n, size in enumerate(x.shape):
        if keep or n != axis:
            reduced.append(1 if n == axis else size)
    shape = tuple(reduced)
    if g.opset >= 18:
        g.add(
            "ReduceMax",
            [x.name, g.constant(np.array([axis], np.int64))],
            "f",
            shape,
            keepdims=keep,
        )
    else:
        g.add("ReduceMax", [x.name], "f", shape, axes=[axis], keepdims=keep)


def dropout(g: Graph) -> None:
    """Add a Dropout, its mask read or not."""
    x = g.pick("f")
    y = g.add("Dropout", [x.name], "f", x.shape)
    if g.random.random() < 0.3:
        g.nodes[-1].output.append(f"{y.name}_mask")
        g.values.insert(0, Value(f"{y.name}_mask", "b", x.shape))


def clamps(g: Graph) -> None:
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
            g.add(
                op,
                [x.name, bound] if g.random.random() < 0.7 else [bound, x.name],
                "f",
                x.shape,
            )
        x = g.values[0]


def reduce_and_back(g: Graph) -> None:
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


def function(g: Graph) -> None:
    """Operators of the model's own that are called as standard ones are."""
    x = g.pick("f")
    op = g.random.choice(("Add", "Identity", "Relu", "Neg"))
    inputs = [x.name, x.name] if op == "Add" else [x.name]
    g.add(op, inputs, "f", x.shape)
    g.nodes[-1].domain = "my"


def clip(g: Graph) -> None:
    """Add a Clip with both bounds, one or none."""
    _clip_of(g, g.pick("f"))


def _clip_of(g: Graph, x: Value) -> None:
    low = g.random.choice((-1.0, 0.0, 0.5))
    high = g.random.choice((0.25, 1.0, 6.0))
    if g.opset < 11:
        g.add("Clip", [x.name], "f", x.shape, min=low, max=high)
        return
    bounds = []
    for limit in (low, high):
        bounds.append(
            g.constant(np.array(limit, np.float32)) if g.random.random() < 0.7 else ""
        )
    g.add("Clip", [x.name, *bounds], "f", x.shape)


def classes(g: Graph) -> None:
    """Return what tells which is the greatest: a softmax, or what comes of one."""
    x = g.pick("f", lambda value: len(value.shape) > 0 and min(value.shape) > 0)
    axis = g.random.randrange(-len(x.shape), len(x.shape))
    op = g.random.choice(("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin"))
    if not op.startswith("Arg"):
        g.add(
            op, [x.name], "f", x.shape, axis=axis if g.opset >= 11 else axis % len(x.shape)
        )
        return
    shape = list(x.shape)
    shape[axis] = 1
    g.add(
        op,
        [x.name],
        "i",
        tuple(shape),
        axis=axis if g.opset >= 11 else axis % len(x.shape),
        keepdims=1,
    )


def quantized(g: Graph) -> None:
    """Add a QuantizeLinear and a DequantizeLinear."""
    if g.opset < 10:
        return
    x = g.pick("f")
    scale = g.constant(np.array(g.random.choice((0.1, 0.5)), np.float32))
    zero = g.constant(np.array(g.random.choice((0, 128)), np.uint8))
    q = g.add("QuantizeLinear", [x.name, scale, zero], "u", x.shape)
    g.add("DequantizeLinear", [q.name, scale, zero], "f", x.shape)


def einsum(g: Graph) -> None:
    """Add an Einsum of one operand."""
    if g.opset < 12:
        return
    x = g.pick("f", lambda value: 2 <= len(value.shape) <= 4 and min(value.shape) > 0)
    letters = "abcd"[: len(x.shape)]
    letters_kept = "".join(g.random.sample(letters, g.random.randint(1, len(letters))))
    shape = tuple(x.shape[letters.index(letter)] for letter in letters_kept)
    g.add("Einsum", [x.name], "f", shape, equation=f"{letters}->{letters_kept}")
