"""The verdict on what a candidate gave.

The compare stage of a cell, apart from the way that leads to it.

Whoever has a model's reference and somebody's outputs on its input sets can ask for it: the
pipeline, of a variant; other rooms, of a model that was changed on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.accuracy.compare import Comparison, compare
from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.failures import OutputFailure, listed
from onnx_harness.accuracy.tolerance import Tolerance, choose, same_values, spec_for
from onnx_harness.cards.card import Card
from onnx_harness.errors import first_line
from onnx_harness.inputs.graph.chance import random_nodes
from onnx_harness.inputs.graph.reach import empty_outputs, reached_outputs
from onnx_harness.judging.choices import choice_axes
from onnx_harness.judging.ideal import Conversion, ideal_conversion
from onnx_harness.judging.last_bits import exact_sums
from onnx_harness.judging.noise_floor import (
    INEXACT,
    NOT_NOISE,
    RESTS_ON,
    noise_floor,
    unusual_floor,
)
from onnx_harness.judging.quantizing import Scheme
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.rounding import Clamp
from onnx_harness.judging.specification import has_infinities, specified_instead
from onnx_harness.judging.untouched import (
    DRAWS,
    false_shapes,
    is_of,
    made_constant,
    said_of,
    unsteady,
)
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Precision
from onnx_harness.transforms.bf16 import MAX_FINITE_VAL as LARGEST_BFLOAT16
from onnx_harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL
from onnx_harness.transforms.int8 import DEFAULT_OP_TYPES_TO_EXCLUDE, DYNAMIC_OPS, STATIC_OPS
from onnx_harness.transforms.quantization.options import extra_options
from onnx_harness.transforms.variant import BoundVariant

if TYPE_CHECKING:
    import onnx

_LIMITS = {"min_positive_val": MIN_POSITIVE_VAL, "max_finite_val": MAX_FINITE_VAL}
"""The limits of a conversion to float16 for magnitudes of weights.

