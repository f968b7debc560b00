"""The rules of operators that arrange elements anew, for the shapes that they take."""

from __future__ import annotations

import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.shapes import Shapes, Sort, sliced
from onnx_harness.inputs.graph.spatial_rules import Made, Rule, Shape
from onnx_harness.inputs.graph.terms import Maybe


def _reshape(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    requested = (
        shapes.contents(node.input[1])
        if len(node.input) > 1
        else attribute(node, "shape", None)
    )
    if requested is None:
        rank = (inputs[1] or (None,))[0] if len(inputs) > 1 else None
        return [(None,) * rank if isinstance(rank, int) else None]
    copies = not attribute(node, "allowzero", 0)
    resolved: list[Maybe] = []
    for place, dim in enumerate(requested):
        if dim != 0 or not copies:
            resolved.append(dim)
        else:
            resolved.append(data[place] if data is not None and place < len(data) else None)
    if data is None or None in resolved or resolved.count(-1) > 1:
        return [tuple(None if dim == -1 else dim for dim in resolved)]
    text = ", ".join(str(dim) if isinstance(dim, int) else "…" for dim in requested)
    whole, why = terms.product(data), f"it is brought into the shape [{text}] {where}"
    if -1 not in resolved:
        shapes.demand(Sort.EQUAL, whole, terms.product(resolved), why)
        return [tuple(resolved)]
    place = resolved.index(-1)
    others_product = terms.product(resolved[:place] + resolved[place + 1 :])
    resolved[place] = terms.divide(whole, others_product)
    if (
        (part := resolved[place]) is not None
        and others_product is not None
        and whole is not None
    ):
        shapes.demand(Sort.MULTIPLE, whole, others_product, why)
        shapes.demand(Sort.AT_LEAST, part, 1, why)
    return [tuple(resolved)]


def _flatten(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    if data is None:
        return [(None, None)]
    axis = int(attribute(node, "axis", 1))
    return [(terms.product(data[:axis]), terms.product(data[axis:]))]


def _transpose(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    data = inputs[0]
    if data is None:
        return [None]
    perm = attribute(node, "perm", range(len(data))[::-1])
    return [tuple(data[axis] for axis in perm) if len(perm) == len(data) else None]


def _unsqueeze(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    data, axes = inputs[0], shapes.integers(node, 1, "axes")
    if data is None or axes is None:
        return [None]
    rank, remaining = len(data) + len(axes), iter(data)
    places = {axis % rank for axis in axes}
    return [tuple(1 if place in places else next(remaining, None) for place in range(rank))]


def _squeeze(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data, axes = inputs[0], shapes.integers(node, 1, "axes")
    if data is None or axes is None:
        return [None]
    places = {axis % len(data) for axis in axes}
    for place in places:
        shapes.demand(Sort.EQUAL, data[place], 1, f"that axis is taken away {where}")
    return [tuple(dim for place, dim in enumerate(data) if place not in places)]


def _concat(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    ranked = [shape for shape in inputs if shape is not None]
    if (
        len(ranked) < len(inputs)
        or len({len(shape) for shape in ranked}) != 1
        or not ranked[0]
    ):
        return [None]
    axis = int(attribute(node, "axis", 0)) % len(ranked[0])
    joined = list(ranked[0])
    for shape in ranked[1:]:
        for place, dim in enumerate(shape):
            if place != axis:
                joined[place] = shapes.joined(
                    joined[place], dim, f"branches of equal size are joined {where}"
                )
    joined[axis] = terms.total([shape[axis] for shape in ranked])
    return [tuple(joined)]


def _split(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data, parts = inputs[0], shapes.integers(node, 1, "split")
    if data is None:
        return [None] * len(node.output)
    axis = int(attribute(node, "axis", 0)) % len(data)
    count = len(node.output)
    if parts is None and (len(node.input) > 1 and node.input[1]):
        sizes: list[Maybe] = [None] * count
    elif parts is None:
        # The last part may be shorter then.
        uneven = attribute(node, "num_outputs", None) is not None
        sizes = [
            terms.divide(terms.add(data[axis], count - 1) if uneven else data[axis], count)
        ] * count
        if uneven:
            sizes[-1] = terms.subtract(data[axis], terms.product([sizes[0], count - 1]))
        else:
            shapes.demand(
                Sort.MULTIPLE,
                data[axis],
                count,
                f"it is split into {count} equal parts {where}",
            )
    else:
        sizes = list(parts)
        shapes.demand(
            Sort.EQUAL, data[axis], sum(parts), f"it is split into parts that long {where}"
        )
    return [(*data[:axis], size, *data[axis + 1 :]) for size in sizes]


def _slice(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    if data is None:
        return [None]
    if len(node.input) > 2:
        starts = shapes.contents(node.input[1])
        ends = shapes.contents(node.input[2])
    else:
        starts, ends = attribute(node, "starts", None), attribute(node, "ends", None)
    if starts is None and ends is None:
        return [(None,) * len(data)]
    count = len(starts if starts is not None else ends or ())
    axes = shapes.integers(node, 3, "axes")
    if axes is None and not (len(node.input) > 3 and node.input[3]):
        axes = list(range(count))
    steps = shapes.integers(node, 4, "steps") if len(node.input) > 4 else [1] * count
    if axes is None:
        return [(None,) * len(data)]
    sliced_dims = list(data)
    for number, axis in enumerate(axes):
        if (
            starts is None
            or ends is None
            or steps is None
            or number >= min(len(starts), len(ends), len(steps))
        ):
            sliced_dims[axis] = None
        else:
            for bound in (starts[number], ends[number]):
                shapes.meet(data[axis], abs(bound) if isinstance(bound, int) else bound)
            sliced_dims[axis] = sliced(
                data[axis], starts[number], ends[number], steps[number]
            )
    return [tuple(sliced_dims)]


def _gather(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data, indices = inputs[0], inputs[1]
    if data is None or indices is None:
        return [None]
    axis = int(attribute(node, "axis", 0)) % len(data)
    return [(*data[:axis], *indices, *data[axis + 1 :])]


def _second(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    return [inputs[1]]


def _expand(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    target = shapes.contents(node.input[1])
    if inputs[0] is None or target is None:
        return [None]
    return [shapes.broadcast([inputs[0], target], f"it is stretched {where}")]


def _tile(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data, repeats = inputs[0], shapes.contents(node.input[1])
    if data is None:
        return [None]
    if repeats is None or len(repeats) != len(data):
        return [(None,) * len(data)]
    return [
        tuple(terms.multiply(dim, times) for dim, times in zip(data, repeats, strict=True))
    ]


LAYOUT: dict[str, Rule] = {
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
}
