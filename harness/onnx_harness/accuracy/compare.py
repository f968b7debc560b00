"""Comparing a variant's outputs with the reference's: every check, in order, on every output and
input set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2, MOST_STEPS, Bound, Yardstick
from onnx_harness.accuracy.failures import (
    Check,
    OutputFailure,
    Question,
    detail_lines,
    element,
    listed,
    merged,
    pair,
    place,
    reason,
    share,
)
from onnx_harness.accuracy.flips import in_steps, is_flip, without_flips
from onnx_harness.accuracy.measure import Array, Measured, extent, is_float, is_text, measure
from onnx_harness.accuracy.noise import moved_elements, pool
from onnx_harness.accuracy.ranking import agreement, changed_choices, distribution_axis
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.accuracy.totals import Total
from onnx_harness.accuracy.values import Leaf, Mismatch, Value, walk
from onnx_harness.results.cells import AccuracyRecord

Outputs = Mapping[str, Value]
"""The outputs of one run by name."""

Explain = Callable[[str, Array, float], Bound]
"""What explains an output in one input set, by its name, its reference and the greatest magnitude
in that.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

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
        """Whether every output passed every check in every input set."""
        return not self.failures

    @property
    def only_values(self) -> bool:
        """Whether names, kinds, dtypes and shapes are the reference's: what fails, if anything
        does, are values.
        """
        return not any(
            failure.check in (Check.NAMES, Check.KIND, Check.DTYPE, Check.SHAPE)
            for failure in self.failures
        )

    @property
    def faithful(self) -> bool | None:
        """Whether every departure is explained; None where the noise wasn't measured."""
        return _all(output.faithful for output in self.record.outputs.values())

    @property
    def usable(self) -> bool | None:
        """Whether every output is within the user's bounds; None where the noise wasn't measured."""
        return _all(output.usable for output in self.record.outputs.values())

    def reason(self) -> str | None:
        """One sentence on the worst failure and how many outputs fail; None when none does."""
        return reason(self.failures)

    def lines(self) -> tuple[str, ...]:
        """The failures for a person, on at most a screen: the worst in full, the others by name."""
        return detail_lines(self.failures)


