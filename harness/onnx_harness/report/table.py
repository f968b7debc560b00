"""The table at the end of a run, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx_harness.report import figures, simulated
from onnx_harness.report.causes import key
from onnx_harness.report.decoded import generation
from onnx_harness.report.escape import printable
from onnx_harness.report.failures import WHERE_ALL_IS, wrapped
from onnx_harness.report.figures import BAD, Block, ModelHeader
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.run import RunInfo

__all__ = ["Line", "ModelHeader", "Style", "lines"]

Style = Literal["", "green", "red", "yellow", "bold"]

MOST_CELLS = 500
"""A run of more cells shows its failures, and one line a model."""

MOST_FAILURES = 60
MOST_DETAIL = 24
# So many blocks are told apart by empty lines; of more, the screen is better used.
_APART = 3

_STYLES: dict[Status, Style] = {
    Status.FAIL: "red",
    Status.ERROR: "red",
    Status.KNOWN_FAILURE: "yellow",
}


_RANKS = (
    Status.FAIL,
    Status.ERROR,
    Status.KNOWN_FAILURE,
    Status.PASS,
    Status.NOT_APPLICABLE,
)
"""From what needs a look to what doesn't."""

_NO_NIGHTS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. ``style`` is empty or a colour or ``bold``."""

    text: str
    style: Style = ""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Widths of the columns; 0 leaves one out.

    Attributes:
        total: of a row.
        variant: of the first column.
        columns: of those of `_COLUMNS`, by name.
        nodes: of the column of node counts.
        growth: of the column of sizes.
        nights: of the last column.
    """

    total: int
    variant: int
    columns: Mapping[str, int]
    nodes: int
    growth: int
    nights: int


_VARIANT_WIDTH = 18
"""The least: names of variants are about as long."""
_STATUS_WIDTH = 2 + 2 + 5

_COLUMNS: Mapping[str, tuple[Callable[[CellResult], str], str]] = {
    "departure": (figures.departure, "<"),
    "error": (figures.worst_error, "<"),
    "catches": (figures.catches, "<"),
    "median": (figures.median, ">"),
    "speedup": (figures.speedup, "<"),
}
"""By name: a column's figure, and the side that it's aligned with."""


def lines(
    run: RunInfo,
    cells: Sequence[CellResult],
    *,
    width: int,
    models: Mapping[str, ModelHeader],
    quiet: bool = False,
    where: str = "reports/summary.md",
    details: bool = True,
    worst_first: bool = False,
    nights: Mapping[str, str] = _NO_NIGHTS,
) -> Iterator[Line]:
    """The table and its summary line.

    Args:
        run: its seed is named when something failed.
        cells: in the order in which they ended.
        width: of the terminal, in columns. From 80 to 200 the table adapts; below, lines are cut.
        models: what is known about the models, by name.
        quiet: only failures and the summary line.
        details: a failure's explanation follows its row; without, equal rows are written once.
        where: what the summary line points at; empty when nothing was written.
        worst_first: blocks and their cells are sorted by how wrong they are, not by when they
            ended.
        nights: a line of blocks by cell id, where there is a history.
    """
    width = max(width, 60)
    if worst_first:
        cells = _worst_first(cells)
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
        layout = _layout(cells, width, nights)
        blocks = len(figures.blocks(cells))
        for block in figures.blocks(cells):
            room = MOST_FAILURES - shown if details else None
            yield from _block(block, layout, models, nights, details=room)
            shown += sum(cell.status in BAD for cell in block.cells)
            if details or blocks <= _APART:
                yield Line("")
    if failures:
        yield Line(f"seed {run.seed}, run {printable(run.id)}")
    if not quiet and (emulation := simulated.emulation(cells)):
        yield from map(Line, wrapped(emulation, width))
    if compared := figures.compared_with_levels(cells):
        yield Line(compared)
    style: Style = "red" if failures or not cells else "green"
    pointer = f" · {where}" if where else ""
    yield Line(printable(f"{figures.sentence(cells)}{pointer}"), style)


def _worst_first(cells: Sequence[CellResult]) -> list[CellResult]:
    """Sort models by their worst cell, and cells of a model; of what is alike the first stays."""

    def rank(cell: CellResult) -> tuple[int, float]:
        bad = cell.status in BAD
        return _RANKS.index(cell.status), -_share(cell) if bad else 0.0

    ranked = []
    for block in figures.blocks(cells):
        members = sorted(block.cells, key=rank)
        bad = sum(cell.status in BAD for cell in members)
        ranked.append((rank(members[0])[0], -bad, members))
    ranked.sort(key=lambda entry: entry[:2])
    return [cell for _, _, members in ranked for cell in members]


