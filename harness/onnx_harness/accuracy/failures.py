"""Put into words what is wrong with an output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from onnx_harness.accuracy.measure import Array

# How many outputs are told in full, and how many more by name: together they stay on a screen.
MOST_IN_FULL = 5
MOST_NAMED = 8


class Check(StrEnum):
    """The checks, in the order of checking."""

    NAMES = "names"
    KIND = "kind"
    DTYPE = "dtype"
    SHAPE = "shape"
    NONFINITE = "nonfinite"
    FAITHFUL = "faithful"
    ELEMENTS = "elements"
    SQNR = "sqnr"
    COSINE = "cosine"
    AGREEMENT = "agreement"
    SIGNED_ZERO = "signed_zero"


class Question(StrEnum):
    """The question that a failure answers with no."""

    # Nothing could be compared, or nothing is known that would tell the two apart.
    NEITHER = ""
    FAITHFUL = "faithful"  # is it explained by the model's noise, or by what the type costs?
    USABLE = "usable"  # is it within the user's bound?


# Worst first: what can't be compared at all, then values, then the sign of what is zero anyway.
_RANK = {
    Check.NAMES: 0,
    Check.KIND: 1,
    Check.DTYPE: 2,
    Check.SHAPE: 3,
    Check.NONFINITE: 4,
    Check.FAITHFUL: 5,
    Check.ELEMENTS: 6,
    Check.SQNR: 6,
    Check.COSINE: 6,
    Check.AGREEMENT: 6,
    Check.SIGNED_ZERO: 7,
}


@dataclass(frozen=True, slots=True)
class OutputFailure:
    """One output that fails one check, in the input set where it fails worst.

    Attributes:
        output: its name, flattened.
        check: which one.
        what: a predicate to the output's name, such as ``has shape [1, 2]; the reference has [2,
            1]``.
        input_set: which one, for people.
        at: its position; None where the failure is of no input set.
        sets: in how many input sets it fails.
        severity: orders failures of one check, greatest worst.
        minimum_tolerance: the smallest rtol that would pass, atol in proportion (the smallest atol
            where rtol is 0); for the ratio of signal to noise the relative L2 error. None when none
            would.
        rtol: used.
        atol: used; the greatest over the input sets.
        max_rel: greatest relative difference where the reference isn't 0.
        sqnr_db: signal to noise ratio, where that was checked.
        question: that it answers.
        enough: what would pass, as a card says it, where that is neither a tolerance nor a ratio.
        flip: it's no more than the model's own last bits do in another input set: one of few such
            sets may be chance.
    """

    output: str
    check: Check
    what: str
    input_set: str = ""
    at: int | None = None
    sets: int = 1
    severity: float = 0.0
    minimum_tolerance: float | None = None
    rtol: float = 0.0
    atol: float = 0.0
    max_rel: float | None = None
    sqnr_db: float | None = None
    question: Question = Question.NEITHER
    enough: str = ""
    flip: bool = False


def merged(failures: Iterable[OutputFailure]) -> tuple[OutputFailure, ...]:
    """Merge failures to one for each output and check, that of the worst set; the worst first."""
    worst_by_check: dict[tuple[str, Check], OutputFailure] = {}
    for failure in failures:
        key = (failure.output, failure.check)
        earlier = worst_by_check.get(key)
        if earlier is None:
            worst_by_check[key] = failure
            continue
        worst, milder = (
            (failure, earlier) if failure.severity > earlier.severity else (earlier, failure)
        )
        worst_by_check[key] = replace(
            worst, sets=earlier.sets + 1, minimum_tolerance=_greater(worst, milder)
        )
    return tuple(
        sorted(
            worst_by_check.values(),
            key=lambda failure: (_RANK[failure.check], -failure.severity),
        )
    )


def reason(failures: Sequence[OutputFailure]) -> str | None:
    """One sentence on the worst of ``failures`` and how many outputs fail beside it.

    None when there's none.
    """
    if not failures:
        return None
    worst = failures[0]
    others = len({failure.output for failure in failures} - {worst.output})
    more = ""
    if others:
        more = f", and {others} more {'outputs fail' if others > 1 else 'output fails'}"
    colon = "" if worst.check is Check.FAITHFUL else ":"
    return f"{_question(worst, failures)}output {worst.output}{colon} {worst.what}{more}"


def _question(worst: OutputFailure, failures: Sequence[OutputFailure]) -> str:
    """Name the question that the reason answers, as its beginning."""
    questions = set()
    for failure in failures:
        if failure.output == worst.output:
            questions.add(failure.question)
    if Question.NEITHER in questions:
        return ""
    return (
        "not faithful: " if Question.FAITHFUL in questions else "faithful, but not usable: "
    )


def detail_lines(failures: Sequence[OutputFailure]) -> tuple[str, ...]:
    """The failures for a person: the worst outputs in full, the others by name."""
    by_output: dict[str, list[OutputFailure]] = {}
    for failure in failures:
        by_output.setdefault(failure.output, []).append(failure)
    outputs = list(by_output)
    lines: list[str] = []
    for output in outputs[:MOST_IN_FULL]:
        for failure in by_output[output]:
            lines.append(
                f"{output}{'' if failure.check is Check.FAITHFUL else ':'} {failure.what}"
            )
            lines.append("  " + "; ".join(_remarks(failure, by_output[output])))
    unlisted = outputs[MOST_IN_FULL:]
    if unlisted:
        plural = len(unlisted) > 1
        lines.append(
            f"{len(unlisted)} more output{'s' if plural else ''} fail{'' if plural else 's'}: "
            f"{listed(unlisted)}"
        )
    return tuple(lines)


def share(count: int, size: int) -> str:
    """``6,246 of 102,400 values (6.1%)``."""
    percent = 100 * count / size
    return (
        f"{count:,} of {size:,} value{'s' if size != 1 else ''} "
        f"({percent:{'.0f' if percent >= 10 else '.2g'}}%)"
    )


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The names, the last of a long list by their number."""
    return ", ".join(names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def place(array: Array, index: int, labels: Sequence[str] = ()) -> str:
    """`` at [0, 0, 211, 87]`` for a flat index, or by its label; nothing in a scalar.

    Parts of complex numbers count as two.
    """
    if labels:
        return f" at {labels[index]}"
    if array.ndim == 0:
        return ""
    if array.dtype.kind == "c":
        index //= 2
    return (
        f" at [{', '.join(str(int(axis)) for axis in np.unravel_index(index, array.shape))}]"
    )


def element(array: Array, index: int) -> Any:
    """The element at a flat index.

    Of complex numbers the part that the index counts, as `measure` does.
    """
    if array.dtype.kind == "c":
        value = array.ravel()[index // 2]
        return value.imag if index % 2 else value.real
    return array.ravel()[index]


def pair(reference: Array, candidate: Array, index: int) -> str:
    """Write two elements as ``reference 0.402, got 0.533``.

    They get as many digits as it takes to tell them apart, at least three.
    """
    expected, actual = element(reference, index), element(candidate, index)
    if not (np.issubdtype(reference.dtype, np.floating) or reference.dtype.kind in "cV"):
        return f"reference {_clipped(expected)}, got {_clipped(actual)}"
    for digits in (3, 5, 7, 9, 17):
        texts = (f"{float(expected):.{digits}g}", f"{float(actual):.{digits}g}")
        if texts[0] != texts[1]:
            break
    return f"reference {texts[0]}, got {texts[1]}"


def _clipped(value: Any, most: int = 40) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _remarks(failure: OutputFailure, siblings: Sequence[OutputFailure]) -> list[str]:
    """Remark what would pass, by how much it's off relatively, and where."""
    remarks = []
    if (
        failure.max_rel is not None
        and math.isfinite(failure.max_rel)
        and failure.check is Check.ELEMENTS
    ):
        remarks.append(f"greatest relative difference {failure.max_rel:.2g}")
    if failure.check is Check.FAITHFUL:
        remarks.append("no tolerance of the card mends that")
    elif failure.enough:
        remarks.append(f"would pass with {failure.enough}")
    elif any(
        sibling.minimum_tolerance is None
        for sibling in siblings
        if sibling.check is not Check.FAITHFUL
    ):
        remarks.append("no tolerance would pass")
    elif failure.check is Check.SQNR and failure.sqnr_db is not None:
        # Rounded down: what is printed as enough has to be enough.
        remarks.append(
            f"would pass with sqnr_db {math.floor(failure.sqnr_db * 10) / 10:.1f}"
        )
    elif failure.minimum_tolerance is not None and failure.rtol > 0:
        atol = failure.atol * failure.minimum_tolerance / failure.rtol
        remarks.append(
            f"would pass with rtol {_up(failure.minimum_tolerance)} and atol {_up(atol)} "
            f"(used {failure.rtol:.2g} and {failure.atol:.2g})"
        )
    elif failure.minimum_tolerance is not None:
        remarks.append(
            f"would pass with atol {_up(failure.minimum_tolerance)} (used {failure.atol:.2g})"
        )
    remarks.append(
        failure.input_set
        + (f", the worst of {failure.sets} that fail" if failure.sets > 1 else "")
    )
    return remarks


def _up(value: float) -> str:
    """Two digits, rounded up: what is printed as enough has to be enough."""
    if value <= 0 or not math.isfinite(value):
        return f"{value:.2g}"
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / step - 1e-9) * step:.2g}"


def _greater(first: OutputFailure, second: OutputFailure) -> float | None:
    if first.minimum_tolerance is None or second.minimum_tolerance is None:
        return None
    return max(first.minimum_tolerance, second.minimum_tolerance)
