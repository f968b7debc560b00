"""report.html: the whole run in one file. It needs no network, and no script for its main parts.

Templates escape whatever they show. The figures of single cells travel as compressed JSON, and the
page's script writes them as text nodes, never as markup.

Plots are SVG, drawn here or by the page's own script, and no library draws them: each mark is a
link or has a tooltip that a keyboard and a screen reader reach, which a canvas (uPlot) hasn't, and
a library such as Observable Plot or ECharts would be larger than the page of an ordinary run.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from onnx_harness.report import (
    decoded,
    diagnosed,
    figures,
    matrix,
    shipping,
    simulated,
    trends,
)
from onnx_harness.report.background import NOTHING as NOTHING_ELSE
from onnx_harness.report.background import Background, since, standings
from onnx_harness.report.causes import causes
from onnx_harness.report.causes import sentence as of_causes
from onnx_harness.report.escape import printable
from onnx_harness.report.figures import BAD, ModelHeader
from onnx_harness.report.matrix import Heat
from onnx_harness.report.scatter import HEIGHT, LEFT, WIDTH, scatters
from onnx_harness.report.terms import TERMS
from onnx_harness.results.cells import AccuracyRecord, CellResult, ErrorSketch, Status
from onnx_harness.results.codec import encode
from onnx_harness.results.run import RunInfo

# The page shows names out of untrusted models: should one slip through unescaped, it still can't
# load or run a thing from elsewhere.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; "  # of a plot that becomes a PNG: nothing is fetched for it
    "base-uri 'none'; form-action 'none'"
)

MOST_CAUSES = 60
MOST_PLOTS = 60
MOST_POINTS = 1200
"""Of all plots together: each is a link with a tooltip."""

MOST_TRENDS = 30
MOST_HISTOGRAMS = 2000
"""Cells with a histogram of their errors; of a larger run those that fail have one."""

MOST_LINKS = 40
MOST_LINES = 60
MOST_LINE = 1000
"""Of what is said about a cell; results.json has all of it."""

DIGITS = 5
"""Significant digits of the figures in the page, which shows at most four."""

FAITHFUL_L2 = 4.0
"""The factor of what explains an output that it may depart by and be called faithful.

It's the verdict's own.
"""

_SEPARATORS = re.compile(r"(?<=[_.+/-])(?=[^_.+/-])")
"""Behind these a name may be broken."""

_AXIS = {
    "width": trends.WIDTH,
    "height": trends.HEIGHT,
    "left": trends.LEFT,
    "right": trends.WIDTH - trends.RIGHT,
    "top": trends.TOP,
    "floor": trends.HEIGHT - trends.BOTTOM,
}
"""Of the plots of nights, for the template."""

_SYMBOLS = {
    Status.PASS: "✓",
    Status.FAIL: "✕",
    Status.ERROR: "!",
    Status.KNOWN_FAILURE: "◆",
    Status.NOT_APPLICABLE: "-",
}


def page(
    run: RunInfo,
    cells: Sequence[CellResult],
    models: Mapping[str, ModelHeader],
    background: Background = NOTHING_ELSE,
) -> str:
    """Return the report as one HTML file."""
    failures = [cell for cell in cells if cell.status in BAD]
    grouped = causes(failures)
    heats = [matrix.heat(cell) for cell in cells]
    shown = matrix.measures(heats)
    scattered = scatters(cells)
    plots = scattered[:MOST_PLOTS]
    while sum(len(plot.points) for plot in plots) > MOST_POINTS and len(plots) > 1:
        plots.pop()
    drawn = [trend for trend in background.trends if trend.is_drawn]
    drawn.sort(key=trends.gravity, reverse=True)
    return render(
        "report.html.j2",
        verdict=verdict(cells),
        state="bad" if failures or not cells else "good",
        since=since(background, run, cells),
        run=run,
        cells=cells,
        failures=failures,
        causes=grouped[:MOST_CAUSES],
        more_causes=len(grouped) - MOST_CAUSES,
        choices=shipping.choices(run, cells, models),
        grids=matrix.grids(cells),
        heats=heats,
        measures={name: matrix.MEASURES[name][0] for name in shown},
        measure=shown[0] if shown else "",
        counts={status: sum(cell.status is status for cell in cells) for status in Status},
        plots=plots,
        more_plots=len(scattered) - len(plots),
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT},
        trends=[(trend, trends.draw(trend)) for trend in drawn[:MOST_TRENDS]],
        more_trends=len(drawn) - MOST_TRENDS,
        axis=_AXIS,
        slower=_slower(cells),
        models=models,
        notes=_notes(cells),
        data=_packed(_data(run, cells, models, heats, standings(background))),
    )


def verdict(cells: Sequence[CellResult]) -> str:
    """Return the verdict on a run in a sentence."""
    if not cells:
        return "Nothing was checked"
    failures = [cell for cell in cells if cell.status in BAD]
    if failures:
        total = figures.counted(len(cells), "cell")
        why = of_causes(causes(failures))
        return f"Fail: {len(failures):,} of {total}" + (f", {why}" if why else "")
    passed = sum(cell.status is Status.PASS for cell in cells)
    if not passed:
        return "Nothing passed, nothing failed"
    what = "cell passes" if passed == 1 else "cells pass"
    return f"Pass: {passed:,} {what}, none fails"


def render(template: str, **values: object) -> str:
    """Return a page made of a template of this package; every value is escaped."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        asset=lambda name: Markup(_asset(name)),
        policy=POLICY,
        diagnosed=diagnosed,
        figures=figures,
        simulated=simulated,
        shipping=shipping,
        symbols=_SYMBOLS,
        terms=TERMS,
        documentation=documentation,
        most_links=MOST_LINKS,
        statuses=list(Status),
    )
    environment.filters.update(address=address, explained=_explained, breakable=breakable)
    return environment


