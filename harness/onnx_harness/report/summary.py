"""summary.md: the run for a CI job's page. The verdict first, then what failed, then everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from onnx_harness.report import decoded, figures, shipping, simulated
from onnx_harness.report.background import NOTHING, Background, Since, since
from onnx_harness.report.causes import causes, sentence
from onnx_harness.report.escape import markdown, markdown_block, markdown_html
from onnx_harness.report.figures import BAD, ModelHeader
from onnx_harness.report.shipping import Choice
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.run import RunInfo

MOST_LINES = 60
"""Shown unfolded, however large the run: what is longer isn't read."""

MOST_CHOICES = 14
MOST_CAUSES = 10
MOST_ROWS = 12
MOST_FAILURES = 100
MOST_CELLS = 3000
MOST_DETAIL = 60
MOST_REASON = 300
MOST_LINE = 1000
MOST_BYTES = 900_000
"""A job's page on GitHub holds 1 MiB, and drops what is longer as a whole."""


def page(
    run: RunInfo,
    cells: Sequence[CellResult],
    models: Mapping[str, ModelHeader],
    background: Background = NOTHING,
) -> str:
    """Return the summary as GitHub's Markdown: at most `MOST_LINES` lines, and more folded."""
    failures = [cell for cell in cells if cell.status in BAD]
    lines = [
        f"# {_verdict(cells, failures)}",
        "",
        f"{markdown(figures.sentence(cells))}.",
        "",
    ]
    if emulation := simulated.emulation(cells):
        lines += [f"{markdown(emulation)}.", ""]
    lines += _since(since(background, run, cells))
    lines += _causes(failures)
    lines += _choices(shipping.choices(run, cells, models))
    lines += _folded(
        f"Failures: {figures.counted(len(failures), 'cell')}", _failures(failures)
    )
    lines += _others(
        "Known failures", [cell for cell in cells if cell.status is Status.KNOWN_FAILURE]
    )
    mended_cells = []
    for cell in cells:
        if cell.known is not None and cell.known.mended:
            mended_cells.append(cell)
    lines += _others(
        "Known failures that are mended",
        mended_cells,
    )
    lines += _matrices(cells, models)
    lines += _folded("Greedy decoding", decoded.table(cells))
    lines += _others(
        "Not applicable", [cell for cell in cells if cell.status is Status.NOT_APPLICABLE]
    )
    lines += _folded("This run", _about(run))
    return _bounded(lines)


def _since(changed: Since | None) -> Iterator[str]:
    if changed is None:
        return
    moved = "; ".join(changed.moved)
    when = changed.run.started[:16].replace("T", " ")
    yield markdown(f"Since {when}: {changed.sentence}. {moved}".strip())
    for words, members in changed.named.items():
        names = ", ".join(markdown(change.id) for change in members)
        yield f"- {words}: {names}"
    yield ""


