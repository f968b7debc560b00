"""Compare a variant's outputs with the reference's.

Every check, in order, on every output and input set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from onnx_harness.accuracy.checks import (
    Outputs,
    check_dtype,
    check_elements,
    check_faithful,
    check_kind,
    check_length,
    check_names,
    check_nonfinite,
    check_shape,
    check_signed_zero,
)
from onnx_harness.accuracy.explain import MOST_ELEMENT, Bound, Yardstick
from onnx_harness.accuracy.failures import (
    Check,
    OutputFailure,
    Question,
    detail_lines,
    listed,
    merged,
    reason,
)
from onnx_harness.accuracy.flips import without_flips
from onnx_harness.accuracy.magnitudes import Magnitude, magnitudes
from onnx_harness.accuracy.measure import Array, extent, is_float, measure
from onnx_harness.accuracy.noise import FEW_ELEMENTS
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.accuracy.totals import Total
from onnx_harness.accuracy.values import Leaf, Mismatch, walk
from onnx_harness.accuracy.whole_checks import (
    check_agreement,
    check_choices,
    check_cosine,
    check_sqnr,
)
from onnx_harness.results.cells import AccuracyRecord

Explain = Callable[[str, Array, float], Bound]
"""The explanation of an output in one input set.

It's asked for by the output's flattened name, its reference and the greatest magnitude in that.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        record: the distance of every output of the reference, the worst over the input sets.
        failures: one for each output and check that failed, worst first.
        notes: outputs on which the comparison proves nothing.
        inert: those of them in which the inputs, though they differ, leave no trace.
    """

    record: AccuracyRecord
    failures: tuple[OutputFailure, ...]
    notes: tuple[str, ...]
    inert: frozenset[str] = frozenset()

    @property
    def passed(self) -> bool:
        """Every output passed every check in every input set."""
        return not self.failures

    @property
    def only_values(self) -> bool:
        """Names, kinds, dtypes and shapes are the reference's.

        If anything fails, it's values.
        """
        return not any(
            failure.check in (Check.NAMES, Check.KIND, Check.DTYPE, Check.SHAPE)
            for failure in self.failures
        )

    @property
    def only_values_or_shapes(self) -> bool:
        """Names, kinds and dtypes are the reference's; what fails is something computed."""
        return bool(self.failures) and not any(
            failure.check in (Check.NAMES, Check.KIND, Check.DTYPE)
            for failure in self.failures
        )

    @property
    def faithful(self) -> bool | None:
        """Every departure is explained; None where the noise wasn't measured."""
        return _all(output.faithful for output in self.record.outputs.values())

    @property
    def usable(self) -> bool | None:
        """Every output is within the user's bounds; None where the noise wasn't measured."""
        return _all(output.usable for output in self.record.outputs.values())

    def reason(self) -> str | None:
        """One sentence on the worst failure and how many outputs fail; None when none does."""
        return reason(self.failures)

    def lines(self) -> tuple[str, ...]:
        """The failures for a person, on at most a screen: the worst in full, the others by name."""
        return detail_lines(self.failures)


@dataclass(frozen=True, slots=True)
class ComparedSet:
    """An input set, and what two models make of it.

    Attributes:
        name: what it is, for people.
        reference: the reference's outputs. Strings are arrays of objects.
        candidate: the variant's.
        unusual: no usual one. What is near zero for an output is known from the usual sets: a
            probability that is 1e-5 throughout one unusual set isn't a large number.
        saturated: of large values, on which gates saturate: a product with one that has underflowed
            is a zero whose sign hangs on digits far below any bound, and isn't judged.
        edged: of values that lie on an edge on purpose, where flips are what the set is there to
            show.
        sizes: the shapes of the inputs; None where they aren't known.
    """

    name: str
    reference: Outputs
    candidate: Outputs
    unusual: bool = False
    saturated: bool = False
    edged: bool = False
    sizes: str | None = None