def compare(
    reference: Sequence[Outputs],
    candidate: Sequence[Outputs],
    tolerance_for: Callable[[str], Tolerance],
    *,
    set_names: Sequence[str],
    float_io: str | None = None,
    inputs_differ: bool = True,
    unusual: Sequence[bool] = (),
    saturated: Sequence[bool] = (),
    edged: Sequence[bool] = (),
    yardstick: Yardstick | None = None,
) -> Comparison:
    """Compare a variant's outputs with the reference's.

    Names come first, then each output's kind, dtype and shape, then its values: NaN and infinity,
    what explains the departure, the tolerance, the sign of zero. Values are compared where
    everything before them agrees, in float64.

    Args:
        reference: the reference's outputs in each input set. Strings are arrays of objects.
        candidate: the variant's, in the same order.
        tolerance_for: the tolerance of a graph output, by its name (not by the flattened one of
            what is nested in it).
        set_names: what each input set is, for people.
        float_io: the dtype that float32 outputs may have changed to, such as ``"float16"``; None:
            none may change.
        inputs_differ: whether the input sets differ, so that an output which never changes ignores
            them.
        unusual: which input sets are unusual; those come after the usual ones. What is near zero
            for an output is known from the usual sets: a probability that is 1e-5 throughout one
            unusual set isn't a large number.
        saturated: which of those are of large values, on which gates saturate: a product with one
            that has underflowed is a zero whose sign hangs on digits far below any bound, and isn't
            judged.
        edged: on which of those values lie on an edge on purpose, where flips are what the set is
            there to show.
        yardstick: what departures are explained by; None: only whether they're within the tolerance
            is asked.

    Raises:
        ValueError: the numbers of input sets differ, or there is none.
    """
    if not len(reference) == len(candidate) == len(set_names) or not reference:
        raise ValueError(
            f"a comparison needs the same input sets on both sides, at least one: "
            f"{len(reference)} of the reference, {len(candidate)} of the candidate, "
            f"{len(set_names)} names"
        )
    totals: dict[str, Total] = {}
    failures: list[OutputFailure] = []
    for number, (left, right) in enumerate(zip(reference, candidate, strict=True), 1):
        where = f"input set {number} of {len(set_names)} ({set_names[number - 1]})"
        rare = number <= len(unusual) and unusual[number - 1]
        # An unusual set may lie on an edge on purpose, where a last bit decides: there the bound
        # alone is asked for, which yields to the noise where that was measured.
        measured = yardstick is not None and (not rare or yardstick.floor.sets[number - 1])
        explain = (
            partial(yardstick.bound, number - 1) if yardstick is not None and measured else None
        )
        signed = not (number <= len(saturated) and saturated[number - 1])
        poised = number <= len(edged) and edged[number - 1]
        found = list(
            _compare_set(
                left,
                right,
                tolerance_for,
                float_io,
                totals,
                explain,
                rare=rare,
                signed=signed,
                edged=poised,
            )
        )
        failures += [replace(failure, input_set=where, at=number - 1) for failure in found]
    usual = len(reference) - sum(unusual[: len(reference)])
    failures, flips = without_flips(failures, usual, len(reference) - usual)
    for failure in failures:
        if failure.flip:
            totals[failure.output].refute()
    vacuous = {name: total.vacuous(len(reference), inputs_differ) for name, total in totals.items()}
    record = AccuracyRecord(
        input_sets=len(reference),
        outputs={name: total.accuracy(vacuous[name]) for name, total in totals.items()},
    )
    failures = [
        replace(failure, atol=totals[failure.output].greatest_atol)
        if failure.check is Check.ELEMENTS
        else failure
        for failure in failures
    ]
    inert = frozenset(
        name for name, total in totals.items() if total.inert(inputs_differ, len(reference))
    )
    notes = (*_notes(vacuous), *_forgiven(totals, yardstick), *flips)
    return Comparison(record, merged(failures), notes, inert)


# The checks. Each gives a failure or None, and knows nothing of the others.


def check_names(reference: Outputs, candidate: Outputs) -> list[OutputFailure]:
    """Outputs that are missing, and outputs that the reference doesn't have."""
    missing = [OutputFailure(n, Check.NAMES, "is missing") for n in reference if n not in candidate]
    extra = [OutputFailure(n, Check.NAMES, "is new: the reference has no such output")
             for n in candidate if n not in reference]  # fmt: skip
    return missing + extra


def check_kind(found: Mismatch) -> OutputFailure | None:
    """A tensor, a sequence, a map or nothing: both sides the same."""
    if not found.kind:
        return None
    return OutputFailure(
        found.name, Check.KIND, f"is {found.candidate}; the reference is {found.reference}"
    )


def check_length(found: Mismatch) -> OutputFailure | None:
    """Sequences have one length and maps have one set of keys."""
    if found.kind:
        return None
    return OutputFailure(
        found.name, Check.SHAPE, f"has {found.candidate}; the reference has {found.reference}"
    )


def check_dtype(
    name: str, reference: Array, candidate: Array, float_io: str | None
) -> OutputFailure | None:
    """The dtype is the reference's, or the one that float32 may have changed to."""
    if reference.dtype == candidate.dtype or (is_text(reference) and is_text(candidate)):
        return None
    if reference.dtype == "float32" and candidate.dtype.name == float_io:
        return None
    what = f"is {candidate.dtype.name}; the reference is {reference.dtype.name}"
    return OutputFailure(name, Check.DTYPE, what)


def check_shape(name: str, reference: Array, candidate: Array) -> OutputFailure | None:
    """The shapes are equal; a dimension of 1 counts."""
    if reference.shape == candidate.shape:
        return None
    what = f"has shape {list(candidate.shape)}; the reference has {list(reference.shape)}"
    return OutputFailure(name, Check.SHAPE, what)