def _verdict(cells: Sequence[CellResult], failures: Sequence[CellResult]) -> str:
    if not cells:
        return "Nothing was checked"
    if not failures:
        passed = sum(cell.status is Status.PASS for cell in cells)
        return (
            f"Pass: {figures.counted(passed, 'cell')} right"
            if passed
            else "Nothing passed, nothing failed"
        )
    why = sentence(causes(failures))
    return f"Fail: {figures.tally(failures)}" + (f", {why}" if why else "")


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines folded under a title; nothing where there are none."""
    body = list(lines)
    if body:
        yield from (f"<details><summary>{title}</summary>", "", *body, "</details>", "")


def _causes(failures: Sequence[CellResult]) -> Iterator[str]:
    grouped = causes(failures)
    if not grouped:
        return
    yield from ("## Failures by cause", "")
    for cause in grouped[:MOST_CAUSES]:
        worst = cause.worst
        reason = markdown(_cut(worst.reason or "no reason given", MOST_REASON))
        many = figures.counted(len(cause.cells), "cell")
        ending = f"{worst.status} at {worst.stage}, the worst {markdown(worst.id)}"
        yield f"- **{many}** {ending}: {reason}"
    if len(grouped) > MOST_CAUSES:
        yield f"- and {len(grouped) - MOST_CAUSES:,} more causes below"
    yield ""


def _choices(choices: Sequence[Choice]) -> Iterator[str]:
    if not choices:
        return
    yield from ("## What to ship", "")
    if len(choices) <= MOST_CHOICES:
        yield from _choice_table(choices)
        yield ""
        return
    missing = [choice for choice in choices if choice.fastest is None]
    total = figures.counted(len(choices), "model")
    yield f"Of {total} by provider, {len(missing):,} have no variant that passes."
    yield ""
    yield from _folded("What to ship, model by model", _choice_table(choices))


def _choice_table(choices: Sequence[Choice]) -> Iterator[str]:
    yield from (
        "| model | ship | speedup | error | size | why |",
        "|---|---|---|---|---|---|",
    )
    for choice in choices:
        name = markdown(f"{choice.model} on {choice.provider}")
        cell = choice.fastest
        if cell is None:
            yield f"| {name} | **nothing** | | | | {markdown(_cut(choice.why, MOST_REASON))} |"
            continue
        size = figures.size(cell.graph.bytes_after) if cell.graph else ""
        why = "; ".join(text for text in (choice.why, choice.caution) if text)
        columns = (cell.variant, figures.speedup(cell), figures.worst_error(cell), size, why)
        yield f"| {name} | {' | '.join(markdown(text) for text in columns)} |"


def _failures(failures: Sequence[CellResult]) -> Iterator[str]:
    if not failures:
        return
    yield from (
        "| model | variant | provider | status | stage | reason |",
        "|---|---|---|---|---|---|",
    )
    for cell in failures[:MOST_FAILURES]:
        reason = _cut(cell.reason or "", MOST_REASON)
        names = (cell.model, cell.variant, cell.provider, cell.status, cell.stage, reason)
        yield f"| {' | '.join(markdown(name) for name in names)} |"
    yield ""
    if len(failures) > MOST_FAILURES:
        yield from (
            f"And {len(failures) - MOST_FAILURES:,} more, in `report.html` and `results.json`.",
            "",
        )
    for cell in failures[:MOST_FAILURES]:
        explanation = figures.explanation(cell)
        if len(explanation) > MOST_DETAIL:
            left_out = "… (all of it is in results.json)"
            explanation = (*explanation[: MOST_DETAIL - 1], left_out, explanation[-1])
        if explanation:
            explanation = tuple(_cut(text, MOST_LINE) for text in explanation)
            yield from _folded(markdown_html(cell.id), [markdown_block(explanation), ""])


def _matrices(
    cells: Sequence[CellResult], models: Mapping[str, ModelHeader]
) -> Iterator[str]:
    """Yield a matrix for each provider, folded unless it is the only one and small."""
    if len(cells) > MOST_CELLS:
        yield from _folded(f"{len(cells):,} cells by model", _by_model(cells))
        return
    providers = list(dict.fromkeys(cell.provider for cell in cells))
    for provider in providers:
        matrices = []
        for cell in cells:
            if cell.provider == provider:
                matrices.append(cell)
        lines = list(_matrix(matrices, models))
        if len(providers) == 1 and len(lines) <= MOST_ROWS:
            yield from (f"## On {markdown(provider)}", "", *lines)
        else:
            yield from _folded(f"On {markdown_html(provider)}", lines)


def _matrix(cells: Sequence[CellResult], models: Mapping[str, ModelHeader]) -> Iterator[str]:
    """A table of models by variants, or of variants by models where there are more variants."""
    names = list(dict.fromkeys(cell.model for cell in cells))
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    shown = {(cell.model, cell.variant): _figures(cell) for cell in cells}
    titles = {
        name: markdown(", ".join([name, *figures.about(name, models)])) for name in names
    }
    yield from (
        "Worst error as the smallest tolerance that would pass; speedup against the untouched "
        "model.",
        "",
    )
    if len(variants) <= max(len(names), 8):
        yield from _grid("model", [markdown(variant) for variant in variants])
        for name in names:
            yield _grid_row(
                titles[name], [shown.get((name, variant), "") for variant in variants]
            )
    else:
        yield from _grid("variant", [titles[name] for name in names])
        for variant in variants:
            yield _grid_row(
                markdown(variant), [shown.get((name, variant), "") for name in names]
            )
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
        figures.catches(cell),
        figures.median(cell),
        figures.speedup(cell),
    )
    return " · ".join(["pass", *(markdown(number) for number in numbers if number)])


def _by_model(cells: Sequence[CellResult]) -> Iterator[str]:
    yield from ("| model | provider | cells |", "|---|---|---|")
    for block in figures.blocks(cells):
        columns = (
            markdown(block.model),
            markdown(block.provider),
            figures.tally(block.cells),
        )
        yield f"| {' | '.join(columns)} |"
    yield ""


def _others(title: str, cells: Sequence[CellResult]) -> Iterator[str]:
    """Cells by reason: one reason often holds for many."""
    if not cells:
        return
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        stage = "" if cell.stage is Stage.DONE else f"{cell.stage}: "
        reason = _cut(_reason(cell), MOST_REASON)
        reasons.setdefault(f"{stage}{reason}", []).append(cell.id)
    yield from _folded(
        f"{title}: {figures.counted(len(cells), 'cell')}", [*_by_reason(reasons), ""]
    )


def _reason(cell: CellResult) -> str:
    if cell.known is not None and cell.known.mended:
        return f"{cell.known.reason}; mended by {cell.known.mended}"
    return cell.reason or "no reason given"


def _by_reason(reasons: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for reason, ids in reasons.items():
        most = 10
        listed = ", ".join(markdown(name) for name in ids[:most])
        if len(ids) > most:
            listed += f" and {len(ids) - most:,} more"
        yield f"- {markdown(reason)} — {listed}"


def _about(run: RunInfo) -> Iterator[str]:
    host = run.host
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
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
    written: list[str] = []
    total = 0
    for line in lines:
        total += len(line.encode("utf-8", "backslashreplace")) + 1
        if total > MOST_BYTES:
            # A block or a fold may be open here: both are closed, so that the remark is seen.
            return "\n".join(
                [
                    *written,
                    "",
                    "</details></details>",
                    "",
                    "The rest doesn't fit here; it is in `report.html`.",
                    "",
                ]
            )
        written.append(line)
    return "\n".join(written)
