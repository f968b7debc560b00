"""Greedy decoding in the reports: how many tokens agree, and how long they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx_harness.report import figures
from onnx_harness.report.escape import markdown
from onnx_harness.results.cells import CellResult
from onnx_harness.results.generation import GenerationRecord


def generation(cell: CellResult) -> str:
    """Return greedy decoding in a line; empty where the card doesn't ask for it.

    For example ``15 of 16 tokens agree, another one at step 9 (margin 0.012); 1.20 ms to the first
    token, 0.900 ms for a further one``.
    """
    record = cell.generation
    if record is None:
        return ""
    return "; ".join(
        [f"{agreement(record)} tokens agree{_divergence(record)}", _times(record)]
    )


def agreement(record: GenerationRecord) -> str:
    """Return ``15 of 16``: the steps at which the candidate picks the reference's token."""
    return f"{round(record.agreement * record.steps):,} of {record.steps:,}"


def table(cells: Sequence[CellResult]) -> Iterator[str]:
    """Yield the cells that decode as a table of Markdown; nothing where there are none."""
    decoding = [(cell, cell.generation) for cell in cells if cell.generation is not None]
    if not decoding:
        return
    columns = (
        "cell",
        "tokens that agree",
        "first other",
        "margin",
        "first token",
        "further",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for cell, record in decoding:
        row = (markdown(cell.id), *(markdown(figure) for figure in facts(record).values()))
        yield f"| {' | '.join(row)} |"
    yield ""


def facts(record: GenerationRecord) -> dict[str, str]:
    """Return the figures of greedy decoding as text, by name."""
    step = record.first_divergence
    further = record.per_token_ms
    return {
        "tokens that agree": agreement(record),
        "first other token": "none" if step is None else f"step {step:,}",
        "its margin": "" if record.margin is None else f"{record.margin:.2g}",
        "time to the first token": figures.milliseconds(record.first_token_ms),
        "time per further token": "" if further is None else figures.milliseconds(further),
    }


def _divergence(record: GenerationRecord) -> str:
    if record.first_divergence is None:
        return ""
    margin = "" if record.margin is None else f" (margin {record.margin:.2g})"
    return f", another one at step {record.first_divergence:,}{margin}"


def _times(record: GenerationRecord) -> str:
    words = f"{figures.milliseconds(record.first_token_ms)} to the first token"
    if record.per_token_ms is None:
        return words
    return f"{words}, {figures.milliseconds(record.per_token_ms)} for a further one"
