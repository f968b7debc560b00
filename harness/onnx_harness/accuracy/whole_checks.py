"""Check one output as a whole: the signal over the noise, the cosine, the ranking, the choices."""

from __future__ import annotations

import math
from dataclasses import replace

from onnx_harness.accuracy.explain import Bound
from onnx_harness.accuracy.failures import Check, OutputFailure, Question
from onnx_harness.accuracy.magnitudes import Magnitude
from onnx_harness.accuracy.measure import Array, Measured, is_float
from onnx_harness.accuracy.ranking import agreement, changed_choices, distribution_axis
from onnx_harness.accuracy.tolerance import Tolerance


def check_sqnr(
    name: str,
    reference: Array,
    departure: Measured,
    tolerance: Tolerance,
    bound: Bound | None = None,
    magnitude: Magnitude | None = None,
) -> OutputFailure | None:
    """Compare the signal with the noise over the whole output.

    It's at least the demanded number of decibels above it.

    A default yields to the model's own noise, and compares the noise of few elements with the
    signal that all sets have on average.
    """
    if tolerance.sqnr_db is None or not is_float(reference) or departure.error == 0:
        return None
    if tolerance.by_default and bound is not None and bound.is_noise(departure):
        return None
    if tolerance.by_default and magnitude is not None:
        signal = max(departure.signal, magnitude.signal_of(departure.size))
        departure = replace(departure, signal=signal)
    sqnr = departure.sqnr_db
    if sqnr is not None and sqnr >= tolerance.sqnr_db:
        return None
    ratio = (
        "no signal at all, only noise"
        if sqnr is None
        else f"a signal {sqnr:.3g} dB above its noise"
    )
    what = (
        f"has {ratio}, and {tolerance.sqnr_db:.3g} dB are asked for; greatest difference "
        f"{departure.max_abs:.3g}"
    )
    # Beside an element-wise rule, no rtol mends this one.
    return OutputFailure(
        name,
        Check.SQNR,
        what,
        severity=departure.rel_l2 or 0.0,
        sqnr_db=sqnr,
        minimum_tolerance=None if tolerance.elementwise else departure.rel_l2,
        question=Question.USABLE,
    )


def check_cosine(
    name: str, reference: Array, departure: Measured, tolerance: Tolerance
) -> OutputFailure | None:
    """The output points where the reference's does."""
    if tolerance.cosine is None or not is_float(reference) or departure.error == 0:
        return None
    cosine = departure.cosine
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
    name: str, reference: Array, candidate: Array, departure: Measured, tolerance: Tolerance
) -> OutputFailure | None:
    """Compare the greatest ``top_k`` elements along the last axis with the reference's.

    They're the same in the share of rows asked for.
    """
    if (
        tolerance.top_k is None
        or not is_float(reference)
        or departure.equal
        or reference.ndim == 0
    ):
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
        name,
        Check.AGREEMENT,
        what,
        severity=1 - got,
        question=Question.USABLE,
        enough=enough,
    )


def check_choices(
    name: str,
    reference: Array,
    candidate: Array,
    departure: Measured,
    tolerance: Tolerance,
    bound: Bound | None,
) -> OutputFailure | None:
    """Compare the top choice of each row, where an axis is one to choose by.

    It stays in nearly every row whose choice stands above the noise.

    An axis is where its values sum to one, as those of a Softmax do, or where the model goes on to
    an ArgMax or TopK.
    """
    if (
        not tolerance.choices_changed
        or departure.equal
        or bound is None
        or not is_float(reference)
    ):
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