def check_nonfinite(
    name: str, reference: Array, candidate: Array, found: Measured, bound: Bound | None = None
) -> OutputFailure | None:
    """NaN where the reference has NaN, infinity where it has infinity of that sign, and nowhere
    else.
    """
    if found.nonfinite_at is None:
        return None
    what = (
        f"{share(found.nonfinite, found.size)} differ in NaN or infinity; "
        f"the first{place(reference, found.nonfinite_at)} "
        f"({pair(reference, candidate, found.nonfinite_at)})"
    )
    ideal = bound.range.nonfinite if bound and bound.range else 0
    explained = bound is not None and 0 < found.nonfinite <= MOST_L2 * ideal
    if bound and explained:
        what += f"; ideal {bound.type} overflows too, in {ideal:,}"
    question = Question.USABLE if explained else Question.FAITHFUL
    return OutputFailure(
        name, Check.NONFINITE, what, severity=found.nonfinite / found.size, question=question
    )


def check_faithful(
    name: str, reference: Array, candidate: Array, found: Measured, bound: Bound | None
) -> OutputFailure | None:
    """The departure is explained: by the model's noise, or by what the type costs it.

    As a whole, by the relative L2 error, and in its worst element, which many good ones could hide.
    """
    if bound is None or not is_float(reference) or found.error == 0:
        return None
    moved = moved_elements(reference, candidate, bound.step) if bound.step > 0 else 0
    if bound.explains(found, moved):
        return None
    if bound.on_grid and moved:
        what = in_steps(reference, candidate, found, moved, bound)
    elif bound.times(found) > MOST_L2:
        norm = math.sqrt(found.signal)
        many = (
            f", {_times(bound.times(found))} times"
            if math.isfinite(bound.times(found))
            else "; nothing is"
        )
        what = (
            f"departs by {_relative(math.sqrt(found.error), norm)} (relative L2){many} what "
            f"{bound.explained_by} "
            f"({_relative(bound.l2, norm)}; at most {MOST_L2:g}x)"
        )
    else:
        at = found.greatest_at or 0
        what = (
            f"departs by {found.max_abs:.3g}{place(reference, at)} "
            f"({pair(reference, candidate, at)}), "
            f"{_times(found.max_abs / bound.greatest)} times the greatest difference that "
            f"{bound.explained_by} "
            f"({bound.greatest:.2g}; at most {MOST_ELEMENT:g}x)"
        )
    return OutputFailure(
        name, Check.FAITHFUL, what, severity=bound.times(found), question=Question.FAITHFUL, rtol=found.rtol,
        flip=bound.happens(found, moved),
    )  # fmt: skip


def check_signed_zero(
    name: str,
    reference: Array,
    candidate: Array,
    found: Measured,
    tolerance: Tolerance,
    bound: Bound | None = None,
) -> OutputFailure | None:
    """A zero has the reference's sign: 1/x and atan2 downstream tell them apart.

    Where a model rounds, it's the sign of what was rounded, and last bits change that of what is
    next to zero.
    """
    if found.signed_zero_at is None or not tolerance.signed_zero:
        return None
    if (
        bound is not None
        and bound.tail is not None
        and found.signed_zero <= MOST_L2 * bound.tail.signs
    ):
        return None
    what = (
        f"{share(found.signed_zero, found.size)} are zero with the other sign; "
        f"the first{place(reference, found.signed_zero_at)} "
        f"({pair(reference, candidate, found.signed_zero_at)})"
    )
    severity = found.signed_zero / found.size
    return OutputFailure(name, Check.SIGNED_ZERO, what, severity=severity, question=Question.USABLE)


