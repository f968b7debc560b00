"""Judging a finished run under other bounds from its figures alone, without running a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    ErrorSketch,
    OutputAccuracy,
    Stage,
    Status,
    Symptom,
)

_ZERO = -1023
"""The exponent under which a sketch of errors keeps those of elements that are 0."""

_ROUNDING_UP = 1.002
"""More than a sketch's errors were rounded up by."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of outputs: element-wise (`rtol`, `atol`), or as a whole (`sqnr_db`).

    Attributes:
        rtol: relative tolerance of an element; None with `sqnr_db`.
        atol: absolute tolerance of an element; None with `sqnr_db`.
        sqnr_db: least signal to quantization noise ratio in decibels; None with the others.
    """

    rtol: float | None = None
    atol: float | None = None
    sqnr_db: float | None = None

    def __str__(self) -> str:
        if self.sqnr_db is not None:
            return f"SQNR of at least {self.sqnr_db:g} dB"
        return f"rtol {self.rtol:g}, atol {self.atol:g}"


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A run under other bounds.

    Attributes:
        cells: all of the run; those that can't be judged again are as they were.
        changed: ids of cells whose status is another one now.
        undecided: reasons by id, of the cells that can't be judged again.
    """

    cells: tuple[CellResult, ...]
    changed: tuple[str, ...]
    undecided: dict[str, str]


def rejudge(cells: Sequence[CellResult], bounds: Bounds) -> Rejudged:
    """Judge cells again by other bounds.

    Only the bound changes: what isn't faithful stays a failure, and so does what ended before its
    outputs were compared.
    """
    judged: list[CellResult] = []
    undecided: dict[str, str] = {}
    for cell in cells:
        outcome = _cell(cell, bounds)
        if isinstance(outcome, str):
            undecided[cell.id] = outcome
            outcome = cell
        judged.append(outcome)
    changed = []
    for new, old in zip(judged, cells, strict=True):
        if new.status is not old.status:
            changed.append(new.id)
    return Rejudged(tuple(judged), tuple(changed), undecided)


def _cell(cell: CellResult, bounds: Bounds) -> CellResult | str:
    """Return the cell by other bounds, or why that isn't known."""
    if cell.accuracy is None or cell.status not in {Status.PASS, Status.FAIL}:
        return cell
    if cell.status is Status.FAIL and not _failed_by_values(cell):
        return cell
    one_set = cell.accuracy.input_sets == 1
    verdicts = {}
    for name, output in cell.accuracy.outputs.items():
        verdicts[name] = usable(output, bounds, one_set=one_set)
    if False in verdicts.values():
        return _failed(cell, bounds, verdicts)
    unknown = [name for name, verdict in verdicts.items() if verdict is None]
    if unknown:
        return f"whether {unknown[0]} is within the bounds doesn't follow from its figures"
    if any(output.faithful is False for output in cell.accuracy.outputs.values()):
        return cell
    if cell.status is Status.PASS:
        return _bounded(cell, bounds, verdicts)
    if not _bound_was_why(cell):
        return "it fails for another reason than its bounds, or for one that isn't recorded"
    passed = replace(
        cell, status=Status.PASS, stage=Stage.DONE, reason=None, detail=(), symptom=None
    )
    return _bounded(passed, bounds, verdicts)


def _failed_by_values(cell: CellResult) -> bool:
    return cell.stage is Stage.COMPARE and cell.symptom in {Symptom.WRONG_VALUES, None}


def _bound_was_why(cell: CellResult) -> bool:
    """Decide whether the bounds alone made a cell fail.

    Then some output was unusable, and all of them were faithful.
    """
    outputs = cell.accuracy.outputs.values() if cell.accuracy else ()
    if not any(output.usable is False for output in outputs):
        return False
    return all(output.faithful for output in outputs)


