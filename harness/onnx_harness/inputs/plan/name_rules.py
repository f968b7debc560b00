"""The rules for numbers that an input's name and type suggest."""

from __future__ import annotations

import math
import re

import numpy as np

from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.walk import Findings
from onnx_harness.inputs.plan.rule import Make, Rule

_LENGTH_NAME = re.compile(
    r"(^|[_.\W])(len|lens|length|lengths|seq_?lens?)($|[_.\W\d])|_lengths?$", re.I
)
_POSITION_NAME = re.compile(r"position|pos_ids", re.I)
_RATE_NAME = re.compile(r"^sr$|sampl\w*_?rate|^rate$", re.I)
_AUDIO_NAME = re.compile(r"audio|wave|pcm|speech|(^|_)samples?($|_)|(^|_)sound", re.I)
_IMAGE_SIZE_NAME = re.compile(
    r"(^|_)(im|img|image|input|orig\w*|target)_?(size|sizes|shape|info|hw)($|_)", re.I
)
_SCALE_NAME = re.compile(r"scale_?factors?$", re.I)
_TIMESTEP_NAME = re.compile(r"time_?steps?($|_)", re.I)
_STATE_NAME = re.compile(r"past|cache|state|hidden", re.I)
# free integers stay within +-50: sums and products of them fit every integer type but the 8-bit
# ones
_SMALL = 50


def integer(entry: Input, findings: Findings, *, is_single: bool) -> Rule:
    """Choose the rule for an integer input: by what the graph demands, else by its name."""
    demands = findings.demands
    lengths, bounds = of(demands, Kind.LENGTH), of(demands, Kind.BOUND)
    # What counts steps and is an index into a table as well counts from 0, and has to stay in the
    # table.
    if lengths and not bounds:
        return Rule(
            Make.LENGTH,
            f"Counts of at least 1: {lengths[0].why}.",
            high=lengths[0].high,
            dim=lengths[0].dim,
        )
    if bounds:
        return _bounded(entry, bounds, floor=1 if of(demands, Kind.NONZERO) else 0)
    if _LENGTH_NAME.search(entry.name) and (entry.dims is None or len(entry.dims) <= 1):
        return Rule(
            Make.LENGTH,
            "The size of another input's dimension: its name says that it is a length.",
            False,
        )
    if (rule := _demanded(entry, demands)) is not None:
        return rule
    if angles := of(demands, Kind.ANGLE):
        if is_single and entry.integer_range[1] >= _MOST_TIMESTEPS:
            why = f"0 to {_MOST_TIMESTEPS}: {angles[0].why}, as a step of a diffusion does."
            return Rule(Make.INTEGERS, why, False, 0, _MOST_TIMESTEPS)
        why = f"0, 1, 2 …: {angles[0].why}, as a position does."
        return Rule(Make.POSITIONS, why, certain=False, low=0)
    if entry.dtype == np.int16 and (findings.is_signal or _AUDIO_NAME.search(entry.name)):
        what = (
            "its last axis is time"
            if findings.is_signal
            else "its name says that it is sound"
        )
        why = f"Samples of 16 bits, from -{_LOUD} to {_LOUD}: {what}."
        return Rule(Make.SIGNAL, why, False, -_LOUD, _LOUD, generators=("uniform",))
    return _named(entry, is_single=is_single)


def _bounded(entry: Input, bounds: list[Demand], *, floor: int) -> Rule:
    """The rule for integers within bounds, from ``floor`` where none says more."""
    lows, highs, dims = [], [], []
    for bound in bounds:
        if bound.low is not None:
            lows.append(math.ceil(bound.low))
        if bound.high is not None:
            highs.append(math.floor(bound.high))
        if bound.dim is not None:
            dims.append(bound.dim)
    low = max(lows, default=0)
    if floor:
        low = max(low, floor)
    high = min(highs, default=None)
    dim = dims[0] if dims else None
    if high is not None and high < low:
        why = f"Demands that exclude one another: {bounds[0].why}."
        return Rule(Make.INTEGERS, why, False, low, low)
    most = f"the size of {dim}, less 1" if high is None else high
    why = f"{low} to {most}: {bounds[0].why}."
    if _POSITION_NAME.search(entry.name):
        return Rule(Make.POSITIONS, why, low=low, high=high, dim=dim)
    make = Make.IDS if high is None or high - low >= 8 else Make.INTEGERS
    return Rule(make, why, low=low, high=high, dim=dim)


