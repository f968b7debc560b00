"""Check one output: each check gives a failure or None, and knows nothing of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2, MOST_STEPS, Bound
from onnx_harness.accuracy.failures import (
    Check,
    OutputFailure,
    Question,
    element,
    pair,
    place,
    share,
)
from onnx_harness.accuracy.flips import in_steps, is_flip
from onnx_harness.accuracy.measure import Array, Measured, is_float, is_text
from onnx_harness.accuracy.noise import moved_elements
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.accuracy.values import Mismatch, Value

Outputs = Mapping[str, Value]
"""The outputs of one run by name."""


def check_names(reference: Outputs, candidate: Outputs) -> list[OutputFailure]:
    """Outputs that are missing, and outputs that the reference doesn't have."""
    missing = []
    for n in reference:
        if n not in candidate:
            missing.append(OutputFailure(n, Check.NAMES, "is missing"))
    extra = []
    for n in candidate:
        if n not in reference:
            extra.append(
                OutputFailure(n, Check.NAMES, "is new: the reference has no such output")
            )
    return missing + extra


def check_kind(mismatch: Mismatch) -> OutputFailure | None:
    """A tensor, a sequence, a map or nothing: both sides the same."""
    if not mismatch.kind:
        return None
    return OutputFailure(
        mismatch.name,
        Check.KIND,
        f"is {mismatch.candidate}; the reference is {mismatch.reference}",
    )


def check_length(mismatch: Mismatch) -> OutputFailure | None:
    """Sequences have one length and maps have one set of keys."""
    if mismatch.kind:
        return None
    return OutputFailure(
        mismatch.name,
        Check.SHAPE,
        f"has {mismatch.candidate}; the reference has {mismatch.reference}",
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
    name: str,
    reference: Array,
    candidate: Array,
    departure: Measured,
    bound: Bound | None = None,
) -> OutputFailure | None:
    """Compare NaN and infinity with the reference's.

    NaN stands where the reference has NaN, infinity where it has infinity of that sign, and nowhere
    else.
    """
    if departure.nonfinite_at is None:
        return None
    what = (
        f"{share(departure.nonfinite, departure.size)} differ in NaN or infinity; "
        f"the first{place(reference, departure.nonfinite_at, departure.labels)} "
        f"({pair(reference, candidate, departure.nonfinite_at)})"
    )
    ideal = bound.range.nonfinite if bound and bound.range else 0
    explained = bound is not None and departure.nonfinite <= MOST_L2 * ideal
    if bound and explained:
        what += f"; ideal {bound.type} overflows too, in {ideal:,}"
    question = Question.USABLE if explained else Question.FAITHFUL
    return OutputFailure(
        name,
        Check.NONFINITE,
        what,
        severity=departure.nonfinite / departure.size,
        question=question,
    )


def check_faithful(
    name: str, reference: Array, candidate: Array, departure: Measured, bound: Bound | None
) -> OutputFailure | None:
    """The departure is explained: by the model's noise, or by what the type costs it.

    As a whole, by the relative L2 error, and in its worst element, which many good ones could hide.
    """
    if bound is None or not is_float(reference) or departure.error == 0:
        return None
    moved = moved_elements(reference, candidate, bound.step) if bound.step > 0 else 0
    if bound.explains(departure, moved):
        return None
    if bound.on_grid and moved:
        what = in_steps(reference, candidate, departure, moved, bound)
    elif bound.times(departure) > MOST_L2:
        norm = math.sqrt(departure.signal)
        many = (
            f", {_times(bound.times(departure))} times"
            if math.isfinite(bound.times(departure))
            else "; nothing is"
        )
        what = (
            f"departs by {_relative(math.sqrt(departure.error), norm)} (relative L2){many} what "
            f"{bound.explained_by} "
            f"({_relative(bound.l2, norm)}; at most {MOST_L2:g}x)"
        )
    else:
        at = departure.greatest_at or 0
        what = (
            f"departs by {departure.max_abs:.3g}{place(reference, at, departure.labels)} "
            f"({pair(reference, candidate, at)}), "
            f"{_times(departure.max_abs / bound.greatest)} times the greatest difference that "
            f"{bound.explained_by} "
            f"({bound.greatest:.2g}; at most {MOST_ELEMENT:g}x)"
        )
    if bound.leaves_nothing:
        what += ", which leaves nothing of it either"
    return OutputFailure(
        name,
        Check.FAITHFUL,
        what,
        severity=bound.times(departure),
        question=Question.USABLE if bound.leaves_nothing else Question.FAITHFUL,
        rtol=departure.rtol,
        flip=bound.happens(departure, moved),
    )


def check_signed_zero(
    name: str,
    reference: Array,
    candidate: Array,
    departure: Measured,
    tolerance: Tolerance,
    bound: Bound | None = None,
) -> OutputFailure | None:
    """A zero has the reference's sign: 1/x and atan2 downstream tell them apart.

    Where a model rounds, it's the sign of what was rounded, and last bits change that of what is
    next to zero.
    """
    if departure.signed_zero_at is None or not tolerance.signed_zero:
        return None
    if (
        bound is not None
        and bound.tail is not None
        and departure.signed_zero <= MOST_L2 * bound.tail.signs
    ):
        return None
    what = (
        f"{share(departure.signed_zero, departure.size)} are zero with the other sign; "
        f"the first{place(reference, departure.signed_zero_at, departure.labels)} "
        f"({pair(reference, candidate, departure.signed_zero_at)})"
    )
    severity = departure.signed_zero / departure.size
    return OutputFailure(
        name, Check.SIGNED_ZERO, what, severity=severity, question=Question.USABLE
    )


