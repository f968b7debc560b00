"""Two runs compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx_harness.report import figures
from onnx_harness.report.changes import KINDS, Change, changes, moved, sentence
from onnx_harness.report.escape import markdown
from onnx_harness.report.html import render
from onnx_harness.results.cells import CellResult
from onnx_harness.results.store import Results

MOST_ROWS = 40
"""On a job's page."""


def page(before: Results, after: Results) -> str:
    """Return the comparison as one HTML file."""
    grouped = changes(before, after)
    return render(
        "compare.html.j2",
        title=_title(grouped),
        state="bad" if "worse" in grouped else "good",
        sentence=sentence(grouped),
        before=before.run,
        after=after.run,
        grouped=grouped,
        kinds=KINDS,
        moved=moved(before.run, after.run),
    )


def _title(grouped: dict[str, list[Change]]) -> str:
    worse = len(grouped.get("worse", ()))
    if not worse:
        return "Nothing got worse"
    return f"{figures.counted(worse, 'cell')} no longer {'passes' if worse == 1 else 'pass'}"


def summary(before: Results, after: Results) -> str:
    """Return the comparison for a job's page, as GitHub's Markdown."""
    return "\n".join([*_lines(before, after), ""])


def _lines(before: Results, after: Results) -> Iterator[str]:
    grouped = changes(before, after)
    yield from (f"# {_title(grouped)}", "", f"{markdown(sentence(grouped))}.", "")
    for line in moved(before.run, after.run):
        yield f"- {markdown(line)}"
    for kind, members in grouped.items():
        if kind != "same":
            folded = kind != "worse"
            yield from _table(kind, members, folded)


def _table(kind: str, members: Sequence[Change], folded: bool) -> Iterator[str]:
    title = f"{figures.counted(len(members), 'cell')}: {KINDS[kind]}"
    yield from ("", f"<details><summary>{title}</summary>" if folded else f"## {title}", "")
    yield from ("| cell | before | after | reason |", "|---|---|---|---|")
    for change in members[:MOST_ROWS]:
        reason = (change.after.reason if change.after else "") or ""
        columns = (
            change.id,
            *(_said(cell) for cell in (change.before, change.after)),
            reason[:300],
        )
        yield f"| {' | '.join(markdown(text) for text in columns)} |"
    if len(members) > MOST_ROWS:
        yield from ("", f"And {len(members) - MOST_ROWS:,} more in `report.html`.")
    if folded:
        yield from ("", "</details>")


def _said(cell: CellResult | None) -> str:
    if cell is None:
        return "-"
    parts = (figures.SHORT[cell.status], figures.worst_error(cell), figures.speedup(cell))
    return " · ".join(part for part in parts if part)
