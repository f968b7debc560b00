"""Write what GitHub Actions reads from a job's output: annotations, as workflow commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx_harness.report import figures
from onnx_harness.report.causes import Cause, causes
from onnx_harness.report.escape import printable
from onnx_harness.report.figures import ModelHeader
from onnx_harness.results.cells import CellResult

MOST_ANNOTATIONS = 10
"""GitHub shows ten errors of a step, and drops the others."""

_COMMANDS = ("::", "##[")
"""The beginnings of a line that the runner acts upon, after white space."""


def annotation_lines(
    failures: Sequence[CellResult], models: Mapping[str, ModelHeader]
) -> Iterator[str]:
    """Yield an ``::error`` line for each cause of failures, the gravest first.

    Args:
        failures: the failing cells.
        models: what is known of each model, by its name: its file is what is annotated.
    """
    grouped = causes(failures)
    shown = grouped if len(grouped) <= MOST_ANNOTATIONS else grouped[: MOST_ANNOTATIONS - 1]
    for cause in shown:
        yield _annotation(cause, models)
    if len(shown) < len(grouped):
        text = f"{len(grouped) - len(shown):,} more causes, in the summary of the job"
        yield f"::error title=onnx-harness::{text}"


def inert(line: str) -> str:
    """Disarm a line of output that a name of a model would make a workflow command."""
    if not line.lstrip().startswith(_COMMANDS):
        return line
    margin = line[: len(line) - len(line.lstrip())]
    return f"{margin}\\{line.lstrip()}"


def _annotation(cause: Cause, models: Mapping[str, ModelHeader]) -> str:
    cell = cause.worst
    title = cell.id
    if len(cause.cells) > 1:
        title += f" and {figures.counted(len(cause.cells) - 1, 'cell')} more"
    properties = {"file": models[cell.model].path} if cell.model in models else {}
    properties["title"] = title
    entries = []
    for name, value in properties.items():
        if value:
            entries.append(f"{name}={_property(value)}")
    listed = ",".join(entries)
    # The reason, and of what follows it the command that runs the cell alone.
    lines = figures.explanation(cell)
    ends = dict.fromkeys((*lines[:1], *lines[-1:]))
    message = "\n".join(map(printable, ends))
    sentence = f"{cell.status} at {cell.stage}: {message}"
    return f"::error {listed}::{_data(sentence)}"


def _data(text: str) -> str:
    """Escape as the toolkit of GitHub's own actions does (core/src/command.ts)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")