def compare(
    sets: Sequence[ComparedSet],
    tolerance_for: Callable[[str], Tolerance],
    *,
    float_io: str | None = None,
    inputs_differ: bool = True,
    yardstick: Yardstick | None = None,
) -> Comparison:
    """Compare a variant's outputs with the reference's.

    Names come first, then each output's kind, dtype and shape, then its values: NaN and infinity,
    what explains the departure, the tolerance, the sign of zero. Values are compared where
    everything before them agrees, in float64.

    Args:
        sets: the usual input sets, then the unusual ones.
        tolerance_for: the tolerance of a graph output, by its name (not by the flattened one of
            what is nested in it).
        float_io: the dtype that float32 outputs may have changed to, such as ``"float16"``; None:
            none may change.
        inputs_differ: whether the input sets differ, so that an output which never changes ignores
            them.
        yardstick: what departures are explained by; None: only whether they're within the tolerance
            is asked.

    Raises:
        ValueError: there is no input set.
    """
    if not sets:
        raise ValueError("a comparison needs at least one input set")
    totals: dict[str, Total] = {}
    failures: list[OutputFailure] = []
    together = magnitudes([compared.reference for compared in sets if not compared.unusual])
    for place, compared in enumerate(sets):
        explain = _explainer(yardstick, place, compared)
        where = f"input set {place + 1} of {len(sets)} ({compared.name})"
        for failure in _compare_set(
            compared, tolerance_for, float_io, totals, together, explain
        ):
            failures.append(replace(failure, input_set=where, at=place))
    unusual = sum(compared.unusual for compared in sets)
    failures, flips = without_flips(failures, len(sets) - unusual, unusual)
    for failure in failures:
        if failure.flip:
            totals[failure.output].refute()
    failures = [_with_greatest_atol(failure, totals) for failure in failures]
    vacuous = {
        name: total.vacuous(len(sets), inputs_differ) for name, total in totals.items()
    }
    outputs = {name: total.accuracy(vacuous[name]) for name, total in totals.items()}
    inert = {name for name, total in totals.items() if total.inert(inputs_differ, len(sets))}
    return Comparison(
        AccuracyRecord(input_sets=len(sets), outputs=outputs),
        merged(failures),
        (*_notes(vacuous), *_forgiven(totals, yardstick), *flips),
        frozenset(inert),
    )


def _explainer(
    yardstick: Yardstick | None, place: int, compared: ComparedSet
) -> Explain | None:
    """Return what explains departures on the input set, where something may.

    An unusual set may lie on an edge on purpose, where a last bit decides: there the bound alone is
    asked for, which yields to the noise where that was measured.
    """
    if yardstick is None or (compared.unusual and not yardstick.floor.sets[place]):
        return None
    return partial(yardstick.bound, place)


def _with_greatest_atol(
    failure: OutputFailure, totals: Mapping[str, Total]
) -> OutputFailure:
    """Give a failure on elements the greatest bound that any input set allowed."""
    if failure.check is not Check.ELEMENTS:
        return failure
    return replace(failure, atol=totals[failure.output].greatest_atol)


def _all(answers: Iterable[bool | None]) -> bool | None:
    answered = list(answers)
    return None if None in answered else all(answered)


def _forgiven(totals: Mapping[str, Total], yardstick: Yardstick | None) -> Iterator[str]:
    """Remarks on integers that were judged by what the ideal conversion does to them."""
    for name, total in totals.items():
        if total.forgiven and yardstick is not None:
            here, expected = total.forgiven
            who = (
                "the model's own last bits change"
                if yardstick.ideal is None
                else f"ideal {yardstick.type} changes"
            )
            yield f"{name}: {here:,} elements differ, which stands: {who} {expected:,}"


def _notes(vacuous: Mapping[str, str | None]) -> tuple[str, ...]:
    """A remark for each way of being vacuous, with the outputs that are."""
    names: dict[str, list[str]] = {}
    for name, why in vacuous.items():
        if why is not None:
            names.setdefault(why, []).append(name)
    notes = []
    for why, outputs in names.items():
        if len(outputs) > 1:
            notes.append(f"comparing {listed(outputs)} proves nothing: each {why}")
        else:
            notes.append(f"comparing {outputs[0]} proves nothing: it {why}")
    return tuple(notes)