def check_elements(
    name: str,
    reference: Array,
    candidate: Array,
    departure: Measured,
    tolerance: Tolerance,
    bound: Bound | None = None,
    steadiness: Bound | None = None,
    *,
    edged: bool = False,
) -> OutputFailure | None:
    """No element is beyond ``rtol * |reference| + atol``.

    Integers as the card says, text and booleans equal. A default bound allows a small share of a
    float output to be beyond it, though not far.

    Where the ideal conversion itself changes elements that aren't floating-point, as many may
    change here. Where a float element went to another step of a rounding, as last bits make it do
    now and then, it's a flip; not on an edge, which is there to show another rule for rounding.
    """
    if (
        not departure.beyond
        or departure.worst_at is None
        or (is_float(reference) and not tolerance.elementwise)
    ):
        return None
    if not is_float(reference) and bound and _may_change(departure, bound):
        return _too_many_choices(name, reference, candidate, departure, tolerance)
    few = (
        departure.worst <= tolerance.most_times
        and departure.beyond <= tolerance.share_beyond * departure.size
    )
    if is_float(reference) and few:
        return None
    flip = _is_flip(
        reference, candidate, departure, tolerance, bound, steadiness, edged=edged
    )
    question = Question.USABLE if is_float(reference) else Question.FAITHFUL
    at = departure.worst_at
    what = f"{share(departure.beyond, departure.size)} "
    if is_text(reference) or reference.dtype.kind == "b":
        where = place(reference, at, departure.labels)
        what += f"differ; the first{where} ({pair(reference, candidate, at)})"
        severity = departure.beyond / departure.size
        return OutputFailure(
            name, Check.ELEMENTS, what, severity=severity, question=question, flip=flip
        )
    what += _beyond(reference, candidate, departure, at, bound)
    return OutputFailure(
        name,
        Check.ELEMENTS,
        what,
        severity=departure.worst,
        minimum_tolerance=departure.minimum_tolerance,
        rtol=departure.rtol,
        atol=departure.atol,
        max_rel=departure.max_rel,
        question=question,
        flip=flip,
    )


def _is_flip(
    reference: Array,
    candidate: Array,
    departure: Measured,
    tolerance: Tolerance,
    bound: Bound | None,
    steadiness: Bound | None,
    *,
    edged: bool,
) -> bool:
    """Return whether a departure is what last bits do now and then where something is rounded."""
    if not is_float(reference):
        tail = None if bound is None else bound.tail
        return tail is not None and departure.beyond <= MOST_L2 * tail.changed
    if steadiness is None or edged or tolerance.chosen or steadiness.ideal is not None:
        return False
    return is_flip(reference, candidate, departure, steadiness)


def _beyond(
    reference: Array, candidate: Array, departure: Measured, at: int, bound: Bound | None
) -> str:
    """Describe the worst element of numbers, with what was allowed."""
    number = int if reference.dtype.kind in "iu" else float
    expected = number(element(reference, at))
    actual = number(element(candidate, at))
    gap = abs(actual - expected)
    allowed = departure.rtol * abs(expected) + departure.atol
    what = (
        f"beyond the tolerance; worst {gap:.3g}{place(reference, at, departure.labels)} "
        f"({pair(reference, candidate, at)}, allowed {allowed:.2g})"
    )
    usable = is_float(reference)
    if usable and bound and bound.ideal and bound.ideal.greatest > allowed:
        what += f"; ideal {bound.type} departs by up to {bound.ideal.greatest:.2g}"
    return what


def _too_many_choices(
    name: str, reference: Array, candidate: Array, departure: Measured, tolerance: Tolerance
) -> OutputFailure | None:
    """Demand that nearly all integers stay, where the type explains a change: an index is a choice.

    One of them may be a tie. What quantizes is left out: its floor knows nothing of ties.
    """
    at = departure.worst_at
    if at is None or tolerance.choices_changed is None or not tolerance.share_beyond:
        return None
    most = max(1, math.floor(tolerance.choices_changed * departure.size))
    if departure.beyond <= most or _are_near_levels(departure, tolerance):
        return None
    what = (
        f"{share(departure.beyond, departure.size)} are others, as the type itself makes them, "
        f"and at most {most:,} may be; "
        f"the first{place(reference, at, departure.labels)} ({pair(reference, candidate, at)})"
    )
    severity = departure.beyond / departure.size
    return OutputFailure(
        name, Check.ELEMENTS, what, severity=severity, question=Question.USABLE
    )


def _are_near_levels(departure: Measured, tolerance: Tolerance) -> bool:
    """Return whether integers are levels of a measurement, and near enough to the right ones."""
    ratio, least = departure.sqnr_db, tolerance.sqnr_db
    return (
        tolerance.are_levels and ratio is not None and least is not None and ratio >= least
    )


def _may_change(departure: Measured, bound: Bound) -> bool:
    """Decide whether as many integers differ as noise or the type explains.

    On a grid, by as many steps too.
    """
    if departure.beyond > bound.most_changed:
        return False
    return not bound.on_grid or departure.max_abs <= MOST_STEPS * bound.floor.greatest


def _relative(part: float, whole: float) -> str:
    return f"{part / whole:.1e}" if whole > 0 else f"{part:.1e} from 0"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"