def check_elements(
    name: str,
    reference: Array,
    candidate: Array,
    found: Measured,
    tolerance: Tolerance,
    bound: Bound | None = None,
    steadiness: Bound | None = None,
    *,
    edged: bool = False,
) -> OutputFailure | None:
    """No element is beyond ``rtol * |reference| + atol``.

    Integers as the card says, text and booleans equal.

    A default bound allows a small share of a float output to be beyond it, though not far.

    Where the ideal conversion itself changes elements that aren't floating-point, as many may
    change here. Where a float element went to another step of a rounding, as last bits make it do
    now and then, it's a flip; not on an edge, which is there to show another rule for rounding.
    """
    if (
        not found.beyond
        or found.worst_at is None
        or (is_float(reference) and not tolerance.elementwise)
    ):
        return None
    if not is_float(reference) and bound and _may_change(found, bound):
        return _too_many_choices(name, reference, candidate, found, tolerance)
    flip = False
    if not is_float(reference) and bound and bound.tail:
        flip = found.beyond <= MOST_L2 * bound.tail.changed
    few = (
        found.worst <= tolerance.most_times and found.beyond <= tolerance.share_beyond * found.size
    )
    if is_float(reference) and few:
        return None
    by_noise = steadiness is not None and steadiness.ideal is None and not tolerance.chosen
    if is_float(reference) and steadiness is not None and by_noise and not edged:
        flip = is_flip(reference, candidate, found, steadiness)
    question = Question.USABLE if is_float(reference) else Question.FAITHFUL
    at = found.worst_at
    what = f"{share(found.beyond, found.size)} "
    if is_text(reference) or reference.dtype.kind == "b":
        what += f"differ; the first{place(reference, at)} ({pair(reference, candidate, at)})"
        severity = found.beyond / found.size
        return OutputFailure(
            name, Check.ELEMENTS, what, severity=severity, question=question, flip=flip
        )
    number = int if reference.dtype.kind in "iu" else float
    left, right = number(element(reference, at)), number(element(candidate, at))
    gap, allowed = abs(right - left), found.rtol * abs(left) + found.atol
    what += (
        f"beyond the tolerance; worst {gap:.3g}{place(reference, at)} "
        f"({pair(reference, candidate, at)}, allowed {allowed:.2g})"
    )
    if question is Question.USABLE and bound and bound.ideal and bound.ideal.greatest > allowed:
        what += f"; ideal {bound.type} departs by up to {bound.ideal.greatest:.2g}"
    return OutputFailure(
        name, Check.ELEMENTS, what,
        severity=found.worst, minimum_tolerance=found.minimum_tolerance, rtol=found.rtol, atol=found.atol,
        max_rel=found.max_rel, question=question, flip=flip,
    )  # fmt: skip


def _too_many_choices(
    name: str, reference: Array, candidate: Array, found: Measured, tolerance: Tolerance
) -> OutputFailure | None:
    """Integers, which the type explains, are of use where nearly all of them stay: an index is a
    choice.

    One of them may be a tie. What quantizes is left out: its floor knows nothing of ties.
    """
    most = max(1, math.floor((tolerance.choices_changed or 0.0) * found.size))
    if (
        not tolerance.by_default
        or not tolerance.share_beyond
        or found.beyond <= most
        or found.worst_at is None
    ):
        return None
    at = found.worst_at
    what = (
        f"{share(found.beyond, found.size)} are others, as the type itself makes them, and at "
        f"most {most:,} may be; "
        f"the first{place(reference, at)} ({pair(reference, candidate, at)})"
    )
    severity = found.beyond / found.size
    return OutputFailure(name, Check.ELEMENTS, what, severity=severity, question=Question.USABLE)


def _may_change(found: Measured, bound: Bound) -> bool:
    """Whether as many integers differ as noise or the type explains.

    On a grid, by as many steps too.
    """
    if found.beyond > bound.most_changed:
        return False
    return not bound.on_grid or found.max_abs <= MOST_STEPS * bound.floor.greatest


