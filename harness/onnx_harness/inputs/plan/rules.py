"""Decide what values an input gets and say why.

The graph's demands and the card's words settle it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from onnx_harness.cards.card import InputSpec
from onnx_harness.cards.toml import Scalar
from onnx_harness.inputs.graph.demands import Demand, Kind
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.standardization import Standardization
from onnx_harness.inputs.graph.walk import Findings


class Make(StrEnum):
    """The ways in which values are made."""

    CHOICES = "choices"  # set k holds choices[k % n] throughout
    MASK = "mask"
    IDS = "ids"
    INTEGERS = "integers"
    LENGTH = "length"
    POSITIONS = "positions"
    AMONG = "among"  # each of the choices, and others where those are taken
    AXES = "axes"  # 0, 1, 2 …: distinct axes
    TARGET = "target"  # -1, 1, 1 …: a shape that anything can be brought into
    BOXES = "boxes"  # rows of two corners, the lesser one first
    BOOLS = "bools"
    TEXTS = "texts"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule for one input.

    Attributes:
        make: how.
        why: one sentence for a person.
        certain: whether the graph, the type or the card settles it; if not, the search may fill in
            constants.
        low: least value.
        high: greatest value.
        dim: values stay below that dimension's size (or, for LENGTH, at most reach it).
        choices: for CHOICES, or what TEXTS and AMONG are taken from.
        is_closed: for TEXTS and AMONG: whether nothing else is taken.
        columns: likewise, where each column has choices of its own.
        salient: constants that elements are compared with: some elements hold them.
        edges: likewise, where a last bit decides: elements of one further set hold them and what
            lies next to them.
        around: for SIGNAL: what its values lie around; None for zero.
        generators: for SIGNAL: set k takes ``generators[k % n]``.
        lag: for CHOICES: how many controls come before it that take turns of themselves; see
            :func:`in_turn`.
        elements: of a vector, those that are controls of themselves, with the values that they take
            in turn.
    """

    make: Make
    why: str
    certain: bool = True
    low: float | None = None
    high: float | None = None
    dim: str | None = None
    choices: tuple[Scalar, ...] = ()
    generators: tuple[str, ...] = ()
    lag: int = 0
    elements: tuple[tuple[int, tuple[Scalar, ...]], ...] = ()
    is_closed: bool = False
    columns: tuple[tuple[Scalar, ...], ...] = ()
    salient: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    around: Standardization | None = None

    def choice(self, turn: int) -> Scalar:
        """Return what a control holds in its turn."""
        return in_turn(self.choices, turn, self.lag)


def placed_around(rule: Rule, around: Standardization | None) -> Rule:
    """Return the rule of a signal whose values lie around constants; others stay as they are."""
    free = rule.make is Make.SIGNAL and rule.low is None and rule.high is None
    if around is None or not free:
        return rule
    why = f"{rule.why} They lie around the constants that are subtracted: {around.why}."
    return replace(rule, around=around, why=why)