def _compare_set(
    compared: ComparedSet,
    tolerance_for: Callable[[str], Tolerance],
    float_io: str | None,
    totals: dict[str, Total],
    together: Mapping[str, Magnitude],
    explain: Explain | None,
) -> Iterator[OutputFailure]:
    """Compare the outputs of one input set and add what was measured to ``totals``."""
    candidate = compared.candidate
    yield from check_names(compared.reference, candidate)
    for output, value in compared.reference.items():
        tolerance = tolerance_for(output)
        if output not in candidate:
            totals.setdefault(output, Total(tolerance)).mismatched = True
            continue
        for part in walk(output, value, candidate[output]):
            total = totals.setdefault(part.name, Total(tolerance))
            total.magnitude = _magnitude(part, together, compared)
            if isinstance(part, Mismatch):
                total.mismatched = True
                problems = [check_kind(part), check_length(part)]
            elif part.reference is None or part.candidate is None:
                total.absent = True
                problems = []
            else:
                bounded = None if explain is None else partial(explain, part.name)
                problems = _compare_tensors(
                    part.name,
                    part.reference,
                    part.candidate,
                    total,
                    float_io,
                    bounded,
                    part.labels,
                    rare=compared.unusual,
                    signed=not compared.saturated,
                    edged=compared.edged,
                    sizes=compared.sizes,
                )
            yield from (problem for problem in problems if problem is not None)


def _magnitude(
    part: object, together: Mapping[str, Magnitude], compared: ComparedSet
) -> Magnitude | None:
    """Return what the usual sets say together of an output's size, where this set can't alone.

    A usual set of many elements can.
    """
    if not isinstance(part, Leaf) or part.reference is None:
        return None
    if part.reference.size > FEW_ELEMENTS and not compared.unusual:
        return None
    return together.get(part.name)


def _compare_tensors(
    name: str,
    reference: Array,
    candidate: Array,
    total: Total,
    float_io: str | None,
    explain: Callable[[Array, float], Bound] | None,
    labels: Sequence[str],
    *,
    rare: bool,
    signed: bool,
    edged: bool,
    sizes: str | None,
) -> list[OutputFailure | None]:
    """Run every check of a tensor, the values' only where dtype and shape agree."""
    scale, constant = extent(reference)
    total.see(reference, scale, constant, sizes, labels)
    before: list[OutputFailure | None] = [
        check_dtype(name, reference, candidate, float_io),
        check_shape(name, reference, candidate),
    ]
    if any(before) or reference.size != candidate.size:
        total.mismatched = total.mismatched or any(before)
        return before
    tolerance = total.tolerance
    bound = None if explain is None else explain(reference, scale)
    rtol, atol = _bounds(reference, tolerance, _known_scale(total, scale, rare=rare), bound)
    steadiness = bound
    if rare:
        bound = None
    departure = measure(
        reference, candidate, rtol=rtol, atol=atol, sketched=is_float(reference)
    )
    departure.labels = labels
    problems = [
        check_nonfinite(name, reference, candidate, departure, bound),
        check_faithful(name, reference, candidate, departure, bound),
        check_elements(
            name, reference, candidate, departure, tolerance, bound, steadiness, edged=edged
        ),
        check_sqnr(name, reference, departure, tolerance, bound, total.magnitude),
        check_cosine(name, reference, departure, tolerance),
        check_agreement(name, reference, candidate, departure, tolerance),
        check_choices(name, reference, candidate, departure, tolerance, bound),
    ]
    if signed:
        problems.append(
            check_signed_zero(name, reference, candidate, departure, tolerance, steadiness)
        )
    if bound is None:
        problems = [
            problem and replace(problem, question=Question.NEITHER) for problem in problems
        ]
    standing = []
    for problem in problems:
        if problem is not None and not problem.flip:
            standing.append(problem)
    total.add(reference, departure, standing, bound)
    return problems


def _known_scale(total: Total, scale: float, *, rare: bool) -> float:
    """Return the greatest scale that is known of an output, its scale on this set included.

    Those of usual sets are remembered.
    """
    if not rare:
        total.usual_scale = max(total.usual_scale, scale)
    known = max(scale, total.usual_scale) if rare else scale
    if total.magnitude is not None and total.tolerance.by_default:
        known = max(known, total.magnitude.scale)
    return known


def _bounds(
    reference: Array, tolerance: Tolerance, scale: float, bound: Bound | None
) -> tuple[float, float]:
    """Return the rtol and atol of an output's elements at the magnitude ``scale``."""
    if not is_float(reference):
        return 0.0, (0.0 if reference.dtype.kind == "b" else tolerance.integer_atol)
    rtol, atol = tolerance.bounds(scale)
    if bound is not None and not tolerance.chosen:
        # Nobody asked for less than noise: where an output is tiny, its scale times k may lie
        # below.
        atol = max(atol, MOST_ELEMENT * (bound.tail or bound.floor).greatest)
    return rtol, atol
