"""The check of a reduction refuses what doesn't fail as the whole does, and what fails without its
cause.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.diagnose import reduce
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.oracle import Observer, Sign, same
from onnx_harness.diagnose.reduce import smallest
from onnx_harness.diagnose.smaller_case import Case
from onnx_harness.results.cells import Stage
from onnx_harness.transforms import BoundStep, Parts, Transform
from tests.models import model

PARTS = Parts(
    "pass",
    lambda *_: ("culprit",),
    lambda options, left: {**options, "skipped": tuple(left)},
)
WHOLE = Sign(Stage.COMPARE, "values", gap=0.5)


def flip(
    made: onnx.ModelProto, skipped: tuple[str, ...] = (), always: bool = False
) -> onnx.ModelProto:
    """Make every Add a Sub; with ``always`` whether or not its only pass is left out."""
    for node in made.graph.node:
        if node.op_type == "Add" and (always or not skipped):
            node.op_type = "Sub"
    return made


def case() -> Case:
    made = model(
        "(float[2,4] x) => (float[2,4] y) { a = Tanh(x)  b = Exp(a)  c = Add(b, w)  y = "
        "Sigmoid(c) }"
    )
    made.graph.initializer.append(
        numpy_helper.from_array(np.linspace(1, 2, 4, dtype="f4"), "w")
    )
    return Case(made, {"x": np.linspace(-1, 1, 8, dtype="f4").reshape(2, 4)})


def fault(*, always: bool = False) -> Fault:
    step = BoundStep("planted", Transform("", flip, {}, parts=PARTS), {"always": always})
    return Fault(step, ("culprit",), "disable")


def test_the_node_at_fault_is_left() -> None:
    reduced = smallest(fault(), case(), 60)

    assert reduced is not None
    assert [node.op_type for node in reduced.case.model.graph.node] == ["Add"]


@pytest.mark.parametrize(
    "part",
    [
        None,
        replace(WHOLE, stage=Stage.DONE, manner="", gap=0.0),
        replace(WHOLE, gap=0.01),
        replace(WHOLE, stage=Stage.RUN, manner="Fail"),
        replace(WHOLE, manner="shape"),
        replace(WHOLE, controlled=False),
    ],
)
def test_another_failure_is_refused(part: Sign | None) -> None:
    assert same(WHOLE, WHOLE, half=False)
    assert not same(WHOLE, part, half=False)


def test_what_fails_without_its_cause_has_no_control() -> None:
    observer = Observer(fault(always=True))
    try:
        sign = observer.look(case(), 20)
    finally:
        observer.close()

    assert sign is not None
    assert sign.fails
    assert not sign.controlled


def test_a_check_that_takes_everything_ends_without_the_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken on purpose: were each change taken, what is left wouldn't fail."""
    monkeypatch.setattr(reduce, "same", lambda *_: True)

    reduced = smallest(fault(), case(), 20)

    assert reduced is not None
    assert "Add" not in {node.op_type for node in reduced.case.model.graph.node}
