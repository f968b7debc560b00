"""Floors spelt as a choice: `Where(x < eps, eps, x)`, which is a Max of the two."""

from __future__ import annotations

from onnx_harness.transforms.half.constants import few_numbers
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.steps import Step

_LESS = frozenset({"Less", "LessOrEqual"})
_GREATER = frozenset({"Greater", "GreaterOrEqual"})


def floors(reading: Reading, step: Step) -> list[float]:
    """Return the numbers that a Where keeps a value above; none where it's another choice.

    Args:
        reading: the graphs of the model.
        step: of any operator.
    """
    comparison = floor_comparison(reading, step)
    if comparison is None:
        return []
    return few_numbers(reading, step.ins[1]) or few_numbers(reading, step.ins[2])


def floor_comparison(reading: Reading, step: Step) -> Step | None:
    """Return the step that compares a value with the floor that a Where gives it.

    The value, the floor or both may have other names that stand for the same numbers.
    """
    if step.op != "Where":
        return None
    comparison = reading.makers.get(step.ins[0])
    if not isinstance(comparison, Step) or comparison.op not in _LESS | _GREATER:
        return None
    where_true = few_numbers(reading, step.ins[1])
    numbers = where_true or few_numbers(reading, step.ins[2])
    value = step.ins[2] if where_true else step.ins[1]
    if not numbers or value not in comparison.ins:
        return None
    place = comparison.ins.index(value)
    if few_numbers(reading, comparison.ins[1 - place]) != numbers:
        return None
    # The condition holds where the value is the lesser one.
    is_less = (comparison.op in _LESS) == (place == 0)
    return comparison if is_less == bool(where_true) else None
