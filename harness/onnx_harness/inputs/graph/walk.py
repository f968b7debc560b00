"""Follow an input forward through the graph.

It ends at the operators that restrict its values or its sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx

from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.controls import among, compared, cut_off
from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.demands import BECOMES_TRUTH, demands_of
from onnx_harness.inputs.graph.passage import State, _origin, moved_back, outward, through
from onnx_harness.inputs.graph.scopes import GraphView
from onnx_harness.inputs.graph.signature import Input

# consumers looked at for one input; what a large graph hides beyond that is left to the search
_MOST_STEPS = 5000

_SHORT = 16  # elements of a vector of options, each with a meaning of its own
_MASKING = 1000.0  # a factor beyond it takes a position out of a softmax


@dataclass(frozen=True, slots=True)
class AxisDemand:
    """A size that an axis of an input must or should have.

    Attributes:
        axis: of the input.
        why: the end of a sentence.
        size: the only size that works, when a weight fixes it.
        at_least: the least size that works.
        at_most: the greatest.
        step: a stride along the axis; sizes that differ by less may do the same.
        meaning: ``sequence`` or ``batch``, where an operator gives the axis one.
    """

    axis: int
    why: str
    size: int | None = None
    at_least: int | None = None
    at_most: int | None = None
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


def follow(view: GraphView, entry: Input) -> Findings:
    """Walk from ``entry`` to everything it reaches, subgraphs and functions included."""
    walk = _Walk(view, entry)
    walk.run()
    return Findings(
        tuple(dict.fromkeys(walk.demands)),
        tuple(dict.fromkeys(walk.axes)),
        walk.rank,
        walk.signal,
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
        first = State(self.view.main, self.entry.name, True, integers, integers)
        todo = [replace(first, axes=axes, steps=())]
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
            todo.extend(outward(state))

    def _collect(self, state: State, node: onnx.NodeProto, slot: int) -> None:
        if (
            node.op_type == "Cast"
            and attribute(node, "to", 0) == onnx.TensorProto.BOOL
            and state.exact
        ):
            self.demands.append(Demand(Kind.MASK, f"{BECOMES_TRUTH} in {label(node)}"))
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
                    Demand(
                        Kind.MASK, f"it is subtracted from 1, as a mask is, in {label(node)}"
                    )
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
        if node.op_type in ("Sin", "Cos") and state.linear:
            self.demands.append(Demand(Kind.ANGLE, f"it becomes an angle in {label(node)}"))
        if state.element is None:
            self.demands += cut_off(state.steps, state.scope, node, slot, self.entry)
        if self.scalar or state.element is not None:
            for choice in compared(state.steps, state.scope, node, slot, self.entry):
                self.demands.append(replace(choice, element=state.element))
        else:
            self.demands += among(state.steps, state.scope, node, slot, self.entry)
        for demand in demands_of(
            state.scope,
            node,
            slot,
            integers=state.integers,
            scalar=self.scalar and state.exact,
        ):
            self._note(demand, state)
        self._axis_demands(state, node, slot)

    def _note(self, demand: Demand, state: State) -> None:
        if state.exact or demand.kind is Kind.MISSING:
            self.demands.append(moved_back(demand, state))
        elif (
            demand.kind in (Kind.BOUND, Kind.LOOSE, Kind.SHAPE, Kind.LENGTH)
            and state.integers
        ):
            self.demands.append(Demand(Kind.LOOSE, demand.why))
        elif demand.kind is Kind.NONZERO and state.integers:
            self.demands.append(demand)

    def _onward(self, state: State, node: onnx.NodeProto, slot: int) -> Iterator[State]:
        """Where the value goes on to from ``node``: its outputs, or the body of what it calls."""
        if (body := self.view.called(state.scope, node)) is not None:
            if slot < len(body.inputs):
                yield replace(state, scope=body, name=body.inputs[slot])
            return
        if node.op_type in ("Loop", "Scan"):
            for child in state.scope.children:
                if (
                    child.owner is not None
                    and child.owner[1] is node
                    and slot < len(child.inputs)
                ):
                    yield replace(state, scope=child, name=child.inputs[slot], axes=None)
            return
        after = through(state, node, slot)
        if after is None:
            return
        if (element := self._picked(state, node, slot)) is not None:
            after = replace(after, steps=(), element=element)
        # Of TopK and Unique only the first output holds values.
        outputs = node.output if node.op_type in ("Split", "Dropout") else node.output[:1]
        for name in filter(None, outputs):
            yield replace(after, name=name)

    def _picked(self, state: State, node: onnx.NodeProto, slot: int) -> int | None:
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

    def _axis_demands(self, state: State, node: onnx.NodeProto, slot: int) -> None:
        where = f"in {label(node)}"
        weight = state.scope.shape(node.input[1]) if len(node.input) > 1 else None
        fixed = weight is not None and state.scope.is_constant(node.input[1])
        sizes = [dim for dim in weight or () if isinstance(dim, int)] if fixed else []
        op = node.op_type
        if op == "Conv" and slot == 0 and len(sizes) >= 3:
            self._convolution(state, node, sizes, where)
        elif op in ("MatMul", "MatMulInteger") and slot == 0 and len(sizes) >= 2:
            why = f"it is multiplied by the weight '{node.input[1]}' {where}"
            self._need(state, -1, sizes[-2], why)
            self._rank(state, 2)
        elif op == "Gemm" and slot == 0 and len(sizes) == 2:
            axis = 0 if attribute(node, "transA", 0) else 1
            long = sizes[1 if attribute(node, "transB", 0) else 0]
            self._need(state, axis, long, f"the weight is that long {where}")
            self._rank(state, 2)
        elif op in ("LSTM", "GRU", "RNN") and len(sizes) == 3:
            self._recurrence(state, node, slot, sizes, where)
        elif op == "BatchNormalization" and slot == 0 and len(sizes) == 1:
            self._need(state, 1, sizes[0], f"there are that many channels {where}")
        elif op == "LayerNormalization" and slot == 0 and len(sizes) == 1:
            self._need(state, -1, sizes[0], f"the scale is that long {where}")
        elif op in ("DFT", "STFT", "MelWeightMatrix") and slot == 0:
            self.signal = True
        elif op == "TensorScatter" and slot == 1:
            self._written(state, node, where)

    def _recurrence(
        self, state: State, node: onnx.NodeProto, slot: int, weight: list[int], where: str
    ) -> None:
        if slot == 0:
            first, second = "sequence", "batch"
            if attribute(node, "layout", 0):
                first, second = second, first
            for place, meaning in enumerate((first, second)):
                if (origin := _origin(state, place)) is not None:
                    why = f"it is the {meaning} {where}"
                    self.axes.append(AxisDemand(origin, why, meaning=meaning))
            self._need(state, 2, weight[2], f"the weight takes that many features {where}")
            self._rank(state, 3)
        elif slot in (5, 6):
            self._need(state, 0, weight[0], f"there are that many directions {where}")
            wide = int(attribute(node, "hidden_size", 0)) or None
            self._need(state, 2, wide, f"the state is that wide {where}")
            self._rank(state, 3)

    def _convolution(
        self, state: State, node: onnx.NodeProto, weight: list[int], where: str
    ) -> None:
        group = int(attribute(node, "group", 1))
        self._need(
            state, 1, weight[1] * group, f"the weight takes that many channels {where}"
        )
        self._rank(state, len(weight))
        kernel = weight[2:]
        strides = attribute(node, "strides", [1] * (len(weight) - 2))
        dilations = attribute(node, "dilations", [1] * len(kernel))
        self.signal = self.signal or (len(kernel) == 1 and kernel[0] >= 16)
        for number, size in enumerate(kernel):
            axis = _origin(state, number + 2)
            if axis is not None:
                reach = (size - 1) * int(dilations[number]) + 1
                why = f"a kernel of {size} with stride {strides[number]} slides over it {where}"
                self.axes.append(
                    AxisDemand(axis, why, at_least=reach, step=int(strides[number]))
                )

    def _written(self, state: State, node: onnx.NodeProto, where: str) -> None:
        """Steps that are written into a cache of fixed size are at most as many as that holds."""
        axis = int(attribute(node, "axis", -2))
        size = (state.scope.shape(node.input[0]) or {axis: None})[axis]
        if isinstance(size, int) and (origin := _origin(state, axis)) is not None:
            why = f"they are written into the {size} of '{node.input[0]}' {where}"
            self.axes.append(AxisDemand(origin, why, meaning="sequence", at_most=size))

    def _need(self, state: State, axis: int, size: int | None, why: str) -> None:
        if (origin := _origin(state, axis)) is not None and size:
            self.axes.append(AxisDemand(origin, why, size=size))

    def _rank(self, state: State, rank: int) -> None:
        if self.entry.dims is None and state.exact:
            self.rank = self.rank or rank