def _harmless(value: Any) -> Any:
    """Make a value printable before it is escaped. Markup is this package's own."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _asset(name: str) -> str:
    return (
        resources.files("onnx_harness.report").joinpath("templates", name).read_text("utf-8")
    )


def address(cell_id: str) -> str:
    """Return the part of the address that opens a cell."""
    return f"#cell={quote(printable(cell_id), safe='')}"


def breakable(name: str) -> Markup:
    """Return a name that may be broken behind its separators, and nowhere else if that will do.

    Each part is a box of its own: a `wbr` would be copied along, as a space without width.
    """
    parts = _SEPARATORS.split(printable(name))
    boxes = [Markup('<span class="part">{}</span>').format(part) for part in parts]
    return Markup("").join(boxes)


def documentation(page: str) -> str:
    """Return the address of a page of the documentation.

    A wheel has none, and a report is mailed about: the address is that in a checkout, relative to
    the report folder inside it; elsewhere the name of the page is what helps.
    """
    return f"../{page}"


def _slower(cells: Sequence[CellResult]) -> dict[str, str]:
    """Say of each cell which of its operators got slower; empty where nobody asked."""
    said: dict[str, str] = {}
    for cell in cells:
        operators = cell.pinned.operators if cell.pinned else None
        said[cell.id] = str(operators) if operators else ""
    return said


def _notes(cells: Sequence[CellResult]) -> dict[tuple[str, str], list[str]]:
    return {
        (block.model, block.provider): figures.notes(block)
        for block in figures.blocks(cells)
    }


def _data(
    run: RunInfo,
    cells: Sequence[CellResult],
    models: Mapping[str, ModelHeader],
    heats: Sequence[Mapping[str, Heat]],
    standing: Mapping[str, str],
) -> dict[str, Any]:
    """Return the data of the page's script: cells as in results.json, with figures as text."""
    about = {cell.model: "" for cell in cells}
    for model in about:
        about[model] = ", ".join(figures.about(model, models))
    return {
        "cells": [
            {
                **{name: getattr(cell, name) for name in _fields(CellResult)},
                "accuracy": _accuracy(cell, len(cells)),
                "detail": _explained(cell),
                "about": about[cell.model],
                "alone": shipping.alone_command(cell, run, models),
                "transform": shipping.transform_command(cell, models, run.command),
                "graphView": shipping.view_command(cell, models, run.command),
                "timing": figures.timing(cell),
                "standing": standing.get(cell.id, ""),
                "ranOn": figures.machine(cell, run),
                "parts": diagnosed.facts(cell.diagnosis) if cell.diagnosis else [],
                "decoded": decoded.facts(cell.generation) if cell.generation else None,
                "heat": {
                    name: [heat.text, heat.level] for name, heat in heats[place].items()
                },
                "texts": {
                    "error": figures.worst_error(cell),
                    "speedup": figures.speedup(cell),
                    "median": figures.median(cell),
                    "departure": figures.departure(cell),
                    "precision": figures.precision(cell),
                    "sensitivity": figures.catches(cell).removeprefix("catches "),
                },
            }
            for place, cell in enumerate(cells)
        ],
        "terms": {key: [term.name, term.meaning] for key, term in TERMS.items()},
        "symbols": _SYMBOLS,
        "faithful": FAITHFUL_L2,
        "histograms": MOST_HISTOGRAMS,
    }


