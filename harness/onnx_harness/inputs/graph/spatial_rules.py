"""The shape rules of operators on the axes of pictures and signals, and their demands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.shapes import Dims, Shapes, Sort
from onnx_harness.inputs.graph.terms import Maybe

Shape = Dims | None
Made = Sequence[Shape]
Rule = Callable[[Shapes, onnx.NodeProto, list[Shape], str], Made]


def _sliding(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    """Conv and the poolings: a kernel with strides, dilations and padding."""
    data = inputs[0]
    weight = inputs[1] if len(inputs) > 1 else None
    if data is None:
        return [None]
    pooling = node.op_type != "Conv"
    kernel = _kernel(node, weight, pooling=pooling)
    if kernel is None or len(kernel) != len(data) - 2:
        return [None]
    if not pooling and weight is not None:
        channels = terms.multiply(weight[1], int(attribute(node, "group", 1)))
        shapes.demand(
            Sort.EQUAL, data[1], channels, f"the weight takes that many channels {where}"
        )
    output_dims: list[Maybe] = [data[0], data[1] if pooling or weight is None else weight[0]]
    for axis, size in enumerate(kernel):
        output_dims.append(
            _slid(shapes, node, data[axis + 2], size, axis, len(kernel), where)
        )
    return [tuple(output_dims)] * len(node.output)


def _slid(
    shapes: Shapes,
    node: onnx.NodeProto,
    dim: Maybe,
    kernel: Maybe,
    axis: int,
    count: int,
    where: str,
) -> Maybe:
    stride = int(attribute(node, "strides", [1] * count)[axis])
    dilation = int(attribute(node, "dilations", [1] * count)[axis])
    pads = [int(pad) for pad in attribute(node, "pads", [0] * (2 * count))]
    if _text(attribute(node, "auto_pad", "NOTSET")) in ("SAME_UPPER", "SAME_LOWER"):
        return terms.divide(terms.add(dim, stride - 1), stride)
    reach = terms.add(terms.multiply(terms.add(kernel, -1), dilation), 1)
    room = terms.subtract(terms.add(dim, pads[axis] + pads[axis + count]), reach)
    shapes.demand(Sort.AT_LEAST, room, 0, f"a kernel of {kernel} has to find room {where}")
    if not attribute(node, "ceil_mode", 0):
        return terms.add(terms.divide(room, stride), 1)
    # Rounded up, but no window begins behind the data and the padding before it.
    begun = terms.divide(terms.add(dim, pads[axis] - 1), stride)
    return terms.add(
        terms.least(terms.divide(terms.add(room, stride - 1), stride), begun), 1
    )


def _kernel(node: onnx.NodeProto, weight: Shape, *, pooling: bool) -> Dims | None:
    kernel_attribute = attribute(node, "kernel_shape", None)
    if kernel_attribute is not None:
        return tuple(int(size) for size in kernel_attribute)
    return None if pooling or weight is None else weight[2:]


def _unsliding(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    """ConvTranspose."""
    data, weight = inputs[0], inputs[1]
    if (
        data is None
        or weight is None
        or len(weight) != len(data)
        or attribute(node, "output_shape", None)
    ):
        return [None]
    shapes.demand(
        Sort.EQUAL, data[1], weight[0], f"the weight takes that many channels {where}"
    )
    count = len(data) - 2
    strides, dilations = (
        attribute(node, "strides", [1] * count),
        attribute(node, "dilations", [1] * count),
    )
    pads, extra = (
        attribute(node, "pads", [0] * (2 * count)),
        attribute(node, "output_padding", [0] * count),
    )
    same = _text(attribute(node, "auto_pad", "NOTSET")) in ("SAME_UPPER", "SAME_LOWER")
    output_dims: list[Maybe] = [
        data[0],
        terms.multiply(weight[1], int(attribute(node, "group", 1))),
    ]
    for axis in range(count):
        if same:
            output_dims.append(terms.multiply(data[axis + 2], int(strides[axis])))
            continue
        reach = terms.multiply(terms.add(weight[axis + 2], -1), int(dilations[axis]))
        places = terms.multiply(terms.add(data[axis + 2], -1), int(strides[axis]))
        surplus = int(extra[axis]) + 1 - int(pads[axis]) - int(pads[axis + count])
        output_dims.append(terms.add(terms.add(places, reach), surplus))
    return [tuple(output_dims)]


def _global_pool(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    data = inputs[0]
    if data is None:
        return [None]
    return [(*data[:2], *[1] * (len(data) - 2))]


def _pad(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    if data is None:
        return [None]
    pads = attribute(node, "pads", None)
    if len(node.input) > 1:
        pads = shapes.contents(node.input[1])
    some_axes = len(node.input) > 3 and node.input[3]
    if pads is None or len(pads) != 2 * len(data) or some_axes:
        return [(None,) * len(data)]
    output_dims = []
    for axis, dim in enumerate(data):
        before, after = pads[axis], pads[axis + len(data)]
        output_dims.append(terms.add(terms.add(dim, before), after))
        entries = []
        for pad in (before, after):
            if isinstance(pad, int):
                entries.append(pad)
        longest = max(entries, default=0)
        if _text(attribute(node, "mode", "constant")) == "reflect" and longest > 0:
            shapes.demand(
                Sort.AT_LEAST,
                dim,
                longest + 1,
                f"{longest} are mirrored at its ends {where}",
            )
    return [tuple(output_dims)]


def _resize(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    if data is None:
        return [None]
    unknown: Made = [(None,) * len(data)]
    if len(node.input) > 3 and node.input[3]:
        sizes = shapes.contents(node.input[3])
        plain = attribute(node, "axes", None) is None
        return (
            [sizes] if sizes is not None and plain and len(sizes) == len(data) else unknown
        )
    slot = 1 if len(node.input) == 2 else 2
    scales = (
        shapes.scope.constant(node.input[slot])
        if len(node.input) > slot and node.input[slot]
        else None
    )
    if scales is None or scales.size != len(data):
        return unknown
    return [
        tuple(
            _scaled(dim, float(scale))
            for dim, scale in zip(data, scales.reshape(-1), strict=True)
        )
    ]


def _scaled(dim: Maybe, scale: float) -> Maybe:
    if scale >= 1 and scale.is_integer():
        return terms.multiply(dim, int(scale))
    if 0 < scale < 1 and (1 / scale).is_integer():
        return terms.divide(dim, int(1 / scale))
    return None


def _space_to_depth(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    data, block = inputs[0], int(attribute(node, "blocksize", 1))
    if data is None or len(data) != 4:
        return [None]
    for dim in data[2:]:
        shapes.demand(
            Sort.MULTIPLE, dim, block, f"blocks of {block} are cut out of it {where}"
        )
    return [
        (
            data[0],
            terms.multiply(data[1], block * block),
            *(terms.divide(dim, block) for dim in data[2:]),
        )
    ]


def _depth_to_space(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    data, block = inputs[0], int(attribute(node, "blocksize", 1))
    if data is None or len(data) != 4:
        return [None]
    shapes.demand(
        Sort.MULTIPLE, data[1], block * block, f"blocks of {block} are laid out {where}"
    )
    return [
        (
            data[0],
            terms.divide(data[1], block * block),
            *(terms.multiply(dim, block) for dim in data[2:]),
        )
    ]


def _recurrent(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    data, weight = inputs[0], inputs[1]
    if data is None or len(data) != 3:
        return [None]
    first, second = (0, 1) if attribute(node, "layout", 0) else (1, 0)
    batch, steps = data[first], data[second]
    if weight is not None and len(weight) == 3:
        shapes.demand(
            Sort.EQUAL, data[2], weight[2], f"the weight takes that many features {where}"
        )
    for slot, at in ((4, 0), (5, first), (6, first)):
        if slot < len(inputs) and (shape := inputs[slot]) is not None and at < len(shape):
            shapes.demand(
                Sort.EQUAL, shape[at], batch, f"there is one for each sequence {where}"
            )
    wide = int(attribute(node, "hidden_size", 0)) or None
    both = 2 if _text(attribute(node, "direction", "forward")) == "bidirectional" else 1
    if first == 0:
        return [(batch, steps, both, wide), *[(batch, both, wide)] * 2]
    return [(steps, both, batch, wide), *[(both, batch, wide)] * 2]


def _short_transform(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    """STFT: frames of a signal."""
    data, step = inputs[0], shapes.contents(node.input[1])
    window = None
    if len(inputs) > 2 and inputs[2]:
        window = inputs[2]
    elif len(node.input) > 3:
        window = shapes.contents(node.input[3])
    if data is None or len(data) < 2 or not step or not window:
        return [None]
    room = terms.subtract(data[1], window[0])
    shapes.demand(
        Sort.AT_LEAST, room, 0, f"a window of {window[0]} has to find room {where}"
    )
    bins = (
        terms.add(terms.divide(window[0], 2), 1)
        if attribute(node, "onesided", 1)
        else window[0]
    )
    return [(data[0], terms.add(terms.divide(room, step[0]), 1), bins, 2)]


def _suppression(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    """NonMaxSuppression: a score for each box."""
    boxes, scores = inputs[0], inputs[1]
    if boxes is not None and scores is not None and (len(boxes), len(scores)) == (3, 3):
        shapes.demand(
            Sort.EQUAL, boxes[0], scores[0], f"boxes and scores belong together {where}"
        )
        shapes.demand(
            Sort.EQUAL, boxes[1], scores[2], f"boxes and scores belong together {where}"
        )
    return [(None, 3)]


def _regions(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    """RoiAlign: a picture for each box."""
    data, boxes, pictures = inputs[0], inputs[1], inputs[2]
    if data is None or boxes is None or pictures is None or len(data) != 4:
        return [None]
    shapes.demand(Sort.EQUAL, boxes[0], pictures[0], f"there is one for each box {where}")
    sides = (int(attribute(node, f"output_{side}", 1)) for side in ("height", "width"))
    return [(boxes[0], data[1], *sides)]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


SPATIAL: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool", "LpPool"), _sliding),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "ConvTranspose": _unsliding,
    "Pad": _pad,
    "SpaceToDepth": _space_to_depth,
    "DepthToSpace": _depth_to_space,
    "STFT": _short_transform,
    "NonMaxSuppression": _suppression,
    "RoiAlign": _regions,
}
