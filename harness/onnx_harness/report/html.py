"""report.html: the whole run in one file that needs nothing else, neither network nor script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from onnx_harness.report import figures
from onnx_harness.report.escape import web
from onnx_harness.report.figures import BAD, ModelHeader
from onnx_harness.results.cells import AccuracyRecord, CellResult, Stage, Status
from onnx_harness.results.run import RunInfo

MOST_FAILURES = 500
"""Failures shown in full; further ones are rows of the table with their reasons."""

# The page shows names out of untrusted models: should one slip through unescaped, it still can't load or run a thing
# from elsewhere.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(run: RunInfo, cells: Sequence[CellResult], models: Mapping[str, ModelHeader]) -> str:
    """The report as one HTML file."""
    return "\n".join(_page(run, cells, models))


def _page(run: RunInfo, cells: Sequence[CellResult], models: Mapping[str, ModelHeader]) -> Iterator[str]:
    failures = [cell for cell in cells if cell.status in BAD]
    verdict = f"Fail: {figures.tally(failures)}" if failures else "Pass" if cells else "Nothing was checked"
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{web(verdict)} - onnx-harness</title>"
    yield f"<style>{_asset('report.css')}</style></head><body>"
    yield f'<header class="{"bad" if failures or not cells else "good"}"><h1>{web(verdict)}</h1>'
    yield f"<p>{web(figures.sentence(cells))}</p>"
    if emulation := figures.emulation(cells):
        yield f"<p>{web(emulation)}</p>"
    yield "</header><main>"
    yield from _failures(failures)
    yield from _table(cells, models)
    yield from _about(run)
    yield f"</main><script>{_asset('report.js')}</script></body></html>"


def _asset(name: str) -> str:
    return resources.files("onnx_harness.report").joinpath(name).read_text("utf-8")


def _failures(failures: Sequence[CellResult]) -> Iterator[str]:
    if not failures:
        return
    yield "<section><h2>Failures</h2>"
    for cell in failures[:MOST_FAILURES]:
        yield f'<details class="failure" open id="{web(cell.id)}">'
        yield f"<summary><b>{web(cell.id)}</b> {figures.SHORT[cell.status]} at {web(cell.stage)}</summary>"
        explanation = "\n".join(web(line) for line in figures.explanation(cell))
        if explanation:
            yield f"<pre>{explanation}</pre>"
        if cell.placement:
            yield f"<p>{web(figures.where(cell.placement))}</p>"
        if cell.accuracy:
            yield from _outputs(cell.accuracy)
        yield "</details>"
    if len(failures) > MOST_FAILURES:
        yield f"<p>{len(failures) - MOST_FAILURES:,} more are in the table below and in results.json.</p>"
    yield "</section>"


def _outputs(accuracy: AccuracyRecord) -> Iterator[str]:
    titles = (
        "output",
        "max abs",
        "max rel",
        "rel L2",
        "cosine",
        "SQNR dB",
        "nonfinite",
        "departure",
        "noise",
        "ideal",
        "times",
        "would pass at",
        "rtol",
        "atol",
    )
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th{' class=n' if title != 'output' else ''}>{title}</th>" for title in titles)
    yield "</tr></thead><tbody>"
    for name, output in accuracy.outputs.items():
        numbers = (
            _number(output.max_abs),
            _number(output.max_rel),
            _number(output.rel_l2),
            "" if output.cosine is None else f"{output.cosine:.6f}",
            "" if output.sqnr_db is None else f"{output.sqnr_db:.1f}",
            f"{output.nonfinite:,}",
            output.departure or "",
            _number(output.floor_rel_l2),
            _number(output.ideal_rel_l2),
            "" if output.factor is None else f"{output.factor:.2g}",
            "none" if output.minimum_tolerance is None else _number(output.minimum_tolerance),
            _number(output.rtol),
            _number(output.atol),
        )
        yield f"<tr><th>{web(name)}</th>{''.join(f'<td class=n>{number}</td>' for number in numbers)}</tr>"
    yield "</tbody></table></div>"


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2e}"


def _table(cells: Sequence[CellResult], models: Mapping[str, ModelHeader]) -> Iterator[str]:
    yield "<section><h2>All cells</h2>"
    yield from _filters(cells)
    titles = (
        "variant",
        "status",
        "stage",
        "departure",
        "worst error",
        "bites",
        "median",
        "speedup",
        "nodes",
        "size",
        "ran in",
        "reason",
    )
    yield '<div class="wide"><table id="cells"><thead><tr>'
    numeric = {"worst error", "median", "speedup", "nodes", "size"}
    yield "".join(f"<th{' class=n' if title in numeric else ''}>{title}</th>" for title in titles)
    yield "</tr></thead>"
    for block in figures.blocks(cells):
        about = ", ".join([f"on {block.provider}", *figures.about(block.model, models)])
        yield f'<tbody><tr class="model"><th colspan="{len(titles)}">{web(block.model)} <span>{web(about)}</span>'
        yield "".join(f"<br><em>{web(note)}</em>" for note in figures.notes(block))
        yield "</th></tr>"
        yield from (_row(cell) for cell in block.cells)
        yield "</tbody>"
    yield "</table></div></section>"


def _filters(cells: Sequence[CellResult]) -> Iterator[str]:
    """Controls that the script brings to life; without it they stay hidden, and the table is whole."""
    yield '<form id="filters" hidden><input type="search" placeholder="model, variant, reason…" aria-label="filter">'
    for status in Status:
        number = sum(cell.status is status for cell in cells)
        if number:
            label = f"{status.replace('_', ' ')} ({number:,})"
            yield f'<label><input type="checkbox" value="{status}" checked> {label}</label>'
    yield "<output></output></form>"


def _row(cell: CellResult) -> str:
    reason = web(cell.reason or "")
    size = figures.size(cell.graph.bytes_after) if cell.graph else ""
    columns = (
        ("", web(cell.variant)),
        (' class="s"', figures.SHORT[cell.status]),
        ("", "" if cell.stage is Stage.DONE else web(cell.stage)),
        ("", figures.departure(cell)),
        (' class="n"', web(figures.worst_error(cell))),
        ("", web(figures.bites(cell).removeprefix("bites "))),
        (f' class="n" title="{web(figures.timing(cell))}"', web(figures.median(cell))),
        (' class="n"', web(figures.speedup(cell))),
        (' class="n"', web(figures.nodes(cell)).replace("-&gt;", "→")),
        (' class="n"', size),
        ("", web(figures.precision(cell))),
        (' class="r"', reason),
    )
    where = web(f"{cell.model} {cell.provider}")  # A filter finds a row by these too.
    body = "".join(f"<td{kind}>{text}</td>" for kind, text in columns)
    return f'<tr class="{cell.status}" data-status="{cell.status}" data-model="{where}">{body}</tr>'


def _about(run: RunInfo) -> Iterator[str]:
    host = run.host
    facts = {
        "run": run.id,
        "started": run.started,
        "command": run.command,
        "seed": str(run.seed),
        "processor": f"{host.cpu}, {figures.counted(host.cores, 'core')}, {figures.size(host.memory_bytes)}",
        **{f"device of {provider}": device for provider, device in sorted(host.devices.items())},
        "system": host.os,
        **run.versions,
    }
    yield "<section><h2>This run</h2><dl>"
    yield from (f"<dt>{web(name)}</dt><dd>{web(value)}</dd>" for name, value in facts.items())
    yield "</dl></section>"
