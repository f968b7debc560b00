"""The oracle of a reduction.

It tells whether a small model fails as the large one did, and for the same cause.

A check runs the model as it is with optimizations off, then with the fault, then with each part of
the fault taken
away: it counts where the second departs as the large one did, and the third doesn't. All of it
happens in a fork.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx

from onnx_harness.diagnose.checks import answer
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.fork_server import ForkServer
from onnx_harness.diagnose.forked import manner_of
from onnx_harness.diagnose.smaller_case import Case, copied
from onnx_harness.isolate.answers import pack, unpack
from onnx_harness.results.cells import Stage

# A part of a model may depart more or less than the whole: by a tenth of it, or by a tenth of its
# norm, it is at fault.
_SHARE, _LARGE = 0.1, 0.1
# Float16 rounds everything a little: there, half of what the whole model departs by.
_SHARE_OF_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Sign:
    """The sign that a check saw.

    Attributes:
        stage: where it ended.
        manner: of the exception or the death; ``values`` or ``not finite`` where outputs depart.
        gap: relative L2 distance of the outputs; infinite where shapes or what is finite differ.
        right: the same with the fault taken away.
        controlled: whether that was right.
        reason: in words.
    """

    stage: Stage
    manner: str = ""
    gap: float = 0.0
    right: float = 0.0
    controlled: bool = True
    reason: str = ""

    @property
    def fails(self) -> bool:
        """Return whether something is at fault."""
        return self.stage is not Stage.DONE


class Observer:
    """Looks at cases in a fork, which a case may end."""

    def __init__(self, fault: Fault) -> None:
        """The fault is part of the process before it is forked: it needn't be data."""
        self.fault = fault
        self._server = ForkServer(partial(answer, fault))

    def look(self, case: Case, seconds: float) -> Sign | None:
        """Look at a case.

        Returns:
            What was seen; None where the model itself doesn't run, or has nothing to compare.
        """
        end = self._server.ask(_packed(case), seconds)
        lines = [json.loads(line) for line in end.said.decode().splitlines()]
        controls = next((line for line in lines if "controlled" in line), None)
        if controls is None:
            return None
        last = lines[-1]
        right, controlled = controls["right"], controls["controlled"]
        if "manner" in last:
            return Sign(
                Stage(last["stage"]),
                last["manner"],
                last["gap"],
                right,
                controlled,
                last["reason"],
            )
        if not end.in_time:
            words = f"the process did not end within {seconds:.3g} s"
            return Sign(Stage(last["stage"]), "hang", math.inf, right, controlled, words)
        return Sign(
            Stage(last["stage"]), "death", math.inf, right, controlled, manner_of(end.status)
        )

    def compute(self, case: Case, seconds: float) -> dict[str, Any]:
        """Return every tensor of numbers that the main graph of a case computes, by name."""
        model = copied(case.model)
        names = []
        for node in model.graph.node:
            for name in node.output:
                if name:
                    names.append(name)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        end = self._server.ask(_packed(Case(model, case.inputs), values=True), seconds)
        values: dict[str, Any] = dict(unpack(end.said)) if end.said and end.in_time else {}
        return values

    def close(self) -> None:
        """End the fork."""
        self._server.close()


def _packed(case: Case, *, values: bool = False) -> bytes:
    counterpart = None if case.other is None else _as_array(case.other)
    return pack(
        {
            "model": _as_array(case.model),
            "other": counterpart,
            "inputs": dict(case.inputs),
            "values": values,
        }
    )


def _as_array(model: onnx.ModelProto) -> Any:
    return np.frombuffer(model.SerializeToString(), np.uint8)


def same(whole: Sign, part: Sign | None, half: bool) -> bool:
    """Return whether a part fails as the whole did.

    It's right with the fault taken away where the whole is.
    """
    if part is None or not part.fails or part.stage is not whole.stage:
        return False
    # What isn't finite may be hidden behind a Sigmoid: a part that lacks it shows the same.
    spread = (whole.manner, part.manner) == ("values", "not finite")
    if part.manner != whole.manner and not spread:
        return False
    if whole.controlled and not part.controlled:
        return False
    if whole.manner != "values":
        return True
    return part.gap >= least_gap(whole, half)


def least_gap(whole: Sign, half: bool) -> float:
    """Return the distance from which on outputs count as departing."""
    return _SHARE_OF_HALF * whole.gap if half else min(_SHARE * whole.gap, _LARGE)