def _demanded(entry: Input, demands: tuple[Demand, ...]) -> Rule | None:
    """The rule for integers that become a shape, an axis or an index, or that are divided by."""
    if shapes := of(demands, Kind.SHAPE):
        why, role = shapes[0].why, shapes[0].role
        if role == "Reshape shape":
            return Rule(
                Make.TARGET, f"-1 and then 1s, which anything fits: {why}.", certain=False
            )
        if role.endswith((" axes", " axis")):
            return Rule(Make.AXES, f"Axes from 0 on: {why}.", certain=False)
        choices, meaning = _SHAPE_VALUES.get(role, ((1, 2), "small counts"))
        words = f"{meaning[0].upper()}{meaning[1:]}: {why}."
        return Rule(Make.CHOICES, words, False, choices=choices)
    if loose := of(demands, Kind.LOOSE):
        return Rule(Make.INTEGERS, f"0 and 1, to be safe: {loose[0].why}.", False, 0, 1)
    if divisors := of(demands, Kind.NONZERO):
        most = min(20, entry.integer_range[1])
        return Rule(Make.INTEGERS, f"1 to 20: {divisors[0].why}.", False, 1, most)
    return None


def _named(entry: Input, *, is_single: bool) -> Rule:
    """The rule for integers that nothing in the graph restricts, by their name and type."""
    low_type, high_type = entry.integer_range
    if _POSITION_NAME.search(entry.name):
        why = "0, 1, 2 …: its name says that it is a position."
        return Rule(Make.POSITIONS, why, certain=False, low=0)
    if entry.dtype.itemsize == 1:
        why = f"The whole range of {entry.type_name}: nothing in the graph restricts it."
        return Rule(Make.INTEGERS, why, False, low_type, high_type)
    if _TIMESTEP_NAME.search(entry.name) and high_type >= _MOST_TIMESTEPS:
        why = f"0 to {_MOST_TIMESTEPS}: its name says that it is a step of a diffusion."
        return Rule(Make.INTEGERS, why, False, 0, _MOST_TIMESTEPS)
    if _IMAGE_SIZE_NAME.search(entry.name) and high_type >= _SIDES[1]:
        return Rule(Make.INTEGERS, _SIDES_WHY, False, *_SIDES)
    if is_single and _RATE_NAME.search(entry.name) and high_type >= 16_000:
        why = "16000 and 8000 in turn: its name says that it is a sample rate."
        return Rule(Make.CHOICES, why, certain=False, choices=(16_000, 8_000))
    if is_single:
        return Rule(
            Make.INTEGERS, "1 to 10: nothing in the graph restricts it.", False, 1, 10
        )
    low = max(-_SMALL, low_type)
    why = f"{low} to {_SMALL}: nothing in the graph restricts it."
    return Rule(Make.INTEGERS, why, False, low, _SMALL)


_MOST_TIMESTEPS = 999
# Loud sound of 16 bits, which ends at 32,767.
_LOUD = 20_000
_SIDES = (32, 640)
_SIDES_WHY = "32 to 640: its name says that it is the size of an image."
# What an argument that becomes a shape, an axis or a count is filled with, and in words.
_SHAPE_VALUES: dict[str, tuple[tuple[int, ...], str]] = {
    "Expand shape": ((1,), "1, which every shape can be expanded with"),
    "Slice starts": ((0, 1), "0 and 1"),
    "Slice ends": ((2, 3), "2 and 3"),
    "Slice steps": ((1,), "steps of 1"),
    "Pad pads": ((0, 1), "0 and 1"),
    "Range start": ((0,), "0"),
    "Range limit": ((4, 6), "4 and 6"),
    # A window of 1 that isn't periodic divides by 0.
    **dict.fromkeys(
        ("HannWindow size", "HammingWindow size", "BlackmanWindow size"), ((5, 8), "5 and 8")
    ),
    "TopK k": ((1, 2), "1 and 2"),
    "Trilu k": ((0, 1), "0 and 1"),
    "Resize sizes": ((16, 24), "16 and 24"),
    "OneHot depth": ((4, 6), "4 and 6"),
    "ConstantOfShape shape": ((2, 3), "2 and 3"),
    "Loop trip count": ((3, 5), "3 and 5"),
    "SequenceAt position": ((0,), "0"),
    "SequenceInsert position": ((0,), "0"),
    "SequenceErase position": ((0,), "0"),
}


