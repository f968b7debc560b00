"""Sums that a Loop or a Scan carries from one iteration to the next: they stop growing in float16.

A sum kept in float16 loses what is below a 2048th of it, as a CumSum does, which stays float32 for
that. So does the state that only sums are carried in, also where they decay by a constant, or the
greatest of them are carried on, as scores of beams or of a Viterbi path are; what else the body
computes doesn't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.constants import constant_behind
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import FLOAT
from onnx_harness.transforms.half.steps import Scope, Step

FIRST_BODY_INPUT: Mapping[str, int] = {"If": 0, "Loop": 2, "Scan": 0}
"""The place, among the inputs of a node and of its body, of the first value that the body takes."""

_FIRST_STATE_OUTPUT = {"Loop": 1, "Scan": 0}
_ADDS = frozenset({"Add", "Sub", "Sum"})
_CHOOSES = frozenset({"Max", "Min", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "TopK"})
_CARRIES = _ADDS | _CHOOSES | MOVES
_SCALES = frozenset({"Div", "Mul"})


@dataclass(frozen=True, slots=True)
class RunningSums:
    """The running sums of a model.

    Attributes:
        states: of each Loop or Scan that has some, their places among its states.
        steps: what adds to them, and what moves them from there to the end of the body.
    """

    states: Mapping[Step, frozenset[int]]
    steps: frozenset[Step]

    def inputs(self, step: Step) -> frozenset[int]:
        """Return the places of the sums among the inputs of a node, and among those of its body."""
        first = FIRST_BODY_INPUT[step.op] if step in self.states else 0
        return frozenset(first + place for place in self.states.get(step, ()))

    def outputs(self, step: Step) -> frozenset[int]:
        """Return the places of the sums among the outputs of a node."""
        return self.states.get(step, frozenset())

    def body_outputs(self, step: Step) -> frozenset[int]:
        """Return the places of the sums among the outputs of the body of a node."""
        first = _FIRST_STATE_OUTPUT[step.op] if step in self.states else 0
        return frozenset(first + place for place in self.states.get(step, ()))


NO_SUMS = RunningSums({}, frozenset())


def running_sums(reading: Reading) -> RunningSums:
    """Return the states of Loops and Scans that are sums of themselves and something else.

    They're float32.
    """
    states: dict[Step, frozenset[int]] = {}
    steps: set[Step] = set()
    for step in reading.floating_of(_FIRST_STATE_OUTPUT.keys()):
        if len(step.bodies) != 1:
            continue
        (body,) = step.bodies
        places = set()
        for place in range(_count_of_states(step)):
            path = _path_of_sum(reading, step, body, place)
            if path:
                places.add(place)
                steps |= path
        if places:
            states[step] = frozenset(places)
    return RunningSums(states, frozenset(steps))


def _count_of_states(step: Step) -> int:
    if step.op == "Loop":
        return len(step.ins) - FIRST_BODY_INPUT["Loop"]
    scanned = []
    for attribute in step.node.attribute:
        if attribute.name == "num_scan_inputs":
            scanned.append(attribute.i)
    return len(step.ins) - (scanned[0] if scanned else 0)


def _path_of_sum(reading: Reading, step: Step, body: Scope, place: int) -> set[Step]:
    """Return what adds to the state at a place; nothing where it isn't a sum."""
    source = FIRST_BODY_INPUT[step.op] + place
    result = _FIRST_STATE_OUTPUT[step.op] + place
    if source >= len(body.inputs) or result >= len(body.outputs):
        return set()
    state = body.inputs[source]
    if reading.types[state] != FLOAT:
        return set()
    path: set[Step] = set()
    leads = {state}
    for inner in body.steps:
        if leads.isdisjoint(inner.ins):
            continue
        if inner.op in _CARRIES or (
            inner.op in _SCALES and _scales(reading, inner, leads, body)
        ):
            leads.update(out for out in inner.outs if reading.types[out] == FLOAT)
            path.add(inner)
    needed, end = {body.outputs[result]}, set()
    for inner in reversed(body.steps):
        if inner in path and not needed.isdisjoint(inner.outs):
            needed.update(name for name in inner.ins if name in leads)
            end.add(inner)
    return end if state in needed and any(inner.op in _ADDS for inner in end) else set()


def _scales(reading: Reading, step: Step, leads: set[str], body: Scope) -> bool:
    """Return whether a step multiplies the state by the same number in each iteration."""
    for name in step.ins:
        maker = reading.makers.get(name)
        if name in leads or constant_behind(reading, name) is not None:
            continue
        if (
            maker is None
            or maker is body
            or (isinstance(maker, Step) and maker.scope is body)
        ):
            return False
    return step.op == "Mul" or step.ins[0] in leads
