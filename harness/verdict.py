"""The verdict on what a candidate gave: the compare stage of a cell, apart from the way that leads to it.

Whoever has a model's reference and somebody's outputs on its input sets can ask for it: the pipeline, of a variant;
other rooms, of a model that was changed on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import transforms
from harness.accuracy.compare import Comparison, compare
from harness.accuracy.failures import listed
from harness.accuracy.tolerance import Tolerance, choose, same_values, spec_for
from harness.cards import Card
from harness.inputs.reach import reached_outputs
from harness.model import Model
from harness.names import Variant
from harness.reference import Reference
from harness.results.cache import Cache
from harness.results.cells import Status, Symptom
from harness.settings import Settings
from harness.transforms import Precision


@dataclass(frozen=True, slots=True)
class Standard:
    """What the outputs of a cell are held to. One serves for any number of candidates.

    Attributes:
        model: the untouched one.
        reference: its input sets, and what it makes of them.
        card: its tolerances.
        precision: the arithmetic that the variant leaves behind.
        float_io: the dtype that float32 outputs may have become; None: none may change.
        provider: the name of the execution provider that the candidate runs on.
        exact: whether the variant declares that it keeps values, and the model is a single operator that shows it.
        override: (rtol, atol) of the command line.
        kept: where what is measured once for a model is kept.
    """

    model: Model
    reference: Reference
    card: Card
    precision: Precision
    float_io: str | None
    provider: str
    exact: bool
    override: tuple[float, float] | None
    kept: Cache


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a candidate.

    Attributes:
        status: pass, fail or not applicable.
        comparison: the distances of its outputs; None where nothing could be judged.
        reason: one sentence; None for a pass.
        detail: further lines for a person.
        notes: remarks on a verdict that stands.
        symptom: what kind of thing is wrong; None for a pass.
    """

    status: Status
    comparison: Comparison | None = None
    reason: str | None = None
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    symptom: Symptom | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate is right."""
        return self.status is Status.PASS


def standard(
    model: Model, reference: Reference, card: Card, variant: Variant, provider: str, settings: Settings, kept: Cache
) -> Standard:
    """What the cell of ``variant`` on ``provider`` is held to."""
    return Standard(
        model,
        reference,
        card,
        precision_of(variant),
        float_io(variant),
        provider,
        bool(card.suite) and keeps_values(variant),
        settings.tolerance_override,
        kept,
    )


def precision_of(variant: Variant) -> Precision:
    """The arithmetic that a variant leaves behind: the loosest that one of its steps declares."""
    bound = [transforms.bind(step) for step in variant.steps]
    return max((step.transform.precision for step in bound), key=list(Precision).index, default=Precision.FP32)


def keeps_values(variant: Variant) -> bool:
    """Whether each step that changes the model declares that it keeps values, and there is one."""
    changing = [step.transform for step in map(transforms.bind, variant.steps) if not step.transform.session]
    return bool(changing) and all(transform.keeps_values for transform in changing)


def float_io(variant: Variant) -> str | None:
    """The dtype that float32 inputs and outputs may have become, by the variant's own declaration."""
    allowed = [transforms.bind(step).transform.float_io for step in variant.steps]
    return next((dtype for dtype in reversed(allowed) if dtype), None)


