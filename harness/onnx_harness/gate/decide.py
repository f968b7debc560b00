"""The gate: the latest run in the history against the accepted levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from onnx_harness import providers
from onnx_harness.gate import drift
from onnx_harness.gate.latency import comparable, compare_latency
from onnx_harness.gate.rules import Compared, compare
from onnx_harness.results.cells import CellResult
from onnx_harness.results.gated import Finding, GatedCell, GateReport, Nights, gravest
from onnx_harness.results.history import History, PastCell
from onnx_harness.results.levels import Key, Level
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo

MOST_NIGHTS = 400
MAX_AGE = timedelta(hours=20)
"""A nightly run that is older than this is last night's: tonight's has left nothing."""


def gate(
    history: History,
    levels: Mapping[Key, Level],
    *,
    only: Sequence[str] = (),
    now: datetime | None = None,
    max_age: timedelta = MAX_AGE,
) -> GateReport:
    """Judge the latest run.

    Args:
        history: with that run in it.
        levels: the accepted ones.
        only: names of the providers that the run was for; none takes all that there are levels of.
        now: the time.
        max_age: of the run.

    Raises:
        ResultsError: the history can't be read.
        UsageError: a name in ``only`` isn't a provider's.
    """
    for name in only:
        providers.get(name)
    runs = history.runs()
    if not runs:
        nothing = Finding(Outcome.INVALID, "run", "the history holds no run: nothing was judged")
        return GateReport(Outcome.INVALID, None, (nothing,), ())
    run = runs[-1]
    there = {cell.id: cell for cell in history.cells(run.id) if not only or cell.provider in only}
    wanted = {key: level for key, level in levels.items() if not only or level.cell.provider in only}
    findings = _run_findings(runs, there, wanted, now or datetime.now(UTC), max_age)
    notes = () if drift.available() else (drift.MISSING,)
    cells = [_vanished(name, wanted, there) for name in sorted({name for name, _ in wanted} - there.keys())]
    for name, cell in sorted(there.items()):
        level = wanted.get((name, run.host.processor_of(cell.provider)))
        if level is None:
            cells.append(_unknown(cell, run, wanted))
        else:
            cells.append(_judge(level, cell, run, history.past(name, last=MOST_NIGHTS)))
    everything = (*findings, *(finding for cell in cells for finding in cell.findings))
    return GateReport(gravest(everything), run, tuple(findings), tuple(cells), notes)


def _run_findings(
    runs: Sequence[RunInfo],
    there: Mapping[str, CellResult],
    wanted: Mapping[Key, Level],
    now: datetime,
    max_age: timedelta,
) -> list[Finding]:
    found = Compared()
    run = runs[-1]
    started = _moment(run)
    if started is None:
        found.void("clock", f"the run {run.id} has no time that can be read ('{run.started}')")
    elif abs(now - started) > max_age:
        hours = (now - started) / timedelta(hours=1)
        when = f"{hours:.0f} hours ago" if hours > 0 else f"{-hours:.0f} hours in the future"
        found.void(
            "run",
            f"the latest run in the history started {when}, and nothing was recorded since: tonight's didn't run, was "
            "refused, or couldn't write its history (--max-age says how old a run may be)",
        )
    before = _moment(runs[-2]) if len(runs) > 1 else None
    if started is not None and before is not None and started < before:
        found.void(
            "clock",
            f"the run says that it started before the one that was entered before it ({run.started}, {runs[-2].started}"
            "): a clock was set back, or histories were mixed. Runs count in the order in which they were entered; run "
            "again with the clock right",
        )
    if not there:
        found.void("run", "the run holds no cell of these providers: it was killed, refused, or all was deselected")
    if not wanted:
        found.void(
            "run", 'no level was ever accepted: look at the run, then `onnx-harness gate accept --all --why "…"`'
        )
    return found.findings


def _moment(run: RunInfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(run.started)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _vanished(id: str, wanted: Mapping[Key, Level], there: Mapping[str, CellResult]) -> GatedCell:
    level = next(level for (each, _), level in wanted.items() if each == id)
    twin = next(
        (
            cell.id
            for cell in there.values()
            if cell.model_sha256 == level.cell.model_sha256
            and (cell.id, level.processor) not in wanted
            and cell.provider == level.cell.provider
            and (cell.variant == level.cell.variant or cell.model == level.cell.model)
        ),
        None,
    )
    renamed = (
        f" Perhaps it's called {twin} now, which is judged anew: ids are keys of history."
        if twin
        else " A run that was for some providers only names them: --provider."
    )
    reason = f"accepted on {level.accepted[:10]}, and not in this run.{renamed}"
    finding = Finding(Outcome.FAIL, "cell", reason)
    return GatedCell(id, Outcome.FAIL, (finding,))


def _unknown(cell: CellResult, run: RunInfo, wanted: Mapping[Key, Level]) -> GatedCell:
    others = sorted(processor for name, processor in wanted if name == cell.id)
    mend = f'accept it: onnx-harness gate accept {cell.id} --why "…"'
    here = run.host.processor_of(cell.provider)
    if others:
        finding = Finding(
            Outcome.INVALID,
            "processor",
            f"ran on {here}, and was accepted on {', '.join(others)} only. Where it's right here too, {mend}",
        )
    else:
        finding = Finding(Outcome.INVALID, "cell", f"has no accepted level. Where it's right, {mend}")
    return GatedCell(cell.id, Outcome.INVALID, (finding,))


def _judge(level: Level, cell: CellResult, run: RunInfo, past: Sequence[PastCell]) -> GatedCell:
    seen = compare(level, cell, run)
    nights = compare_latency(seen, level, cell, past) if cell.status is level.cell.status else None
    notes = [*seen.notes, *_moves(level, past, nights)]
    findings = tuple(seen.findings)
    return GatedCell(cell.id, gravest(findings), findings, tuple(notes), nights)


def _moves(level: Level, past: Sequence[PastCell], nights: Nights | None) -> list[str]:
    """The nights in which the level moved, named."""
    if nights is None or nights.outcome is Outcome.PASS or level.cell.pinned is None or not drift.available():
        return []
    after = comparable(level, past)
    ratios = [each.cell.pinned.night_ratio or 1.0 for each in after if each.cell.pinned]
    moved = [after[at].run for at in drift.change_points(ratios)]
    return [f"its level seems to have moved in the night of {run.started[:10]} (run {run.id})" for run in moved]
