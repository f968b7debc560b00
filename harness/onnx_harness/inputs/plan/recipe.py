"""A model's recipe for inputs.

Every input's rule, every dynamic dimension's candidates, and the sets made of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.cards.toml import Scalar
from onnx_harness.inputs.decisions.lookups import keys_by_column
from onnx_harness.inputs.graph.follow import read
from onnx_harness.inputs.graph.scopes import GraphView, Scope, view
from onnx_harness.inputs.graph.shapes import Meeting, Relation
from onnx_harness.inputs.graph.signature import (
    Container,
    Input,
    default_names,
    evaluate,
    read_inputs,
)
from onnx_harness.inputs.graph.standardization import standardization
from onnx_harness.inputs.graph.walk import Findings, follow
from onnx_harness.inputs.plan import sizes as sizing
from onnx_harness.inputs.plan import specs as cards
from onnx_harness.inputs.plan.fill import constant, fill, kind_of
from onnx_harness.inputs.plan.fitting import Sizes, telling
from onnx_harness.inputs.plan.rule import Make, Rule, placed_around
from onnx_harness.inputs.plan.rules import rule_for
from onnx_harness.inputs.plan.sizes import Dimension
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value, arrays_of, set_name
from onnx_harness.model.inlining import inline_functions

_SEQUENCE_LENGTH = 2
_MOST_ELEMENTS = 1 << 24  # of one input with dynamic dimensions: 64 MiB of float32


@dataclass(frozen=True, slots=True)
class Guess:
    """The assumptions of one try, beyond the rules.

    Attributes:
        sizes: of every dynamic dimension.
        control: index that values which take turns go by; the set's own, unless that was found not
            to run.
        constants: input name to a number that fills it in place of its rule.
        cap: greatest value for integers that nothing certain bounds.
        far: whether positions end with the greatest that there is, in place of beginning with 0.
        loud: how many times as large a signal is that nothing bounds.
    """

    sizes: Sizes
    control: int
    constants: dict[str, int] = field(default_factory=dict)
    cap: int | None = None
    far: bool = False
    loud: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is known before anything runs.

    Attributes:
        inputs: what a feed must hold.
        rules: by input name.
        dimensions: by dimension name.
        specs: what the card says.
        findings: what the graph says, by input name.
        relations: between the sizes of dimensions.
        meetings: of sizes with numbers of the graph.
    """

    inputs: dict[str, Input]
    rules: dict[str, Rule]
    dimensions: dict[str, Dimension]
    specs: Mapping[str, InputSpec]
    findings: dict[str, Findings]
    relations: tuple[Relation, ...] = ()
    meetings: tuple[Meeting, ...] = ()

    def pinned(self, index: int) -> dict[str, int]:
        """The sizes that the card fixes in set ``index``."""
        return cards.pins(self.specs, self.inputs, index, self.controls(index))

    def controls(self, index: int) -> dict[str, Scalar]:
        """The inputs that hold one value throughout in set ``index``, with that value."""
        choices: dict[str, Scalar] = {}
        for name, rule in self.rules.items():
            if rule.make is Make.CHOICES:
                choices[name] = rule.choice(index)
        return choices

    def first_guess(self, index: int) -> Guess:
        """Return what set ``index`` is made of if it runs."""
        pinned = self.pinned(index)
        sizes = self.fit(sizing.preferred(self.dimensions, index) | pinned, pinned)
        free = [name for name in sizes if name not in pinned]
        # Four dynamic axes of usual sizes multiply to gigabytes: the largest give way.
        while (
            self.too_large(sizes)
            and free
            and sizes[largest := max(free, key=lambda name: sizes[name])] > 1
        ):
            sizes[largest] = (sizes[largest] + 1) // 2
        return Guess(sizes, index)

    def fit(self, preferred: Sizes, pinned: Collection[str]) -> Sizes:
        """The sizes next to ``preferred`` that fit together as far as the graph tells.

        ``pinned`` ones stay.
        """
        return sizing.fit(self.relations, self.dimensions, preferred, pinned)

    def too_large(self, sizes: Sizes) -> bool:
        """Return whether an input would hold more elements than a guess should.

        What the graph fixes isn't a guess.
        """
        for entry in self.inputs.values():
            if entry.dims is None or all(isinstance(dim, int) for dim in entry.dims):
                continue
            if math.prod(evaluate(dim, sizes) for dim in entry.dims) > _MOST_ELEMENTS:
                return True
        return False

    def values(self, index: int, seed: int, guess: Guess) -> dict[str, Value]:
        """The values of set ``index`` under ``guess``."""
        return {
            name: self._value(entry, index, seed, guess)
            for name, entry in self.inputs.items()
        }

    @property
    def is_loud(self) -> bool:
        """Return whether an input is a signal of floats that nothing bounds."""
        return any(self._may_be_loud(name) for name in self.inputs)

    def _may_be_loud(self, name: str) -> bool:
        rule = self.rules[name]
        free = rule.low is None and rule.high is None and rule.around is None
        return self.inputs[name].is_float and rule.make is Make.SIGNAL and free

    def named(
        self, index: int, seed: int, values: dict[str, Value], loud: float = 1.0
    ) -> InputSet:
        """The finished set; ``loud`` as in its guess."""
        main = max(
            self.rules,
            key=lambda name: (self._tells(name), _elements(values[name])),
            default="",
        )
        kind = kind_of(self.rules[main], index) if main else ""
        if loud != 1 and self._may_be_loud(main):
            kind = f"{kind} times {loud:g}"
        return InputSet(set_name(index, f"seed {seed}", values, main, kind), values)

    def _tells(self, name: str) -> bool:
        """Return whether an input says what the model is about: a picture, a sound, a text."""
        rule = self.rules[name]
        return rule.make in (Make.IDS, Make.TEXTS) or bool(
            {"page", "audio"} & {*rule.generators}
        )

    def _value(self, entry: Input, index: int, seed: int, guess: Guess) -> Value:
        shape = (
            cards.shape_of_unranked(self.specs.get(entry.name), index)
            if entry.dims is None
            else None
        )
        if shape is None:
            shape = tuple(evaluate(dim, guess.sizes) for dim in entry.dims or ())
        rng = seeded(seed, index, entry.name)
        if entry.name in guess.constants:
            filled: Value = constant(entry, shape, guess.constants[entry.name])
        else:
            rule = self.rules[entry.name]
            # Only what takes turns goes by the control; noise and signals stay the set's own.
            turn = guess.control if rule.make is Make.CHOICES else index
            options: dict[str, Any] = {
                "index": turn,
                "sizes": guess.sizes,
                "cap": guess.cap,
                "far": guess.far,
            }
            filled = fill(rule, entry, shape, rng, **options)
            is_louder = guess.loud != 1 and self._may_be_loud(entry.name)
            if is_louder and isinstance(filled, np.ndarray):
                filled = np.asarray(guess.loud * filled.astype(np.float64), filled.dtype)
            if entry.container is Container.SEQUENCE:
                more = []
                for _ in range(_SEQUENCE_LENGTH - 1):
                    more.append(fill(rule, entry, shape, rng, **options))
                filled = [filled, *more]
        return (
            [filled]
            if entry.container is Container.SEQUENCE and not isinstance(filled, list)
            else filled
        )


