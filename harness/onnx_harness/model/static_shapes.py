"""The sizes that constants alone decide.

What an operator gives for inputs whose shapes or values the file says.

Enough operators to see a small file unfold into a value beyond any memory; the result of any other
one isn't known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx_harness.model.ops import STANDARD_DOMAINS
from onnx_harness.model.scan import SMALL_ITEMS
from onnx_harness.model.scanned import ScannedNode

_FLOAT, _INT64 = 1, 7
# A product beyond this is as good as any larger one, and stays cheap to compute.
_LARGEST = 1 << 80

# By the number of TensorProto.DataType; a string is at least its own record.
WIDTHS = {
    1: 4,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 8,
    8: 16,
    9: 1,
    10: 2,
    11: 8,
    12: 4,
    13: 8,
    14: 8,
    15: 16,
    16: 2,
}


@dataclass(frozen=True, slots=True)
class Static:
    """The knowledge about a value.

    Attributes:
        dims: None where they aren't known.
        values: of a small tensor of integers; None where they aren't known.
        kind: number of the element type; 0 where it isn't known.
        count: of elements, where it is known and the dimensions aren't.
    """

    dims: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = None
    kind: int = 0
    count: int | None = None

    @property
    def elements(self) -> int | None:
        """Return how many there are; None where that isn't known."""
        return self.count if self.dims is None else product(self.dims)

    @property
    def bytes(self) -> int | None:
        """At least so many does it take; None where that isn't known."""
        return None if self.elements is None else self.elements * WIDTHS.get(self.kind, 1)


UNKNOWN = Static()


def product(dims: Sequence[int]) -> int:
    """The product, cut off at a size that nothing has."""
    result = 1
    for dim in dims:
        result *= max(dim, 0)
        if result > _LARGEST:
            return 0 if 0 in dims else _LARGEST
    return result


def result_of(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    """Return what is known of the node's first output. Nothing that a file says makes it fail."""
    rule = _RULES.get(node.op) if node.domain in STANDARD_DOMAINS else None
    if rule is None:
        return UNKNOWN
    try:
        return rule(node, inputs)
    except (
        IndexError,
        ValueError,
        OverflowError,
    ):  # a node with too few inputs, or shapes that don't fit
        return UNKNOWN


def _broadcast(*shapes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if any(shape is None for shape in shapes):
        return None
    shapes_known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, shapes_known), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes_known]
    return tuple(0 if 0 in axis else max(axis) for axis in zip(*padded, strict=True))


