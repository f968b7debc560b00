"""The rules of operators for the shapes that they take, and their demands on them."""

from __future__ import annotations

import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.layout_rules import LAYOUT
from onnx_harness.inputs.graph.shapes import Shapes, Sort
from onnx_harness.inputs.graph.spatial_rules import SPATIAL, Made, Rule, Shape
from onnx_harness.inputs.graph.terms import Maybe


def _same(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    return [inputs[0] if inputs else None]


def _broadcast(
    shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str
) -> Made:
    ranked = [shape for shape in inputs if shape is not None]
    return [
        shapes.broadcast(ranked, f"the inputs have to agree {where}")
        if len(ranked) == len(inputs)
        else None
    ]


def _matmul(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    first, second = inputs[0], inputs[1]
    if first is None or second is None or not first or not second:
        return [None]
    why = f"the matrices have to agree {where}"
    is_vector = len(second) == 1
    rows = second[0] if is_vector else second[-2]
    columns = () if is_vector else second[-1:]
    shapes.demand(Sort.EQUAL, first[-1], rows, why)
    batch = shapes.broadcast(
        [first[:-2], second[:-2]], f"matrices are multiplied in pairs {where}"
    )
    return [(*batch, *first[-2:-1], *columns)]


def _einsum(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    equation = attribute(node, "equation", b"").decode(errors="replace").replace(" ", "")
    operands, _, output_letters = equation.partition("->")
    parts = operands.split(",")
    if "." in equation or "->" not in equation or len(parts) != len(inputs):
        return [None]
    sizes: dict[str, Maybe] = {}
    for letters, shape in zip(parts, inputs, strict=True):
        for letter, dim in zip(letters, shape or (), strict=False):
            sizes[letter] = shapes.joined(
                sizes.get(letter), dim, f"the inputs share that axis {where}"
            )
    return [tuple(sizes.get(letter) for letter in output_letters)]


def _gemm(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    first, second = inputs[0], inputs[1]
    if first is None or second is None or len(first) != 2 or len(second) != 2:
        return [None]
    first = first[::-1] if attribute(node, "transA", 0) else first
    second = second[::-1] if attribute(node, "transB", 0) else second
    shapes.demand(Sort.EQUAL, first[1], second[0], f"the matrices have to agree {where}")
    return [(first[0], second[1])]


def _filled(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    return [shapes.contents(node.input[0])]


def _range(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    start, limit, delta = (shapes.contents(name) for name in node.input)
    if start is None or limit is None or delta != (1,):
        return [(None,)]
    return [(terms.subtract(limit[0], start[0]),)]


def _reduce(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    if data is None:
        return [None]
    if node.op_type.startswith("Arg"):
        axes: list[int] | None = [int(attribute(node, "axis", 0))]
    else:
        axes = shapes.integers(node, 1, "axes")
        if axes is None and not (len(node.input) > 1 and node.input[1]):
            axes = (
                [] if attribute(node, "noop_with_empty_axes", 0) else list(range(len(data)))
            )
    keep = attribute(node, "keepdims", 1)
    if axes is None:
        return [(None,) * len(data) if keep else None]
    places = {axis % len(data) for axis in axes} if data else set()
    reduced = []
    for place, dim in enumerate(data):
        if keep or place not in places:
            reduced.append(1 if place in places else dim)
    return [tuple(reduced)]


def _topk(shapes: Shapes, node: onnx.NodeProto, inputs: list[Shape], where: str) -> Made:
    data = inputs[0]
    if data is None:
        return [None, None]
    count = (
        shapes.contents(node.input[1])
        if len(node.input) > 1
        else (int(attribute(node, "k", 1)),)
    )
    axis = int(attribute(node, "axis", -1)) % len(data)
    size = count[0] if count else None
    shapes.demand(Sort.AT_LEAST, data[axis], size, f"the {size} greatest are taken {where}")
    return [(*data[:axis], size, *data[axis + 1 :])] * 2


_REDUCTIONS = (
    "Sum",
    "Mean",
    "Max",
    "Min",
    "Prod",
    "L1",
    "L2",
    "SumSquare",
    "LogSum",
    "LogSumExp",
)
RULES: dict[str, Rule] = {
    **SPATIAL,
    **LAYOUT,
    **dict.fromkeys(
        (
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
            "BatchNormalization",
            "LayerNormalization",
            "InstanceNormalization",
            "GroupNormalization",
            "PRelu",
            "RMSNormalization",
            "LpNormalization",
            "CumSum",
            "Trilu",
            "Celu",
            "Mish",
            "Softsign",
            "LRN",
            "Swish",
            "QuantizeLinear",
            "DequantizeLinear",
            "ReverseSequence",
            "ScatterND",
            "ScatterElements",
            "Atan",
        ),
        _same,
    ),
    **dict.fromkeys(
        (
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
            "Equal",
            "Less",
            "LessOrEqual",
            "Greater",
            "GreaterOrEqual",
            "BitShift",
            "BitwiseAnd",
            "BitwiseOr",
        ),
        _broadcast,
    ),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", *(f"Reduce{kind}" for kind in _REDUCTIONS)), _reduce
    ),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "ConstantOfShape": _filled,
    "Range": _range,
    "TopK": _topk,
}
