"""Find control values: numbers that a graph compares with constants.

They make each comparison go both ways.

On the way to the comparison a number may be shifted, scaled, divided, taken modulo something,
rounded or clipped. The steps are followed backwards to candidates, and each candidate forwards
again, so that what is fed is known to do it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx

from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.inputs.graph.signature import Input


class Act(StrEnum):
    """The action of a step on a value v, with its number k."""

    ADD = "add"
    FROM = "from"  # k - v
    SCALE = "scale"
    DIVIDE = "Div"  # towards zero where v is a whole number
    MODULO = "Mod"
    ABSOLUTE = "Abs"
    FLOOR = "Floor"
    CEIL = "Ceil"
    ROUND = "Round"
    AT_LEAST = "Max"
    AT_MOST = "Min"
    WHOLE = "whole"  # becomes an integer type
    REAL = "real"  # becomes a floating-point type
    TRUTH = "truth"  # becomes a boolean


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens to a control value.

    Attributes:
        act: what.
        number: its constant.
    """

    act: Act
    number: float = 0.0


Steps = tuple[Step, ...]

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "Equal": operator.eq,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
}
# Operators that compare with an attribute, and its default.
_THRESHOLDS = {
    "Binarizer": ("threshold", 0.0),
    "ThresholdedRelu": ("alpha", 1.0),
    "Shrink": ("lambd", 0.5),
}
_SCORE = 4  # input of a NonMaxSuppression: what scores have to be above
# Integers on both sides of what decides: a bit, the beginning of an hour.
_DIVISIONS = frozenset({"BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Mod"})
_MOST_CONSTANTS = 64
_MOST_COUNTED = 4096  # a greater one may be how often a loop goes round
_PLAIN = {"Abs": Act.ABSOLUTE, "Floor": Act.FLOOR, "Ceil": Act.CEIL, "Round": Act.ROUND}
_BOTH_WAYS = {"Add": Act.ADD, "Mul": Act.SCALE, "Max": Act.AT_LEAST, "Min": Act.AT_MOST}


def stepped(
    steps: Steps | None, scope: Scope, node: onnx.NodeProto, slot: int
) -> Steps | None:
    """The steps with what ``node`` does to the number in ``slot``; None where that isn't known."""
    if steps is None:
        return None
    op = node.op_type
    if op in _PLAIN:
        return (*steps, Step(_PLAIN[op]))
    if op == "Neg":
        return (*steps, Step(Act.SCALE, -1.0))
    if op == "Cast":
        kind = int(attribute(node, "to", 0))
        whole = kind in _WHOLE
        act = Act.WHOLE if whole else Act.REAL
        return (*steps, Step(Act.TRUTH if kind == onnx.TensorProto.BOOL else act))
    if op == "Clip" and slot == 0:
        ends = [_number(scope, name) if name else None for name in node.input[1:3]]
        acts = (Act.AT_LEAST, Act.AT_MOST)
        return (
            *steps,
            *(
                Step(act, end)
                for act, end in zip(acts, ends, strict=False)
                if end is not None
            ),
        )
    if len(node.input) != 2 or (number := _number(scope, node.input[1 - slot])) is None:
        return None
    if op in _BOTH_WAYS:
        return (*steps, Step(_BOTH_WAYS[op], number))
    if op == "Sub":
        return (*steps, Step(Act.ADD, -number) if slot == 0 else Step(Act.FROM, number))
    if op in ("Div", "Mod") and slot == 0 and number:
        return (*steps, Step(Act.DIVIDE if op == "Div" else Act.MODULO, number))
    return None