def _accuracy(cell: CellResult, cells: int) -> AccuracyRecord | None:
    """Return the accuracy of a cell, without histograms where the page would grow too large."""
    record = cell.accuracy
    if record is None or cells <= MOST_HISTOGRAMS or cell.status in BAD:
        return record
    outputs = {}
    for name, output in record.outputs.items():
        outputs[name] = dataclasses.replace(output, errors=None)
    return dataclasses.replace(record, outputs=outputs)


def _explained(cell: CellResult) -> list[str]:
    """Return what is said of a cell beside its reason, which stands above."""
    lines = []
    for line in figures.explanation(cell):
        if line != cell.reason:
            lines.append(_cut(line))
    if len(lines) <= MOST_LINES:
        return lines
    # The last line is the command that runs the cell alone.
    return [*lines[: MOST_LINES - 2], "… (all of it is in results.json)", lines[-1]]


def _cut(text: str) -> str:
    """Shorten a line; a command to copy stays whole."""
    if len(text) <= MOST_LINE or text.startswith(shipping.ALONE):
        return text
    return text[: MOST_LINE - 1] + "…"


def _packed(value: Any) -> Markup:
    """Return JSON as base64 of gzip: letters, digits and ``+/=``, which end no element."""
    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=True)
    packed = gzip.compress(text.encode("ascii"), 6, mtime=0)
    return Markup(base64.b64encode(packed).decode("ascii"))


def _plain(value: Any) -> Any:
    """Return the JSON value of a record, with printable texts and figures of `DIGITS` digits.

    The commonest types come first: a run of 5,000 cells has a million values.
    """
    kind = type(value)
    if kind is str:
        return printable(value)
    if kind is float:
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if kind in _AS_IS:
        return value
    if kind is dict:
        values = {}
        for key, item in value.items():
            if type(item) not in _AS_IS:
                item = _plain(item)
            values[printable(str(key))] = item
        return values
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    if kind is ErrorSketch:
        return _histogram(value)
    if dataclasses.is_dataclass(kind):
        return {name: _plain(getattr(value, name)) for name in _fields(kind)}
    return _plain(encode(value))


_AS_IS = frozenset({type(None), int, bool})


def _histogram(errors: ErrorSketch) -> dict[str, Any]:
    """Return what the histogram of an output's errors takes: of all bars two digits of their count.

    Runs of thousands of cells have as many histograms, and their heights are logarithmic.
    """
    places = sorted(int(place) for place in errors.shares)
    counts = []
    for place in range(places[0], places[-1] + 1) if places else ():
        counts.append(int(float(f"{errors.shares.get(str(place), 0):.2g}")))
    beyond = sum(number for place, number in errors.shares.items() if int(place) >= 0)
    return {
        "equal": errors.equal,
        "total": errors.equal + sum(errors.shares.values()),
        "beyond": beyond,
        "low": places[0] if places else 0,
        "counts": counts,
    }


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