def usable(output: OutputAccuracy, bounds: Bounds, *, one_set: bool) -> bool | None:
    """Decide whether an output is within other bounds; None where its figures don't tell.

    The recorded minimum tolerance m says that the bounds used, scaled by m / rtol, are just wide
    enough on the worst input set. Bounds that are both narrower fail there. Bounds that are both at
    least as wide pass there; on other sets they might not, since a default atol follows the scale
    of the set. What no element exceeds passes on all.

    Args:
        output: the recorded figures.
        bounds: the other bounds.
        one_set: whether the figures are of one input set.
    """
    if output.nonfinite:
        return False
    if output.max_abs == 0:
        return True
    if output.usable is False and output.minimum_tolerance is None:
        return None  # a zero's sign, a cosine, the greatest elements: no tolerance would do
    if bounds.sqnr_db is not None:
        return None if output.sqnr_db is None else output.sqnr_db >= bounds.sqnr_db
    if bounds.rtol is None or bounds.atol is None:
        raise ValueError("bounds are rtol with atol, or sqnr_db")
    if output.max_abs is not None and output.max_abs <= bounds.atol:
        return True
    if output.errors is not None and output.errors.greatest:
        verdict = _by_greatest(output.errors.greatest, bounds.rtol, bounds.atol)
        if verdict is not None:
            return verdict
    needed = _needed(output)
    if needed is None:
        return None
    rtol, atol = needed
    if bounds.rtol < rtol and bounds.atol < atol:
        return False
    if bounds.rtol < rtol and bounds.atol == atol == 0:
        return False
    wider = bounds.rtol >= rtol and bounds.atol >= atol
    return True if wider and one_set else None


def _by_greatest(greatest: Mapping[str, float], rtol: float, atol: float) -> bool | None:
    """Decide by the greatest errors of the elements of each size; None where one lies between.

    An element whose reference's magnitude lies between 2^k and 2^(k+1) is allowed at least
    ``atol + rtol * 2^k``, and less than twice the relative part of it.
    """
    verdict: bool | None = True
    for exponent, error in greatest.items():
        low = math.ldexp(rtol, int(exponent)) if int(exponent) > _ZERO else 0.0
        if error / _ROUNDING_UP > atol + 2 * low:
            return False
        if error > atol + low:
            verdict = None
    return verdict


def _needed(output: OutputAccuracy) -> tuple[float, float] | None:
    """Return the bounds used, scaled so that the output just passes."""
    minimum = output.minimum_tolerance
    if minimum is None or not output.rtol or not math.isfinite(minimum):
        return None
    if output.atol == 0 and output.rel_l2 == minimum:
        return None  # of the norm, as INT8 is judged: it says nothing of single elements
    return minimum, output.atol * (minimum / output.rtol)


def _bounded(
    cell: CellResult, bounds: Bounds, verdicts: dict[str, bool | None]
) -> CellResult:
    """Return the cell with its outputs' bounds and usability."""
    if cell.accuracy is None:
        return cell
    outputs = {}
    for name, output in cell.accuracy.outputs.items():
        outputs[name] = _with_bounds(output, bounds, verdicts[name])
    return replace(cell, accuracy=AccuracyRecord(cell.accuracy.input_sets, outputs))


def _with_bounds(
    output: OutputAccuracy, bounds: Bounds, verdict: bool | None
) -> OutputAccuracy:
    if bounds.sqnr_db is not None:
        share = 10 ** (-bounds.sqnr_db / 20)
        return replace(
            output,
            usable=verdict,
            minimum_tolerance=output.rel_l2,
            rtol=share,
            atol=0.0,
            errors=_without_shares(output.errors),
        )
    if bounds.rtol is None or bounds.atol is None:
        return replace(output, usable=verdict)
    needed = _needed(output)
    same_ratio = needed is not None and math.isclose(
        needed[1] * bounds.rtol, needed[0] * bounds.atol
    )
    minimum = output.minimum_tolerance if same_ratio or output.max_abs == 0 else None
    return replace(
        output,
        usable=verdict,
        minimum_tolerance=minimum,
        rtol=bounds.rtol,
        atol=bounds.atol,
        errors=_without_shares(output.errors),
    )


def _without_shares(errors: ErrorSketch | None) -> ErrorSketch | None:
    """Drop the shares of what was allowed by the bounds before."""
    return None if errors is None else replace(errors, equal=0, shares={})


def _failed(
    cell: CellResult, bounds: Bounds, verdicts: dict[str, bool | None]
) -> CellResult:
    beyond = [name for name, verdict in verdicts.items() if verdict is False]
    if cell.status is Status.FAIL:
        return _bounded(cell, bounds, verdicts)
    more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
    failed = replace(
        cell,
        status=Status.FAIL,
        stage=Stage.COMPARE,
        reason=f"judged again: output {beyond[0]}{more} is beyond {bounds}",
        symptom=Symptom.WRONG_VALUES,
    )
    return _bounded(failed, bounds, verdicts)
