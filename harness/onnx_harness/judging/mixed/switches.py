"""A float32 model in which every node's precision is a switch.

One session answers every mix of precisions.

Each value that a node of the conversion would read or make in the half type passes ``Where(switch,
Cast32(Cast16(x)), x)``, and the switches are an input of the graph. So a search over thousands of
mixes costs runs, and no conversion and no session. A value is rounded where its maker computes in
the half type, or where the reader does, as in the converted model. Weights are rounded in the
graph: none is copied, but for those that the conversion clamps. It has to run with ONNX Runtime's
optimizations disabled, which leave such Casts out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.plan import Plan
from onnx_harness.transforms.half.schemas import FLOAT
from onnx_harness.transforms.half.steps import Scope, Step

MASK = "onnx_harness_switches"
_PREFIX = "onnx_harness_mixed"
_WHERE_SINCE = 9
_FIRST_BODY_OUTPUT = {"If": 0, "Loop": 1, "Scan": 0}

Condition = frozenset[int]
_Place = tuple[int, int]  # of a node: its graph, and its place in that


@dataclass(frozen=True, slots=True)
class Switched:
    """A model with switches.

    Attributes:
        model: takes ``MASK``, a boolean for each condition, beside its own inputs.
        labels: of the nodes that can be switched, as a block list calls them, in the order of the
            graph.
        ops: their operators.
        inside: by the place of a node that holds graphs, the places of the nodes in them: they
            follow it.
        conditions: the nodes of which one in the half type rounds, in the order of the mask's
            elements.
    """

    model: onnx.ModelProto
    labels: tuple[str, ...]
    ops: tuple[str, ...]
    inside: dict[int, frozenset[int]]
    conditions: tuple[Condition, ...]

    def closed(self, float32: Iterable[int]) -> frozenset[int]:
        """Return the places of nodes in float32 with those that follow.

        All inside a Loop that stays float32.
        """
        places = set(float32)
        for place, followers in self.inside.items():
            if place in places:
                places |= followers
        return frozenset(places)

    def mask(self, float32: Iterable[int]) -> npt.NDArray[np.bool_]:
        """Return the switches for a mix.

        Args:
            float32: places of the nodes that stay float32.
        """
        places = self.closed(float32)
        return np.array([not condition <= places for condition in self.conditions], bool)


def atoms_of(plan: Plan) -> dict[str, int]:
    """Return the place of each node that can be switched, by what a block list calls it."""
    places: dict[str, int] = {}
    for step in plan.reading.floating:
        if plan.converted(step):
            places.setdefault(plan.label(step), len(places))
    return places


def switched(
    plan: Plan, clamped: Callable[[onnx.TensorProto], onnx.TensorProto | None]
) -> Switched:
    """Put the switches into a model.

    Args:
        plan: the conversion; its model is changed.
        clamped: gives a float32 tensor of what the conversion makes of a weight, where that is more
            than rounding.
    """
    return _Wiring(plan, clamped).write()


@dataclass(slots=True)
class _Wiring:
    """Writes the switches, scope by scope."""

    plan: Plan
    clamped: Callable[[onnx.TensorProto], onnx.TensorProto | None]
    _atoms: dict[str, int] = field(default_factory=dict)
    _conditions: dict[Condition, int] = field(default_factory=dict)
    _raw: dict[str, str] = field(default_factory=dict)
    _halves: dict[str, str] = field(default_factory=dict)
    _mixed: dict[tuple[str, Condition, int], str] = field(default_factory=dict)
    _before: dict[_Place, list[onnx.NodeProto]] = field(default_factory=dict)
    _after: dict[_Place, list[onnx.NodeProto]] = field(default_factory=dict)
    _first: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)
    _last: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)
    _count: int = 0

    def write(self) -> Switched:
        reading = self.plan.reading
        self._atoms = atoms_of(self.plan)
        steps = [step for step in reading.floating if self.plan.converted(step)]
        for step in steps:
            self._switch_outputs(step)
        for step in steps:
            self._switch_inputs(step)
            if step.bodies:
                self._switch_results(step)
        for scope in reversed(reading.scopes):  # a graph is copied with those inside it
            self._rewrite(scope)
        self._add_mask()
        labels = tuple(self._atoms)
        ops = {self._atoms[self.plan.label(step)]: step.node.op_type for step in steps}
        inside = {}
        for step in steps:
            if step.bodies:
                inside[self._atoms[self.plan.label(step)]] = frozenset(self._places_in(step))
        return Switched(
            self.plan.model,
            labels,
            tuple(ops[place] for place in range(len(labels))),
            inside,
            tuple(self._conditions),
        )

    def _atom(self, step: Step) -> int:
        return self._atoms[self.plan.label(step)]

    def _places_in(self, step: Step) -> Iterable[int]:
        for body in step.bodies:
            for inner in body.steps:
                if self.plan.label(inner) in self._atoms and self.plan.converted(inner):
                    yield self._atom(inner)
                yield from self._places_in(inner)

    # Values.

    def _switch_outputs(self, step: Step) -> None:
        """Let what a node makes be rounded where the node computes in the half type."""
        if step.bodies:  # its graphs' results are
            return
        for place in self.plan.half_outputs(step):
            name = step.outs[place]
            raw = self._name("raw")
            step.node.output[place] = raw
            self._raw[name] = raw
            after = self._after.setdefault(_at(step), [])
            half = self._rounded(raw, after)
            self._halves[name] = half
            self._choose(frozenset({self._atom(step)}), half, raw, name, after)

    def _switch_inputs(self, step: Step) -> None:
        for place in self.plan.half_inputs(step):
            step.node.input[place] = self._as_read(step.ins[place], self._atom(step), step)

    def _as_read(self, name: str, atom: int, step: Step) -> str:
        """Return what a node reads for a value.

        Rounded where its maker or the node computes in the half type.
        """
        maker = self.plan.maker(name)
        condition = frozenset({atom})
        if name in self._raw and isinstance(maker, Step):
            condition |= {self._atom(maker)}
        key = (name, condition, id(step.scope))
        if key not in self._mixed:
            before = self._before.setdefault(_at(step), [])
            half = self._half_of(name, maker, step, before)
            self._mixed[key] = self._name("mixed")
            self._choose(
                condition, half, self._raw.get(name, name), self._mixed[key], before
            )
        return self._mixed[key]

    def _half_of(
        self, name: str, maker: Step | Scope, reader: Step, before: list[onnx.NodeProto]
    ) -> str:
        """Return the name of a value rounded to the half type.

        It's made once where every reader sees it.
        """
        if name in self._halves:
            return self._halves[name]
        scope = maker if isinstance(maker, Scope) else maker.scope
        if isinstance(maker, Step):
            target = self._after.setdefault(_at(maker), [])
        elif scope is reader.scope:
            target = before  # as late as possible: a rounded weight takes memory
        else:
            target = self._first.setdefault(id(scope), [])
        tensor = self._weight(name, maker)
        clamped = None if tensor is None else self.clamped(tensor)
        if clamped is None:
            self._halves[name] = self._rounded(name, target)
        else:
            self._halves[name] = clamped.name = self._name("clamped")
            scope.graph.initializer.append(clamped)
        return self._halves[name]

    def _weight(self, name: str, maker: Step | Scope) -> onnx.TensorProto | None:
        if isinstance(maker, Step):
            return maker.tensor
        # A default stays a float32 input, which is cast: nothing clamps it.
        return self.plan.reading.initializers.get(name)

    def _switch_results(self, step: Step) -> None:
        """Let the results of a node's graphs be rounded where the node is of the half type.

        What goes round in a loop is rounded, too.
        """
        first = _FIRST_BODY_OUTPUT[step.op]
        atom = self._atom(step)
        for body in step.bodies:
            last = self._last.setdefault(id(body), [])
            for place, info in enumerate(body.results):
                name = body.outputs[place]
                if (
                    place < first
                    or place in body.exact
                    or self.plan.reading.types.get(name) != FLOAT
                ):
                    continue
                half = self._halves.get(name) or self._rounded(name, last)
                maker = self.plan.maker(name)
                condition = frozenset({atom})
                if name in self._raw and isinstance(maker, Step):
                    condition |= {self._atom(maker)}
                result = self._name("result")
                self._choose(condition, half, self._raw.get(name, name), result, last)
                info.name = result

    # Nodes.

    def _rounded(self, name: str, target: list[onnx.NodeProto]) -> str:
        half, back = self._name("half"), self._name("rounded")
        target.append(helper.make_node("Cast", [name], [half], to=self.plan.halving.half))
        target.append(helper.make_node("Cast", [half], [back], to=FLOAT))
        return back

    def _choose(
        self,
        condition: Condition,
        half: str,
        single: str,
        name: str,
        target: list[onnx.NodeProto],
    ) -> None:
        switch = self._switch(condition)
        if self.plan.opset >= _WHERE_SINCE:
            target.append(helper.make_node("Where", [switch, half, single], [name]))
            return
        branches = {}
        for branch, source in (("then_branch", half), ("else_branch", single)):
            result = self._name("branch")
            info = onnx.ValueInfoProto(name=result)
            info.type.tensor_type.elem_type = FLOAT
            node = helper.make_node("Identity", [source], [result])
            branches[branch] = helper.make_graph([node], result, [], [info])
        target.append(helper.make_node("If", [switch], [name], **branches))

    def _switch(self, condition: Condition) -> str:
        place = self._conditions.setdefault(condition, len(self._conditions))
        return f"{MASK}_{place}"

    def _rewrite(self, scope: Scope) -> None:
        graph = scope.graph
        nodes = list(self._first.get(id(scope), ()))
        for step in scope.steps:
            nodes += self._before.get(_at(step), ())
            nodes.append(step.node)
            nodes += self._after.get(_at(step), ())
        nodes += self._last.get(id(scope), ())
        copies = [_copy(node) for node in nodes]
        graph.ClearField("node")
        graph.node.extend(copies)
        graph.ClearField("value_info")

    def _add_mask(self) -> None:
        graph = self.plan.model.graph
        gathers = []
        for place in range(len(self._conditions)):
            index = f"{MASK}_index_{place}"
            graph.initializer.append(
                numpy_helper.from_array(np.array(place, np.int64), index)
            )
            gathers.append(helper.make_node("Gather", [MASK, index], [f"{MASK}_{place}"]))
        nodes = [*gathers, *map(_copy, graph.node)]
        graph.ClearField("node")
        graph.node.extend(nodes)
        self.plan.model.ir_version = max(self.plan.model.ir_version, FREE_INITIALIZERS)
        graph.input.append(
            helper.make_tensor_value_info(MASK, TensorProto.BOOL, [len(self._conditions)])
        )

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{_PREFIX}_{stem}_{self._count}"


def _at(step: Step) -> _Place:
    return id(step.scope), step.index


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def through_moves(plan: Plan, name: str) -> str:
    """Return the value that one is moved from, unchanged but for its places."""
    maker = plan.maker(name)
    while isinstance(maker, Step) and maker.op in MOVES and maker.ins:
        name = maker.ins[0]
        maker = plan.maker(name)
    return name
