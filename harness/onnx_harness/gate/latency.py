"""The latency of a cell, from its nights in the history, against its accepted level."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx_harness.gate.nights import Night, judge_nights, standard_error
from onnx_harness.gate.rules import Compared, same_reference
from onnx_harness.gate.verdicts import undecided
from onnx_harness.results.cells import CellResult, PinnedRecord
from onnx_harness.results.gated import Finding, Nights
from onnx_harness.results.history import PastCell
from onnx_harness.results.levels import Level
from onnx_harness.results.outcome import Outcome


def compare_latency(seen: Compared, level: Level, now: CellResult, past: Sequence[PastCell]) -> Nights | None:
    """Judge tonight's ratio. What is found is put into ``seen``.

    Args:
        seen: what else was found of the cell; where the comparison is void, so is that of the latency.
        level: the accepted level.
        now: tonight.
        past: the cell's runs, oldest first, tonight's being the last.

    Returns:
        None where the latency isn't gated, or where there's nothing to gate it by.
    """
    fault = invalid_times(now)
    if fault is not None:
        seen.void("latency", fault)
        return None
    accepted = level.cell.pinned
    if accepted is None or accepted.ratio is None:
        return None  # accepted without a pinned reference
    if now.pinned is None or now.pinned.ratio is None:
        why = (now.pinned.reason if now.pinned else None) or "the run named none (--gate-reference), or ran under xdist"
        seen.void("latency", f"it wasn't timed beside the pinned reference: {why}")
        return None
    if not _sound(accepted.ratio):
        seen.void("latency", f"the accepted ratio is {accepted.ratio}: accept the cell again")
        return None
    if not seen.comparable:
        return None
    if past[-1].run.id != level.run_id:
        fault = _no_verdict(now.pinned) or _no_comparison(level, past)
        if fault is not None:
            seen.void("latency", fault)
            return None
    readings = [each.cell.pinned for each in comparable(level, past) if each.cell.pinned]
    found = judge_nights(math.log(accepted.ratio), [_night(each) for each in readings])
    if found.unconfirmed:
        seen.notes.append(_unconfirmed(found))
    if found.outcome is not Outcome.PASS:
        seen.findings.append(Finding(found.outcome, "latency", _sentence(found)))
    elif math.log(found.level / found.ratio) > math.log1p(found.smallest_step):
        seen.notes.append(
            f"{found.level / found.ratio - 1:.1%} faster than accepted: accept it, so that losing it again is noticed"
        )
    return found


def comparable(level: Level, past: Sequence[PastCell]) -> list[PastCell]:
    """The nights after the accepted one whose ratios mean the same as its ratio does, in the order of the runs.

    Order is that in which the runs were entered: clocks are set back. Only where the history doesn't have the accepted
    run, because it was begun anew, do the times decide which nights come after it.
    """
    runs = [each.run.id for each in past]
    if level.run_id in runs:
        past = past[runs.index(level.run_id) + 1 :]
    else:
        past = [each for each in past if each.run.started > level.accepted]
    return [
        each
        for each in past
        if held_against(level, each.run.host.processor_of(each.cell.provider), each.run.seed, each.cell)
    ]


def held_against(level: Level, processor: str, seed: int, cell: CellResult) -> bool:
    """Whether the ratio of a cell, from a run on ``processor`` with ``seed``, means the same as its level's does."""
    there, accepted = cell.pinned, level.cell.pinned
    return (
        there is not None
        and accepted is not None
        and _sound(accepted.ratio)
        and _sound(there.night_ratio)
        and not (there.verdict is not None and there.verdict.outcome is Outcome.INVALID)
        and not undecided(there)
        and processor == level.processor
        and seed == level.seed
        and cell.card_sha256 == level.cell.card_sha256
        and cell.inputs_sha256 == level.cell.inputs_sha256
        and there.model_sha256 == accepted.model_sha256
        and same_reference(there, accepted)
    )


def invalid_times(now: CellResult) -> str | None:
    """Why a cell's times can't be times; None where they can."""
    taken: list[float | None] = (
        [] if now.latency is None else [now.latency.median_ms, now.latency.baseline_median_ms, now.latency.speedup]
    )
    if now.pinned is not None and now.pinned.ratio is not None:
        taken += [
            now.pinned.ratio,
            now.pinned.median_ms,
            now.pinned.pinned_median_ms,
            *map(math.exp, (*now.pinned.log_ratios, *now.pinned.confirming_log_ratios)),
        ]
    wrong = [value for value in taken if not _sound(value)]
    return f"a time or a ratio of it is {wrong[0]}: the clock, or whatever wrote it, is broken" if wrong else None


def _sound(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _no_verdict(tonight: PinnedRecord) -> str | None:
    """Why tonight has no verdict of its own to go by; None where it has one."""
    if tonight.verdict is None:
        return "the run ended before it was held against its accepted level: run again"
    if tonight.verdict.outcome is Outcome.INVALID:
        return f"tonight's readings are none to rest on: {tonight.verdict.reason}"
    if undecided(tonight):
        return (
            f"tonight's first measurement is {tonight.verdict.outcome}, and the run ended before the second, which "
            "that asks for: run again"
        )
    return None


def _no_comparison(level: Level, past: Sequence[PastCell]) -> str | None:
    if past[-1] in comparable(level, past)[-1:]:
        return None
    return "the pinned reference didn't run the model that was accepted: accept the cell again"


def _night(record: PinnedRecord) -> Night:
    """A night whose ratio is sound; its noise is that of the measurement which its figure comes from."""
    pairs = record.confirming_log_ratios or record.log_ratios
    error = standard_error([value for value in pairs if math.isfinite(value)])
    first, figure = record.ratio or 1.0, record.night_ratio or 1.0
    return Night(math.log(figure), error, math.log(first) if record.confirming_log_ratios else None)


def _unconfirmed(found: Nights) -> str:
    first = (found.first or found.level) / found.level - 1
    again = found.ratio / found.level - 1
    if first > again:
        return f"{first:+.1%} at first, and {again:+.1%} when measured again on fresh pairs: not a suspect night"
    return f"{again:+.1%} when measured again, which the first measurement ({first:+.1%}) lacks: not a suspect night"


def _sentence(found: Nights) -> str:
    step = f"{found.ratio:.3f} times the pinned reference's time, and {found.level:.3f} was accepted"
    again = "" if found.first is None else f"; measured again, {found.first / found.level - 1:+.1%} at first"
    if found.outcome is Outcome.FAIL:
        return f"{step}: {found.ratio / found.level - 1:+.1%}, two nights in a row (z {found.z:.1f}{again})"
    if found.z * found.smallest_step > 0 and math.log(found.ratio / found.level) > math.log1p(found.smallest_step):
        slower = f"{found.ratio / found.level - 1:+.1%} (z {found.z:.1f}{again})"
        return f"{step}: {slower}. A second night in a row would fail it"
    return f"its nights vary so much that a slowdown of {found.smallest_step:.0%} would pass unseen"
