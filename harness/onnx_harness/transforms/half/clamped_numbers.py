"""Find the steps that stay float32 because the clamp would change a number they compute with.

A weight that is clipped makes a small error. A factor, a divisor or a bound that is clipped changes
what the model
computes: audio divided by 32768 would be divided by 10000. Masks are another matter: any number low
enough does for them, and the clamped one is safe to add up.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.constants import constant_behind
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.masks import masks
from onnx_harness.transforms.half.schemas import (
    BFLOAT16,
    COMPUTES_EACH,
    DOUBLE,
    FLOAT,
    FLOAT16,
)
from onnx_harness.transforms.half.steps import Scope, Step
from onnx_harness.transforms.half.weights import Rounder

_LARGEST = 65504.0  # the largest finite float16
_ORDERS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_ARITHMETIC = frozenset({"Add", "Clip", "Div", "Max", "Min", "Mod", "Mul", "Pow", "Sub"})
_COMPUTES = _ARITHMETIC | _ORDERS
_ADDS = frozenset({"Add", "Max", "Sub"})
# What may follow a factor beyond float16 before its result is brought back.
_AFTER_SCALING = frozenset(
    {
        "Abs",
        "Add",
        "Ceil",
        "Clip",
        "Div",
        "Floor",
        "Log",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Round",
    }
    | {"Sqrt", "Sub"}
)
_HANDS_ON = MOVES | {"Cast"}
# Elements of a constant that is worth float32 in the file, a quarter of a megabyte.
_SMALL = 1 << 16
# How many operators lie between a flag and the mask that is made of it.
_DEPTH = 8
_FLOATS = frozenset({FLOAT, FLOAT16, BFLOAT16, DOUBLE})

Numbers = npt.NDArray[np.float32]


def steps_with_clamped_numbers(reading: Reading, rounder: Rounder) -> set[Step]:
    """Return the steps that compute element by element with a constant that the clamp would clip.

    Masks are left aside.

    Args:
        reading: the graphs of the model.
        rounder: knows the limits of the clamp.
    """
    candidates = []
    for step in reading.floating_of(_COMPUTES):
        for place, tensor in _constants(reading, step):
            candidates.append((step, place, tensor))
    # Most models have none, which is seen at one glance.
    if not candidates or not rounder.clips(tensor for _, _, tensor in candidates):
        return set()
    steps: set[Step] = set()
    scaled: set[str] = set()
    for step, place, tensor in candidates:
        if not rounder.clips([tensor]):
            continue
        clipped = rounder.clipped(tensor)
        centres = step.op in ("Add", "Sub") and _is_of_input(reading, step.ins[1 - place])
        # A mask has one number beside zero.
        if (centres and rounder.varies(tensor)) or _matters(reading, step, place, clipped):
            steps.add(step)
            if step.op == "Mul" and not (np.abs(clipped) <= _LARGEST).all():
                scaled.update(step.outs)
    return steps | _until_brought_back(reading, scaled) if scaled else steps


def _until_brought_back(reading: Reading, scaled: set[str]) -> set[Step]:
    """Return what computes, with constants, from values scaled beyond float16.

    As decibels do: it ends at the logarithm or the quotient that brings them back, or where
    something else reads them.

    Args:
        reading: the graphs of the model.
        scaled: names of the values; what is computed of them is added.
    """
    steps: set[Step] = set()
    for step in reading.floating:
        if step.op not in _AFTER_SCALING or scaled.isdisjoint(step.ins):
            continue
        floats = [name for name in step.ins if reading.types[name] == FLOAT]
        if all(
            name in scaled or constant_behind(reading, name) is not None for name in floats
        ):
            steps.add(step)
            if step.op not in ("Div", "Log"):
                scaled.update(step.outs)
    return steps


def steps_of_constants(reading: Reading, rounder: Rounder) -> set[Step]:
    """Return the steps that compute from small constants alone.

    Those of constants that the clamp would clip are included.

    They are computed once, as the normalization is whose scale is a weight over the root of a
    variance: on the way numbers may lie outside float16 that the result doesn't.

    Args:
        reading: the graphs of the model.
        rounder: knows the limits of the clamp.
    """
    computed: set[str] = set()
    steps: set[Step] = set()
    for step in reading.floating:
        constants = _only_constants(reading, step, computed)
        if constants is None or step.rule is None or not step.op or not step.outs:
            continue
        small = all(math.prod(tensor.dims[:]) <= _SMALL for tensor in constants)
        if not (small or rounder.clips(constants)):
            continue
        if step.op not in MOVES and _chooses(reading, step, constants, rounder):
            continue
        if step.op not in MOVES:
            steps.add(step)
            computed.update(step.outs)
        elif any(name in computed and reading.types[name] == FLOAT for name in step.ins):
            computed.update(step.outs)
    return steps


def _only_constants(
    reading: Reading, step: Step, computed: set[str]
) -> list[onnx.TensorProto] | None:
    """Return the constants behind the float32 inputs of a step, those ``computed`` left out.

    None where it has no such input, and at the first that isn't constant, as nearly every step's
    first isn't.
    """
    types, constants, some = reading.types, [], False
    for name in step.ins:
        if types[name] != FLOAT:
            continue
        some = True
        if name not in computed:
            tensor = constant_behind(reading, name)
            if tensor is None:
                return None
            constants.append(tensor)
    return constants if some else None


def _chooses(
    reading: Reading, step: Step, constants: list[onnx.TensorProto], rounder: Rounder
) -> bool:
    """Return whether what isn't a float, and no constant, decides what a step makes of constants.

    A mask that is chosen by flags is such a one. It's computed with each input, and a Cast would
    make infinity of its lowest number. What else the clamp would clip isn't chosen that way.
    """
    others = [name for name in step.ins if name and reading.types[name] != FLOAT]
    if all(_is_constant(reading, name) for name in others):
        return step.op == "Where" and masks(reading, step)
    return not rounder.clips(constants) or masks(reading, step)


def _is_constant(reading: Reading, name: str, depth: int = _DEPTH) -> bool:
    """Return whether a value is computed from constants alone, by few operators."""
    if name in reading.constants or constant_behind(reading, name) is not None:
        return True
    maker = reading.makers.get(name)
    if not isinstance(maker, Step) or not depth or maker.rule is None or not maker.ins:
        return False
    return all(_is_constant(reading, source, depth - 1) for source in maker.ins)


def _constants(reading: Reading, step: Step) -> list[tuple[int, onnx.TensorProto]]:
    """Return the small float32 constants that a step reads, and their places among its inputs."""
    constants = []
    for place, name in enumerate(step.ins):
        tensor = constant_behind(reading, name) if reading.types[name] == FLOAT else None
        if tensor is not None and math.prod(tensor.dims[:]) <= _SMALL:
            constants.append((place, tensor))
    return constants


def _matters(reading: Reading, step: Step, place: int, clipped: Numbers) -> bool:
    """Return whether a step gives something else with the clamped numbers.

    Args:
        reading: the graphs of the model.
        step: the step.
        place: of the constant among its inputs.
        clipped: those of its numbers that the clamp would clip, one at least.
    """
    op = step.op
    in_range = bool((np.abs(clipped) <= _LARGEST).all())
    if op in ("Clip", "Min"):
        return in_range or bool((clipped > 0).any())
    if op == "Mul":
        return in_range or not _makes_mask(reading, step.ins[1 - place])
    lowers = clipped > 0 if op == "Sub" and place == 1 else clipped < 0
    masks = op in _ADDS and bool(lowers.all())
    return op == "Div" or (in_range and not masks)


def _is_of_input(reading: Reading, name: str) -> bool:
    """Return whether a value is an input of the model, which is centred by its features' means."""
    maker = reading.makers.get(name)
    while isinstance(maker, Step) and maker.op in _HANDS_ON:
        name = maker.ins[0]
        maker = reading.makers.get(name)
    return maker is reading.scopes[0] and name not in reading.initializers


def _makes_mask(reading: Reading, name: str, depth: int = _DEPTH) -> bool:
    """Return whether a value is computed, element by element, from flags.

    It may come from an input of the graph, too.
    """
    maker = reading.makers.get(name)
    if isinstance(maker, Scope):
        return name not in reading.initializers
    if maker is None or not depth:
        return False
    if maker.op == "Cast":
        source = maker.ins[0]
        return reading.types[source] not in _FLOATS or _makes_mask(
            reading, source, depth - 1
        )
    if maker.op in ("ConstantOfShape", "Trilu"):
        return True
    if maker.op not in COMPUTES_EACH and maker.op not in MOVES:
        return False
    floats = [read for read in maker.ins if reading.types[read] in _FLOATS]
    if maker.op == "Where" and all(constant_behind(reading, read) for read in floats):
        return True
    return any(_makes_mask(reading, read, depth - 1) for read in floats)
