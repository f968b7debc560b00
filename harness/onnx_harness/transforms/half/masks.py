"""Masks of the lowest numbers, which the half types don't have."""

from __future__ import annotations

import math
from collections.abc import Set

import onnx

from onnx_harness.model.constants import constant_tensor
from onnx_harness.transforms.half.constants import few_numbers
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import FLOAT, FLOAT16
from onnx_harness.transforms.half.steps import Step
from onnx_harness.transforms.half.weights import Rounder

# The largest finite float16.
_LARGEST = 65504.0
# The largest finite bfloat16: the lowest float32 rounds to minus infinity.
_LARGEST_BFLOAT16 = (2 - 2.0**-7) * 2.0**127


def masks(reading: Reading, step: Step) -> bool:
    """Return whether a step makes a mask of the lowest numbers, which the half type doesn't have.

    In float32 they would become infinite on the way to the half type, and a row that is masked
    wholly would be NaN: clamped in the half type they mask as well.
    """
    if step.op == "ConstantOfShape":
        filling = constant_tensor(step.node) if step.node.attribute else None
        numbers = (
            []
            if filling is None
            else onnx.numpy_helper.to_array(filling).reshape(-1).tolist()
        )
    elif step.op in ("Mul", "Where"):
        floats = [name for name in step.ins if reading.types[name] == FLOAT]
        numbers = []
        for name in floats:
            for number in few_numbers(reading, name):
                numbers.append(number)
    else:
        return False
    if step.op != "Mul":
        numbers = [number for number in numbers if number < 0]
    largest = _LARGEST if reading.half == FLOAT16 else _LARGEST_BFLOAT16
    return any(largest < abs(number) < math.inf for number in numbers)


def lower_fillings(reading: Reading, rounder: Rounder, cast: Set[str]) -> None:
    """Lower what a ConstantOfShape fills a mask with where its schema doesn't take the half type.

    A Cast would make infinity of the lowest float32.

    Args:
        reading: the graphs of the model; their nodes are changed.
        rounder: knows the limit of the clamp.
        cast: names of what is made in float32 and read in the half type.
    """
    for step in reading.floating_of({"ConstantOfShape"}):
        if step.outs[0] in cast and masks(reading, step):
            (filling,) = step.node.attribute
            lowered = rounder.lowered(onnx.numpy_helper.to_array(filling.t))
            filling.t.CopyFrom(onnx.numpy_helper.from_array(lowered, filling.t.name))
