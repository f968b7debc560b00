"""What the gate says: lines for a terminal, Markdown for a job's page, the text of an issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx_harness.report.escape import markdown, markdown_block, printable
from onnx_harness.report.figures import counted
from onnx_harness.report.table import Line, Style
from onnx_harness.results.gated import SEVERITY, GatedCell, GateReport, Nights
from onnx_harness.results.outcome import Outcome

MOST_CELLS = 200
"""Listed on a job's page, the gravest first."""

_STYLES: dict[Outcome, Style] = {
    Outcome.PASS: "",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.INVALID: "red",
    Outcome.FAIL: "red",
}


def lines(report: GateReport, *, everything: bool = False) -> Iterator[Line]:
    """The gate's table: cells that don't pass with their reasons, all of them when ``everything``; then the verdict."""
    for finding in report.findings:
        yield Line(
            printable(f"{finding.outcome.upper()} {finding.what}: {finding.reason}"),
            _STYLES[finding.outcome],
        )
    width = max((len(cell.id) for cell in report.cells), default=0)
    for cell in _by_gravity(report.cells):
        if cell.outcome is Outcome.PASS and not cell.notes and not everything:
            continue
        row = f"{cell.id:<{width}}  {cell.outcome.upper():<12}  {_figures(cell.nights)}".rstrip()
        yield Line(printable(row), _STYLES[cell.outcome])
        for finding in cell.findings:
            yield Line(printable(f"    {finding.what}: {finding.reason}"))
        for note in cell.notes:
            yield Line(printable(f"    note: {note}"))
    for note in report.notes:
        yield Line(printable(f"note: {note}"))
    yield Line(
        printable(f"gate: {report.outcome.upper()} · {_tally(report)}"),
        "green" if report.outcome is Outcome.PASS else _STYLES[report.outcome],
    )


def page(report: GateReport) -> str:
    """The gate's part of a job's page, as GitHub's Markdown."""
    return "\n".join(
        [
            f"# Gate: {report.outcome.upper()}",
            "",
            f"{markdown(_tally(report))}.",
            "",
            *_body(report),
        ]
    )


def issue(report: GateReport) -> str:
    """The text of an issue about a run that didn't pass: a title, a blank line, the body."""
    bad = [cell for cell in _by_gravity(report.cells) if cell.outcome is report.outcome]
    first = printable(bad[0].id) if bad else "the run"
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    title = f"Nightly gate: {report.outcome.upper()} in {first}{more}"
    return "\n".join([title, "", f"{markdown(_tally(report))}.", "", *_body(report)])


def _body(report: GateReport) -> Iterator[str]:
    for finding in report.findings:
        yield f"- **{finding.outcome.upper()}** {markdown(finding.what)}: {markdown(finding.reason)}"
    if report.findings:
        yield ""
    shown = [
        cell for cell in _by_gravity(report.cells) if cell.outcome is not Outcome.PASS or cell.notes
    ]
    if shown:
        yield "| cell | verdict | time, of the reference's | accepted | sees from | what |"
        yield "|---|---|---|---|---|---|"
    for cell in shown[:MOST_CELLS]:
        what = [f"{finding.what}: {finding.reason}" for finding in cell.findings]
        what += [f"note: {note}" for note in cell.notes]
        columns = [
            markdown(cell.id),
            cell.outcome.upper(),
            *_columns(cell.nights),
            "<br>".join(map(markdown, what)),
        ]
        yield f"| {' | '.join(columns)} |"
    if shown:
        yield ""
    if len(shown) > MOST_CELLS:
        yield f"And {len(shown) - MOST_CELLS:,} more: `onnx-harness gate`."
        yield ""
    for note in report.notes:
        yield f"- {markdown(note)}"
    if report.run is not None:
        run = report.run
        where = ", ".join((run.host.cpu, *sorted(set(run.host.devices.values()))))
        yield from ("", f"- run {markdown(run.id)}, seed {run.seed}, on {markdown(where)}")
        yield f"- {markdown(', '.join(f'{name} {version}' for name, version in sorted(run.versions.items())))}"
        yield from ("", markdown_block((run.command,)), "")


def _by_gravity(cells: Sequence[GatedCell]) -> list[GatedCell]:
    return sorted(cells, key=lambda cell: -SEVERITY.index(cell.outcome))


def _tally(report: GateReport) -> str:
    counts = [
        (outcome, sum(cell.outcome is outcome for cell in report.cells)) for outcome in SEVERITY
    ]
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts if count)
    gated = sum(cell.nights is not None for cell in report.cells)
    return f"{counted(len(report.cells), 'cell')}: {told or 'none'}; latency gated in {gated:,}"


def _columns(nights: Nights | None) -> tuple[str, str, str]:
    if nights is None:
        return "-", "-", "-"
    return f"{nights.ratio:.3f}", f"{nights.level:.3f}", f"{nights.smallest_step:.1%}"


def _figures(nights: Nights | None) -> str:
    if nights is None:
        return ""
    ratio, level, step = _columns(nights)
    return f"{ratio} of the reference's time, {level} accepted; sees {step} ({counted(nights.count, 'night')})"