def in_turn(values: Sequence[Scalar], turn: int, lag: int) -> Scalar:
    """The value for a turn.

    Two controls don't go in step: of 0 and 1 the second, whose lag is 1, takes 0, 1, 1, 0.
    """
    return values[(turn + lag * (turn // len(values))) % len(values)]


_MASK_NAME = re.compile(r"mask", re.I)
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


def rule_for(entry: Input, findings: Findings, spec: InputSpec | None) -> Rule:
    """The rule for one input; the card's word, where there is one, goes before the graph's.

    Args:
        entry: the input.
        findings: what the graph demands of it.
        spec: what its card says, already checked against the graph.
    """
    inferred = _inferred(entry, findings)
    if spec is None:
        return inferred
    if spec.values:
        listed = ", ".join(map(str, spec.values))
        return Rule(Make.CHOICES, f"The card fixes its values: {listed}.", choices=spec.values)
    low = inferred.low if spec.low is None else spec.low
    high = inferred.high if spec.high is None else spec.high
    dim = inferred.dim if spec.high is None else None
    if spec.generator is not None:
        why = f"The card asks for the generator '{spec.generator}'{_range_text(low, high)}."
        # Text-like ids are integers by nature; everything else is a signal, rounded where the type
        # asks for it.
        if spec.generator == "tokens" and not entry.is_float:
            return Rule(
                Make.IDS,
                why,
                low=0 if low is None else low,
                high=1000 if high is None else high,
                dim=dim,
            )
        return Rule(Make.SIGNAL, why, low=low, high=high, generators=(spec.generator,))
    if spec.low is not None or spec.high is not None:
        why = f"The card bounds its values{_range_text(low, high)}."
        make = inferred.make if inferred.make in (Make.IDS, Make.INTEGERS) else Make.INTEGERS
        if entry.is_float:
            return Rule(
                Make.SIGNAL, why, low=low, high=high, generators=inferred.generators or ("uniform",)
            )
        return Rule(make, why, low=low, high=high, dim=dim)
    return inferred


def _inferred(entry: Input, findings: Findings) -> Rule:
    demands = findings.demands
    if entry.is_string:
        keys = _of(demands, Kind.KEYS)
        texts = []
        for demand in keys:
            for key in demand.values:
                if isinstance(key, str):
                    texts.append(key)
        listed = tuple(dict.fromkeys(texts))
        why = (
            f"Texts: {keys[0].why}."
            if keys
            else "Texts: short words with blanks, digits and non-ASCII letters."
        )
        return Rule(
            Make.TEXTS, why, choices=listed, is_closed=any(demand.is_closed for demand in keys)
        )
    is_single = entry.dims is not None and all(dim == 1 for dim in entry.dims)
    if entry.is_bool:
        if is_single:
            return Rule(
                Make.CHOICES, "A truth value: true and false in turn.", choices=(True, False)
            )
        return Rule(Make.BOOLS, "Truth values, about half of them true.")
    if is_single and (rule := _control(entry, demands)) is not None:
        return rule
    if masks := _of(demands, Kind.MASK):
        return Rule(Make.MASK, f"0 and 1: {masks[0].why}.")
    if _MASK_NAME.search(entry.name) and (entry.is_integer or not findings.is_signal):
        return Rule(Make.MASK, "0 and 1: its name says that it is a mask.", certain=False)
    if (keys := _of(demands, Kind.KEYS)) and (rule := _keys(entry, keys)) is not None:
        return rule
    rule = (
        _whole(entry, findings, is_single=is_single)
        if entry.is_integer
        else _real(entry, findings, is_single=is_single)
    )
    rule = _with_constants(rule, entry, _of(demands, Kind.AMONG))
    return _with_elements(rule, entry, _of(demands, Kind.CHOICE))


def _keys(entry: Input, keys: list[Demand]) -> Rule | None:
    """The rule for numbers that are looked up."""
    entries = []
    for demand in keys:
        for key in demand.values:
            if isinstance(key, int | float):
                entries.append(key)
    numbers = dict.fromkeys(entries)
    low, high = entry.integer_range if entry.is_integer else (-math.inf, math.inf)
    fitting = tuple(number for number in numbers if low <= number <= high)
    if not fitting:
        return None
    is_closed = any(demand.is_closed for demand in keys)
    more = "" if is_closed else ", and some others"
    return Rule(Make.AMONG, f"Keys{more}: {keys[0].why}.", choices=fitting, is_closed=is_closed)


def _with_constants(rule: Rule, entry: Input, among: list[Demand]) -> Rule:
    """The rule of a tensor whose elements are compared with constants."""
    free = rule.make is Make.SIGNAL or (
        rule.make in (Make.IDS, Make.INTEGERS) and (rule.certain or not rule.low)
    )
    if not among or not free or rule.dim is not None:
        return rule
    low, high = (
        -math.inf if rule.low is None else rule.low,
        math.inf if rule.high is None else rule.high,
    )
    if rule.make is Make.INTEGERS and not rule.certain:
        low, high = entry.integer_range if entry.is_integer else (-math.inf, math.inf)
    salient: dict[float, None] = {}
    edges: dict[float, None] = {}
    for demand in among:
        for value in demand.values:
            if low <= value <= high:
                # What isn't whole is moved by a last bit, and so is what the comparison says of it.
                whole = entry.is_integer or (
                    float(value).is_integer() and demand.role == "equality"
                )
                (salient if whole else edges)[value] = None
    if not salient and not edges:
        return rule
    where = "some elements" if salient else "in a further set some elements"
    why = f"{rule.why} Constants in {where}: it is {among[0].why}."
    return replace(rule, why=why, salient=tuple(salient), edges=tuple(edges))


def _control(entry: Input, demands: tuple[Demand, ...]) -> Rule | None:
    """The rule for a single number that the graph compares with something."""
    if (choices := _of(demands, Kind.CHOICE)) and (typed := _both_sides(entry, choices)):
        return Rule(Make.CHOICES, f"{_listed(typed)} in turn: {choices[0].why}.", choices=typed)
    # A floor that lets everything through and one that lets most through; likewise a ceiling.
    for kind, usual in ((Kind.LOWER, (0.0, 1.0)), (Kind.UPPER, (10_000.0, 1_000.0))):
        if matching := _of(demands, kind):
            values_of = usual
            if table := matching[0].values:
                tenth = (table[1] - table[0]) / 10
                values_of = (
                    (table[0], table[0] + tenth)
                    if kind is Kind.LOWER
                    else (table[1], table[1] - tenth)
                )
            typed = tuple(value if entry.is_float else int(min(value, 100)) for value in values_of)
            return Rule(
                Make.CHOICES,
                f"{_listed(typed)} in turn: {matching[0].why}.",
                certain=False,
                choices=typed,
            )
    return None


def _both_sides(entry: Input, choices: list[Demand]) -> tuple[Scalar, ...]:
    """The values that make every comparison go both ways."""
    sides = []
    for demand in choices:
        for value in demand.values:
            sides.append(value)
    values = list(dict.fromkeys(sides))
    if len(values) <= 1:
        values = list(
            dict.fromkeys([*values, *(value for demand in choices for value in demand.otherwise)])
        )
    return tuple(float(value) if entry.is_float else int(value) for value in values)


def _with_elements(rule: Rule, entry: Input, choices: list[Demand]) -> Rule:
    """The rule of a vector, some elements of which are compared with constants."""
    elements = []
    for place in sorted({demand.element for demand in choices if demand.element is not None}):
        mine = [demand for demand in choices if demand.element == place]
        if typed := _both_sides(entry, mine):
            elements.append((place, typed))
            rule = replace(
                rule,
                why=f"{rule.why} Element {place} holds {_listed(typed)} in turn: {mine[0].why}.",
            )
    return replace(rule, elements=tuple(elements))


def _whole(entry: Input, findings: Findings, *, is_single: bool) -> Rule:
    demands = findings.demands
    low_type, high_type = entry.integer_range
    lengths, bounds = _of(demands, Kind.LENGTH), _of(demands, Kind.BOUND)
    # What counts steps and is an index into a table as well counts from 0, and has to stay in the
    # table.
    if lengths and not bounds:
        return Rule(
            Make.LENGTH,
            f"Counts of at least 1: {lengths[0].why}.",
            high=lengths[0].high,
            dim=lengths[0].dim,
        )
    floor = 1 if _of(demands, Kind.NONZERO) else None
    if bounds:
        low = max(
            [math.ceil(b.low) for b in bounds if b.low is not None] + ([floor] if floor else []),
            default=0,
        )
        highs = [math.floor(b.high) for b in bounds if b.high is not None]
        dim = next((b.dim for b in bounds if b.dim is not None), None)
        high = min(highs) if highs else None
        if high is not None and high < low:
            return Rule(
                Make.INTEGERS,
                f"Demands that exclude one another: {bounds[0].why}.",
                False,
                low,
                low,
            )
        text = f"{low} to {high}" if high is not None else f"{low} to the size of {dim}, less 1"
        why = f"{text}: {bounds[0].why}."
        if _POSITION_NAME.search(entry.name):
            return Rule(Make.POSITIONS, why, low=low, high=high, dim=dim)
        return Rule(
            Make.IDS if high is None or high - low >= 8 else Make.INTEGERS,
            why,
            low=low,
            high=high,
            dim=dim,
        )
    if _LENGTH_NAME.search(entry.name) and (entry.dims is None or len(entry.dims) <= 1):
        return Rule(
            Make.LENGTH,
            "The size of another input's dimension: its name says that it is a length.",
            False,
        )
    if shapes := _of(demands, Kind.SHAPE):
        if shapes[0].role == "Reshape shape":
            return Rule(
                Make.TARGET, f"-1 and then 1s, which anything fits: {shapes[0].why}.", certain=False
            )
        if shapes[0].role.endswith((" axes", " axis")):
            return Rule(Make.AXES, f"Axes from 0 on: {shapes[0].why}.", certain=False)
        choices, meaning = _SHAPE_VALUES.get(shapes[0].role, ((1, 2), "small counts"))
        return Rule(
            Make.CHOICES,
            f"{meaning[0].upper()}{meaning[1:]}: {shapes[0].why}.",
            False,
            choices=choices,
        )
    if loose := _of(demands, Kind.LOOSE):
        return Rule(
            Make.INTEGERS, f"0 and 1, to be safe: {loose[0].why}.", certain=False, low=0, high=1
        )
    if floor:
        why = f"1 to 20: {_of(demands, Kind.NONZERO)[0].why}."
        return Rule(Make.INTEGERS, why, certain=False, low=1, high=min(20, high_type))
    if _POSITION_NAME.search(entry.name):
        return Rule(
            Make.POSITIONS, "0, 1, 2 …: its name says that it is a position.", certain=False, low=0
        )
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
        return Rule(Make.INTEGERS, "1 to 10: nothing in the graph restricts it.", False, 1, 10)
    low = max(-_SMALL, low_type)
    why = f"{low} to {_SMALL}: nothing in the graph restricts it."
    return Rule(Make.INTEGERS, why, False, low, _SMALL)


_MOST_TIMESTEPS = 999
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


def _real(entry: Input, findings: Findings, *, is_single: bool) -> Rule:
    if (boxes := _of(findings.demands, Kind.BOXES)) and (entry.dims or (0,))[-1] == 4:
        why = f"Boxes within the picture: {boxes[0].why}."
        return Rule(Make.BOXES, why, low=0, high=boxes[0].high, dim=boxes[0].dim)
    bounds = _of(findings.demands, Kind.BOUND)
    if bounds:
        low = max((b.low for b in bounds if b.low is not None), default=None)
        high = min((b.high for b in bounds if b.high is not None), default=None)
        dim = next((b.dim for b in bounds if b.dim is not None), None)
        why = (
            f"Values{_range_text(low, high)}{f' below the size of {dim}' if dim else ''}: "
            f"{bounds[0].why}."
        )
        if low == 0 and (
            dim is not None or (high is not None and high > 1 and float(high).is_integer())
        ):
            return Rule(Make.INTEGERS, why, low=0, high=high, dim=dim)
        return Rule(Make.SIGNAL, why, low=low, high=high, generators=("uniform",))
    if shapes := _of(findings.demands, Kind.SHAPE):
        return Rule(Make.CHOICES, f"1 and 2: {shapes[0].why}.", certain=False, choices=(1.0, 2.0))
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
    fixed = {demand.axis: demand.size for demand in findings.axes if demand.size is not None}
    dims = tuple(fixed.get(axis, dim) for axis, dim in enumerate(entry.dims or ()))
    if (findings.is_signal or _AUDIO_NAME.search(entry.name)) and len(dims) <= 3:
        return (
            "audio",
            "its last axis is time" if findings.is_signal else "its name says that it is sound",
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


def _listed(values: Sequence[Scalar]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def _of(demands: tuple[Demand, ...], kind: Kind) -> list[Demand]:
    return [demand for demand in demands if demand.kind is kind]


def _range_text(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of at least {low:g}"
    return "" if high is None else f" of at most {high:g}"
