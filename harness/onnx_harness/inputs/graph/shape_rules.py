"""What each operator makes of the shapes that it takes, and what it demands of them."""

from __future__ import annotations

import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.shapes import Shapes, Sort, sliced
from onnx_harness.inputs.graph.spatial_rules import SPATIAL, Made, Rule, Shape
from onnx_harness.inputs.graph.terms import Maybe


def _same(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    return [given[0] if given else None]


def _broadcast(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    known = [shape for shape in given if shape is not None]
    return [
        found.broadcast(known, f"the inputs have to agree {where}")
        if len(known) == len(given)
        else None
    ]


def _matmul(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    left, right = given[0], given[1]
    if left is None or right is None or not left or not right:
        return [None]
    why = f"the matrices have to agree {where}"
    found.demand(Sort.EQUAL, left[-1], right[-2] if len(right) > 1 else right[0], why)
    batch = found.broadcast([left[:-2], right[:-2]], f"matrices are multiplied in pairs {where}")
    return [(*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))]


def _einsum(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    taken, _, left = equation.partition("->")
    parts = taken.split(",")
    if "." in equation or "->" not in equation or len(parts) != len(given):
        return [None]
    sizes: dict[str, Maybe] = {}
    for letters, shape in zip(parts, given, strict=True):
        for letter, dim in zip(letters, shape or (), strict=False):
            sizes[letter] = found.joined(
                sizes.get(letter), dim, f"the inputs share that axis {where}"
            )
    return [tuple(sizes.get(letter) for letter in left)]


def _gemm(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    left, right = given[0], given[1]
    if left is None or right is None or len(left) != 2 or len(right) != 2:
        return [None]
    left = left[::-1] if attribute(node, "transA", 0) else left
    right = right[::-1] if attribute(node, "transB", 0) else right
    found.demand(Sort.EQUAL, left[1], right[0], f"the matrices have to agree {where}")
    return [(left[0], right[1])]


def _reshape(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data = given[0]
    wanted = (
        found.contents(node.input[1]) if len(node.input) > 1 else attribute(node, "shape", None)
    )
    if wanted is None:
        rank = (given[1] or (None,))[0] if len(given) > 1 else None
        return [(None,) * rank if isinstance(rank, int) else None]
    copies = not attribute(node, "allowzero", 0)
    made = [
        (data[place] if data is not None and place < len(data) else None)
        if dim == 0 and copies
        else dim
        for place, dim in enumerate(wanted)
    ]
    if data is None or None in made or made.count(-1) > 1:
        return [tuple(None if dim == -1 else dim for dim in made)]
    text = ", ".join(str(dim) if isinstance(dim, int) else "…" for dim in wanted)
    whole, why = terms.product(data), f"it is brought into the shape [{text}] {where}"
    if -1 not in made:
        found.demand(Sort.EQUAL, whole, terms.product(made), why)
        return [tuple(made)]
    place = made.index(-1)
    rest = terms.product(made[:place] + made[place + 1 :])
    made[place] = terms.divide(whole, rest)
    if (part := made[place]) is not None and rest is not None and whole is not None:
        found.demand(Sort.MULTIPLE, whole, rest, why)
        found.demand(Sort.AT_LEAST, part, 1, why)
    return [tuple(made)]


def _flatten(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data = given[0]
    if data is None:
        return [(None, None)]
    axis = int(attribute(node, "axis", 1))
    return [(terms.product(data[:axis]), terms.product(data[axis:]))]


def _transpose(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data = given[0]
    if data is None:
        return [None]
    perm = attribute(node, "perm", range(len(data))[::-1])
    return [tuple(data[axis] for axis in perm) if len(perm) == len(data) else None]


def _unsqueeze(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data, axes = given[0], found.integers(node, 1, "axes")
    if data is None or axes is None:
        return [None]
    rank, rest = len(data) + len(axes), iter(data)
    places = {axis % rank for axis in axes}
    return [tuple(1 if place in places else next(rest, None) for place in range(rank))]


def _squeeze(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data, axes = given[0], found.integers(node, 1, "axes")
    if data is None or axes is None:
        return [None]
    places = {axis % len(data) for axis in axes}
    for place in places:
        found.demand(Sort.EQUAL, data[place], 1, f"that axis is taken away {where}")
    return [tuple(dim for place, dim in enumerate(data) if place not in places)]


def _concat(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    known = [shape for shape in given if shape is not None]
    if len(known) < len(given) or len({len(shape) for shape in known}) != 1 or not known[0]:
        return [None]
    axis = int(attribute(node, "axis", 0)) % len(known[0])
    made = list(known[0])
    for shape in known[1:]:
        for place, dim in enumerate(shape):
            if place != axis:
                made[place] = found.joined(
                    made[place], dim, f"branches of equal size are joined {where}"
                )
    made[axis] = terms.total([shape[axis] for shape in known])
    return [tuple(made)]


def _split(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data, parts = given[0], found.integers(node, 1, "split")
    if data is None:
        return [None] * len(node.output)
    axis, count = int(attribute(node, "axis", 0)) % len(data), len(node.output)
    if parts is None and (len(node.input) > 1 and node.input[1]):
        sizes: list[Maybe] = [None] * count
    elif parts is None:
        uneven = (
            attribute(node, "num_outputs", None) is not None
        )  # the last part may be shorter then
        sizes = [
            terms.divide(terms.add(data[axis], count - 1) if uneven else data[axis], count)
        ] * count
        if uneven:
            sizes[-1] = terms.subtract(data[axis], terms.product([sizes[0], count - 1]))
        else:
            found.demand(
                Sort.MULTIPLE, data[axis], count, f"it is split into {count} equal parts {where}"
            )
    else:
        sizes = list(parts)
        found.demand(
            Sort.EQUAL, data[axis], sum(parts), f"it is split into parts that long {where}"
        )
    return [(*data[:axis], size, *data[axis + 1 :]) for size in sizes]


def _slice(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data = given[0]
    if data is None:
        return [None]
    if len(node.input) > 2:
        starts, ends = found.contents(node.input[1]), found.contents(node.input[2])
    else:
        starts, ends = attribute(node, "starts", None), attribute(node, "ends", None)
    if starts is None and ends is None:
        return [(None,) * len(data)]
    count = len(starts if starts is not None else ends or ())
    axes = found.integers(node, 3, "axes")
    if axes is None and not (len(node.input) > 3 and node.input[3]):
        axes = list(range(count))
    steps = found.integers(node, 4, "steps") if len(node.input) > 4 else [1] * count
    if axes is None:
        return [(None,) * len(data)]
    made = list(data)
    for number, axis in enumerate(axes):
        if (
            starts is None
            or ends is None
            or steps is None
            or number >= min(len(starts), len(ends), len(steps))
        ):
            made[axis] = None
        else:
            made[axis] = sliced(data[axis], starts[number], ends[number], steps[number])
    return [tuple(made)]


def _gather(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data, indices = given[0], given[1]
    if data is None or indices is None:
        return [None]
    axis = int(attribute(node, "axis", 0)) % len(data)
    return [(*data[:axis], *indices, *data[axis + 1 :])]


def _second(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    return [given[1]]


def _expand(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    wanted = found.contents(node.input[1])
    if given[0] is None or wanted is None:
        return [None]
    return [found.broadcast([given[0], wanted], f"it is stretched {where}")]


def _tile(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data, repeats = given[0], found.contents(node.input[1])
    if data is None:
        return [None]
    if repeats is None or len(repeats) != len(data):
        return [(None,) * len(data)]
    return [tuple(terms.multiply(dim, times) for dim, times in zip(data, repeats, strict=True))]


def _filled(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    return [found.contents(node.input[0])]


def _range(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    start, limit, delta = (found.contents(name) for name in node.input)
    if start is None or limit is None or delta != (1,):
        return [(None,)]
    return [(terms.subtract(limit[0], start[0]),)]


def _reduce(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data = given[0]
    if data is None:
        return [None]
    if node.op_type.startswith("Arg"):
        axes: list[int] | None = [int(attribute(node, "axis", 0))]
    else:
        axes = found.integers(node, 1, "axes")
        if axes is None and not (len(node.input) > 1 and node.input[1]):
            axes = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(len(data)))
    keep = attribute(node, "keepdims", 1)
    if axes is None:
        return [(None,) * len(data) if keep else None]
    places = {axis % len(data) for axis in axes} if data else set()
    made = [
        1 if place in places else dim
        for place, dim in enumerate(data)
        if keep or place not in places
    ]
    return [tuple(made)]


def _topk(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data = given[0]
    if data is None:
        return [None, None]
    count = (
        found.contents(node.input[1]) if len(node.input) > 1 else (int(attribute(node, "k", 1)),)
    )
    axis = int(attribute(node, "axis", -1)) % len(data)
    size = count[0] if count else None
    found.demand(Sort.AT_LEAST, data[axis], size, f"the {size} greatest are taken {where}")
    return [(*data[:axis], size, *data[axis + 1 :])] * 2


_REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
RULES: dict[str, Rule] = {
    **SPATIAL,
    **dict.fromkeys(
        (
            *(
                "Identity",
                "Cast",
                "CastLike",
                "Dropout",
                "Relu",
                "LeakyRelu",
                "Sigmoid",
                "Tanh",
                "Erf",
                "Gelu",
                "Exp",
            ),
            *(
                "Log",
                "Sqrt",
                "Neg",
                "Abs",
                "Clip",
                "Softplus",
                "Elu",
                "Selu",
                "HardSigmoid",
                "HardSwish",
                "Softmax",
            ),
            *(
                "LogSoftmax",
                "Reciprocal",
                "Floor",
                "Ceil",
                "Round",
                "Sign",
                "Sin",
                "Cos",
                "Not",
                "IsNaN",
                "IsInf",
            ),
            *(
                "BatchNormalization",
                "LayerNormalization",
                "InstanceNormalization",
                "GroupNormalization",
                "PRelu",
            ),
            *(
                "RMSNormalization",
                "LpNormalization",
                "CumSum",
                "Trilu",
                "Celu",
                "Mish",
                "Softsign",
                "LRN",
                "Swish",
            ),
            *(
                "QuantizeLinear",
                "DequantizeLinear",
                "ReverseSequence",
                "ScatterND",
                "ScatterElements",
                "Atan",
            ),
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            *(
                "Add",
                "Sub",
                "Mul",
                "Div",
                "Pow",
                "Mod",
                "Min",
                "Max",
                "Sum",
                "Mean",
                "And",
                "Or",
                "Xor",
                "Where",
            ),
            *(
                "Equal",
                "Less",
                "LessOrEqual",
                "Greater",
                "GreaterOrEqual",
                "BitShift",
                "BitwiseAnd",
                "BitwiseOr",
            ),
        ),
        _broadcast,
    ),
    **dict.fromkeys(("ArgMax", "ArgMin", *(f"Reduce{kind}" for kind in _REDUCTIONS)), _reduce),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Einsum": _einsum,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _second,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _filled,
    "Range": _range,
    "TopK": _topk,
}