def check_sqnr(
    name: str, reference: Array, found: Measured, tolerance: Tolerance, bound: Bound | None = None
) -> OutputFailure | None:
    """The signal is at least the demanded number of decibels above the noise, over the whole
    output.

    A default yields to the model's own noise.
    """
    if tolerance.sqnr_db is None or not is_float(reference) or found.error == 0:
        return None
    if tolerance.by_default and bound is not None and bound.is_noise(found):
        return None
    sqnr = found.sqnr_db
    if sqnr is not None and sqnr >= tolerance.sqnr_db:
        return None
    ratio = (
        "no signal at all, only noise"
        if sqnr is None
        else f"a signal {sqnr:.3g} dB above its noise"
    )
    what = (
        f"has {ratio}, and {tolerance.sqnr_db:.3g} dB are asked for; greatest difference "
        f"{found.max_abs:.3g}"
    )
    # Beside an element-wise rule, no rtol mends this one.
    return OutputFailure(
        name, Check.SQNR, what, severity=found.rel_l2 or 0.0, sqnr_db=sqnr,
        minimum_tolerance=None if tolerance.elementwise else found.rel_l2, question=Question.USABLE,
    )  # fmt: skip


def check_cosine(
    name: str, reference: Array, found: Measured, tolerance: Tolerance
) -> OutputFailure | None:
    """The output points where the reference's does."""
    if tolerance.cosine is None or not is_float(reference) or found.error == 0:
        return None
    cosine = found.cosine
    if cosine is not None and cosine >= tolerance.cosine:
        return None
    what = (
        f"has {'no cosine' if cosine is None else f'a cosine of {cosine:.6g}'}; "
        f"{tolerance.cosine:g} is asked for"
    )
    enough = "" if cosine is None else f"cosine {math.floor(cosine * 1e6) / 1e6:g}"
    return OutputFailure(
        name,
        Check.COSINE,
        what,
        severity=1 - (cosine or 0.0),
        question=Question.USABLE,
        enough=enough,
    )


def check_agreement(
    name: str, reference: Array, candidate: Array, found: Measured, tolerance: Tolerance
) -> OutputFailure | None:
    """The greatest ``top_k`` elements along the last axis are the reference's, in the share of rows
    asked for.
    """
    if tolerance.top_k is None or not is_float(reference) or found.equal or reference.ndim == 0:
        return None
    got = agreement(reference, candidate, tolerance.top_k)
    if got >= tolerance.agreement:
        return None
    what = (
        f"agrees on the top {tolerance.top_k} in {got:.4%} of rows; {tolerance.agreement:.4%} "
        f"are asked for"
    )
    enough = f"agreement {math.floor(got * 1e4) / 1e4:g}"
    return OutputFailure(
        name, Check.AGREEMENT, what, severity=1 - got, question=Question.USABLE, enough=enough
    )


def check_choices(
    name: str,
    reference: Array,
    candidate: Array,
    found: Measured,
    tolerance: Tolerance,
    bound: Bound | None,
) -> OutputFailure | None:
    """The top choice stays in nearly every row whose choice stands above the noise, where an axis
    is one to choose by.

    An axis is where its values sum to one, as those of a Softmax do, or where the model goes on to an ArgMax or TopK.
    """
    if not tolerance.choices_changed or found.equal or bound is None or not is_float(reference):
        return None
    axis = tolerance.axis if tolerance.axis is not None else distribution_axis(reference)
    if axis is None or not -reference.ndim <= axis < reference.ndim:
        return None
    changed, rows = changed_choices(reference, candidate, axis, 2 * bound.greatest)
    if changed <= tolerance.choices_changed * rows:
        return None
    what = (
        f"chooses otherwise along axis {axis} in {changed:,} of {rows:,} rows whose greatest "
        f"value stands above the "
        f"noise ({changed / rows:.2%}; at most {tolerance.choices_changed:.0%})"
    )
    return OutputFailure(
        name, Check.AGREEMENT, what, severity=changed / rows, question=Question.USABLE
    )


def _all(answers: Iterable[bool | None]) -> bool | None:
    known = list(answers)
    return None if None in known else all(known)


def _relative(part: float, whole: float) -> str:
    return f"{part / whole:.1e}" if whole > 0 else f"{part:.1e} from 0"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"


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
    return tuple(f"comparing {listed(found)} proves nothing: each {why}" if len(found) > 1
                 else f"comparing {found[0]} proves nothing: it "
                      f"{why}" for why, found in names.items())  # fmt: skip


