"""The latency of a cell, from its nights in the history, compared with its accepted level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from onnx_harness.gate.nights import Night, judge_nights, standard_error
from onnx_harness.gate.rules import Compared, same_reference
from onnx_harness.gate.verdicts import undecided
from onnx_harness.results.cells import CellResult, PinnedRecord
from onnx_harness.results.gated import Finding, Nights
from onnx_harness.results.history_rows import PastCell
from onnx_harness.results.levels import Level
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import moment_of


def compare_latency(
    compared: Compared,
    level: Level,
    now: CellResult,
    past: Sequence[PastCell],
    between: timedelta = timedelta(0),
) -> Nights | None:
    """Judge tonight's ratio. Findings and notes are added to ``compared``.

    Args:
        compared: the cell's other findings; where the comparison is void, so is that of the
            latency.
        level: the accepted level.
        now: tonight.
        past: the cell's runs, oldest first, tonight's being the last.
        between: the least time between two nights; see `one_a_night`.

    Returns:
        None where the latency isn't gated, or where there's nothing to gate it by.
    """
    fault = invalid_times(now)
    if fault is not None:
        compared.void("latency", fault)
        return None
    accepted = level.cell.pinned
    if accepted is None or accepted.ratio is None:
        return None  # accepted without a pinned reference
    fault = _not_timed(now) or _unsound_level(accepted.ratio)
    if fault is not None:
        compared.void("latency", fault)
        return None
    if not compared.comparable:
        return None
    if past[-1].run.id != level.run_id:
        fault = _no_verdict(now) or _no_comparison(level, past)
        if fault is not None:
            compared.void("latency", fault)
            return None
    runs = comparable(level, past)
    counted = one_a_night(runs, between)
    records = [night.cell.pinned for night in counted if night.cell.pinned]
    nights = judge_nights(math.log(accepted.ratio), [_night(record) for record in records])
    _report(compared, nights)
    if len(counted) < len(runs) and nights.outcome is Outcome.INCONCLUSIVE:
        compared.notes.append(
            f"runs less than {between / timedelta(hours=1):g} hours apart are one night, of which "
            "the latest counts (--same-night counts each)"
        )
    return nights


def _not_timed(now: CellResult) -> str | None:
    """Return the reason why tonight has no ratio, or None."""
    pinned = now.pinned
    if pinned is not None and pinned.ratio is not None:
        return None
    why = pinned.reason if pinned else None
    why = why or "the run named none (--gate-reference), or ran under xdist"
    return f"it wasn't timed with the pinned reference: {why}"


def _unsound_level(ratio: float) -> str | None:
    if _sound(ratio):
        return None
    return f"the accepted ratio is {ratio}: accept the cell again"


def _report(compared: Compared, nights: Nights) -> None:
    """Add what the nights show to a cell's findings and notes."""
    if nights.unconfirmed:
        compared.notes.append(_unconfirmed(nights))
    if nights.outcome is not Outcome.PASS:
        compared.findings.append(Finding(nights.outcome, "latency", _sentence(nights)))
        return
    speedup = nights.level / nights.ratio
    if math.log(speedup) > math.log1p(nights.smallest_step):
        compared.notes.append(
            f"{speedup - 1:.1%} faster than accepted: accept it, so that losing it again is noticed"
        )


def comparable(level: Level, past: Sequence[PastCell]) -> list[PastCell]:
    """Return the nights whose ratios mean the same as the accepted one, in the order of the runs.

    Order is that in which the runs were entered: clocks are set back. Only where the history
    doesn't have the accepted run, because it was begun anew, do the times decide which nights come
    after it.
    """
    runs = [night.run.id for night in past]
    if level.run_id in runs:
        past = past[runs.index(level.run_id) + 1 :]
    else:
        past = [night for night in past if night.run.started > level.accepted]
    return [night for night in past if _is_comparable_night(level, night)]


def one_a_night(past: Sequence[PastCell], between: timedelta) -> list[PastCell]:
    """Return the latest of a cell's runs of each night, oldest first; the last run stands.

    A run whose time can't be read is a night of its own.

    Args:
        past: the cell's runs, oldest first.
        between: runs that started closer to each other than this are of one night.
    """
    nights: list[PastCell] = []
    for run in reversed(past):
        if not nights or _apart(run, nights[-1]) >= between:
            nights.append(run)
    return nights[::-1]


def _apart(first: PastCell, second: PastCell) -> timedelta:
    moments = moment_of(first.run), moment_of(second.run)
    if moments[0] is None or moments[1] is None:
        return timedelta.max
    return abs(moments[0] - moments[1])


