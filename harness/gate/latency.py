"""The latency of a cell, from its nights in the history, against its accepted level."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.gate.nights import judge_nights, standard_error
from harness.gate.rules import Compared, same_reference
from harness.results.cells import CellResult, PinnedRecord
from harness.results.gated import Finding, Nights
from harness.results.history import PastCell
from harness.results.levels import Level
from harness.results.outcome import Outcome


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
    nights = comparable(level, accepted, past)
    tonight = past[-1].run.id
    if tonight != level.run_id and (not nights or nights[-1].run.id != tonight):
        seen.void("latency", "the pinned reference didn't run the model that was accepted: accept the cell again")
        return None
    readings = [each.cell.pinned for each in nights if each.cell.pinned]
    found = judge_nights(
        math.log(accepted.ratio),
        [math.log(each.ratio) for each in readings if each.ratio],
        [standard_error([value for value in each.log_ratios if math.isfinite(value)]) for each in readings],
    )
    if found.outcome is not Outcome.PASS:
        seen.findings.append(Finding(found.outcome, "latency", _sentence(found)))
    elif math.log(found.level / found.ratio) > math.log1p(found.smallest_step):
        seen.notes.append(
            f"{found.level / found.ratio - 1:.1%} faster than accepted: accept it, so that losing it again is noticed"
        )
    return found


def comparable(level: Level, accepted: PinnedRecord, past: Sequence[PastCell]) -> list[PastCell]:
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
        if (there := each.cell.pinned) is not None
        and _sound(there.ratio)
        and each.run.host.cpu == level.processor
        and each.run.seed == level.seed
        and each.cell.card_sha256 == level.cell.card_sha256
        and each.cell.inputs_sha256 == level.cell.inputs_sha256
        and there.model_sha256 == accepted.model_sha256
        and same_reference(there, accepted)
    ]


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
            *map(math.exp, now.pinned.log_ratios),
        ]
    wrong = [value for value in taken if not _sound(value)]
    return f"a time or a ratio of it is {wrong[0]}: the clock, or whatever wrote it, is broken" if wrong else None


def _sound(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _sentence(found: Nights) -> str:
    step = f"{found.ratio:.3f} times the pinned reference's time, and {found.level:.3f} was accepted"
    if found.outcome is Outcome.FAIL:
        return f"{step}: {found.ratio / found.level - 1:+.1%}, two nights in a row (z {found.z:.1f})"
    if found.z * found.smallest_step > 0 and math.log(found.ratio / found.level) > math.log1p(found.smallest_step):
        return f"{step}: {found.ratio / found.level - 1:+.1%} (z {found.z:.1f}). A second night in a row would fail it"
    return f"its nights vary so much that a slowdown of {found.smallest_step:.0%} would pass unseen"
