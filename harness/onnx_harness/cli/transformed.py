"""Show what a transform made of a model."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from onnx_harness.cli.show import facts, labelled, size, text
from onnx_harness.cli.writing import Objections, Written
from onnx_harness.names import Variant


def show(
    out: Console,
    file: Path,
    variant: Variant,
    written: Written,
    verdict: Objections,
    idle: list[str],
) -> None:
    """Print what was written, what each step did, and what there is to object.

    Args:
        out: where.
        file: that was written.
        variant: that was asked for.
        written: the facts about the file.
        verdict: what the checker says.
        idle: names of steps that are options of the session.
    """
    out.print(labelled("wrote ", "bold", file), soft_wrap=True)
    rows: dict[str, object] = {
        "variant": variant.spelling,
        "nodes": _change(f"{written.nodes_before:,}", f"{written.nodes_after:,}"),
        "bytes": _change(size(written.bytes_before), size(written.bytes_after)),
        "time": f"{written.transform_seconds:.2f} s",
    }
    if written.external_data:
        rows["weights"] = f"in {written.external_data} beside it; keep the two together"
    out.print(facts(rows))
    for did in written.did:
        out.print(text(did), soft_wrap=True)
    for step in idle:
        out.print(
            text(f"note: {step} is an option of the session and changes no file", "yellow"),
            soft_wrap=True,
        )
    for note in (*written.remarks, *verdict.notes()):
        out.print(text(f"note: {note}", "yellow"), soft_wrap=True)
    for problem in verdict.problems():
        out.print(labelled("problem: ", "bold red", problem), soft_wrap=True)


def _change(before: str, after: str) -> str:
    return f"{before} -> {after}" if before != after else f"{after} (unchanged)"