def _is_comparable_night(level: Level, night: PastCell) -> bool:
    processor = night.cell.processor(night.run.host)
    return is_comparable(level, processor, night.run.seed, night.cell)


def is_comparable(level: Level, processor: str, seed: int, cell: CellResult) -> bool:
    """Tell if a cell's ratio and its level's mean the same.

    Args:
        level: the cell's accepted level.
        processor: that the run was on.
        seed: of the run.
        cell: its result.
    """
    tonight, accepted = cell.pinned, level.cell.pinned
    if tonight is None or accepted is None:
        return False
    if not (_sound(accepted.ratio) and _has_valid_ratio(tonight)):
        return False
    settings = (processor, seed, cell.card_sha256, cell.inputs_sha256, tonight.model_sha256)
    accepted_settings = (
        level.processor,
        level.seed,
        level.cell.card_sha256,
        level.cell.inputs_sha256,
        accepted.model_sha256,
    )
    return settings == accepted_settings and same_reference(tonight, accepted)


def _has_valid_ratio(record: PinnedRecord) -> bool:
    if record.verdict is not None and record.verdict.outcome is Outcome.INVALID:
        return False
    return _sound(record.night_ratio) and not undecided(record)


def invalid_times(now: CellResult) -> str | None:
    """Return the reason why a cell's times can't be right; None where they can."""
    times: list[float | None] = []
    if now.latency is not None:
        times = [now.latency.median_ms, now.latency.baseline_median_ms, now.latency.speedup]
    pinned = now.pinned
    if pinned is not None and pinned.ratio is not None:
        log_ratios = (*pinned.log_ratios, *pinned.confirming_log_ratios)
        times += [pinned.ratio, pinned.median_ms, pinned.pinned_median_ms]
        times += map(math.exp, log_ratios)
    for value in times:
        if not _sound(value):
            return f"a time or a ratio of it is {value}: the clock, or whatever wrote it, is broken"
    return None


def _sound(value: float | None) -> bool:
    if value is None:
        return False
    return math.isfinite(value) and value > 0


def _no_verdict(now: CellResult) -> str | None:
    """Return the reason why tonight has no verdict of its own; None where it has one."""
    if now.pinned is None or now.pinned.verdict is None:
        return "the run ended before it was compared with its accepted level: run again"
    verdict = now.pinned.verdict
    if verdict.outcome is Outcome.INVALID:
        return f"tonight's readings can't be used: {verdict.reason}"
    if undecided(now.pinned):
        return (
            f"tonight's first measurement is {verdict.outcome}, and the run ended before the second"
            ", which that requires: run again"
        )
    return None


def _no_comparison(level: Level, past: Sequence[PastCell]) -> str | None:
    tonight = past[-1]
    if tonight in comparable(level, past)[-1:]:
        return None
    return (
        "the pinned reference didn't run the model that was accepted: accept the cell again"
    )


def _night(record: PinnedRecord) -> Night:
    """A night whose ratio is sound. Its error is that of the measurement which gave the figure."""
    pairs = record.confirming_log_ratios or record.log_ratios
    error = standard_error([value for value in pairs if math.isfinite(value)])
    figure = math.log(record.night_ratio or 1.0)
    if not record.confirming_log_ratios:
        return Night(figure, error)
    return Night(figure, error, first=math.log(record.ratio or 1.0))


def _unconfirmed(nights: Nights) -> str:
    first = (nights.first or nights.level) / nights.level - 1
    second = nights.ratio / nights.level - 1
    if first > second:
        return (
            f"{first:+.1%} at first, and {second:+.1%} when measured again on fresh pairs: not a "
            "suspect night"
        )
    return (
        f"{second:+.1%} when measured again, which the first measurement ({first:+.1%}) doesn't "
        "show: not a suspect night"
    )


def _sentence(nights: Nights) -> str:
    times = f"{nights.ratio:.3f} times the pinned reference's time"
    step = f"{times}, and {nights.level:.3f} was accepted"
    slowdown = nights.ratio / nights.level
    first = ""
    if nights.first is not None:
        first = f"; measured again, {nights.first / nights.level - 1:+.1%} at first"
    z = f"z {nights.z:.1f}{first}"
    if nights.outcome is Outcome.FAIL:
        return f"{step}: {slowdown - 1:+.1%}, two nights in a row ({z})"
    is_watched = nights.z * nights.smallest_step > 0
    if is_watched and math.log(slowdown) > math.log1p(nights.smallest_step):
        return f"{step}: {slowdown - 1:+.1%} ({z}). A second night in a row would fail it"
    unseen = f"a slowdown of {nights.smallest_step:.0%}"
    return f"its nights vary so much that {unseen} wouldn't be noticed"