def _same(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    return Static(inputs[0].dims, None, inputs[0].kind)


def _identity(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    return inputs[0]


def _cast(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    return Static(inputs[0].dims, inputs[0].values, node.numbers.get("to", [0])[0])


def _constant(node: ScannedNode, _: Sequence[Static]) -> Static:
    if "value" in node.tensors:
        tensor = node.tensors["value"]
        return Static(
            tuple(tensor.dims),
            None if tensor.values is None else tuple(tensor.values),
            tensor.kind,
        )
    numbers = node.numbers.get("value_ints", node.numbers.get("value_int"))
    if numbers is None:
        return UNKNOWN
    return Static(
        (len(numbers),) if "value_ints" in node.numbers else (), tuple(numbers), _INT64
    )


def _filled(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    filling = node.tensors.get("value")
    return Static(inputs[0].values, None, _FLOAT if filling is None else filling.kind)


def _expand(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    return Static(_broadcast(inputs[0].dims or (), inputs[1].values), None, inputs[0].kind)


def _tile(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    dims, repeats = inputs[0].dims, inputs[1].values
    if dims is None or repeats is None:
        return UNKNOWN
    return Static(
        tuple(dim * time for dim, time in zip(dims, repeats, strict=True)),
        None,
        inputs[0].kind,
    )


def _range(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    bounds = [value.values for value in inputs[:3]]
    if any(not bound for bound in bounds):
        return UNKNOWN
    start, limit, step = (bound[0] for bound in bounds if bound)
    return Static(
        (max(0, -((start - limit) // step)),) if step else None, None, inputs[0].kind
    )


def _concat(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    shapes = [source.dims for source in inputs]
    if any(shape is None for shape in shapes):
        return UNKNOWN
    shapes_known = [shape for shape in shapes if shape is not None]
    axis = node.numbers.get("axis", [0])[0] % max(len(shapes_known[0]), 1)
    dims = list(shapes_known[0])
    dims[axis] = sum(shape[axis] for shape in shapes_known)
    values = [source.values for source in inputs]
    joined: tuple[int, ...] | None = None
    if (
        len(dims) == 1
        and dims[0] <= SMALL_ITEMS
        and all(value is not None for value in values)
    ):
        items = []
        for value in values:
            if value is not None:
                for item in value:
                    items.append(item)
        joined = tuple(items)
    return Static(tuple(dims), joined, inputs[0].kind)


def _arithmetic(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    dims = _broadcast(*(value.dims for value in inputs))
    return Static(
        dims,
        _computed(node.op, [value.values for value in inputs]),
        max(value.kind for value in inputs),
    )


def _computed(op: str, values: Sequence[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    apply = _ARITHMETIC.get(op)
    if apply is None or len(values) != 2:
        return None
    first, second = values
    if first is None or second is None:
        return None
    count = max(len(first), len(second))
    firsts = first * count if len(first) == 1 else first
    seconds = second * count if len(second) == 1 else second
    return tuple(min(apply(a, b), _LARGEST) for a, b in zip(firsts, seconds, strict=True))


def _power(base: int, exponent: int) -> int:
    return base**exponent if 0 <= exponent <= 64 and abs(base) < 1 << 64 else _LARGEST


def _matmul(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    first, second = inputs[0].dims, inputs[1].dims
    if first is None or second is None or len(first) < 2 or len(second) < 2:
        return UNKNOWN
    batch = _broadcast(first[:-2], second[:-2])
    return (
        UNKNOWN
        if batch is None
        else Static((*batch, first[-2], second[-1]), None, inputs[0].kind)
    )


def _reshape(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    target, elements = inputs[1].values, inputs[0].elements
    if target is None or elements is None or (0 in target and inputs[0].dims is None):
        return _rearranged(node, inputs)
    dims = []
    for k, dim in enumerate(target):
        dims.append(inputs[0].dims[k] if dim == 0 and inputs[0].dims else dim)
    if -1 in dims:
        others = product([dim for dim in dims if dim != -1])
        dims[dims.index(-1)] = elements // others if others else 0
    if product(dims) != elements:  # ONNX Runtime refuses it
        return UNKNOWN
    return Static(tuple(dims), inputs[0].values, inputs[0].kind)


def _rearranged(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    """The elements stay, in a shape that isn't followed."""
    if node.op == "Unsqueeze" and inputs[0].dims == ():
        return Static((1,), inputs[0].values, inputs[0].kind)
    return Static(None, inputs[0].values, inputs[0].kind, inputs[0].elements)


def _transpose(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    dims = inputs[0].dims
    if dims is None:
        return UNKNOWN
    order = node.numbers.get("perm", [*range(len(dims))][::-1])
    return Static(tuple(dims[axis] for axis in order), None, inputs[0].kind)


def _shape(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    dims = inputs[0].dims
    if dims is None:
        return UNKNOWN
    start = node.numbers.get("start", [0])[0]
    end = node.numbers.get("end", [len(dims)])[0]
    dims = dims[start:end]
    return Static((len(dims),), dims, _INT64)


def _random(node: ScannedNode, _: Sequence[Static]) -> Static:
    shape = node.numbers.get("shape")
    return (
        UNKNOWN
        if shape is None
        else Static(tuple(shape), None, node.numbers.get("dtype", [_FLOAT])[0])
    )


def _one_hot(_: ScannedNode, inputs: Sequence[Static]) -> Static:
    dims, depth = inputs[0].dims, inputs[1].values
    return (
        UNKNOWN
        if dims is None or not depth
        else Static((*dims, depth[0]), None, inputs[2].kind)
    )


def _pad(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    if len(inputs) > 3:  # the axes that are padded
        return UNKNOWN
    dims = inputs[0].dims
    listed = inputs[1].values if len(inputs) > 1 else tuple(node.numbers.get("pads", ()))
    if dims is None or listed is None or len(listed) != 2 * len(dims):
        return UNKNOWN
    rank = len(dims)
    return Static(
        tuple(dim + listed[k] + listed[k + rank] for k, dim in enumerate(dims)),
        None,
        inputs[0].kind,
    )


def _resize(node: ScannedNode, inputs: Sequence[Static]) -> Static:
    if "axes" in node.numbers or "keep_aspect_ratio_policy" in node.numbers:
        return UNKNOWN
    return Static(inputs[3].values, None, inputs[0].kind)


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: (
        int(math.copysign(abs(a) // abs(b), a * b))
        if b and abs(a * b) < 1 << 53
        else _LARGEST
    ),
    "Pow": _power,
}

_Rule = Callable[[ScannedNode, Sequence[Static]], Static]
_RULES: dict[str, _Rule] = {
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Concat": _concat,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Shape": _shape,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Resize": _resize,
    "Cast": _cast,
    **dict.fromkeys(("RandomNormal", "RandomUniform"), _random),
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), _rearranged),
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "Sum", "Max", "Min", "Mean"), _arithmetic
    ),
    **dict.fromkeys(
        [
            "Abs",
            "Neg",
            "Relu",
            "Exp",
            "Log",
            "Sqrt",
            "Tanh",
            "Sigmoid",
            "Erf",
            "Floor",
            "Ceil",
            "Round",
            "Softmax",
            "LogSoftmax",
            "Clip",
            "Elu",
            "Selu",
            "LeakyRelu",
            "Sign",
            "Sin",
            "Cos",
            "Reciprocal",
            "Not",
            "CumSum",
            "EyeLike",
            "RandomNormalLike",
            "RandomUniformLike",
            "Softplus",
            "Gelu",
            "HardSigmoid",
            "IsNaN",
        ],
        _same,
    ),
}
