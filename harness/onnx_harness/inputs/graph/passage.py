"""Pass an input through one operator: which of its values and axes come out, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.inputs.graph.controls import Steps, stepped
from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.model.ops import MOVES

# The output holds (some of) the input's values, elsewhere or in another shape; the slots that are
# the data.
_SOURCES_OF_VALUES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(
        (
            *MOVES,
            "Cast",
            "CastLike",
            "Dropout",
            "Pad",
            "Compress",
            "Trilu",
            "ReverseSequence",
            "Unique",
            "TopK",
            "SequenceAt",
            "SplitToSequence",
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "ReduceMax",
            "ReduceMin",
            "ArrayFeatureExtractor",
            "Imputer",
            "StringNormalizer",
            "Tokenizer",
        ),
        (0,),
    ),
    "Concat": None,
    "SequenceConstruct": None,
    "Max": None,
    "Min": None,
    "Where": (1, 2),
}
_KEEPS_AXES = frozenset(
    {
        "Identity",
        "Imputer",
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
        "HardSigmoid",
        "HardSwish",
        "Softmax",
        "Reciprocal",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "PRelu",
        "BatchNormalization",
        "LayerNormalization",
        "Pad",
    }
)
# What integers become when they go through these isn't an index any more.
_ENDS_INTEGERS = frozenset(
    {
        "Conv",
        "MatMul",
        "Gemm",
        "Softmax",
        "LayerNormalization",
        "Shape",
        "Size",
        "Equal",
        "Less",
        "Greater",
        "LessOrEqual",
        "GreaterOrEqual",
        "And",
        "Or",
        "Not",
        "OneHot",
        "IsNaN",
        "IsInf",
        "EmbedLayerNormalization",
        "Mod",
        "BitwiseAnd",
        "MatMulInteger",
        "ConvInteger",
        "DequantizeLinear",
    }
)
# A position times frequencies is an angle, however its numbers are moved.
_LINEAR = frozenset(
    {
        "Cast",
        "CastLike",
        "Div",
        "Einsum",
        "Gemm",
        "MatMul",
        "Mul",
    }
)

_TRUTHS = frozenset(
    {
        "And",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Not",
        "Or",
        "Xor",
    }
)


@dataclass(frozen=True, slots=True)
class State:
    """One value on the way: the input's values v have become ``scale * v + offset``, if ``exact``.

    Attributes:
        axes: which axis of the input each axis is (-1: none of them); None when that's lost.
        steps: what has become of each of the input's numbers on the way; None where that's lost.
        integers: whether it still consists of integers that came from the input.
        linear: whether it consists of such integers times constants.
    """

    scope: Scope
    name: str
    exact: bool
    integers: bool
    linear: bool = False
    scale: float = 1.0
    offset: float = 0.0
    axes: tuple[int, ...] | None = None
    steps: Steps | None = None
    element: int | None = None


def _origin(state: State, axis: int) -> int | None:
    if (
        state.axes is None
        or not -len(state.axes) <= axis < len(state.axes)
        or state.axes[axis] < 0
    ):
        return None
    return state.axes[axis]


def through(state: State, node: onnx.NodeProto, slot: int) -> State | None:
    """The value behind ``node``, or None when nothing that matters is left of it."""
    op = node.op_type
    integers = state.integers and op not in _ENDS_INTEGERS
    if op == "Cast" and integers:
        integers = _is_integer_type(int(attribute(node, "to", 0)))
    axes = _axes_through(state, node, slot)
    if op in _SOURCES_OF_VALUES and (
        (slots := _SOURCES_OF_VALUES[op]) is None or slot in slots
    ):
        exact = state.exact and not (
            op == "Cast" and attribute(node, "to", 0) == onnx.TensorProto.BOOL
        )
        # Max and Min with a constant clip: values outside are moved inside, so nothing is demanded
        # of them.
        if op in ("Max", "Min") and any(
            state.scope.is_constant(name) for name in node.input
        ):
            exact = integers = False
        after = replace(state, axes=axes, exact=exact, integers=integers)
    elif _is_part_of_choice(state.scope, node, slot):
        after = replace(state, axes=axes, integers=integers)
    elif (shifted := _shifted(state, node, slot)) is not None:
        after = replace(shifted, axes=axes, integers=integers)
    else:
        after = replace(state, axes=axes, exact=False, integers=integers and op != "Clip")
    moved = op in _SOURCES_OF_VALUES and op not in ("Cast", "Max", "Min") and after.exact
    after = replace(
        after, steps=state.steps if moved else stepped(state.steps, state.scope, node, slot)
    )
    moves = op in MOVES and (slot == 0 or op == "Concat")
    after = replace(after, linear=state.linear and (moves or op in _LINEAR))
    matters = (
        after.exact
        or after.integers
        or after.linear
        or after.axes is not None
        or after.steps is not None
    )
    return after if matters else None


def _is_part_of_choice(scope: Scope, node: onnx.NodeProto, slot: int) -> bool:
    """Return whether a node is part of a Where that is spelt out as ``truth * a + other * b``.

    tf2onnx writes it so for integers, as of an index that counts from the end where it's negative.
    """
    if len(node.input) != 2:
        return False
    other = node.input[1 - slot]
    if node.op_type == "Mul":
        return _is_truth(scope, other)
    if node.op_type != "Add":
        return False
    makers = [scope.producers.get(name) for name in node.input]
    return all(
        maker is not None
        and maker.op_type == "Mul"
        and any(_is_truth(scope, name) for name in maker.input)
        for maker in makers
    )


def _is_truth(scope: Scope, name: str) -> bool:
    """Return whether a number is 0 or 1, since a truth value was cast to it."""
    cast = scope.producers.get(name)
    if cast is None or cast.op_type != "Cast":
        return False
    maker = scope.producers.get(cast.input[0])
    return maker is not None and maker.op_type in _TRUTHS


def _shifted(state: State, node: onnx.NodeProto, slot: int) -> State | None:
    """Through Add, Sub and Mul with a constant number, the values stay known."""
    if not state.exact or node.op_type not in ("Add", "Sub", "Mul") or len(node.input) != 2:
        return None
    constant = state.scope.constant(node.input[1 - slot])
    if constant is None or constant.size != 1 or constant.dtype.kind not in "iuf":
        return None
    number = float(constant.reshape(-1)[0])
    if node.op_type == "Add":
        return replace(state, offset=state.offset + number)
    if node.op_type == "Sub":
        if slot == 0:
            return replace(state, offset=state.offset - number)
        return replace(state, scale=-state.scale, offset=number - state.offset)
    return (
        replace(state, scale=state.scale * number, offset=state.offset * number)
        if number
        else None
    )


def moved_back(demand: Demand, state: State) -> Demand:
    """The same demand, on the input's own values."""
    if (state.scale, state.offset) == (1.0, 0.0):
        return demand
    if (
        demand.kind is Kind.BOUND
        and demand.dim is not None
        and (state.scale, state.offset, demand.low) == (1, -1, 0)
    ):
        return Demand(Kind.LENGTH, f"less 1, {demand.why}", dim=demand.dim)
    if demand.kind is not Kind.BOUND or demand.dim is not None:
        # A dimension's size isn't known yet, so its bound can't be moved; a small value does.
        return demand if demand.kind is not Kind.BOUND else Demand(Kind.LOOSE, demand.why)
    ends = []
    for end in (demand.low, demand.high):
        ends.append(None if end is None else (end - state.offset) / state.scale)
    low, high = ends if state.scale > 0 else reversed(ends)
    return replace(demand, low=low, high=high)


