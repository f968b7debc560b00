"""A conversion to a half type before it is written.

Which node would read and make which value in it.

Whoever looks for the nodes to keep in float32 asks this, so that the search knows of the conversion
what the conversion itself decides, and spells none of its rules again.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import MOVES, imports_standard, opset_of
from onnx_harness.transforms.half import contrib
from onnx_harness.transforms.half.decide import Halving
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.requests import Request
from onnx_harness.transforms.half.running_sums import FIRST_BODY_INPUT
from onnx_harness.transforms.half.schemas import DEFAULT_OP_BLOCK_LIST, EITHER, FLOAT
from onnx_harness.transforms.half.steps import Scope, Step
from onnx_harness.transforms.half.unfuse import unfuse
from onnx_harness.transforms.half.weights import Rounder

_MADE_IN_EITHER = frozenset({"Cast", "Constant", "ConstantOfShape"})
_LAST_WORDLESS_CAST = 6  # as the conversion assumes of a model without standard operators


@dataclass(slots=True)
class Plan:
    """The decisions of a conversion about a model.

    Attributes:
        model: as it was read: functions inlined, fused operators taken apart, names of inner values
            unique.
        reading: its graphs.
        halving: what was decided.
        opset: version of the standard operators.
    """

    model: onnx.ModelProto
    reading: Reading
    halving: Halving
    opset: int

    def close(self) -> None:
        """Free the graphs that were read."""
        self.reading.close()

    def converted(self, step: Step) -> bool:
        """Return whether keeping a node in float32 is a choice.

        It computes, and it would do so in the half type.
        """
        if step.op in MOVES or step.op in _MADE_IN_EITHER:
            return False
        if step.bodies:
            return step.want != FLOAT
        return bool(self.half_inputs(step) or self.half_outputs(step))

    def half_inputs(self, step: Step) -> list[int]:
        """Return the places of the float32 inputs that a node would read in the half type."""
        first = FIRST_BODY_INPUT.get(step.op, 0) if step.bodies else 0
        wants = step.want
        places: list[int] = []
        for place, name in enumerate(step.ins):
            if (
                place >= first
                and self.reading.types[name] == FLOAT
                and (wants if isinstance(wants, int) else wants[place])
                not in (FLOAT, EITHER)
            ):
                places.append(place)
        return places

    def half_outputs(self, step: Step) -> list[int]:
        """Return the places of the float32 outputs that a node would make in the half type."""
        halves, types = self.halving.halves, self.reading.types
        places: list[int] = []
        for place, name in enumerate(step.outs):
            if name and types[name] == FLOAT and name in halves:
                places.append(place)
        return places

    def label(self, step: Step) -> str:
        """Return what a block list calls a node: see `requests.label`."""
        return step.node.name or next(
            filter(None, step.outs), ""
        )  # its outputs may have got other names by now

    def maker(self, name: str) -> Step | Scope:
        """Return what makes a value: a node, or the graph that has it as input or initializer."""
        return self.reading.makers[name]


def plan(model: onnx.ModelProto, rounder: Rounder, request: Request) -> Plan:
    """Decide what a conversion would make of a model, without converting it.

    Args:
        model: it is used up; large weights may be external data in the rounder's folder.
        rounder: of the half type; nothing is rounded.
        request: how the model would be converted.

    Raises:
        UsageError: the request names what the model doesn't have.
    """
    model = inline_functions(model, kept=request.op_block_list or ())
    opset = opset_of(model) if imports_standard(model) else _LAST_WORDLESS_CAST
    if any(entry.domain == contrib.DOMAIN for entry in model.opset_import):
        unfuse(model.graph, opset)
    blocked = frozenset(
        DEFAULT_OP_BLOCK_LIST if request.op_block_list is None else request.op_block_list
    )
    reading = Reading(model, opset, rounder.half, blocked)
    request.check(model, ())
    names = frozenset(request.node_block_list or ()) - {""}
    halving = Halving(reading, opset, rounder, request, blocked, names)
    halving.decide()
    return Plan(model, reading, halving, opset)
