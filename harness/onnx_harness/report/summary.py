"""summary.md: the run for a CI job's page. The verdict first, then what failed, then everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx_harness.report import figures
from onnx_harness.report.escape import markdown, markdown_block, markdown_html
from onnx_harness.report.figures import BAD, ModelHeader
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.run import RunInfo

MOST_FAILURES = 100
MOST_CELLS = 3000
MOST_DETAIL = 60
MOST_REASON = 300
MOST_LINE = 1000
MOST_BYTES = 900_000
"""A job's page on GitHub holds 1 MiB, and drops what is longer as a whole."""


def page(run: RunInfo, cells: Sequence[CellResult], models: Mapping[str, ModelHeader]) -> str:
    """The summary as Markdown (GitHub's dialect)."""
    failures = [cell for cell in cells if cell.status in BAD]
    lines = [f"# {_verdict(cells, failures)}", "", f"{markdown(figures.sentence(cells))}.", ""]
    if emulation := figures.emulation(cells):
        lines += [f"{markdown(emulation)}.", ""]
    lines += _failures(failures)
    lines += _others("Known failures", [cell for cell in cells if cell.status is Status.KNOWN_FAILURE])
    if len(cells) <= MOST_CELLS:
        for provider in dict.fromkeys(cell.provider for cell in cells):
            lines += _matrix(provider, [cell for cell in cells if cell.provider == provider], models)
    else:
        lines += _by_model(cells)
    lines += _others("Not applicable", [cell for cell in cells if cell.status is Status.NOT_APPLICABLE])
    lines += _about(run)
    return _bounded(lines)


def _verdict(cells: Sequence[CellResult], failures: Sequence[CellResult]) -> str:
    if not cells:
        return "Nothing was checked"
    if not failures:
        passed = sum(cell.status is Status.PASS for cell in cells)
        return f"Pass: {figures.counted(passed, 'cell')} right" if passed else "Nothing passed, nothing failed"
    return f"Fail: {figures.tally(failures)}"


def _failures(failures: Sequence[CellResult]) -> Iterator[str]:
    if not failures:
        return
    yield from (
        "## Failures",
        "",
        "| model | variant | provider | status | stage | reason |",
        "|---|---|---|---|---|---|",
    )
    for cell in failures[:MOST_FAILURES]:
        reason = _cut(cell.reason or "", MOST_REASON)
        names = (cell.model, cell.variant, cell.provider, cell.status, cell.stage, reason)
        yield f"| {' | '.join(markdown(name) for name in names)} |"
    yield ""
    if len(failures) > MOST_FAILURES:
        yield from (f"And {len(failures) - MOST_FAILURES:,} more, in `report.html` and `results.json`.", "")
    for cell in failures[:MOST_FAILURES]:
        explanation = figures.explanation(cell)
        if len(explanation) > MOST_DETAIL:
            explanation = (*explanation[: MOST_DETAIL - 1], "… (all of it is in report.html)", explanation[-1])
        if explanation:
            explanation = tuple(_cut(text, MOST_LINE) for text in explanation)
            yield f"<details><summary>{markdown_html(cell.id)}</summary>"
            yield from ("", markdown_block(explanation), "", "</details>", "")


def _matrix(provider: str, cells: Sequence[CellResult], models: Mapping[str, ModelHeader]) -> Iterator[str]:
    """A table of models by variants, or of variants by models where there are more variants."""
    names = list(dict.fromkeys(cell.model for cell in cells))
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    shown = {(cell.model, cell.variant): _figures(cell) for cell in cells}
    titles = {name: markdown(", ".join([name, *figures.about(name, models)])) for name in names}
    yield from (f"## On {markdown(provider)}", "")
    yield from ("Worst error as the smallest tolerance that would pass; speedup against the untouched model.", "")
    if len(variants) <= max(len(names), 8):
        yield from _grid("model", [markdown(variant) for variant in variants])
        for name in names:
            yield _grid_row(titles[name], [shown.get((name, variant), "") for variant in variants])
    else:
        yield from _grid("variant", [titles[name] for name in names])
        for variant in variants:
            yield _grid_row(markdown(variant), [shown.get((name, variant), "") for name in names])
    yield ""


def _grid(corner: str, columns: Sequence[str]) -> Iterator[str]:
    yield _grid_row(corner, columns)
    yield "|" + "---|" * (len(columns) + 1)


def _grid_row(first: str, columns: Sequence[str]) -> str:
    return f"| {' | '.join([first, *columns])} |"


def _figures(cell: CellResult) -> str:
    if cell.status in BAD:
        return f"**{figures.SHORT[cell.status]}** at {cell.stage}"
    if cell.status is not Status.PASS:
        return figures.SHORT[cell.status]
    error = figures.worst_error(cell).partition(" of ")[0]
    numbers = (
        figures.departure(cell),
        error,
        figures.bites(cell),
        figures.median(cell),
        figures.speedup(cell),
    )
    return " · ".join(["pass", *(markdown(number) for number in numbers if number)])


def _by_model(cells: Sequence[CellResult]) -> Iterator[str]:
    yield from (f"## {len(cells):,} cells by model", "", "| model | provider | cells |", "|---|---|---|")
    for block in figures.blocks(cells):
        yield f"| {markdown(block.model)} | {markdown(block.provider)} | {figures.tally(block.cells)} |"
    yield ""


def _others(title: str, cells: Sequence[CellResult]) -> Iterator[str]:
    """Cells by reason: one reason often holds for many."""
    if not cells:
        return
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        stage = "" if cell.stage is Stage.DONE else f"{cell.stage}: "
        reason = _cut(cell.reason or "no reason given", MOST_REASON)
        reasons.setdefault(f"{stage}{reason}", []).append(cell.id)
    yield f"<details><summary>{title}: {figures.counted(len(cells), 'cell')}</summary>"
    yield ""
    for reason, ids in reasons.items():
        most = 10
        more = f" and {len(ids) - most:,} more" if len(ids) > most else ""
        yield f"- {markdown(reason)} — {', '.join(markdown(name) for name in ids[:most])}{more}"
    yield from ("", "</details>", "")


def _about(run: RunInfo) -> Iterator[str]:
    host = run.host
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    yield from ("## This run", "")
    yield f"- run {markdown(run.id)}, started {markdown(run.started)}, seed {run.seed}"
    size = f"{figures.counted(host.cores, 'core')}, {figures.size(host.memory_bytes)}"
    yield f"- {markdown(host.cpu)}, {size}, {markdown(host.os)}"
    for provider, device in sorted(host.devices.items()):
        yield f"- {markdown(provider)} on {markdown(device)}"
    yield f"- {markdown(versions)}"
    yield from ("", markdown_block((run.command,)), "")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _bounded(lines: Sequence[str]) -> str:
    kept: list[str] = []
    total = 0
    for line in lines:
        total += len(line.encode("utf-8", "backslashreplace")) + 1
        if total > MOST_BYTES:
            # A block or a fold may be open here: both are closed, so that the remark is seen.
            return "\n".join([*kept, "", "</details>", "", "The rest doesn't fit here; it is in `report.html`.", ""])
        kept.append(line)
    return "\n".join(kept)
