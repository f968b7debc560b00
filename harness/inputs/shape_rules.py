"""What each operator makes of the shapes that it takes, and what it demands of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx

from harness.inputs import terms
from harness.inputs.demands import attribute
from harness.inputs.shapes import Dims, Shapes, Sort, sliced
from harness.inputs.terms import Maybe

Shape = Dims | None
Made = Sequence[Shape]
_Rule = Callable[[Shapes, onnx.NodeProto, list[Shape], str], Made]


def _same(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    return [given[0] if given else None]


def _broadcast(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    known = [shape for shape in given if shape is not None]
    return [found.broadcast(known, f"the inputs have to agree {where}") if len(known) == len(given) else None]


def _sliding(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    """Conv and the poolings: a kernel with strides, dilations and padding."""
    data, weight = given[0], given[1] if len(given) > 1 else None
    if data is None:
        return [None]
    pooling = node.op_type != "Conv"
    kernel = _kernel(node, weight, pooling=pooling)
    if kernel is None or len(kernel) != len(data) - 2:
        return [None]
    if not pooling and weight is not None:
        channels = terms.multiply(weight[1], int(attribute(node, "group", 1)))
        found.demand(Sort.EQUAL, data[1], channels, f"the weight takes that many channels {where}")
    made: list[Maybe] = [data[0], data[1] if pooling or weight is None else weight[0]]
    for axis, size in enumerate(kernel):
        made.append(_slid(found, node, data[axis + 2], size, axis, len(kernel), where))
    return [tuple(made)] * len(node.output)


def _slid(found: Shapes, node: onnx.NodeProto, dim: Maybe, kernel: Maybe, axis: int, count: int, where: str) -> Maybe:
    stride = int(attribute(node, "strides", [1] * count)[axis])
    dilation = int(attribute(node, "dilations", [1] * count)[axis])
    pads = [int(pad) for pad in attribute(node, "pads", [0] * (2 * count))]
    if _text(attribute(node, "auto_pad", "NOTSET")) in ("SAME_UPPER", "SAME_LOWER"):
        return terms.divide(terms.add(dim, stride - 1), stride)
    reach = terms.add(terms.multiply(terms.add(kernel, -1), dilation), 1)
    room = terms.subtract(terms.add(dim, pads[axis] + pads[axis + count]), reach)
    found.demand(Sort.AT_LEAST, room, 0, f"a kernel of {kernel} has to find room {where}")
    if not attribute(node, "ceil_mode", 0):
        return terms.add(terms.divide(room, stride), 1)
    # Rounded up, but no window begins behind the data and the padding before it.
    begun = terms.divide(terms.add(dim, pads[axis] - 1), stride)
    return terms.add(terms.least(terms.divide(terms.add(room, stride - 1), stride), begun), 1)


def _kernel(node: onnx.NodeProto, weight: Shape, *, pooling: bool) -> Dims | None:
    given = attribute(node, "kernel_shape", None)
    if given is not None:
        return tuple(int(size) for size in given)
    return None if pooling or weight is None else weight[2:]


def _unsliding(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    """ConvTranspose."""
    data, weight = given[0], given[1]
    if data is None or weight is None or len(weight) != len(data) or attribute(node, "output_shape", None):
        return [None]
    found.demand(Sort.EQUAL, data[1], weight[0], f"the weight takes that many channels {where}")
    count = len(data) - 2
    strides, dilations = attribute(node, "strides", [1] * count), attribute(node, "dilations", [1] * count)
    pads, extra = attribute(node, "pads", [0] * (2 * count)), attribute(node, "output_padding", [0] * count)
    same = _text(attribute(node, "auto_pad", "NOTSET")) in ("SAME_UPPER", "SAME_LOWER")
    made: list[Maybe] = [data[0], terms.multiply(weight[1], int(attribute(node, "group", 1)))]
    for axis in range(count):
        if same:
            made.append(terms.multiply(data[axis + 2], int(strides[axis])))
            continue
        reach = terms.multiply(terms.add(weight[axis + 2], -1), int(dilations[axis]))
        places = terms.multiply(terms.add(data[axis + 2], -1), int(strides[axis]))
        rest = int(extra[axis]) + 1 - int(pads[axis]) - int(pads[axis + count])
        made.append(terms.add(terms.add(places, reach), rest))
    return [tuple(made)]


def _global_pool(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    return [None if given[0] is None else (*given[0][:2], *[1] * (len(given[0]) - 2))]


def _matmul(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    left, right = given[0], given[1]
    if left is None or right is None or not left or not right:
        return [None]
    why = f"the matrices have to agree {where}"
    found.demand(Sort.EQUAL, left[-1], right[-2] if len(right) > 1 else right[0], why)
    batch = found.broadcast([left[:-2], right[:-2]], f"matrices are multiplied in pairs {where}")
    return [(*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))]


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
    wanted = found.contents(node.input[1]) if len(node.input) > 1 else attribute(node, "shape", None)
    if wanted is None:
        rank = (given[1] or (None,))[0] if len(given) > 1 else None
        return [(None,) * rank if isinstance(rank, int) else None]
    copies = not attribute(node, "allowzero", 0)
    made = [
        (data[place] if data is not None and place < len(data) else None) if dim == 0 and copies else dim
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
                made[place] = found.joined(made[place], dim, f"branches of equal size are joined {where}")
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
        uneven = attribute(node, "num_outputs", None) is not None  # the last part may be shorter then
        sizes = [terms.divide(terms.add(data[axis], count - 1) if uneven else data[axis], count)] * count
        if uneven:
            sizes[-1] = terms.subtract(data[axis], terms.product([sizes[0], count - 1]))
        else:
            found.demand(Sort.MULTIPLE, data[axis], count, f"it is split into {count} equal parts {where}")
    else:
        sizes = list(parts)
        found.demand(Sort.EQUAL, data[axis], sum(parts), f"it is split into parts that long {where}")
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
        if starts is None or ends is None or steps is None or number >= min(len(starts), len(ends), len(steps)):
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


def _pad(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data = given[0]
    if data is None:
        return [None]
    pads = found.contents(node.input[1]) if len(node.input) > 1 else attribute(node, "pads", None)
    if pads is None or len(pads) != 2 * len(data) or (len(node.input) > 3 and node.input[3]):
        return [(None,) * len(data)]
    made = []
    for axis, dim in enumerate(data):
        before, after = pads[axis], pads[axis + len(data)]
        made.append(terms.add(terms.add(dim, before), after))
        longest = max((pad for pad in (before, after) if isinstance(pad, int)), default=0)
        if _text(attribute(node, "mode", "constant")) == "reflect" and longest > 0:
            found.demand(Sort.AT_LEAST, dim, longest + 1, f"{longest} are mirrored at its ends {where}")
    return [tuple(made)]


def _resize(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:  # noqa: ARG001
    data = given[0]
    if data is None:
        return [None]
    unknown: Made = [(None,) * len(data)]
    if len(node.input) > 3 and node.input[3]:
        sizes = found.contents(node.input[3])
        plain = attribute(node, "axes", None) is None
        return [sizes] if sizes is not None and plain and len(sizes) == len(data) else unknown
    slot = 1 if len(node.input) == 2 else 2
    scales = found.scope.constant(node.input[slot]) if len(node.input) > slot and node.input[slot] else None
    if scales is None or scales.size != len(data):
        return unknown
    return [tuple(_scaled(dim, float(scale)) for dim, scale in zip(data, scales.reshape(-1), strict=True))]


def _scaled(dim: Maybe, scale: float) -> Maybe:
    if scale >= 1 and scale.is_integer():
        return terms.multiply(dim, int(scale))
    if 0 < scale < 1 and (1 / scale).is_integer():
        return terms.divide(dim, int(1 / scale))
    return None


def _space_to_depth(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data, block = given[0], int(attribute(node, "blocksize", 1))
    if data is None or len(data) != 4:
        return [None]
    for dim in data[2:]:
        found.demand(Sort.MULTIPLE, dim, block, f"blocks of {block} are cut out of it {where}")
    return [(data[0], terms.multiply(data[1], block * block), *(terms.divide(dim, block) for dim in data[2:]))]


def _depth_to_space(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data, block = given[0], int(attribute(node, "blocksize", 1))
    if data is None or len(data) != 4:
        return [None]
    found.demand(Sort.MULTIPLE, data[1], block * block, f"blocks of {block} are laid out {where}")
    return [(data[0], terms.divide(data[1], block * block), *(terms.multiply(dim, block) for dim in data[2:]))]


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
    made = [1 if place in places else dim for place, dim in enumerate(data) if keep or place not in places]
    return [tuple(made)]


def _recurrent(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data, weight = given[0], given[1]
    if data is None or len(data) != 3:
        return [None]
    first, second = (0, 1) if attribute(node, "layout", 0) else (1, 0)
    batch, steps = data[first], data[second]
    if weight is not None and len(weight) == 3:
        found.demand(Sort.EQUAL, data[2], weight[2], f"the weight takes that many features {where}")
    for slot, at in ((4, 0), (5, first), (6, first)):
        if slot < len(given) and (shape := given[slot]) is not None and at < len(shape):
            found.demand(Sort.EQUAL, shape[at], batch, f"there is one for each sequence {where}")
    wide = int(attribute(node, "hidden_size", 0)) or None
    both = 2 if _text(attribute(node, "direction", "forward")) == "bidirectional" else 1
    if first == 0:
        return [(batch, steps, both, wide), *[(batch, both, wide)] * 2]
    return [(steps, both, batch, wide), *[(both, batch, wide)] * 2]


def _topk(found: Shapes, node: onnx.NodeProto, given: list[Shape], where: str) -> Made:
    data = given[0]
    if data is None:
        return [None, None]
    count = found.contents(node.input[1]) if len(node.input) > 1 else (int(attribute(node, "k", 1)),)
    axis = int(attribute(node, "axis", -1)) % len(data)
    size = count[0] if count else None
    found.demand(Sort.AT_LEAST, data[axis], size, f"the {size} greatest are taken {where}")
    return [(*data[:axis], size, *data[axis + 1 :])] * 2


def _text(given: Any) -> str:
    return given.decode() if isinstance(given, bytes) else str(given)


_REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        (
            *("Identity", "Cast", "CastLike", "Dropout", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Gelu", "Exp"),
            *("Log", "Sqrt", "Neg", "Abs", "Clip", "Softplus", "Elu", "Selu", "HardSigmoid", "HardSwish", "Softmax"),
            *("LogSoftmax", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Not", "IsNaN", "IsInf"),
            *("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "PRelu"),
            *("RMSNormalization", "LpNormalization", "CumSum", "Trilu", "Celu", "Mish", "Softsign", "LRN", "Swish"),
            *("QuantizeLinear", "DequantizeLinear", "ReverseSequence", "ScatterND", "ScatterElements", "Atan"),
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "And", "Or", "Xor", "Where"),
            *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr"),
        ),
        _broadcast,
    ),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool", "LpPool"), _sliding),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("ArgMax", "ArgMin", *(f"Reduce{kind}" for kind in _REDUCTIONS)), _reduce),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "ConvTranspose": _unsliding,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _second,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Pad": _pad,
    "SpaceToDepth": _space_to_depth,
    "DepthToSpace": _depth_to_space,
    "TopK": _topk,
}
