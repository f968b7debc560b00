"""The table at the end of a run, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx_harness.report import figures
from onnx_harness.report.causes import key
from onnx_harness.report.escape import printable
from onnx_harness.report.failures import wrapped
from onnx_harness.report.figures import BAD, Block, ModelHeader
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.run import RunInfo

__all__ = ["Line", "ModelHeader", "Style", "lines"]

Style = Literal["", "green", "red", "yellow", "bold"]

MOST_CELLS = 500
"""A run of more cells shows its failures, and one line a model."""

MOST_FAILURES = 60
MOST_DETAIL = 24
_APART = 3  # so many blocks are told apart by empty lines; of more, the screen is better used

_STYLES: dict[Status, Style] = {
    Status.FAIL: "red",
    Status.ERROR: "red",
    Status.KNOWN_FAILURE: "yellow",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. ``style`` is empty or a colour or ``bold``."""

    text: str
    style: Style = ""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Widths of the columns; 0 leaves one out."""

    total: int
    variant: int
    departure: int
    error: int
    bites: int
    median: int
    speedup: int
    nodes: int
    growth: int


def lines(
    run: RunInfo,
    cells: Sequence[CellResult],
    *,
    width: int,
    models: Mapping[str, ModelHeader],
    quiet: bool = False,
    where: str = "reports/summary.md",
    details: bool = True,
) -> Iterator[Line]:
    """The table and its summary line.

    Args:
        run: its seed is named when something failed.
        cells: in the order in which they ended.
        width: of the terminal, in columns. From 80 to 200 the table adapts; below, lines are cut.
        models: what is known about the models, by name.
        quiet: only failures and the summary line.
        details: what is said of a failure follows its row; without, a row is all, and rows alike
            are one.
        where: what the summary line points at; empty when nothing was written.
    """
    width = max(width, 60)
    failures = [cell for cell in cells if cell.status in BAD]
    if quiet or len(cells) > MOST_CELLS:
        if not quiet:
            yield Line(
                f"{len(cells):,} cells: failures and one line a model are shown here; every cell "
                "is in results.json"
            )
            yield from _model_lines(cells, width)
        if details:
            yield from _failures(failures, width)
    else:
        shown = 0
        layout = _layout(cells, width)
        blocks = len(figures.blocks(cells))
        for block in figures.blocks(cells):
            left = MOST_FAILURES - shown if details else None
            yield from _block(block, layout, models, details=left)
            shown += sum(cell.status in BAD for cell in block.cells)
            if details or blocks <= _APART:
                yield Line("")
    if failures:
        yield Line(f"seed {run.seed}, run {printable(run.id)}")
    if not quiet and (emulation := figures.emulation(cells)):
        yield from map(Line, wrapped(emulation, width))
    if beside := figures.compared_with_levels(cells):
        yield Line(beside)
    style: Style = "red" if failures or not cells else "green"
    pointer = f" · {where}" if where else ""
    yield Line(printable(f"{figures.sentence(cells)}{pointer}"), style)


def _block(
    block: Block, layout: _Layout, models: Mapping[str, ModelHeader], details: int | None
) -> Iterator[Line]:
    yield _header(block, layout.total, models)
    rows = [[cell] for cell in block.cells] if details is not None else _alike(block.cells)
    for cell, *others in rows:
        name = figures.counted(len(others) + 1, "variant") if others else cell.variant
        yield Line(_row(cell, layout, name), _STYLES.get(cell.status, ""))
        if cell.status in BAD and details is not None:
            if details > 0:
                yield from _detail(cell)
            elif details == 0:
                yield Line("    (details of further failures are in the reports)")
            details -= 1
    for note in figures.notes(block):
        for line in wrapped(f"note: {printable(note)}", layout.total, "    "):
            yield Line(line, "yellow")


def _header(block: Block, width: int, models: Mapping[str, ModelHeader]) -> Line:
    about = ", ".join(figures.about(block.model, models))
    left = printable(f"{block.model} ({about})" if about else block.model)
    threads = {cell.latency.threads for cell in block.cells if cell.latency}
    right = printable(
        ", ".join(
            [block.provider, *(figures.counted(number, "thread") for number in sorted(threads))]
        )
    )
    left = _cut(left, width - len(right) - 2)
    return Line(f"{left}{right:>{width - len(left)}}", "bold")


def _layout(cells: Sequence[CellResult], width: int) -> _Layout:
    """Columns that are empty throughout are left out; then the node counts, when there is no room for them."""
    numbered = [cell for cell in cells if _has_numbers(cell)]

    def widest(texts: Iterator[str]) -> int:
        return max((len(text) for text in texts), default=0)

    variant = max(widest(printable(cell.variant) for cell in cells), 18)
    departure = widest(figures.departure(cell) for cell in numbered)
    error = widest(figures.worst_error(cell) for cell in numbered)
    bites = widest(figures.catches(cell) for cell in numbered)
    median = widest(figures.median(cell) for cell in numbered)
    speedup = widest(figures.speedup(cell) for cell in numbered)
    nodes = widest(figures.nodes(cell) for cell in numbered)
    columns = (departure, error, bites, median, speedup)
    taken = 2 + 2 + 5 + sum(2 + column for column in columns if column)
    growth = widest(figures.growth(cell) for cell in numbered)
    if taken + variant + 2 + nodes + 2 + growth > width:
        growth = 0
    if taken + variant + 2 + nodes > width:
        nodes = 0
    last = sum(2 + column for column in (nodes, growth) if column)
    variant = max(12, min(variant, width - taken - last))
    return _Layout(width, variant, departure, error, bites, median, speedup, nodes, growth)


def _alike(cells: Sequence[CellResult]) -> list[list[CellResult]]:
    """Return the cells by row: neighbours that fail of one cause share one, the worst first."""
    rows: list[list[CellResult]] = []
    for cell in cells:
        last = rows[-1][-1] if rows else None
        if cell.status in BAD and last is not None and key(last) == key(cell):
            rows[-1].append(cell)
        else:
            rows.append([cell])
    return [sorted(row, key=_share, reverse=True) for row in rows]


def _share(cell: CellResult) -> float:
    """Return how far a cell is beyond its tolerance; what has no figure is the worst."""
    share = figures.tolerance_share(cell)
    return float("inf") if share is None else share


def _has_numbers(cell: CellResult) -> bool:
    """Whether a row shows figures; else it shows why there are none."""
    share = figures.tolerance_share(cell)
    if cell.status is Status.FAIL and share is not None and share <= 1:
        return False  # its values are right: what is wrong is something else
    if cell.status in {Status.PASS, Status.FAIL}:
        return cell.accuracy is not None or cell.latency is not None or not cell.reason
    return False


def _row(cell: CellResult, layout: _Layout, name: str | None = None) -> str:
    name = _cut(printable(name or cell.variant), layout.variant)
    start = f"  {name:<{layout.variant}}  {figures.SHORT[cell.status]:<5}"
    if not _has_numbers(cell):
        where = (
            ""
            if cell.stage is Stage.DONE
            else f"at {cell.stage}"
            if cell.status in BAD
            else f"{cell.stage}: "
        )
        # The reason of a failure follows on lines of its own, uncut.
        why = where if cell.status in BAD else f"{where}{printable(cell.reason or '')}"
        return _cut(f"{start}  {why}".rstrip(), layout.total)
    columns = [
        f"{figures.departure(cell):<{layout.departure}}" if layout.departure else None,
        f"{figures.worst_error(cell):<{layout.error}}" if layout.error else None,
        f"{figures.catches(cell):<{layout.bites}}" if layout.bites else None,
        f"{figures.median(cell):>{layout.median}}" if layout.median else None,
        f"{figures.speedup(cell):<{layout.speedup}}" if layout.speedup else None,
        f"{figures.nodes(cell):<{layout.nodes}}" if layout.nodes else None,
        figures.growth(cell) if layout.growth else None,
    ]
    return _cut(
        "  ".join([start, *(column for column in columns if column is not None)]).rstrip(),
        layout.total,
    )


def _detail(cell: CellResult) -> Iterator[Line]:
    """Lines of any length: a command that is to be copied mustn't be cut."""
    explanation = figures.explanation(cell)
    most = MOST_DETAIL if len(explanation) > MOST_DETAIL + 1 else len(explanation)
    # The last line is the command that runs the cell alone.
    chosen = (
        explanation if most == len(explanation) else (*explanation[: most - 1], explanation[-1])
    )
    for index, text in enumerate(chosen):
        if len(chosen) < len(explanation) and index == len(chosen) - 1:
            yield Line(
                f"    ({len(explanation) - len(chosen)} lines left out here; all are in "
                "results.json)"
            )
        yield Line(f"    {printable(text)}")


def _failures(failures: Sequence[CellResult], width: int) -> Iterator[Line]:
    layout = _layout(failures, width)
    for cell in failures[:MOST_FAILURES]:
        yield Line(printable(f"{cell.model} on {cell.provider}"), "bold")
        yield Line(_row(cell, layout), "red")
        yield from _detail(cell)
    if len(failures) > MOST_FAILURES:
        yield Line(f"and {len(failures) - MOST_FAILURES:,} more failures, in the reports", "red")


def _model_lines(cells: Sequence[CellResult], width: int) -> Iterator[Line]:
    for block in figures.blocks(cells):
        bad = any(cell.status in BAD for cell in block.cells)
        text = printable(f"{block.model} on {block.provider}: {figures.tally(block.cells)}")
        yield Line(_cut(f"  {text}", width), "red" if bad else "")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
