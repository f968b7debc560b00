"""Read from schemas the inputs and outputs of a node that can be float16 or bfloat16.

No list of operators is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import onnx

from onnx_harness.transforms.half import contrib

# As numbers, which is what messages hold.
FLOAT = int(onnx.TensorProto.FLOAT)
FLOAT16 = int(onnx.TensorProto.FLOAT16)
BFLOAT16 = int(onnx.TensorProto.BFLOAT16)
DOUBLE = int(onnx.TensorProto.DOUBLE)
# What a node wants of an input, or gives as an output, that was float32: FLOAT, the half type, or
# either of them.
EITHER = 0

# Operators that lose their meaning in float16, and why.
DEFAULT_OP_BLOCK_LIST: Mapping[str, str] = {
    "AffineGrid": "coordinates: above 1 in 2048 they are off by a pixel",
    "CumSum": "a running sum stops growing once it is 2048 times its terms",
    "DequantizeLinear": "scales are often too small for float16",
    "DynamicQuantizeLinear": "scales are often too small for float16",
    "GridSample": "coordinates: above 1 in 2048 they are off by a pixel",
    "MaxRoiPool": "coordinates: above 2048 they are off by a pixel",
    "MeanVarianceNormalization": (
        "squares overflow above 255, and its definition adds an epsilon that is float32"
    ),
    "MelWeightMatrix": "frequencies: above 2048 they are off by one",
    "NonMaxSuppression": "coordinates and scores: ties change what is kept",
    "QLinearConv": "scales are often too small for float16",
    "QLinearMatMul": "scales are often too small for float16",
    "QuantizeLinear": "scales are often too small for float16",
    "Range": "counts stop at 2048, and steps are accumulated",
    "RoiAlign": "coordinates: above 2048 they are off by a pixel",
    "TopK": "rounding makes ties, and ties change the indices",
}

# Operators that compute each element of what they give from the elements in its place, and no more.
COMPUTES_EACH = frozenset(
    {
        "Abs",
        "Add",
        "Ceil",
        "Clip",
        "Div",
        "Exp",
        "Floor",
        "LeakyRelu",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Sign",
        "Sqrt",
        "Sub",
        "Sum",
        "Where",
    }
)
# Reductions whose result is of the size of their terms, or counts them.
REDUCES = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})

# What it gives are the bits of its input.
_READS_BITS = "BitCast"
# What they give doesn't depend on whether the float that they read has been rounded to a half.
_READS_EITHER = ("Shape", "Size", "Cast", "IsNaN")
# With a reduction they add up in place, rounding each time, and ONNX Runtime's CPU provider doesn't
# do it at all.
SCATTERS = frozenset({"ScatterElements", "ScatterND"})
# Inputs of float type that stay float32 although the schema takes float16: regions and scales are
# coordinates.
_FLOAT32_INPUTS: Mapping[str, frozenset[int]] = {
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
}
# Outputs whose type no input decides; for these operators it is float32 by their attributes and may
# stay so.
_OUTPUTS_TYPED_BY_ATTRIBUTE = frozenset({"LayerNormalization"})


# Where an output of a rule gets its type: from the node itself; it isn't float32 and no more
# matters. Other numbers are element types where positive, and FIRST - k where it is that of input
# k.
ASK, NO_FLOAT, FIRST = 0, -1, -2


@dataclass(frozen=True, slots=True)
class Rule:
    """The schema's rule for a node with so many inputs and outputs.

    Attributes:
        results: where each output gets its type.
        inputs: what the node wants of its float32 inputs: one for all, or one for each.
        outputs: the same of its outputs.
        unbound: outputs whose type no input decides. While one of these is float32, the node stays
            as it is.
        measures: whether what it gives is a size.
        inferred: whether onnx infers the types of what it gives.
        alone: whether it settles the types of a node that isn't blocked, whatever else is known
            about the node.
    """

    results: tuple[int, ...]
    inputs: int | tuple[int, ...] = FLOAT
    outputs: int | tuple[int, ...] = FLOAT
    unbound: tuple[int, ...] = ()
    measures: bool = False
    inferred: bool = True
    alone: bool = False


class Rules(dict[tuple[str, int, int], Rule]):
    """The rules of a domain's operators at an opset.

    The key is the operator and how many inputs and outputs a node has.
    """

    def __init__(self, opset: int, half: int, domain: str) -> None:
        """Take the opset, the half type (FLOAT16 or BFLOAT16), and the domain.

        Outside the standard domain and ONNX Runtime's own all stays float32.
        """
        super().__init__()
        self._opset = opset
        self._half = half
        self._domain = domain

    def __missing__(self, key: tuple[str, int, int]) -> Rule:
        rule = self._rule(*key)
        if not _known_to_onnx(key[0], self._opset, self._domain):
            rule = replace(rule, inferred=False)
        self[key] = rule
        return rule

    def _rule(self, op_type: str, inputs: int, outputs: int) -> Rule:
        formal = _formal(op_type, self._opset, self._domain)
        if formal is None:
            return Rule((ASK,) * outputs)
        read = [_variable(formal.inputs, index) for index in range(inputs)]
        variables = [_variable(formal.outputs, index) for index in range(outputs)]
        first = {
            variable: FIRST - index for index, variable in reversed(list(enumerate(read)))
        }
        names = []
        for name in variables:
            names.append(
                _ELEMENT_TYPES.get(name) or formal.single.get(name) or first.get(name, ASK)
            )
        results = tuple(names)
        if self._domain and self._domain != contrib.DOMAIN:
            # Nobody but operators of its own domain is likely to read these, and asking costs a
            # copy of the node.
            floats = (name in formal.float32 for name in variables)
            rules = []
            for result, float32 in zip(results, floats, strict=True):
                rules.append(result if float32 else NO_FLOAT)
            return Rule(tuple(rules))
        if self._domain and op_type in contrib.STAYS_FLOAT32:
            return Rule(results)
        if op_type in _READS_EITHER:
            return Rule(results, inputs=EITHER, measures=op_type in ("Shape", "Size"))
        if op_type == _READS_BITS:
            return Rule(results)
        indexes = []
        for index, name in enumerate(variables):
            if name not in first and name in formal.float32:
                indexes.append(index)
        unbound = tuple(indexes)
        if self._domain:  # what is float32 whatever the inputs are binds nobody
            entries = []
            for index in unbound:
                if variables[index] not in formal.single:
                    entries.append(index)
            unbound = tuple(entries)
        free = {variables[index] for index in unbound}
        stays = {
            name
            for index, name in enumerate(read)
            if index in _FLOAT32_INPUTS.get(op_type, ())
        } | free
        inputs_want = _together([self._want(name, formal, stays) for name in read])
        outputs_want = _together([self._want(name, formal, stays) for name in variables])
        return Rule(
            results,
            inputs_want,
            outputs_want,
            () if op_type in _OUTPUTS_TYPED_BY_ATTRIBUTE else unbound,
            alone=inputs_want == outputs_want == self._half
            and not unbound
            and op_type not in SCATTERS,
        )

    def _want(self, name: str, formal: _Formal, stays: set[str]) -> int:
        """FLOAT, the half type, or EITHER for what never is float32."""
        if name not in formal.float32:
            return EITHER
        return (
            self._half if self._half in formal.float32[name] and name not in stays else FLOAT
        )


@cache
def rules_of(opset: int, half: int, domain: str = "") -> Rules:
    """The rules of an opset, read from the schemas as they are asked for and kept."""
    return Rules(opset, half, domain)


@cache
def takes(op_type: str, opset: int, half: int) -> bool:
    """Return whether whatever may be float32 of a standard operator may be of the half type.

    Of If, since which opset.
    """
    schema = onnx.defs.get_schema(op_type, opset, "")
    allowed = [constraint.allowed_type_strs for constraint in schema.type_constraints]
    floats = []
    for type_strings in allowed:
        if "tensor(float)" in type_strings:
            floats.append(type_strings)
    return all(_HALF_NAMES[half] in type_strings for type_strings in floats)


@cache
def takes_at(op_type: str, opset: int, half: int, place: int) -> bool:
    """Return whether the input of a standard operator at a place may be of the half type."""
    formal = _formal(op_type, opset, "")
    return formal is not None and half in formal.float32.get(
        _variable(formal.inputs, place), ()
    )


def _together(wants: list[int]) -> int | tuple[int, ...]:
    distinct = set(wants) - {EITHER}
    if len(distinct) > 1:
        return tuple(wants)
    return distinct.pop() if distinct else FLOAT


@dataclass(frozen=True, slots=True)
class _Formal:
    """The types of a schema: of its inputs and outputs, and whether the last repeats.

    Attributes:
        single: the element type of each variable that has only one.
        float32: the half types that each type or variable allows besides float32; those without
            float32 aren't here.
    """

    inputs: tuple[tuple[str, ...], bool]
    outputs: tuple[tuple[str, ...], bool]
    single: Mapping[str, int]
    float32: Mapping[str, frozenset[int]]


_ELEMENT_TYPES = {
    f"tensor({name.lower()})": number
    for name, number in onnx.TensorProto.DataType.items()
    if number != onnx.TensorProto.UNDEFINED
}
_HALVES = {"tensor(float16)": FLOAT16, "tensor(bfloat16)": BFLOAT16}
_HALF_NAMES = {half: name for name, half in _HALVES.items()}


@cache
def _formal(op_type: str, opset: int, domain: str) -> _Formal | None:
    schema = _schema(op_type, opset, domain)
    if schema is None:
        return None

    def types(
        parameters: Sequence[onnx.defs.OpSchema.FormalParameter],
    ) -> tuple[tuple[str, ...], bool] | None:
        variadic = bool(parameters) and str(parameters[-1].option).endswith("Variadic")
        if variadic and not _attribute(parameters[-1], "is_homogeneous", "isHomogeneous"):
            return None
        return tuple(
            _attribute(parameter, "type_str", "typeStr") for parameter in parameters
        ), variadic

    inputs, outputs = types(schema.inputs), types(schema.outputs)
    if inputs is None or outputs is None:
        return None
    single: dict[str, int] = {}
    float32: dict[str, frozenset[int]] = {"tensor(float)": frozenset()}
    for constraint in schema.type_constraints:
        allowed = list(constraint.allowed_type_strs)
        if len(allowed) == 1 and allowed[0] in _ELEMENT_TYPES:
            single[constraint.type_param_str] = _ELEMENT_TYPES[allowed[0]]
        if "tensor(float)" in allowed:
            halves = (_HALVES[name] for name in allowed if name in _HALVES)
            float32[constraint.type_param_str] = frozenset(halves)
    return _Formal(inputs, outputs, single, float32)


def _schema(op_type: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    if _known_to_onnx(op_type, opset, domain):
        return onnx.defs.get_schema(op_type, opset, domain)
    return contrib.schema(op_type, opset, domain)


def _known_to_onnx(op_type: str, opset: int, domain: str) -> bool:
    try:
        onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return True


def _attribute(
    parameter: onnx.defs.OpSchema.FormalParameter, name: str, fallback: str
) -> Any:
    """An attribute of a parameter that ONNX Runtime's schemas spell otherwise."""
    return (
        getattr(parameter, name)
        if hasattr(parameter, name)
        else getattr(parameter, fallback)
    )


def _variable(types: tuple[tuple[str, ...], bool], index: int) -> str:
    names, variadic = types
    if index < len(names):
        return names[index]
    return names[-1] if variadic and names else ""