def compared(
    steps: Steps | None, scope: Scope, node: onnx.NodeProto, slot: int, entry: Input
) -> Iterator[Demand]:
    """The values of ``entry`` for which a comparison holds and doesn't hold.

    Args:
        steps: from the input to the comparison.
        scope: whose constants ``node`` sees.
        node: a consumer of the value that the steps lead to.
        slot: which of its inputs that is.
        entry: an input of one number.
    """
    if steps is None or node.op_type not in _COMPARISONS or len(node.input) != 2:
        return
    if (number := _number(scope, node.input[1 - slot])) is None:
        return
    compare = _COMPARISONS[node.op_type]

    def holds(value: float) -> bool:
        after = forward(steps, value, whole=entry.is_integer)
        return compare(after, number) if slot == 0 else compare(number, after)

    candidates = [value for value in _candidates(steps, number) if _fits(value, entry)]
    yes = next((value for value in candidates if holds(value)), None)
    halves = (
        []
        if yes is None or abs(yes) < 4
        else [value for value in (yes // 2,) if _fits(value, entry)]
    )
    no = next((value for value in (*halves, *candidates) if not holds(value)), None)
    acts = []
    for step in steps:
        if step.act in _TOLD:
            acts.append(step.act)
    behind = " and ".join(dict.fromkeys(acts))
    text = f"{number:.16g}" if not number.is_integer() else f"{number:.0f}"
    why = (
        f"{f'what {behind} makes of it' if behind else 'it'} is compared with {text} in "
        f"{label(node)}"
    )
    values = tuple(value for value in (yes, no) if value is not None)
    if node.op_type == "Equal":
        yield Demand(
            Kind.CHOICE,
            why,
            values=values[:1] if yes is not None else (),
            otherwise=() if no is None else (no,),
        )
    elif values:
        yield Demand(Kind.CHOICE, why, values=values)


def constants_beside(scope: Scope, node: onnx.NodeProto, slot: int) -> tuple[float, ...]:
    """The finite constants that a node compares the value in ``slot`` with.

    Empty where it does no such.
    """
    if node.op_type in _THRESHOLDS and slot == 0:
        threshold = float(np.float32(attribute(node, *_THRESHOLDS[node.op_type])))
        return (threshold, -threshold) if node.op_type == "Shrink" else (threshold,)
    if node.op_type == "NonMaxSuppression":
        score = _number(scope, node.input[_SCORE]) if len(node.input) > _SCORE else None
        return (score,) if slot == 1 and score is not None else ()
    divides = node.op_type in _DIVISIONS
    if (node.op_type not in _COMPARISONS and not divides) or len(node.input) != 2:
        return ()
    constant = scope.constant(node.input[1 - slot])
    if constant is None or constant.dtype.kind not in ("iu" if divides else "iufb"):
        return ()
    numbers = np.unique(constant.astype(np.float64))
    return tuple(float(number) for number in numbers[np.isfinite(numbers)][:_MOST_CONSTANTS])


def among(
    steps: Steps | None, scope: Scope, node: onnx.NodeProto, slot: int, entry: Input
) -> Iterator[Demand]:
    """Find the values that let a comparison be decided by the least that there is.

    Elements of ``entry`` have to have them.

    Args:
        steps: from the input to the comparison.
        scope: whose constants ``node`` sees.
        node: a consumer of the value that the steps lead to.
        slot: which of its inputs that is.
        entry: an input of more than one number.
    """
    if steps is None or entry.is_bool or entry.is_string:
        return
    numbers = constants_beside(scope, node, slot)
    targets: list[float] = []
    for number in numbers:
        targets += (number, number - 1, number + 1) if entry.is_integer else (number,)
    values = _reaching(steps, targets, entry)
    if values:
        many = f"{numbers[0]:.16g}" if len(numbers) == 1 else f"{len(numbers)} numbers"
        role = "equality" if node.op_type == "Equal" else "order"
        yield Demand(
            Kind.AMONG,
            f"compared with {many} in {label(node)}",
            values=values,
            role=role,
        )


def _reaching(steps: Steps, targets: Sequence[float], entry: Input) -> tuple[float, ...]:
    """Return the values of an input that the steps make one of the targets, each once."""
    values: dict[float, None] = {}
    for target in targets:
        for value in _backward(steps, target):
            if not _fits(value, entry):
                continue
            if forward(steps, value, whole=entry.is_integer) == target:
                values[value] = None
    return tuple(values)


def cut_off(
    steps: Steps | None, scope: Scope, node: onnx.NodeProto, slot: int, entry: Input
) -> Iterator[Demand]:
    """Find the integers that are just beyond what they are cut off at, at it, and before it.

    Args:
        steps: from the input to the cut.
        scope: whose constants ``node`` sees.
        node: a consumer of the value that the steps lead to.
        slot: which of its inputs that is.
        entry: an input of integers.
    """
    cuts = node.op_type in ("Min", "Max") or (node.op_type == "Clip" and slot == 0)
    if steps is None or not cuts or not entry.is_integer:
        return
    targets: list[float] = []
    for place, name in enumerate(node.input):
        number = _number(scope, name) if name and place != slot else None
        if number is not None and abs(number) <= _MOST_COUNTED:
            targets += (number + 1, number - 1, number)
    if values := _reaching(steps, targets, entry):
        yield Demand(Kind.CUT, f"it is cut off in {label(node)}", values=values)


def forward(steps: Steps, value: float, *, whole: bool) -> float:
    """Return what the steps make of a value.

    Args:
        steps: in order.
        value: of the input.
        whole: whether the input is of an integer type.
    """
    for step in steps:
        match step.act:
            case Act.ADD:
                value += step.number
            case Act.FROM:
                value = step.number - value
            case Act.SCALE:
                value *= step.number
            case Act.DIVIDE:
                value = math.trunc(value / step.number) if whole else value / step.number
            case Act.MODULO:
                value = value % step.number
            case Act.ABSOLUTE:
                value = abs(value)
            case Act.FLOOR:
                value = math.floor(value)
            case Act.CEIL:
                value = math.ceil(value)
            case Act.ROUND:
                value = round(value)
            case Act.AT_LEAST:
                value = max(value, step.number)
            case Act.AT_MOST:
                value = min(value, step.number)
            case Act.WHOLE:
                value, whole = math.trunc(value), True
            case Act.REAL:
                whole = False
            case Act.TRUTH:
                value, whole = float(value != 0), True
    return value


_WHOLE = tuple(
    getattr(onnx.TensorProto, f"{sign}INT{bits}")
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
)
# What a sentence mentions: shifts and scales are seen through.
_TOLD = frozenset(
    {
        Act.DIVIDE,
        Act.MODULO,
        Act.ABSOLUTE,
        Act.FLOOR,
        Act.CEIL,
        Act.ROUND,
        Act.AT_LEAST,
        Act.AT_MOST,
    }
)


def _candidates(steps: Steps, number: float) -> list[float]:
    """Values that may come to ``number``, or to something else, likeliest first."""
    near = [number, number / 2, number * 2] if not number.is_integer() else [number]
    targets = [*near, 1 - number if number in (0, 1) else number + 1, number - 1, 0.0, 1.0]
    candidates = []
    for target in targets:
        for value in _backward(steps, target):
            candidates.append(value)
    return list(dict.fromkeys(candidates))


def _backward(steps: Steps, target: float) -> Iterator[float]:
    values = [target]
    for step in reversed(steps):
        values = [before for value in values for before in _before(step, value)]
    yield from values


def _before(step: Step, value: float) -> Sequence[float]:
    number = step.number
    match step.act:
        case Act.ADD:
            return (value - number,)
        case Act.FROM:
            return (number - value,)
        case Act.SCALE:
            exact = value / number if number else 0.0
            return (exact, math.floor(exact), math.ceil(exact)) if number else ()
        case Act.DIVIDE:
            return (value * number,)
        case Act.MODULO:
            # The remainder itself comes last: 16000 says more about "x % 16000 == 0" than 0 does.
            return (value + number, value)
        case Act.ABSOLUTE:
            return (value, -value)
        case _:
            return (value,)


def _number(scope: Scope, name: str) -> float | None:
    constant = scope.constant(name)
    if constant is None or constant.size != 1 or constant.dtype.kind not in "iufb":
        return None
    number = float(constant.reshape(-1)[0])
    return number if math.isfinite(number) else None


def _fits(value: float, entry: Input) -> bool:
    if not entry.is_integer:
        return bool(np.isfinite(value))
    low, high = entry.integer_range
    return float(value).is_integer() and low <= value <= high