def real(entry: Input, findings: Findings, *, is_single: bool) -> Rule:
    """Choose the rule for a floating-point input."""
    if (boxes := of(findings.demands, Kind.BOXES)) and (entry.dims or (0,))[-1] == 4:
        why = f"Boxes within the picture: {boxes[0].why}."
        return Rule(Make.BOXES, why, low=0, high=boxes[0].high, dim=boxes[0].dim)
    bounds = of(findings.demands, Kind.BOUND)
    if bounds:
        low = max((b.low for b in bounds if b.low is not None), default=None)
        high = min((b.high for b in bounds if b.high is not None), default=None)
        dim = next((b.dim for b in bounds if b.dim is not None), None)
        why = (
            f"Values{range_text(low, high)}{f' below the size of {dim}' if dim else ''}: "
            f"{bounds[0].why}."
        )
        if low == 0 and (
            dim is not None or (high is not None and high > 1 and float(high).is_integer())
        ):
            return Rule(Make.INTEGERS, why, low=0, high=high, dim=dim)
        return Rule(Make.SIGNAL, why, low=low, high=high, generators=("uniform",))
    if shapes := of(findings.demands, Kind.SHAPE):
        return Rule(
            Make.CHOICES, f"1 and 2: {shapes[0].why}.", certain=False, choices=(1.0, 2.0)
        )
    if _TIMESTEP_NAME.search(entry.name) and len(entry.dims or ()) <= 1:
        why = f"0 to {_MOST_TIMESTEPS}: its name says that it is a step of a diffusion."
        return Rule(Make.INTEGERS, why, False, 0, _MOST_TIMESTEPS)
    if is_single:
        return Rule(
            Make.SIGNAL,
            "A number in [0, 1): nothing in the graph restricts it.",
            False,
            generators=("uniform",),
        )
    if len(entry.dims or ()) <= 2:
        if _IMAGE_SIZE_NAME.search(entry.name):
            return Rule(Make.INTEGERS, _SIDES_WHY, False, *_SIDES)
        if _SCALE_NAME.search(entry.name):
            why = "Values from 0.5 to 2: its name says that it is a scale."
            return Rule(Make.SIGNAL, why, False, 0.5, 2.0, generators=("uniform",))
    drawn, reason = _structured(entry, findings)
    why = f"Sets take turns between {drawn} signals ({reason}), normal noise and uniform noise."
    return Rule(Make.SIGNAL, why, generators=(drawn, "normal", "uniform", drawn))


def _structured(entry: Input, findings: Findings) -> tuple[str, str]:
    """Return which structured signal suits the input, and why."""
    fixed = {}
    for demand in findings.axes:
        if demand.size is not None:
            fixed[demand.axis] = demand.size
    dims = tuple(fixed.get(axis, dim) for axis, dim in enumerate(entry.dims or ()))
    if (findings.is_signal or _AUDIO_NAME.search(entry.name)) and len(dims) <= 3:
        return (
            "audio",
            "its last axis is time"
            if findings.is_signal
            else "its name says that it is sound",
        )
    if _STATE_NAME.search(entry.name):
        return "steps", "its name says that it is a state"
    if len(dims) == 4 and (dims[1] in (1, 3, 4) or dims[3] in (1, 3, 4)):
        return "page", "it is shaped like images"
    if (
        len(dims) == 3
        and (dims[0] == 3 or dims[2] in (3, 4))
        and all(_roomy(dim) for dim in dims if dim not in (3, 4))
    ):
        return "page", "it is shaped like an image"
    return "steps", "it is shaped like no image or sound"


def _roomy(dim: int | str) -> bool:
    return isinstance(dim, str) or dim >= 8


def of(demands: tuple[Demand, ...], kind: Kind) -> list[Demand]:
    """Return the demands of one kind."""
    return [demand for demand in demands if demand.kind is kind]


def range_text(low: float | None, high: float | None) -> str:
    """Describe a range, where there is one, as the end of a clause."""
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of at least {low:g}"
    return "" if high is None else f" of at most {high:g}"