def _axes_through(state: State, node: onnx.NodeProto, slot: int) -> tuple[int, ...] | None:
    axes, op = state.axes, node.op_type
    if axes is None or (slot != 0 and op not in ("Add", "Mul", "Sub", "Div")):
        return None
    if op == "Transpose":
        perm = list(attribute(node, "perm", range(len(axes))[::-1]))
        return (
            tuple(axes[axis] for axis in perm)
            if sorted(perm) == list(range(len(axes)))
            else None
        )
    if op in ("Unsqueeze", "Squeeze"):
        attribute_axes = attribute(node, "axes", None)
        if attribute_axes is None and len(node.input) > 1:
            constant = state.scope.constant(node.input[1])
            attribute_axes = None if constant is None else constant.reshape(-1).tolist()
        return (
            None
            if attribute_axes is None
            else _reranked(
                axes, [int(axis) for axis in attribute_axes], insert=op == "Unsqueeze"
            )
        )
    if op not in _KEEPS_AXES:
        return None
    if op in ("Add", "Sub", "Mul", "Div", "Pow") and len(node.input) == 2:
        # Broadcasting may put axes in front; only operands that can't do that are followed.
        shape = state.scope.shape(node.input[1 - slot])
        return axes if shape is not None and len(shape) <= len(axes) else None
    return axes


def _reranked(
    axes: tuple[int, ...], new_axes: list[int], *, insert: bool
) -> tuple[int, ...] | None:
    rank = len(axes) + (len(new_axes) if insert else 0)
    places = {axis % rank for axis in new_axes} if rank else set()
    if insert:
        remaining = iter(axes)
        if len(places) < len(new_axes):
            return None
        return tuple(-1 if place in places else next(remaining) for place in range(rank))
    return tuple(axis for place, axis in enumerate(axes) if place not in places)


def outward(state: State) -> Iterator[State]:
    """Go from the output of a body to the output of the node whose body it is.

    From a loop's body it goes back to the loop's start too.
    """
    if state.name not in state.scope.outputs or state.scope.owner is None:
        return
    scope, node = state.scope.owner
    for number, name in enumerate(state.scope.outputs):
        if name != state.name:
            continue
        place = number - 1 if node.op_type == "Loop" else number
        if 0 <= place < len(node.output) and node.output[place]:
            axes = state.axes if node.op_type == "If" else None
            yield replace(state, scope=scope, name=node.output[place], axes=axes)
        if node.op_type == "Loop" and 0 < number + 1 < len(state.scope.inputs):
            yield replace(state, name=state.scope.inputs[number + 1], axes=None)


def _is_integer_type(elem_type: int) -> bool:
    return elem_type != onnx.TensorProto.UNDEFINED and np.issubdtype(
        onnx.helper.tensor_dtype_to_np_dtype(elem_type), np.integer
    )
