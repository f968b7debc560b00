"""Products with weights, windows over a tensor, and what is often found around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_harness.fuzz.graph import Array, Graph, Shape, Value


def _pads(g: Graph, x: Value, low: int, spatial_alone: bool) -> tuple[list[int], Shape]:
    spatial = range(2, len(x.shape)) if spatial_alone else range(len(x.shape))
    begin = [0] * len(x.shape)
    end = [0] * len(x.shape)
    for axis in spatial:
        begin[axis] = g.random.randint(low, 2)
        end[axis] = g.random.randint(low, 2)
    sizes = zip(x.shape, begin, end, strict=True)
    return begin + end, tuple(map(sum, sizes))


def pad(g: Graph, usual: bool = False) -> Value:
    """Add a Pad; ``usual``: as exporters write it before a window."""
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


def window(g: Graph) -> None:
    """A convolution or a pooling, often of what was padded."""
    if g.random.random() < 0.5:
        x = pad(g, usual=g.random.random() < 0.7)
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
    if op == "ConvTranspose" and "auto_pad" in attributes:
        return
    same = str(attributes.get("auto_pad", "")).startswith("SAME")
    out = _window_sizes(op, x.shape[2:], strides, kernel, None if same else pads)
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
        count = g.random.choice((1, 2, 3))
        shape = (count, channels, *kernel) if op == "Conv" else (channels, count, *kernel)
        groups = 1
        if channels > 1 and g.random.random() < 0.3:
            groups = channels
            shape = (channels, 1, *kernel)
            count = channels
        inputs = [x.name, g.constant(_weights(g, shape))]
        if g.random.random() < 0.5:
            inputs.append(g.constant(_weights(g, (count,))))
        y = g.add(op, inputs, "f", (x.shape[0], count, *out), group=groups, **attributes)
    for _ in range(g.random.randint(0, 2)):
        y = _affine(g, y)


def _window_sizes(
    op: str,
    sizes: Sequence[int],
    strides: Sequence[int],
    kernel: Sequence[int],
    pads: Sequence[int] | None,
) -> Shape:
    """The spatial sizes of the result; without pads they are those of ``SAME``."""
    if pads is None:
        return tuple(-(-size // stride) for size, stride in zip(sizes, strides, strict=True))
    before = pads[: len(sizes)]
    after = pads[len(sizes) :]
    result = []
    for size, stride, k, a, b in zip(sizes, strides, kernel, before, after, strict=True):
        if op == "ConvTranspose":
            result.append((size - 1) * stride + k - a - b)
        else:
            result.append((size + a + b - k) // stride + 1)
    return tuple(result)


def _weights(g: Graph, shape: Shape) -> Array:
    return np.array(
        [g.random.uniform(-1, 1) for _ in range(int(np.prod(shape)))], np.float32
    ).reshape(shape)


def _affine(g: Graph, y: Value) -> Value:
    if g.random.random() < 0.4:
        arrays = [_weights(g, (y.shape[1],)) for _ in range(4)]
        arrays[3] = np.abs(arrays[3]) + np.float32(0.1)
        return g.add(
            "BatchNormalization",
            [y.name, *(g.constant(array) for array in arrays)],
            "f",
            y.shape,
        )
    shape: Shape = g.random.choice(
        ((), (1,), (y.shape[1], *(1,) * (len(y.shape) - 2)), y.shape[-1:])
    )
    op = g.random.choice(("Add", "Mul", "Sub"))
    constant = g.constant(_weights(g, shape))
    inputs = [y.name, constant] if g.random.random() < 0.7 else [constant, y.name]
    return g.add(op, inputs, "f", y.shape)


def matmul(g: Graph) -> None:
    """Add a MatMul with a constant, and often an Add."""
    x = g.pick("f", lambda value: len(value.shape) >= 2 and 0 < value.shape[-1] < 20)
    wide = g.random.randint(1, 3)
    y = g.add(
        "MatMul",
        [x.name, g.constant(_weights(g, (x.shape[-1], wide)))],
        "f",
        (*x.shape[:-1], wide),
    )
    if g.random.random() < 0.7:
        shape = g.random.choice(((), (1,), (wide,), (1, wide), (y.shape[-2], wide)))
        inputs = [y.name, g.constant(_weights(g, shape))]
        if g.random.random() < 0.3:
            inputs.reverse()
        g.add("Add", inputs, "f", y.shape)


def gemm(g: Graph) -> None:
    """Add a Gemm in any of its forms."""
    x = g.pick("f", lambda value: len(value.shape) == 2 and min(value.shape) > 0)
    flip, turned, wide = (
        g.random.choice((0, 1)),
        g.random.choice((0, 1)),
        g.random.randint(1, 3),
    )
    rows, depth = x.shape[::-1] if flip else x.shape
    inputs = [x.name, g.constant(_weights(g, (wide, depth) if turned else (depth, wide)))]
    if g.opset < 11 or g.random.random() < 0.6:
        inputs.append(
            g.constant(
                _weights(
                    g, g.random.choice(((), (wide,), (1, wide), (rows, 1), (rows, wide)))
                )
            )
        )
    attributes = {
        "alpha": g.random.choice((1.0, 0.5)),
        "beta": g.random.choice((1.0, 2.0, 0.0)),
    }
    y = g.add("Gemm", inputs, "f", (rows, wide), transA=flip, transB=turned, **attributes)
    if g.random.random() < 0.5:
        _affine(g, y)