def _block(
    block: Block,
    layout: _Layout,
    models: Mapping[str, ModelHeader],
    nights: Mapping[str, str],
    details: int | None,
) -> Iterator[Line]:
    yield _header(block, layout.total, models)
    rows = [[cell] for cell in block.cells] if details is not None else _alike(block.cells)
    for cell, *others in rows:
        name = figures.counted(len(others) + 1, "variant") if others else cell.variant
        line = nights.get(cell.id, "") if not others else ""
        yield Line(_row(cell, layout, name, line), _STYLES.get(cell.status, ""))
        if not others and (decoded := generation(cell)):
            yield from map(Line, wrapped(f"decoding: {decoded}", layout.total, "    "))
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
    title = printable(f"{block.model} ({about})" if about else block.model)
    threads = sorted({cell.latency.threads for cell in block.cells if cell.latency})
    counts = [figures.counted(number, "thread") for number in threads]
    provider = printable(", ".join([block.provider, *counts]))
    title = _cut(title, width - len(provider) - 2)
    return Line(f"{title}{provider:>{width - len(title)}}", "bold")


def _layout(
    cells: Sequence[CellResult], width: int, nights: Mapping[str, str] = _NO_NIGHTS
) -> _Layout:
    """Choose the widths: no empty column, and no node counts where there's no room for them."""
    numbered = [cell for cell in cells if _has_numbers(cell)]

    def widest(figure: Callable[[CellResult], str]) -> int:
        return max((len(figure(cell)) for cell in numbered), default=0)

    variant = max((len(printable(cell.variant)) for cell in cells), default=0)
    variant = max(variant, _VARIANT_WIDTH)
    columns = {name: widest(figure) for name, (figure, _) in _COLUMNS.items()}
    nodes, growth = widest(figures.nodes), widest(figures.growth)
    used = _STATUS_WIDTH + sum(2 + column for column in columns.values() if column)
    if used + variant + 2 + nodes + 2 + growth > width:
        growth = 0
    if used + variant + 2 + nodes > width:
        nodes = 0
    last = max((len(nights.get(cell.id, "")) for cell in numbered), default=0)
    used += sum(2 + column for column in (nodes, growth) if column)
    if used + variant + 2 + last > width:
        last = 0
    room = width - used
    return _Layout(width, max(12, min(variant, room)), columns, nodes, growth, last)


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
    """True where a row shows figures; else it shows why there are none."""
    if cell.status not in {Status.PASS, Status.FAIL}:
        return False
    share = figures.tolerance_share(cell)
    if cell.status is Status.FAIL and share is not None and share <= 1:
        return False  # its values are right: what is wrong is something else
    return cell.accuracy is not None or cell.latency is not None or not cell.reason


def _row(
    cell: CellResult, layout: _Layout, name: str | None = None, nights: str = ""
) -> str:
    variant = _cut(printable(name or cell.variant), layout.variant)
    start = f"  {variant:<{layout.variant}}  {figures.SHORT[cell.status]:<5}"
    if not _has_numbers(cell):
        return _cut(f"{start}  {_why(cell)}".rstrip(), layout.total)
    columns = [start]
    for column, (figure, align) in _COLUMNS.items():
        if layout.columns[column]:
            columns.append(f"{figure(cell):{align}{layout.columns[column]}}")
    if layout.nodes:
        columns.append(f"{figures.nodes(cell):<{layout.nodes}}")
    if layout.growth:
        columns.append(f"{figures.growth(cell):<{layout.growth}}")
    if layout.nights:
        columns.append(nights)
    return _cut("  ".join(columns).rstrip(), layout.total)


def _why(cell: CellResult) -> str:
    if cell.status in BAD:
        # The reason of a failure follows on lines of its own, uncut.
        return "" if cell.stage is Stage.DONE else f"at {cell.stage}"
    stage = "" if cell.stage is Stage.DONE else f"{cell.stage}: "
    return f"{stage}{printable(cell.reason or '')}"


def _detail(cell: CellResult) -> Iterator[Line]:
    """Lines of any length: a command that is to be copied mustn't be cut."""
    explanation = figures.explanation(cell)
    # One line more than the most takes no more room than the line that says so.
    if len(explanation) <= MOST_DETAIL + 1:
        for text in explanation:
            yield Line(f"    {printable(text)}")
        return
    for text in explanation[: MOST_DETAIL - 1]:
        yield Line(f"    {printable(text)}")
    left_out = len(explanation) - MOST_DETAIL
    yield Line(f"    ({figures.counted(left_out, 'line')} left out here; {WHERE_ALL_IS})")
    # The last line is the command that runs the cell alone.
    yield Line(f"    {printable(explanation[-1])}")


def _failures(failures: Sequence[CellResult], width: int) -> Iterator[Line]:
    layout = _layout(failures, width)
    for cell in failures[:MOST_FAILURES]:
        yield Line(printable(f"{cell.model} on {cell.provider}"), "bold")
        yield Line(_row(cell, layout), "red")
        yield from _detail(cell)
    if len(failures) > MOST_FAILURES:
        yield Line(
            f"and {len(failures) - MOST_FAILURES:,} more failures, in the reports", "red"
        )


def _model_lines(cells: Sequence[CellResult], width: int) -> Iterator[Line]:
    for block in figures.blocks(cells):
        bad = any(cell.status in BAD for cell in block.cells)
        text = printable(f"{block.model} on {block.provider}: {figures.tally(block.cells)}")
        yield Line(_cut(f"  {text}", width), "red" if bad else "")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
