"""Follow an input forward through the graph.

It ends at the operators that restrict its values or its sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.controls import Steps, among, compared, stepped
from onnx_harness.inputs.graph.demands import Demand, Kind, demands_of
from onnx_harness.inputs.graph.scopes import GraphView, Scope
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.model.ops import MOVES

# consumers looked at for one input; what a large graph hides beyond that is left to the search
_MOST_STEPS = 5000

_SHORT = 16  # elements of a vector of options, each with a meaning of its own
_MASKING = 1000.0  # a factor beyond it takes a position out of a softmax

# The output holds (some of) the input's values, elsewhere or in another shape; the slots that are
# the data.
_SOURCES_OF_VALUES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(
        (
            *MOVES,
            *(
                "Cast",
                "CastLike",
                "Dropout",
                "Pad",
                "Compress",
                "Trilu",
                "ReverseSequence",
                "Unique",
                "TopK",
            ),
            *(
                "SequenceAt",
                "SplitToSequence",
                "ConcatFromSequence",
                "Optional",
                "OptionalGetElement",
            ),
            *("ReduceMax", "ReduceMin", "ArrayFeatureExtractor", "StringNormalizer", "Tokenizer"),
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
            "HardSigmoid",
            "HardSwish",
            "Softmax",
            "Reciprocal",
        ),
        *(
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "PRelu",
            "BatchNormalization",
            "LayerNormalization",
            "Pad",
        ),
    }
)
# What integers become when they go through these isn't an index any more.
_ENDS_INTEGERS = frozenset(
    {
        *(
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
        ),
        *(
            "LessOrEqual",
            "GreaterOrEqual",
            "And",
            "Or",
            "Not",
            "OneHot",
            "IsNaN",
            "IsInf",
            "EmbedLayerNormalization",
        ),
        *("Mod", "BitwiseAnd", "MatMulInteger", "ConvInteger", "DequantizeLinear"),
    }
)


@dataclass(frozen=True, slots=True)
class AxisDemand:
    """A size that an axis of an input must or should have.

    Attributes:
        axis: of the input.
        why: the end of a sentence.
        size: the only size that works, when a weight fixes it.
        at_least: the least size that works.
        step: a stride along the axis; sizes that differ by less may do the same.
        meaning: ``sequence`` or ``batch``, where an operator gives the axis one.
    """

    axis: int
    why: str
    size: int | None = None
    at_least: int | None = None
    step: int = 1
    meaning: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """The walk's findings about one input.

    Attributes:
        demands: on its values.
        axes: on its sizes.
        rank: the rank that a consumer needs, where the graph declares none.
        is_signal: whether it reaches a one-dimensional convolution or a transform: its last axis is
            time.
    """

    demands: tuple[Demand, ...] = ()
    axes: tuple[AxisDemand, ...] = ()
    rank: int | None = None
    is_signal: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    """One value on the way: the input's values v have become ``scale * v + offset``, if ``exact``.

    Attributes:
        axes: which axis of the input each axis is (-1: none of them); None when that's lost.
        steps: what has become of each of the input's numbers on the way; None where that's lost.
        integers: whether it still consists of integers that came from the input.
    """

    scope: Scope
    name: str
    exact: bool
    integers: bool
    scale: float = 1.0
    offset: float = 0.0
    axes: tuple[int, ...] | None = None
    steps: Steps | None = None
    element: int | None = None


def follow(view: GraphView, entry: Input) -> Findings:
    """Walk from ``entry`` to everything it reaches, subgraphs and functions included."""
    walk = _Walk(view, entry)
    walk.run()
    return Findings(
        tuple(dict.fromkeys(walk.demands)), tuple(dict.fromkeys(walk.axes)), walk.rank, walk.signal
    )


class _Walk:
    def __init__(self, view: GraphView, entry: Input) -> None:
        self.view = view
        self.entry = entry
        self.demands: list[Demand] = []
        self.axes: list[AxisDemand] = []
        self.rank: int | None = None
        self.signal = False
        # Whether a scalar: those are what models compare with constants.
        self.scalar = entry.dims is not None and all(dim == 1 for dim in entry.dims)

    def run(self) -> None:
        axes = None if self.entry.dims is None else tuple(range(len(self.entry.dims)))
        integers = self.entry.is_integer
        todo = [_State(self.view.main, self.entry.name, True, integers, axes=axes, steps=())]
        seen: set[tuple[int, str, bool]] = set()
        steps = 0
        while todo and steps < _MOST_STEPS:
            state = todo.pop()
            if (key := (id(state.scope), state.name, state.exact)) in seen:
                continue
            seen.add(key)
            for scope, node, slot in state.scope.consumers(state.name):
                steps += 1
                here = replace(state, scope=scope)
                self._collect(here, node, slot)
                todo.extend(self._onward(here, node, slot))
            todo.extend(_outward(state))

    def _collect(self, state: _State, node: onnx.NodeProto, slot: int) -> None:
        if (
            node.op_type == "Cast"
            and attribute(node, "to", 0) == onnx.TensorProto.BOOL
            and state.exact
        ):
            self.demands.append(Demand(Kind.MASK, f"it becomes a truth value in {label(node)}"))
        # "1 - mask" in front of a large negative factor is how attention masks are applied.
        if node.op_type == "Sub" and slot == 1 and self.entry.is_integer and state.exact:
            condition = state.scope.constant(node.input[0])
            if (
                condition is not None
                and condition.size == 1
                and float(condition.reshape(-1)[0]) == 1.0
                and not self.scalar
            ):
                self.demands.append(
                    Demand(Kind.MASK, f"it is subtracted from 1, as a mask is, in {label(node)}")
                )
        if (
            node.op_type == "Mul"
            and (state.exact, state.scale, state.offset) == (True, -1, 1)
            and not self.scalar
        ):
            factor = state.scope.constant(node.input[1 - slot])
            if (
                factor is not None
                and factor.size == 1
                and float(factor.reshape(-1)[0]) <= -_MASKING
            ):
                self.demands.append(
                    Demand(
                        Kind.MASK,
                        f"1 less it is made very negative, as with masks, in {label(node)}",
                    )
                )
        if self.scalar or state.element is not None:
            for choice in compared(state.steps, state.scope, node, slot, self.entry):
                self.demands.append(replace(choice, element=state.element))
        else:
            self.demands += among(state.steps, state.scope, node, slot, self.entry)
        for demand in demands_of(
            state.scope, node, slot, integers=state.integers, scalar=self.scalar and state.exact
        ):
            self._note(demand, state)
        self._axis_demands(state, node, slot)

    def _note(self, demand: Demand, state: _State) -> None:
        if state.exact:
            self.demands.append(_moved_back(demand, state))
        elif demand.kind in (Kind.BOUND, Kind.LOOSE, Kind.SHAPE, Kind.LENGTH) and state.integers:
            self.demands.append(Demand(Kind.LOOSE, demand.why))
        elif demand.kind is Kind.NONZERO and state.integers:
            self.demands.append(demand)

    def _onward(self, state: _State, node: onnx.NodeProto, slot: int) -> Iterator[_State]:
        """Where the value goes on to from ``node``: its outputs, or the body of what it calls."""
        if (body := self.view.called(state.scope, node)) is not None:
            if slot < len(body.inputs):
                yield replace(state, scope=body, name=body.inputs[slot])
            return
        if node.op_type in ("Loop", "Scan"):
            for child in state.scope.children:
                if child.owner is not None and child.owner[1] is node and slot < len(child.inputs):
                    yield replace(state, scope=child, name=child.inputs[slot], axes=None)
            return
        after = _through(state, node, slot)
        if after is None:
            return
        if (element := self._picked(state, node, slot)) is not None:
            after = replace(after, steps=(), element=element)
        # Of TopK and Unique only the first output holds values.
        outputs = node.output if node.op_type in ("Split", "Dropout") else node.output[:1]
        for name in filter(None, outputs):
            yield replace(after, name=name)

    def _picked(self, state: _State, node: onnx.NodeProto, slot: int) -> int | None:
        """Return which element of a short vector ``node`` picks, if it does that."""
        dims = self.entry.dims
        if (
            node.op_type != "Gather"
            or slot != 0
            or dims is None
            or len(dims) != 1
            or state.axes != (0,)
        ):
            return None
        untouched = state.exact and (state.scale, state.offset) == (1, 0)
        index = state.scope.constant(node.input[1])
        if (
            not untouched
            or not isinstance(dims[0], int)
            or dims[0] > _SHORT
            or index is None
            or index.size != 1
        ):
            return None
        return int(index.reshape(-1)[0]) % dims[0]

    def _axis_demands(self, state: _State, node: onnx.NodeProto, slot: int) -> None:
        where = f"in {label(node)}"
        weight = state.scope.shape(node.input[1]) if len(node.input) > 1 else None
        fixed = weight is not None and state.scope.is_constant(node.input[1])
        sizes = [dim for dim in weight or () if isinstance(dim, int)] if fixed else []
        op = node.op_type
        if op == "Conv" and slot == 0 and len(sizes) >= 3:
            self._convolution(state, node, sizes, where)
        elif (
            op in ("MatMul", "MatMulInteger", "MatMulNBits")
            and slot == 0
            and len(sizes) >= 2
            and op != "MatMulNBits"
        ):
            self._need(
                state, -1, sizes[-2], f"it is multiplied by the weight '{node.input[1]}' {where}"
            )
            self._rank(state, 2)
        elif op == "Gemm" and slot == 0 and len(sizes) == 2:
            axis = 0 if attribute(node, "transA", 0) else 1
            self._need(
                state,
                axis,
                sizes[1 if attribute(node, "transB", 0) else 0],
                f"the weight is that long {where}",
            )
            self._rank(state, 2)
        elif op in ("LSTM", "GRU", "RNN") and len(sizes) == 3:
            if slot == 0:
                first, second = (
                    ("batch", "sequence") if attribute(node, "layout", 0) else ("sequence", "batch")
                )
                for place, meaning in enumerate((first, second)):
                    if (origin := _origin(state, place)) is not None:
                        self.axes.append(
                            AxisDemand(origin, f"it is the {meaning} {where}", meaning=meaning)
                        )
                self._need(state, 2, sizes[2], f"the weight takes that many features {where}")
                self._rank(state, 3)
            elif slot in (5, 6):
                self._need(state, 0, sizes[0], f"there are that many directions {where}")
                self._need(
                    state,
                    2,
                    int(attribute(node, "hidden_size", 0)) or None,
                    f"the state is that wide {where}",
                )
                self._rank(state, 3)
        elif op == "BatchNormalization" and slot == 0 and len(sizes) == 1:
            self._need(state, 1, sizes[0], f"there are that many channels {where}")
        elif op == "LayerNormalization" and slot == 0 and len(sizes) == 1:
            self._need(state, -1, sizes[0], f"the scale is that long {where}")
        elif op in ("DFT", "STFT", "MelWeightMatrix") and slot == 0:
            self.signal = True

    def _convolution(
        self, state: _State, node: onnx.NodeProto, weight: list[int], where: str
    ) -> None:
        group = int(attribute(node, "group", 1))
        self._need(state, 1, weight[1] * group, f"the weight takes that many channels {where}")
        self._rank(state, len(weight))
        kernel, strides = weight[2:], attribute(node, "strides", [1] * (len(weight) - 2))
        dilations = attribute(node, "dilations", [1] * len(kernel))
        self.signal = self.signal or (len(kernel) == 1 and kernel[0] >= 16)
        for number, size in enumerate(kernel):
            axis = _origin(state, number + 2)
            if axis is not None:
                reach = (size - 1) * int(dilations[number]) + 1
                why = f"a kernel of {size} with stride {strides[number]} slides over it {where}"
                self.axes.append(AxisDemand(axis, why, at_least=reach, step=int(strides[number])))

    def _need(self, state: _State, axis: int, size: int | None, why: str) -> None:
        if (origin := _origin(state, axis)) is not None and size:
            self.axes.append(AxisDemand(origin, why, size=size))

    def _rank(self, state: _State, rank: int) -> None:
        if self.entry.dims is None and state.exact:
            self.rank = self.rank or rank


def _origin(state: _State, axis: int) -> int | None:
    if state.axes is None or not -len(state.axes) <= axis < len(state.axes) or state.axes[axis] < 0:
        return None
    return state.axes[axis]


def _through(state: _State, node: onnx.NodeProto, slot: int) -> _State | None:
    """The value behind ``node``, or None when nothing that matters is left of it."""
    op = node.op_type
    integers = state.integers and op not in _ENDS_INTEGERS
    if op == "Cast" and integers:
        integers = _is_integer_type(int(attribute(node, "to", 0)))
    axes = _axes_through(state, node, slot)
    if op in _SOURCES_OF_VALUES and ((slots := _SOURCES_OF_VALUES[op]) is None or slot in slots):
        exact = state.exact and not (
            op == "Cast" and attribute(node, "to", 0) == onnx.TensorProto.BOOL
        )
        # Max and Min with a constant clip: values outside are moved inside, so nothing is demanded
        # of them.
        if op in ("Max", "Min") and any(state.scope.is_constant(name) for name in node.input):
            exact = integers = False
        after = replace(state, axes=axes, exact=exact, integers=integers)
    elif (shifted := _shifted(state, node, slot)) is not None:
        after = replace(shifted, axes=axes, integers=integers)
    else:
        after = replace(state, axes=axes, exact=False, integers=integers and op != "Clip")
    moved = op in _SOURCES_OF_VALUES and op not in ("Cast", "Max", "Min") and after.exact
    after = replace(
        after, steps=state.steps if moved else stepped(state.steps, state.scope, node, slot)
    )
    return (
        after
        if after.exact or after.integers or after.axes is not None or after.steps is not None
        else None
    )


def _shifted(state: _State, node: onnx.NodeProto, slot: int) -> _State | None:
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
        replace(state, scale=state.scale * number, offset=state.offset * number) if number else None
    )


def _moved_back(demand: Demand, state: _State) -> Demand:
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


def _axes_through(state: _State, node: onnx.NodeProto, slot: int) -> tuple[int, ...] | None:
    axes, op = state.axes, node.op_type
    if axes is None or (slot != 0 and op not in ("Add", "Mul", "Sub", "Div")):
        return None
    if op == "Transpose":
        perm = list(attribute(node, "perm", range(len(axes))[::-1]))
        return (
            tuple(axes[axis] for axis in perm) if sorted(perm) == list(range(len(axes))) else None
        )
    if op in ("Unsqueeze", "Squeeze"):
        attribute_axes = attribute(node, "axes", None)
        if attribute_axes is None and len(node.input) > 1:
            constant = state.scope.constant(node.input[1])
            attribute_axes = None if constant is None else constant.reshape(-1).tolist()
        return (
            None
            if attribute_axes is None
            else _reranked(axes, [int(axis) for axis in attribute_axes], insert=op == "Unsqueeze")
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
        return (
            tuple(-1 if place in places else next(remaining) for place in range(rank))
            if len(places) == len(new_axes)
            else None
        )
    return tuple(axis for place, axis in enumerate(axes) if place not in places)


def _outward(state: _State) -> Iterator[_State]:
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
