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
from onnx_harness.accuracy.compare import ComparedSet, Comparison, compare
from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.failures import OutputFailure, listed
from onnx_harness.errors import first_line
from onnx_harness.inputs.graph.chance import random_nodes
from onnx_harness.inputs.values.sets import shapes_of
from onnx_harness.judging.exact_sums import exact_sums
from onnx_harness.judging.ideal import ideal_conversion
from onnx_harness.judging.noise_floor import (
    INEXACT,
    NOT_NOISE,
    RESTS_ON,
    noise_floor,
    unusual_floor,
)
from onnx_harness.judging.seed_trial import seed_mend
from onnx_harness.judging.specification import has_infinities, specified_instead
from onnx_harness.judging.standard import Standard, tolerances
from onnx_harness.judging.untouched import (
    DRAWS,
    false_shapes,
    made_constant,
    said_of,
    unsteady,
)
from onnx_harness.judging.vacuity import proves_nothing
from onnx_harness.model.file import Model
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant

if TYPE_CHECKING:
    import onnx


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
    def of_values(self) -> bool:
        """Return whether it fails by what was computed: wrong values, or another number of them.

        A number of rows or boxes that hangs on a comparison changes with the last digits. Names,
        kinds and types don't.
        """
        if self.symptom is Symptom.WRONG_VALUES:
            return True
        if self.symptom is not Symptom.CHANGED_TYPES or self.comparison is None:
            return False
        return self.comparison.only_values_or_shapes

    @property
    def worst_sets(self) -> tuple[int, ...]:
        """The positions of the input sets on which an output is worst, where outputs fail."""
        failures = self.comparison.failures if self.comparison is not None else ()
        return self.failing or tuple(
            sorted({failure.at for failure in failures if failure.at is not None})
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
    notes: tuple[str, ...] = ()
    expected: Sequence[Mapping[str, Any]] = made.outputs
    if made.unstable:
        words, mend = _drawn(standard)
        expected = [_without(output, made.unstable) for output in expected]
        if not expected[0]:
            reason = (
                f"the model gives other outputs each time it runs: {words}. {mend}".strip()
            )
            return Verdict(Status.NOT_APPLICABLE, reason=reason, symptom=Symptom.UNSTABLE)
        note = (
            f"not judged, since the reference itself gives another value each time: {words}"
        )
        notes = (f"{note}. {mend}" if mend else note,)
        outputs = [_without(output, made.unstable) for output in outputs]
    compared = _steadied(standard, expected, outputs)
    compared = compared if compared.comparison.passed else _as_specified(standard, compared)
    notes += (*false_shapes(standard.model, made), *compared.notes)
    return _concluded(
        standard, replace(compared, notes=(*notes, *compared.comparison.notes))
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """A comparison, and what it was made of.

    Attributes:
        comparison: of the outputs.
        expected: the outputs that they were compared with, on all input sets.
        outputs: the candidate's, likewise.
        places: positions of the sets that were judged.
        yardstick: what departures are explained by.
        notes: remarks.
    """

    comparison: Comparison
    expected: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    places: Sequence[int]
    yardstick: Yardstick | None
    notes: tuple[str, ...]


def _drawn(standard: Standard) -> tuple[str, str]:
    """The outputs that differ from run to run, and a mend where nodes draw at random."""
    made = standard.reference
    names = ", ".join(sorted(made.unstable))
    drawn = random_nodes(standard.model.skeleton, made.unstable)
    if not drawn:
        return names, ""
    mend = seed_mend(standard.model, made, standard.card, standard.kept)
    return f"{names} (drawn at random by {listed(drawn)})", mend


def _steadied(
    standard: Standard,
    expected: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
) -> _Compared:
    """The comparison on all sets but those on which the untouched model itself is chaos."""
    made = standard.reference
    all_places = range(len(made.sets))
    places = all_places if standard.precision is Precision.FP32 else _usual(standard)
    yardstick, unmeasured = measured_yardstick(standard)
    comparison = _compared(standard, expected, outputs, places, yardstick)
    failing = [made.sets[failure.at or 0] for failure in comparison.failures]
    if yardstick is None or not any(input_set.unusual for input_set in failing):
        return _Compared(comparison, expected, outputs, places, yardstick, tuple(unmeasured))
    # Only now, since it's rarely needed: how steady the untouched model itself is there.
    steadiness = unusual_floor(standard.model, made, standard.kept)
    yardstick = yardstick.with_noise(steadiness)
    shaky = unsteady(made, steadiness, tolerances(standard))
    if comparison.only_values:
        places = [place for place in places if shaky.get(place, True)]
    comparison = _compared(standard, expected, outputs, places, yardstick)
    notes = (*unmeasured, *said_of(made, shaky))
    return _Compared(comparison, expected, outputs, places, yardstick, notes)


def _as_specified(standard: Standard, compared: _Compared) -> _Compared:
    """The comparison with ONNX's own reference where it doesn't bear ONNX Runtime's kernels out."""
    instead = _specified(standard, compared.expected, compared.outputs, compared.places)
    if not instead:
        return compared
    sets = standard.reference.sets
    note = (
        "compared with ONNX's reference implementation where ONNX Runtime's CPU kernels make "
        f"numbers of NaN, and neither it nor {standard.provider} does: "
        + listed(sorted({sets[place].unusual for place in instead}))
    )
    expected = [instead.get(place, given) for place, given in enumerate(compared.expected)]
    comparison = _compared(
        standard, expected, compared.outputs, compared.places, compared.yardstick
    )
    return replace(
        compared, comparison=comparison, expected=expected, notes=(*compared.notes, note)
    )


def _concluded(standard: Standard, compared: _Compared) -> Verdict:
    """The verdict that a comparison comes to."""
    comparison, notes = compared.comparison, compared.notes
    if comparison.passed:
        empty, remarks = proves_nothing(standard, comparison)
        notes += remarks
        if empty is not None:
            return Verdict(
                Status.FAIL, comparison, empty, notes=notes, symptom=Symptom.VACUOUS
            )
        return Verdict(Status.PASS, comparison, notes=notes)
    symptom = Symptom.WRONG_VALUES if comparison.only_values else Symptom.CHANGED_TYPES
    reason = comparison.reason() or "the outputs differ"
    usual = _usual(standard)
    if len(compared.places) > len(usual):
        on_usual = _compared(
            standard, compared.expected, compared.outputs, usual, compared.yardstick
        )
        if on_usual.passed:
            reason = f"on unusual inputs alone, {reason}"
    return Verdict(Status.FAIL, comparison, reason, comparison.lines(), notes, symptom)


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
            instead = specified_instead(
                outputs[place], expected[place], standard.model, each
            )
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
    compared = []
    for place, input_set in zip(places, sets, strict=True):
        unusual = bool(input_set.unusual)
        compared.append(
            ComparedSet(
                input_set.name,
                expected[place],
                outputs[place],
                # What lies on a threshold is ordinary but for that: noise has to explain what
                # differs there, not the bound.
                unusual=unusual and not input_set.poised,
                saturated=input_set.saturates,
                edged=unusual and not input_set.smooth,
                sizes=str(shapes_of(input_set)),
            )
        )
    comparison = compare(
        compared,
        tolerances(standard),
        float_io=standard.float_io,
        inputs_differ=len({input_set.digest() for input_set in sets}) > 1,
        yardstick=None if yardstick is None else yardstick.on(places),
    )
    return replace(
        comparison,
        failures=tuple(_at_place(failure, places) for failure in comparison.failures),
    )


def _at_place(failure: OutputFailure, places: Sequence[int]) -> OutputFailure:
    """Return a failure by its input set's position in the reference.

    The position is another where some sets judge nothing.
    """
    return failure if failure.at is None else replace(failure, at=places[failure.at])


def measured_yardstick(standard: Standard) -> tuple[Yardstick | None, list[str]]:
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
            standard.model,
            standard.reference,
            standard.conversion,
            standard.kept,
            standard.calibration,
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


def _without(outputs: Mapping[str, Any], unstable: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in outputs.items() if name not in unstable}
