"""Decide what values an input gets and say why.

The graph's demands and the card's words settle it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from onnx_harness.cards.card import InputSpec
from onnx_harness.cards.toml import Scalar
from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.walk import Findings
from onnx_harness.inputs.plan.name_rules import integer, of, range_text, real
from onnx_harness.inputs.plan.rule import Make, Rule

_MASK_NAME = re.compile(r"mask", re.I)


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
        return Rule(
            Make.CHOICES, f"The card fixes its values: {listed}.", choices=spec.values
        )
    low = inferred.low if spec.low is None else spec.low
    high = inferred.high if spec.high is None else spec.high
    dim = inferred.dim if spec.high is None else None
    if spec.generator is not None:
        why = f"The card asks for the generator '{spec.generator}'{range_text(low, high)}."
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
        why = f"The card bounds its values{range_text(low, high)}."
        make = inferred.make if inferred.make in (Make.IDS, Make.INTEGERS) else Make.INTEGERS
        if entry.is_float:
            return Rule(
                Make.SIGNAL,
                why,
                low=low,
                high=high,
                generators=inferred.generators or ("uniform",),
            )
        return Rule(make, why, low=low, high=high, dim=dim)
    return inferred


def _inferred(entry: Input, findings: Findings) -> Rule:
    demands = findings.demands
    if entry.is_string:
        keys = of(demands, Kind.KEYS)
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
            Make.TEXTS,
            why,
            choices=listed,
            is_closed=any(demand.is_closed for demand in keys),
        )
    is_single = entry.dims is not None and all(dim == 1 for dim in entry.dims)
    if entry.is_bool:
        if is_single:
            return Rule(
                Make.CHOICES, "A truth value: true and false in turn.", choices=(True, False)
            )
        return Rule(
            Make.BOOLS, "Truth values: about half of them true, most, and few in turn."
        )
    if is_single and (rule := _control(entry, demands)) is not None:
        return rule
    if masks := of(demands, Kind.MASK):
        return Rule(Make.MASK, f"0 and 1: {masks[0].why}.")
    if _MASK_NAME.search(entry.name) and (entry.is_integer or not findings.is_signal):
        return Rule(Make.MASK, "0 and 1: its name says that it is a mask.", certain=False)
    if (keys := of(demands, Kind.KEYS)) and (rule := _keys(entry, keys)) is not None:
        return rule
    rule = (
        integer(entry, findings, is_single=is_single)
        if entry.is_integer
        else real(entry, findings, is_single=is_single)
    )
    rule = _with_constants(rule, entry, of(demands, Kind.AMONG))
    return _with_elements(rule, entry, of(demands, Kind.CHOICE))


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
    return Rule(
        Make.AMONG, f"Keys{more}: {keys[0].why}.", choices=fitting, is_closed=is_closed
    )


def _with_constants(rule: Rule, entry: Input, among: list[Demand]) -> Rule:
    """The rule of a tensor whose elements are compared with constants."""
    free = rule.make is Make.SIGNAL or (
        rule.make in (Make.IDS, Make.INTEGERS) and (rule.certain or (rule.low or 0) <= 0)
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
    where = "some elements" if salient else "some elements of a further set"
    why = f"{rule.why} Constants in {where}: it is {among[0].why}."
    return replace(rule, why=why, salient=tuple(salient), edges=tuple(edges))


def _control(entry: Input, demands: tuple[Demand, ...]) -> Rule | None:
    """The rule for a single number that the graph compares with something."""
    if (choices := of(demands, Kind.CHOICE)) and (typed := _both_sides(entry, choices)):
        return Rule(
            Make.CHOICES, f"{_listed(typed)} in turn: {choices[0].why}.", choices=typed
        )
    # A floor that lets everything through and one that lets most through; likewise a ceiling.
    for kind, usual in ((Kind.LOWER, (0.0, 1.0)), (Kind.UPPER, (10_000.0, 1_000.0))):
        if matching := of(demands, kind):
            values_of = usual
            if table := matching[0].values:
                tenth = (table[1] - table[0]) / 10
                values_of = (
                    (table[0], table[0] + tenth)
                    if kind is Kind.LOWER
                    else (table[1], table[1] - tenth)
                )
            typed = tuple(
                value if entry.is_float else int(min(value, 100)) for value in values_of
            )
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
            dict.fromkeys(
                [*values, *(value for demand in choices for value in demand.otherwise)]
            )
        )
    return tuple(float(value) if entry.is_float else int(value) for value in values)


def _with_elements(rule: Rule, entry: Input, choices: list[Demand]) -> Rule:
    """The rule of a vector, some elements of which are compared with constants."""
    elements = []
    for place in sorted(
        {demand.element for demand in choices if demand.element is not None}
    ):
        mine = [demand for demand in choices if demand.element == place]
        if typed := _both_sides(entry, mine):
            elements.append((place, typed))
            rule = replace(
                rule,
                why=f"{rule.why} Element {place} holds {_listed(typed)} in turn: {mine[0].why}.",
            )
    return replace(rule, elements=tuple(elements))


def _listed(values: Sequence[Scalar]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
