"""Which inputs and outputs of a node can be float16: from its schema, not from a list of operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

import onnx
import onnx_ir as ir

from harness.transforms.surgery.editing import Editing

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16

# Operators that lose their meaning in float16, and why.
DEFAULT_OP_BLOCK_LIST: Mapping[str, str] = {
    "AffineGrid": "coordinates: above 1 in 2048 they are off by a pixel",
    "CumSum": "a running sum stops growing once it is 2048 times its terms",
    "DequantizeLinear": "scales are often too small for float16",
    "DynamicQuantizeLinear": "scales are often too small for float16",
    "GridSample": "coordinates: above 1 in 2048 they are off by a pixel",
    "MaxRoiPool": "coordinates: above 2048 they are off by a pixel",
    "MeanVarianceNormalization": "squares overflow above 255, and its definition adds an epsilon that is float32",
    "MelWeightMatrix": "frequencies: above 2048 they are off by one",
    "NonMaxSuppression": "coordinates and scores: ties change what is kept",
    "QLinearConv": "scales are often too small for float16",
    "QLinearMatMul": "scales are often too small for float16",
    "QuantizeLinear": "scales are often too small for float16",
    "Range": "counts stop at 2048, and steps are accumulated",
    "RoiAlign": "coordinates: above 2048 they are off by a pixel",
    "TopK": "rounding makes ties, and ties change the indices",
}

# Operators that give some of their input's values, each as it is.
MOVES = (
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)

# What it gives are the bits of its input.
_READS_BITS = "BitCast"
# With a reduction they add up in place, rounding each time, and ONNX Runtime's CPU provider doesn't do it at all.
_SCATTERS = ("ScatterElements", "ScatterND")
# Inputs of float type that stay float32 although the schema takes float16: regions and scales are coordinates.
_FLOAT32_INPUTS: Mapping[str, frozenset[int]] = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}
# Outputs whose type no input decides; for these operators it is float32 by their attributes and may stay so.
_OUTPUTS_TYPED_BY_ATTRIBUTE = frozenset({"LayerNormalization"})


class Want(Enum):
    """What a node wants of an input, or gives as an output, that was float32."""

    FLOAT32 = auto()
    FLOAT16 = auto()
    EITHER = auto()


@dataclass(frozen=True, slots=True)
class Typing:
    """What a node makes of its float32 inputs and outputs; one entry for each, also where it isn't float32."""

    inputs: tuple[Want, ...]
    outputs: tuple[Want, ...]


def kept(node: ir.Node) -> Typing:
    """The typing of a node that stays as it is."""
    return Typing((Want.FLOAT32,) * len(node.inputs), (Want.FLOAT32,) * len(node.outputs))


def typing_of(editing: Editing, node: ir.Node, dtypes: Mapping[ir.Value, int]) -> Typing:
    """How the node would be typed in float16, as far as its schema allows."""
    if not editing.is_standard(node) or node.op_type == _READS_BITS or _accumulates(node):
        return kept(node)
    if node.op_type in ("Shape", "Size", "Cast", "IsNaN"):
        return Typing((Want.EITHER,) * len(node.inputs), (Want.FLOAT32,) * len(node.outputs))
    present = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    # Of sequences and of what inference knows nothing about, nothing can be cast.
    if any(value not in dtypes for value in present):
        return kept(node)
    formal = _formal(node.op_type, editing.opset)
    if formal is None:
        return kept(node)
    inputs = [_variable(formal.inputs, index) for index in range(len(node.inputs))]
    outputs = [_variable(formal.outputs, index) for index in range(len(node.outputs))]
    floats_out = {
        variable for variable, value in zip(outputs, node.outputs, strict=True) if value.name and dtypes[value] == FLOAT
    }
    if floats_out - set(inputs) and node.op_type not in _OUTPUTS_TYPED_BY_ATTRIBUTE:
        return kept(node)
    float32_inputs = _FLOAT32_INPUTS.get(node.op_type, frozenset())
    stays = {variable for index, variable in enumerate(inputs) if index in float32_inputs} | (floats_out - set(inputs))

    def want(variable: str) -> Want:
        return Want.FLOAT16 if variable in formal.float16 and variable not in stays else Want.FLOAT32

    return Typing(tuple(want(each) for each in inputs), tuple(want(each) for each in outputs))


def _accumulates(node: ir.Node) -> bool:
    reduction = node.attributes.get("reduction")
    return node.op_type in _SCATTERS and reduction is not None and reduction.as_string() != "none"


@dataclass(frozen=True, slots=True)
class _Formal:
    """The types of a schema: of its inputs and outputs, whether the last repeats, and which may be float16."""

    inputs: tuple[tuple[str, ...], bool]
    outputs: tuple[tuple[str, ...], bool]
    float16: frozenset[str]


@cache
def _formal(op_type: str, opset: int) -> _Formal | None:
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None

    def types(parameters: Sequence[onnx.defs.OpSchema.FormalParameter]) -> tuple[tuple[str, ...], bool] | None:
        variadic = bool(parameters) and parameters[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
        if variadic and not parameters[-1].is_homogeneous:
            return None
        return tuple(parameter.type_str for parameter in parameters), variadic

    inputs, outputs = types(schema.inputs), types(schema.outputs)
    if inputs is None or outputs is None:
        return None
    float16 = {each.type_param_str for each in schema.type_constraints if "tensor(float16)" in each.allowed_type_strs}
    return _Formal(inputs, outputs, frozenset(float16))


def _variable(types: tuple[tuple[str, ...], bool], index: int) -> str:
    names, variadic = types
    if index < len(names):
        return names[index]
    return names[-1] if variadic and names else ""