They are its options, with what all of them do by default.
"""


@dataclass(frozen=True, slots=True)
class Standard:
    """The standard for the outputs of a cell. One serves for any number of candidates.

    Attributes:
        model: the untouched one.
        reference: its input sets, and what it makes of them.
        card: its tolerances.
        precision: the arithmetic that the variant leaves behind.
        conversion: what the variant converts to; None where its arithmetic stays float32.
        float_io: the dtype that float32 outputs may have become; None: none may change.
        provider: the name of the execution provider that the candidate runs on.
        exact: whether the variant declares that it keeps values, and the model is a single operator
            that shows it.
        override: (rtol, atol) of the command line.
        kept: where what is measured once for a model is kept.
        explained: whether a departure has to be explained, beside being within the bounds.
    """

    model: Model
    reference: Reference
    card: Card
    precision: Precision
    conversion: Conversion | None
    float_io: str | None
    provider: str
    exact: bool
    override: tuple[float, float] | None
    kept: Cache
    explained: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a candidate.

    Attributes:
        status: pass, fail or not applicable.
        comparison: the distances of its outputs; None where nothing could be judged.
        reason: one sentence; None for a pass.
        detail: further lines for a person.
        notes: remarks on a verdict that stands.
        symptom: what kind of thing is wrong; None for a pass.
        emulated: the distances as the provider computed float16, in float32; None where it was
            computed as such.
        simulated: those of the run in which float16 was simulated; None where there was none.
        failing: positions of the input sets to show it on, where the comparison doesn't say; empty:
            it does.
    """

    status: Status
    comparison: Comparison | None = None
    reason: str | None = None
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    symptom: Symptom | None = None
    failing: tuple[int, ...] = ()
    emulated: Comparison | None = None
    simulated: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Return whether the candidate is right."""
        return self.status is Status.PASS

    @property
    def worst_sets(self) -> tuple[int, ...]:
        """The positions of the input sets on which an output is worst, where outputs fail."""
        failures = self.comparison.failures if self.comparison is not None else ()
        return self.failing or tuple(
            sorted({failure.at for failure in failures if failure.at is not None})
        )


def standard(
    model: Model,
    reference: Reference,
    card: Card,
    bound: BoundVariant,
    provider: str,
    settings: Settings,
    cache: Cache,
) -> Standard:
    """Return what the cell of a variant on ``provider`` is held to."""
    return Standard(
        model,
        reference,
        card,
        bound.precision,
        conversion_of(bound),
        bound.float_io,
        provider,
        bool(card.suite) and bound.keeps_values,
        settings.tolerance_override,
        cache,
    )


def session_config(
    model: Model, bound: BoundVariant, candidate: onnx.ModelProto
) -> Mapping[str, str]:
    """Return the configuration in which a variant's sessions avoid integer kernels that saturate.

    The noise floor's sessions did so too.

    Such kernels replace the float arithmetic of a model that is quantized already: what they do is
    ONNX Runtime's own doing on this processor. A variant that quantizes answers for them itself.
    """
    return {} if bound.precision is Precision.INT8 else exact_sums(model.skeleton, candidate)


_STILL = (
    "Mend: where an input scales what is drawn, hold it at 0 in the model's card: "
    "[inputs.NAME] values = [0]; "
    "or export the model without drawing"
)


def verdict(
    standard: Standard,
    outputs: Sequence[Mapping[str, Any]],
    again: Callable[[], Mapping[str, Any]] | None = None,
) -> Verdict:
    """Judge a candidate by its outputs.

    Args:
        standard: what they're held to.
        outputs: the candidate's outputs by name, on each of the reference's input sets in order.
        again: runs the candidate on the first of those once more; None where it can't be run again.
            Only asked where the model draws at random: what a transform has made constant gives the
            same each time.
    """
    made = standard.reference
    if constant := made_constant(standard.model, made, standard.provider, outputs[0], again):
        reason = (
            f"drawn at random by the untouched model, and the same in each of {DRAWS} runs "
            f"here: {listed(constant)}"
        )
        return Verdict(Status.FAIL, reason=reason, symptom=Symptom.WRONG_VALUES)
    notes: list[str] = []
    expected: Sequence[Mapping[str, Any]] = made.outputs
    if made.unstable:
        names = ", ".join(sorted(made.unstable))
        drawn = random_nodes(standard.model.skeleton, made.unstable)
        names += f" (drawn at random by {listed(drawn)})" if drawn else ""
        expected = [_without(each, made.unstable) for each in expected]
        if not expected[0]:
            reason = f"the model gives other outputs each time it runs: {names}. {_STILL}"
            return Verdict(Status.NOT_APPLICABLE, reason=reason, symptom=Symptom.UNSTABLE)
        notes.append(
            f"not judged, since the reference itself gives another value each time: {names}"
        )
        outputs = [_without(output, made.unstable) for output in outputs]
    usual = _usual(standard)
    places = range(len(made.sets)) if standard.precision is Precision.FP32 else usual
    notes += false_shapes(standard.model, made)
    yardstick, unmeasured = _yardstick(standard)
    notes += unmeasured
    comparison = _compared(standard, expected, outputs, places, yardstick)
    if yardstick is not None and any(
        made.sets[failure.at or 0].unusual for failure in comparison.failures
    ):
        # Only now, since it's rarely needed: how steady the untouched model itself is there.
        steadiness = unusual_floor(standard.model, made, standard.kept)
        yardstick = yardstick.with_noise(steadiness)
        shaky = unsteady(made, steadiness, _tolerances(standard))
        chaotic = (
            [place for place, judges in shaky.items() if not judges]
            if comparison.only_values
            else []
        )
        places = [place for place in places if place not in chaotic]
        notes += said_of(made, shaky)
        comparison = _compared(standard, expected, outputs, places, yardstick)
    instead = {} if comparison.passed else _specified(standard, expected, outputs, places)
    if instead:
        notes.append(
            "held against ONNX's reference implementation where ONNX Runtime's CPU kernels make "
            "numbers of NaN, and "
            f"neither it nor {standard.provider} does: "
            + listed(sorted({made.sets[place].unusual for place in instead}))
        )
        expected = [instead.get(place, each) for place, each in enumerate(expected)]
        comparison = _compared(standard, expected, outputs, places, yardstick)
    told = (*notes, *comparison.notes)
    if comparison.passed:
        empty, remarks = _proves_nothing(standard, comparison)
        told += remarks
        if empty is not None:
            return Verdict(Status.FAIL, comparison, empty, notes=told, symptom=Symptom.VACUOUS)
        return Verdict(Status.PASS, comparison, notes=told)
    symptom = Symptom.WRONG_VALUES if comparison.only_values else Symptom.CHANGED_TYPES
    reason = comparison.reason() or "the outputs differ"
    if len(places) > len(usual) and _compared(standard, expected, outputs, usual, yardstick).passed:
        reason = f"on unusual inputs alone, {reason}"
    return Verdict(Status.FAIL, comparison, reason, comparison.lines(), told, symptom)


def _usual(standard: Standard) -> list[int]:
    """Return the positions of the usual sets that a cell is judged on.

    What quantizes isn't judged on the large one. That shows where float16 stops counting, and no
    range was calibrated there.
    """
    reference = standard.reference
    return reference.everyday if standard.precision is Precision.INT8 else reference.usual


def _specified(
    standard: Standard,
    expected: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    places: Sequence[int],
) -> dict[int, Mapping[str, Any]]:
    """By unusual input set with infinities on which ONNX doesn't bear the reference out.

    What it gives instead.

    Only asked where the kernels aren't the reference's: on the CPU a change is a change.
    """
    if providers.get(standard.provider).noise_factor <= 1:
        return {}
    found: dict[int, Mapping[str, Any]] = {}
    for place in places:
        each = standard.reference.sets[place]
        if each.unusual and has_infinities(each):
            instead = specified_instead(outputs[place], expected[place], standard.model, each)
            if instead is not None:
                found[place] = instead
    return found


def _compared(
    standard: Standard,
    expected: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    places: Sequence[int],
    yardstick: Yardstick | None,
) -> Comparison:
    """The comparison on the input sets at ``places``.

    All usual ones, which come first, and some of the others.
    """
    sets = [standard.reference.sets[place] for place in places]
    comparison = compare(
        [expected[place] for place in places],
        [outputs[place] for place in places],
        _tolerances(standard),
        set_names=[input_set.name for input_set in sets],
        float_io=standard.float_io,
        inputs_differ=len({input_set.digest() for input_set in sets}) > 1,
        # What lies on a threshold is ordinary but for that: noise has to explain what differs
        # there, not the bound.
        unusual=[bool(input_set.unusual) and not input_set.poised for input_set in sets],
        saturated=[input_set.saturates for input_set in sets],
        edged=[bool(input_set.unusual) and not input_set.smooth for input_set in sets],
        yardstick=None if yardstick is None else yardstick.on(places),
    )
    return replace(
        comparison, failures=tuple(_at_place(failure, places) for failure in comparison.failures)
    )


def _at_place(failure: OutputFailure, places: Sequence[int]) -> OutputFailure:
    """Return a failure by its input set's position in the reference.

    The position is another where some sets judge nothing.
    """
    return failure if failure.at is None else replace(failure, at=places[failure.at])


def _yardstick(standard: Standard) -> tuple[Yardstick | None, list[str]]:
    """Return what departures are explained by, and remarks on what couldn't be measured.

    The cases of a suite aren't measured: they are operators one at a time, judged by the suite's
    own measure.
    """
    if standard.card.suite or not standard.explained:
        return None, []
    floor = noise_floor(standard.model, standard.reference, standard.kept)
    notes = []
    for note in floor.notes:
        if note.startswith((NOT_NOISE, RESTS_ON, INEXACT)):
            notes.append(note)
    factor = providers.get(standard.provider).noise_factor
    if standard.conversion is None:
        return Yardstick(floor, factor=factor, usual=tuple(_usual(standard))), notes
    try:
        ideal = ideal_conversion(
            standard.model, standard.reference, standard.conversion, standard.kept
        )
    except Exception as error:  # what onnx and ONNX Runtime raise has no common class
        why = (
            f"whether it is faithful isn't judged: the ideal conversion can't be run: "
            f"{first_line(error, 160)}"
        )
        return None, [*notes, why]
    return Yardstick(
        floor,
        ideal.digits,
        ideal.range,
        standard.conversion.type,
        factor,
        tuple(_usual(standard)),
    ), notes


def conversion_of(bound: BoundVariant) -> Conversion | None:
    """The conversion that a variant is; None where its arithmetic stays float32.

    What a step documents about it is read in its options: limits of a clamp, operators that are
    quantized.
    """
    step = bound.conversion
    if step is None:
        return None
    if bound.precision is Precision.INT8:
        return Conversion("int8", scheme=_scheme(step))
    all_inputs = bound.float_io is not None
    if bound.precision is not Precision.FP16:
        return Conversion("bfloat16", Clamp(0.0, LARGEST_BFLOAT16), all_inputs)
    least, most = (step.options.get(name, limit) for name, limit in _LIMITS.items())
    if not (isinstance(least, float) and isinstance(most, float)):
        raise TypeError(
            f"the limits of {step.name}'s clamp are numbers, and {least!r} and {most!r} aren't"
        )
    return Conversion("float16", Clamp(least, most), all_inputs)


def _scheme(step: BoundStep) -> Scheme:
    static = step.transform.calibrated
    if step.name == "int4":
        return Scheme(
            frozenset({"MatMul"}),
            static=False,
            signed_weights=bool(step.options.get("symmetric", False)),
            never=_texts(step.options.get("nodes_to_exclude", ())),
            block=int(str(step.options.get("block_size", 32))),
        )

    def names(option: str, default: tuple[str, ...] = ()) -> frozenset[str]:
        return _texts(step.options.get(option, default))

    extra = extra_options(tuple(names("extra_options")))
    included = names("op_types_to_quantize") or frozenset(STATIC_OPS if static else DYNAMIC_OPS)
    excluded = names("op_types_to_exclude", DEFAULT_OP_TYPES_TO_EXCLUDE if static else ())
    return Scheme(
        included - excluded,
        static,
        per_channel=bool(step.options.get("per_channel", False)),
        signed_weights=extra.get(
            "WeightSymmetric", step.options.get("weight_type", "int8") == "int8"
        ),
        signed_activations=extra.get(
            "ActivationSymmetric", step.options.get("activation_type", "uint8") == "int8"
        ),
        narrow=bool(step.options.get("reduce_range", False)),
        only=names("nodes_to_quantize"),
        never=names("nodes_to_exclude"),
    )


def _texts(value: object) -> frozenset[str]:
    return frozenset(value if isinstance(value, tuple) else ())


def _proves_nothing(
    standard: Standard, comparison: Comparison
) -> tuple[str | None, tuple[str, ...]]:
    """Say why a comparison in which nothing failed couldn't have failed.

    The second item is remarks on what the card accepts.

    Outputs that can't depend on what the inputs hold (there are no inputs, nothing but their shapes
    goes in, or nothing comes out by its shape) are as they have to be, and a case of a suite has
    but one input set.
    """
    card, outputs = standard.card, comparison.record.outputs
    remarks = []
    for name, why in card.vacuous.items():
        mine = [output for output in outputs if is_of(output, name)]
        if mine and not comparison.inert.issuperset(mine):
            remarks.append(
                f"the card's [vacuous] lists {name}, which does react to the inputs: remove the "
                f"line"
            )
        elif mine:
            remarks.append(f"accepted by the card: {name} says nothing about the inputs, {why}")
    if card.suite or len(comparison.inert) < len(outputs):
        return None, tuple(remarks)
    reached = reached_outputs(standard.model.skeleton) - empty_outputs(standard.model.skeleton)
    judged = []
    for name in sorted(comparison.inert):
        if any(is_of(name, output) for output in reached) and not any(
            is_of(name, each) for each in card.vacuous
        ):
            judged.append(name)
    if not judged:
        return None, tuple(remarks)
    reason = (
        f"nothing was compared that could have failed: no output reacts to the inputs "
        f"({listed(judged)}). Put a "
        "recorded input set, a .npz whose keys are the input names, beside the model with its "
        "stem; "
        f'or accept it in the card: [vacuous] {judged[0]} = "why"'
    )
    return reason, tuple(remarks)


def _tolerances(standard: Standard) -> Callable[[str], Tolerance]:
    kinds = {value.name: value.kind for value in standard.model.signature.outputs}
    axes = choice_axes(standard.model.skeleton)

    def tolerance_for(output: str) -> Tolerance:
        spec = spec_for(standard.card.tolerance, output)
        # A float16 output can't be closer than float16 is fine, whatever the transform left behind.
        kind = kinds.get(output, "")
        if standard.exact and standard.override is None:
            return same_values(kind)
        half = standard.precision is Precision.FP32 and ("float16" in kind or "float8" in kind)
        rule = Precision.FP16 if half else standard.precision
        tolerance = choose(rule, spec=spec, override=standard.override)
        if tolerance.by_default and "float8" in kind:
            tolerance = replace(
                tolerance, sqnr_db=None
            )  # one rounding of such a type leaves 20 to 30 dB
        return replace(tolerance, axis=axes.get(output))

    return tolerance_for


def _without(outputs: Mapping[str, Any], unstable: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in outputs.items() if name not in unstable}