def verdict(held: Standard, outputs: Sequence[Mapping[str, Any]]) -> Verdict:
    """Judge a candidate by its outputs.

    Args:
        held: what they're held to.
        outputs: the candidate's outputs by name, on each of the reference's input sets in order.
    """
    made = held.reference
    notes: list[str] = []
    expected: Sequence[Mapping[str, Any]] = made.outputs
    if made.unstable:
        names = ", ".join(sorted(made.unstable))
        expected = [_without(each, made.unstable) for each in expected]
        if not expected[0]:
            reason = f"the model gives other outputs each time it runs: {names}"
            return Verdict(Status.NOT_APPLICABLE, reason=reason, symptom=Symptom.UNSTABLE)
        notes.append(f"not judged, since the reference itself gives another value each time: {names}")
        outputs = [_without(each, made.unstable) for each in outputs]
    places = range(len(made.sets)) if held.precision is Precision.FP32 else made.usual
    comparison = _compared(held, expected, outputs, places)
    told = (*notes, *comparison.notes)
    if comparison.passed:
        empty, remarks = _proves_nothing(held, comparison)
        told += remarks
        if empty is not None:
            return Verdict(Status.FAIL, comparison, empty, notes=told, symptom=Symptom.VACUOUS)
        return Verdict(Status.PASS, comparison, notes=told)
    symptom = Symptom.WRONG_VALUES if comparison.only_values else Symptom.CHANGED_TYPES
    reason = comparison.reason() or "the outputs differ"
    if len(places) > len(made.usual) and _compared(held, expected, outputs, made.usual).passed:
        reason = f"on unusual inputs alone, {reason}"
    return Verdict(Status.FAIL, comparison, reason, comparison.lines(), told, symptom)


def _compared(
    held: Standard,
    expected: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    places: Sequence[int],
) -> Comparison:
    """The comparison on the input sets at ``places``."""
    sets = [held.reference.sets[place] for place in places]
    return compare(
        [expected[place] for place in places],
        [outputs[place] for place in places],
        _tolerances(held),
        set_names=[each.name for each in sets],
        float_io=held.float_io,
        inputs_differ=len({each.digest() for each in sets}) > 1,
        unusual=[bool(each.unusual) for each in sets],
    )


def _proves_nothing(held: Standard, comparison: Comparison) -> tuple[str | None, tuple[str, ...]]:
    """Why a comparison in which nothing failed couldn't have failed, and remarks on what the card accepts.

    Outputs that can't depend on what the inputs hold (there are no inputs, nothing but their shapes goes in, or the
    graph declares that nothing comes out) are as they have to be, and a case of a suite has but one input set.
    """
    card, outputs = held.card, comparison.record.outputs
    remarks = []
    for name, why in card.vacuous.items():
        mine = [each for each in outputs if _is_of(each, name)]
        if mine and not comparison.inert.issuperset(mine):
            remarks.append(f"the card's [vacuous] lists {name}, which does react to the inputs: remove the line")
        elif mine:
            remarks.append(f"accepted by the card: {name} says nothing about the inputs, {why}")
    if card.suite or len(comparison.inert) < len(outputs):
        return None, tuple(remarks)
    declared = held.model.signature.outputs
    empty = {output.name for output in declared if output.shape is not None and 0 in output.shape}
    reached = reached_outputs(held.model.skeleton) - empty
    judged = [
        name
        for name in sorted(comparison.inert)
        if any(_is_of(name, output) for output in reached) and not any(_is_of(name, each) for each in card.vacuous)
    ]
    if not judged:
        return None, tuple(remarks)
    reason = (
        f"nothing was compared that could have failed: no output reacts to the inputs ({listed(judged)}). Put a "
        "recorded input set, a .npz whose keys are the input names, beside the model with its stem; "
        f'or accept it in the card: [vacuous] {judged[0]} = "why"'
    )
    return reason, tuple(remarks)


def _is_of(name: str, output: str) -> bool:
    """Whether a compared value is a graph output, or nested in it; ``*`` is every output."""
    return output == "*" or name == output or name.startswith(f"{output}[")


def _tolerances(held: Standard) -> Callable[[str], Tolerance]:
    kinds = {value.name: value.kind for value in held.model.signature.outputs}

    def tolerance_for(output: str) -> Tolerance:
        spec = spec_for(held.card.tolerance, output)
        # A float16 output can't be closer than float16 is fine, whatever the transform left behind.
        kind = kinds.get(output, "")
        if held.exact and held.override is None:
            return same_values(kind)
        half = held.precision is Precision.FP32 and ("float16" in kind or "float8" in kind)
        rule = Precision.FP16 if half else held.precision
        return choose(rule, tf32=False, spec=spec, override=held.override)

    return tolerance_for


def _without(outputs: Mapping[str, Any], unstable: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in outputs.items() if name not in unstable}