def _compare_set(
    reference: Outputs,
    candidate: Outputs,
    tolerance_for: Callable[[str], Tolerance],
    float_io: str | None,
    totals: dict[str, Total],
    explain: Explain | None,
    *,
    rare: bool,
    signed: bool,
    edged: bool,
) -> Iterator[OutputFailure]:
    """Compare the outputs of one input set and add what was measured to ``totals``."""
    yield from check_names(reference, candidate)
    for output, value in reference.items():
        tolerance = tolerance_for(output)
        if output not in candidate:
            totals.setdefault(output, Total(tolerance)).mismatched = True
            continue
        found = list(walk(output, value, candidate[output]))
        # The scores of a map are one vector spelt out: a class with a score of 1e-9 isn't judged by
        # that.
        in_maps = [extent(leaf.reference)[0] for leaf in found
                   if isinstance(leaf, Leaf) and leaf.in_map and leaf.reference is not None]  # fmt: skip
        for part in found:
            total = totals.setdefault(part.name, Total(tolerance))
            total.in_map = isinstance(part, Leaf) and part.in_map
            if isinstance(part, Mismatch):
                total.mismatched = True
                problems = [check_kind(part), check_length(part)]
            elif part.reference is None or part.candidate is None:
                total.absent += 1
                problems = []
            else:
                bounded = None if explain is None else partial(explain, pool(part))
                problems = _compare_tensors(part.name, part.reference, part.candidate, total,
                                            float_io, max(in_maps) if part.in_map else None, bounded,
                                            rare=rare, signed=signed, edged=edged)  # fmt: skip
            yield from (problem for problem in problems if problem is not None)


def _compare_tensors(
    name: str,
    reference: Array,
    candidate: Array,
    total: Total,
    float_io: str | None,
    scale: float | None,
    explain: Callable[[Array, float], Bound] | None,
    *,
    rare: bool,
    signed: bool,
    edged: bool,
) -> list[OutputFailure | None]:
    """Run every check of a tensor, the values' only where dtype and shape agree."""
    own_scale, constant = extent(reference)
    total.see(reference, own_scale, constant)
    before: list[OutputFailure | None] = [
        check_dtype(name, reference, candidate, float_io),
        check_shape(name, reference, candidate),
    ]
    if any(before) or reference.size != candidate.size:
        total.mismatched = total.mismatched or any(before)
        return before
    tolerance = total.tolerance
    scale = own_scale if scale is None else scale
    if not rare:
        total.usual_scale = max(total.usual_scale, scale)
    bound = None if explain is None else explain(reference, scale)
    rtol, atol = tolerance.bounds(max(scale, total.usual_scale) if rare else scale)
    if not is_float(reference):
        rtol, atol = 0.0, (0.0 if reference.dtype.kind == "b" else tolerance.integer_atol)
    elif bound is not None and not tolerance.chosen:
        # Nobody asked for less than noise: where an output is tiny, its scale times k may lie
        # below.
        atol = max(atol, MOST_ELEMENT * (bound.tail or bound.floor).greatest)
    steadiness = bound
    if rare:
        bound = None
    found = measure(reference, candidate, rtol=rtol, atol=atol)
    problems = [
        check_nonfinite(name, reference, candidate, found, bound),
        check_faithful(name, reference, candidate, found, bound),
        check_elements(
            name, reference, candidate, found, tolerance, bound, steadiness, edged=edged
        ),
        check_sqnr(name, reference, found, tolerance, bound),
        check_cosine(name, reference, found, tolerance),
        check_agreement(name, reference, candidate, found, tolerance),
        check_choices(name, reference, candidate, found, tolerance, bound),
        check_signed_zero(name, reference, candidate, found, tolerance, steadiness)
        if signed
        else None,
    ]
    if bound is None:
        problems = [problem and replace(problem, question=Question.NEITHER) for problem in problems]
    total.add(
        reference,
        found,
        [problem for problem in problems if problem is not None and not problem.flip],
        bound,
    )
    return problems
