"""The gate: the latest run in the history compared with the accepted levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from onnx_harness import providers
from onnx_harness.gate import drift
from onnx_harness.gate.latency import comparable, compare_latency, one_a_night
from onnx_harness.gate.nights import BETWEEN_NIGHTS
from onnx_harness.gate.partial import missing_levels, why_partial
from onnx_harness.gate.rules import Compared, compare
from onnx_harness.report.figures import counted
from onnx_harness.results.cells import CellResult
from onnx_harness.results.gated import Finding, GatedCell, GateReport, gravest
from onnx_harness.results.history import History
from onnx_harness.results.history_rows import PastCell
from onnx_harness.results.levels import Key, Level
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo, moment_of

MOST_NIGHTS = 400
"""More than a year of nights: what lies further back says nothing about tonight."""
MAX_AGE = timedelta(hours=20)
"""A nightly run that is older than this is last night's: tonight's has left nothing."""


def gate(
    history: History,
    levels: Mapping[Key, Level],
    *,
    only: Sequence[str] = (),
    now: datetime | None = None,
    max_age: timedelta = MAX_AGE,
    between_nights: timedelta = BETWEEN_NIGHTS,
) -> GateReport:
    """Judge the latest run.

    Args:
        history: with that run in it.
        levels: the accepted ones.
        only: names of the providers that the run was for; none takes all that there are levels of.
        now: the time.
        max_age: of the run.
        between_nights: runs that started closer to each other are of one night, of which the
            latest counts; 0 makes each run a night.

    Raises:
        ResultsError: the history can't be read.
        UsageError: a name in ``only`` isn't a provider's.
    """
    for name in only:
        providers.get(name)
    runs = history.runs()
    if not runs:
        nothing = Finding(
            Outcome.INVALID, "run", "the history holds no run: nothing was judged"
        )
        return GateReport(Outcome.INVALID, None, (nothing,), ())
    run = runs[-1]
    judged = history.cells(run.id)
    tonight = _Tonight(
        run,
        {cell.id: cell for cell in judged if not only or cell.provider in only},
        {
            key: level
            for key, level in levels.items()
            if not only or level.cell.provider in only
        },
        len(judged),
    )
    findings = [
        *_time_findings(runs, now or datetime.now(UTC), max_age),
        *_content_findings(tonight),
    ]
    cells = _gated_cells(tonight, history, between_nights)
    outcome = gravest((*findings, *_findings_of(cells)))
    notes = () if drift.available() else (drift.MISSING,)
    return GateReport(outcome, run, tuple(findings), tuple(cells), notes)


@dataclass(frozen=True, slots=True)
class _Tonight:
    """The run that is judged.

    Attributes:
        run: its data.
        results: its cells by id, of the providers that it was for.
        levels: the accepted levels of these providers.
        judged: how many cells the run has, of all providers.
    """

    run: RunInfo
    results: Mapping[str, CellResult]
    levels: Mapping[Key, Level]
    judged: int


def _gated_cells(
    tonight: _Tonight, history: History, between_nights: timedelta
) -> list[GatedCell]:
    missing, partial = _missing(tonight)
    cells = [] if partial else [_vanished(level, tonight) for level in missing]
    for name, cell in sorted(tonight.results.items()):
        processor = cell.processor(tonight.run.host)
        level = tonight.levels.get((name, processor))
        if level is None:
            cells.append(_unknown(cell, processor, tonight.levels))
        else:
            past = history.past(name, last=MOST_NIGHTS)
            cells.append(_judge(level, cell, tonight.run, past, between_nights))
    return cells


def _missing(tonight: _Tonight) -> tuple[list[Level], str | None]:
    """Return the levels that the run has no cell for, and why that is no fault of the cells."""
    missing = missing_levels(tonight.levels, tonight.results)
    if not tonight.results:
        return missing, "it has no cell"
    return missing, why_partial(tonight.run, tonight.judged, missing)


def _findings_of(cells: Sequence[GatedCell]) -> Iterator[Finding]:
    for cell in cells:
        yield from cell.findings


def _time_findings(
    runs: Sequence[RunInfo], now: datetime, max_age: timedelta
) -> Sequence[Finding]:
    """Findings about when the latest of ``runs`` started."""
    findings = Compared()
    run = runs[-1]
    started = moment_of(run)
    if started is None:
        findings.void(
            "clock", f"the run {run.id} has no time that can be read ('{run.started}')"
        )
        return findings.findings
    if abs(now - started) > max_age:
        hours = (now - started) / timedelta(hours=1)
        when = f"{hours:.0f} hours ago" if hours > 0 else f"{-hours:.0f} hours in the future"
        findings.void(
            "run",
            f"the latest run in the history started {when}, and nothing was recorded since: "
            "tonight's didn't run, was refused, or couldn't write its history (--max-age says how "
            "old a run may be)",
        )
    before = moment_of(runs[-2]) if len(runs) > 1 else None
    if before is not None and started < before:
        findings.void(
            "clock",
            "the run says that it started before the one that was entered before it "
            f"({run.started}, {runs[-2].started}): a clock was set back, or histories were mixed. "
            "Runs count in the order in which they were entered; run again with the clock right",
        )
    return findings.findings


def _content_findings(tonight: _Tonight) -> Sequence[Finding]:
    """Findings about a run without cells or with a part of them, or a gate without levels."""
    findings = Compared()
    missing, partial = _missing(tonight)
    if partial is not None and tonight.results:
        accepted = {name for name, _ in tonight.levels}
        cells = counted(len(accepted), "accepted cell")
        findings.void(
            "run",
            f"the run had {len(accepted) - len(missing):,} of {cells}: {partial}. Run them all, "
            "name the providers that it was for (--provider), or accept this run for good (gate "
            "accept --all)",
        )
    if not tonight.results:
        findings.void(
            "run",
            "the run holds no cell of these providers: it was killed, refused, or all was "
            "deselected",
        )
    if not tonight.levels:
        findings.void(
            "run",
            "no level was ever accepted: look at the run, then `onnx-harness gate accept --all "
            '--why "…"`',
        )
    return findings.findings


def _vanished(level: Level, tonight: _Tonight) -> GatedCell:
    successors = []
    for cell in tonight.results.values():
        if _succeeds(cell, level, tonight):
            successors.append(cell.id)
    advice = "A run that was for some providers only names them: --provider."
    if successors:
        advice = (
            f"Perhaps its id is {successors[0]} now, which is judged anew: "
            "ids are history's keys."
        )
    reason = f"accepted on {level.accepted[:10]}, and not in this run. {advice}"
    finding = Finding(Outcome.FAIL, "cell", reason)
    return GatedCell(level.cell.id, Outcome.FAIL, (finding,))


def _succeeds(cell: CellResult, level: Level, tonight: _Tonight) -> bool:
    """True where a cell without a level may be the one that was accepted, under a new id."""
    accepted = level.cell
    same_work = (cell.model_sha256, cell.provider) == (
        accepted.model_sha256,
        accepted.provider,
    )
    half_the_name = cell.variant == accepted.variant or cell.model == accepted.model
    return same_work and half_the_name and (cell.id, level.processor) not in tonight.levels


def _unknown(cell: CellResult, processor: str, levels: Mapping[Key, Level]) -> GatedCell:
    """The finding on a cell that has no level on this processor."""
    processors_accepted = []
    for name, accepted_on in levels:
        if name == cell.id:
            processors_accepted.append(accepted_on)
    elsewhere = sorted(processors_accepted)
    mend = f'accept it: onnx-harness gate accept {cell.id} --why "…"'
    what, reason = "cell", f"has no accepted level. Where it's right, {mend}"
    if elsewhere:
        what = "processor"
        reason = (
            f"ran on {processor}, and was accepted on {', '.join(elsewhere)} only. Where it's "
            f"right here too, {mend}"
        )
    finding = Finding(Outcome.INVALID, what, reason)
    return GatedCell(cell.id, Outcome.INVALID, (finding,))


def _judge(
    level: Level,
    cell: CellResult,
    run: RunInfo,
    past: Sequence[PastCell],
    between: timedelta,
) -> GatedCell:
    compared = compare(level, cell, run)
    nights = None
    if cell.status is level.cell.status:
        nights = compare_latency(compared, level, cell, past, between)
    notes = compared.notes
    operators = None
    if nights is not None and nights.outcome is not Outcome.PASS:
        operators = cell.pinned.operators if cell.pinned else None
        sentences = [] if operators is None else [str(operators)]
        notes = [*sentences, *notes, *_moves(level, past, between)]
    findings = tuple(compared.findings)
    return GatedCell(cell.id, gravest(findings), findings, tuple(notes), nights, operators)


def _moves(level: Level, past: Sequence[PastCell], between: timedelta) -> list[str]:
    """Name the nights in which the level moved."""
    if level.cell.pinned is None or not drift.available():
        return []
    counted_nights = one_a_night(comparable(level, past), between)
    nights = [night for night in counted_nights if night.cell.pinned]
    ratios = []
    for night in nights:
        if night.cell.pinned:
            ratios.append(night.cell.pinned.night_ratio or 1.0)
    moved = [nights[position].run for position in drift.change_points(ratios)]
    moves: list[str] = []
    for run in moved:
        moves.append(
            f"its level seems to have moved in the night of {run.started[:10]} (run {run.id})"
        )
    return moves
