"""The gate's report: lines for a terminal, Markdown for a job's page, the text of an issue."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnx_harness.report.escape import markdown, markdown_block, printable
from onnx_harness.report.figures import counted
from onnx_harness.report.table import Line, Style
from onnx_harness.results.gated import SEVERITY, Finding, GatedCell, GateReport, Nights
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo

MOST_ACCEPTED = 20
"""Cells named in a command; for more it names them all."""
MOST_CELLS = 200
"""Listed on a job's page, the gravest first."""

_STYLES: dict[Outcome, Style] = {
    Outcome.PASS: "",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.INVALID: "red",
    Outcome.FAIL: "red",
}


def lines(report: GateReport, *, everything: bool = False) -> Iterator[Line]:
    """Write the gate's table for a terminal, and then its outcome.

    Args:
        report: of the gate.
        everything: all cells, not only those that don't pass or have notes.
    """
    for finding in report.findings:
        text = f"{finding.outcome.upper()} {_sentence(finding)}"
        yield Line(printable(text), _STYLES[finding.outcome])
    width = max((len(cell.id) for cell in report.cells), default=0)
    for cell in _by_gravity(report.cells):
        if everything or _has_remarks(cell):
            yield from _cell_lines(cell, width)
    for note in report.notes:
        yield Line(printable(f"note: {note}"))
    style = "green" if report.outcome is Outcome.PASS else _STYLES[report.outcome]
    yield Line(printable(f"gate: {report.outcome.upper()} · {_tally(report)}"), style)


def _has_remarks(cell: GatedCell) -> bool:
    return cell.outcome is not Outcome.PASS or bool(cell.notes)


def _sentence(finding: Finding) -> str:
    return f"{finding.what}: {finding.reason}"


def _remarks(cell: GatedCell) -> list[str]:
    findings = [_sentence(finding) for finding in cell.findings]
    return [*findings, *(f"note: {note}" for note in cell.notes)]


def _cell_lines(cell: GatedCell, width: int) -> Iterator[Line]:
    row = f"{cell.id:<{width}}  {cell.outcome.upper():<12}  {_figures(cell.nights)}"
    yield Line(printable(row.rstrip()), _STYLES[cell.outcome])
    for remark in _remarks(cell):
        yield Line(printable(f"    {remark}"))


def page(report: GateReport) -> str:
    """Write the gate's part of a job's page, as GitHub's Markdown."""
    return _titled(f"# Gate: {report.outcome.upper()}", report)


def _titled(title: str, report: GateReport) -> str:
    return "\n".join([title, "", f"{markdown(_tally(report))}.", "", *_body(report)])


def issue(report: GateReport) -> str:
    """Write an issue about a run that didn't pass: a title, a blank line, the body."""
    bad = []
    for cell in _by_gravity(report.cells):
        if cell.outcome is report.outcome:
            bad.append(cell)
    first = printable(bad[0].id) if bad else "the run"
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    # The notes on the run say what could be installed here: that is nothing for an issue.
    page_text = _titled(
        f"Nightly gate: {report.outcome.upper()} in {first}{more}", replace(report, notes=())
    )
    return "\n".join([page_text, *_accepting(bad)])


def _accepting(cells: Sequence[GatedCell]) -> Iterator[str]:
    """Write the command that makes tonight's state the accepted one; nothing without cells."""
    if not cells:
        return
    names = [shlex.quote(cell.id) for cell in cells]
    # A cell that vanished can't be named: `--all` forgets it.
    if len(names) > MOST_ACCEPTED or any(_has_vanished(cell) for cell in cells):
        names = ["--all"]
    command = " ".join(["onnx-harness gate accept", *names, '--why "…"'])
    yield from ("If this is how it should be:", "", markdown_block((command,)), "")


def _has_vanished(cell: GatedCell) -> bool:
    for finding in cell.findings:
        if finding.what == "cell" and finding.outcome is Outcome.FAIL:
            return True
    return False


def _body(report: GateReport) -> Iterator[str]:
    for finding in report.findings:
        what, reason = markdown(finding.what), markdown(finding.reason)
        yield f"- **{finding.outcome.upper()}** {what}: {reason}"
    if report.findings:
        yield ""
    yield from _table([cell for cell in _by_gravity(report.cells) if _has_remarks(cell)])
    for note in report.notes:
        yield f"- {markdown(note)}"
    if report.run is not None:
        yield from _about(report.run)


def _table(cells: Sequence[GatedCell]) -> Iterator[str]:
    if not cells:
        return
    yield "| cell | verdict | time, of the reference's | accepted | sees from | what |"
    yield "|---|---|---|---|---|---|"
    for cell in cells[:MOST_CELLS]:
        remarks = "<br>".join(map(markdown, _remarks(cell)))
        columns = (markdown(cell.id), cell.outcome.upper(), *_columns(cell.nights), remarks)
        yield f"| {' | '.join(columns)} |"
    yield ""
    if len(cells) > MOST_CELLS:
        yield f"And {len(cells) - MOST_CELLS:,} more: `onnx-harness gate`."
        yield ""


def _about(run: RunInfo) -> Iterator[str]:
    devices = sorted(set(run.host.devices.values()))
    where = ", ".join((run.host.cpu, *devices))
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(run.versions.items())
    )
    yield ""
    yield f"- run {markdown(run.id)}, seed {run.seed}, on {markdown(where)}"
    yield f"- {markdown(versions)}"
    yield from ("", markdown_block((run.command,)), "")


def _by_gravity(cells: Sequence[GatedCell]) -> list[GatedCell]:
    return sorted(cells, key=lambda cell: -SEVERITY.index(cell.outcome))


def _tally(report: GateReport) -> str:
    counts = Counter(cell.outcome for cell in report.cells)
    outcomes = []
    for outcome in SEVERITY:
        if counts[outcome]:
            outcomes.append(f"{counts[outcome]:,} {outcome}")
    listed = ", ".join(outcomes)
    gated = sum(cell.nights is not None for cell in report.cells)
    cells = counted(len(report.cells), "cell")
    return f"{cells}: {listed or 'none'}; latency gated in {gated:,}"


def _columns(nights: Nights | None) -> tuple[str, str, str]:
    if nights is None:
        return "-", "-", "-"
    return f"{nights.ratio:.3f}", f"{nights.level:.3f}", f"{nights.smallest_step:.1%}"


def _figures(nights: Nights | None) -> str:
    if nights is None:
        return ""
    ratio, level, step = _columns(nights)
    count = counted(nights.count, "night")
    return f"{ratio} of the reference's time, {level} accepted; sees {step} ({count})"