def recipe_for(
    model: onnx.ModelProto, specs: Mapping[str, InputSpec], rank: int | None = None
) -> Recipe:
    """Read the graph and the card.

    Args:
        model: large initializers may have lost their data.
        specs: the card's ``[inputs]``.
        rank: for inputs whose rank neither the graph nor the card gives; without it, what a
            consumer suggests, or 2.

    Raises:
        InputError: an input is of a type that no values are generated for.
        CardError: the card contradicts the graph.
    """
    declared = read_inputs(model)
    cards.check(specs, declared, default_names(model))
    graph = view(model)
    inputs: dict[str, Input] = {}
    for name, entry in declared.items():
        if entry.dims is None and not (name in specs and specs[name].shapes):
            axes = (follow(graph, entry).rank or 2) if rank is None else rank
            entry = replace(
                entry,
                dims=tuple(f"{name}[{axis}]" for axis in range(axes)),
                labels=("?",) * axes,
            )
        inputs[name] = entry
    shapes = read(_flat(model, graph), inputs)
    graph.main.learn(shapes.dims)
    findings = {name: follow(graph, entry) for name, entry in inputs.items()}
    relations = tuple(telling(shapes.relations))
    rules: dict[str, Rule] = {}
    controls = 0
    for name, entry in inputs.items():
        rules[name] = rule_for(entry, findings[name], specs.get(name))
        if name not in specs:
            rules[name] = placed_around(rules[name], standardization(graph.main, entry))
        # What a card lists goes in step with what it lists elsewhere.
        if rules[name].make is Make.CHOICES and name not in specs:
            rules[name] = replace(rules[name], lag=controls)
            controls += 1
    for name, keys in keys_by_column(graph.main, inputs, specs).items():
        if rules[name].make in (Make.TEXTS, Make.AMONG):
            rules[name] = replace(rules[name], columns=keys)
    return Recipe(
        inputs,
        rules,
        sizing.plan(inputs, findings, relations),
        specs,
        findings,
        relations,
        tuple(dict.fromkeys(shapes.meetings)),
    )


def _flat(model: onnx.ModelProto, graph: GraphView) -> Scope:
    """Return the main graph with the model's own functions in the place of their calls.

    Where that can't be done, it stays as it is.
    """
    if not model.functions:
        return graph.main
    try:
        return view(inline_functions(model)).main
    except Exception:
        # What the inliner raises on a function that isn't valid has no common class.
        return graph.main


def _elements(value: Value) -> int:
    return sum(array.size for array in arrays_of(value))


def has_unknown_rank(model: onnx.ModelProto, specs: Mapping[str, InputSpec]) -> bool:
    """Return whether an input's rank is given neither by the graph nor by the card."""
    for name, entry in read_inputs(model).items():
        if entry.dims is None and not (name in specs and specs[name].shapes):
            return True
    return False
