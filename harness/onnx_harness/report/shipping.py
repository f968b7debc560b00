"""The configuration to ship: the fastest cell that passes of each model on each provider."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx_harness.errors import HarnessError
from onnx_harness.names import ORIGINAL, parse_variant
from onnx_harness.providers.profile import EMULATED
from onnx_harness.report import figures
from onnx_harness.report.causes import Cause, causes
from onnx_harness.report.figures import BAD, Block, ModelHeader
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.run import RunInfo

ALONE = "alone: "
"""The beginning of the line of a failing cell that runs it by itself."""

KEPT = "kept by itself: "
"""The beginning of the line that names the folder of a failing cell's models."""

_SESSION = "ort."
"""The prefix of steps that are options of ONNX Runtime's session, and change no file."""

SMALLER = 0.9
"""A variant whose file is at most this share of the original's is worth a line of its own."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to "what do I ship?" for one model on one provider.

    Attributes:
        fastest: the cell to ship; None where none passes.
        why: the reason for the choice, or for there being none; a sentence.
        smallest: another cell that passes and is at most `SMALLER` of the original's size, or None.
        caution: what weakens the verdict of `fastest`; empty where nothing does.
        command: writes the model to ship; empty where the model ships as it is, or nothing does.
    """

    model: str
    provider: str
    fastest: CellResult | None
    why: str
    smallest: CellResult | None = None
    caution: str = ""
    command: str = ""


def choices(
    run: RunInfo, cells: Sequence[CellResult], models: Mapping[str, ModelHeader]
) -> list[Choice]:
    """Return one choice for each model and provider: those without a candidate first."""
    chosen = [_choice(block, models, run.command) for block in figures.blocks(cells)]
    return sorted(chosen, key=lambda choice: choice.fastest is not None)


def is_candidate(cell: CellResult) -> bool:
    """Decide whether a cell may be shipped: it passed, and is faithful and usable.

    It ran on the provider asked for, too: a cell below the share of nodes that a provider has to
    own isn't a pass.
    """
    if cell.status is not Status.PASS:
        return False
    outputs = cell.accuracy.outputs.values() if cell.accuracy else ()
    return not any(False in (output.faithful, output.usable) for output in outputs)


def is_faster(cell: CellResult) -> bool:
    """Decide whether a speedup is shown: its 95% interval lies above 1.

    Float16 that a provider computes in float32 says nothing of the speed of float16.
    """
    if cell.latency is None or cell.variant == ORIGINAL:
        return False
    if cell.latency.speedup_ci95 is None:
        return False
    if cell.placement is not None and cell.placement.precision in EMULATED:
        return False
    return cell.latency.speedup_ci95[0] > 1


def transform_command(
    cell: CellResult, models: Mapping[str, ModelHeader], command: str
) -> str:
    """Return the shell command that writes a variant's model.

    Args:
        cell: whose variant it is.
        models: for the paths.
        command: of the run, which spells options out where a variant's id only hints at them.

    Returns:
        Empty where there is nothing to write: the untouched model, and levels of ONNX Runtime's own
            optimizer.
    """
    if changes_no_file(cell.variant):
        return ""
    path = models.get(cell.model, ModelHeader()).path or f"{cell.model}.onnx"
    variant = _spellings(command).get(cell.variant, cell.variant)
    words = ["onnx-harness", "transform", path, "--variant", variant]
    words += ["-o", f"{cell.model}-{cell.variant}.onnx"]
    return " ".join(shlex.quote(word) for word in words)


def alone_command(cell: CellResult, run: RunInfo, models: Mapping[str, ModelHeader]) -> str:
    """Return the shell command that judges one cell again; a failing cell brings its own.

    Args:
        cell: to be judged.
        run: for the seed, and for options that the variant's id only hints at.
        models: for the paths.
    """
    for line in reversed(cell.detail):
        if line.startswith(ALONE):
            return line.removeprefix(ALONE)
    path = models.get(cell.model, ModelHeader()).path or f"{cell.model}.onnx"
    variant = _spellings(run.command).get(cell.variant, cell.variant)
    # A bare `fp16` names a group of variants to pytest; with parentheses it is the one step.
    variant = f"{variant}()" if variant.isalnum() and variant != ORIGINAL else variant
    words = ["pytest", path, "--provider", cell.provider, "--variant", variant]
    words += ["--seed", str(run.seed)]
    return " ".join(shlex.quote(word) for word in words)


def view_command(cell: CellResult, models: Mapping[str, ModelHeader], command: str) -> str:
    """Return the shell command that shows a cell's nodes with their figures.

    Args:
        cell: whose nodes; of one that failed, a run keeps both models.
        models: for the paths.
        command: of the run.

    Returns:
        Empty where the variant changes no file.
    """
    if cell.status in BAD:
        kept = any(line.startswith(KEPT) for line in cell.detail)
        return shlex.join(["onnx-harness", "view", cell.id]) if kept else ""
    if changes_no_file(cell.variant):
        return ""
    path = models.get(cell.model, ModelHeader()).path or f"{cell.model}.onnx"
    variant = _spellings(command).get(cell.variant, cell.variant)
    words = ["onnx-harness", "view", path, "--variant", variant, "--provider", cell.provider]
    return shlex.join(words)


def changes_no_file(variant: str) -> bool:
    """Decide whether a variant is the untouched model, in a session of some optimization level."""
    return all(step == ORIGINAL or step.startswith(_SESSION) for step in variant.split("+"))


@functools.lru_cache(maxsize=16)
def _spellings(command: str) -> dict[str, str]:
    """Return the variants that a command spells out, by id."""
    spelt: dict[str, str] = {}
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    for word in words:
        try:
            variant = parse_variant(word.removeprefix("--variant="))
        except HarnessError:
            continue
        spelt[variant.id] = variant.spelling
    return spelt


def _choice(block: Block, models: Mapping[str, ModelHeader], command: str) -> Choice:
    candidates = [cell for cell in block.cells if is_candidate(cell)]
    if not candidates:
        return Choice(block.model, block.provider, None, _why_none(block))
    faster = [cell for cell in candidates if is_faster(cell)]
    smallest = _smallest(candidates)
    if faster:
        chosen = max(faster, key=_speedup)
        why = f"the fastest of {len(candidates):,} that pass"
        if len(candidates) == 1:
            why = "the only variant that passes"
    else:
        chosen = _without_speedup(candidates)
        why = _why_not_faster(candidates)
    return Choice(
        block.model,
        block.provider,
        chosen,
        why,
        smallest if smallest is not chosen else None,
        _caution(chosen),
        transform_command(chosen, models, command),
    )


def _speedup(cell: CellResult) -> float:
    return cell.latency.speedup if cell.latency else 0.0


def _without_speedup(candidates: Sequence[CellResult]) -> CellResult:
    """Return the untouched model where it passes: a change without a gain isn't worth its risk."""
    for cell in candidates:
        if cell.variant == ORIGINAL:
            return cell
    return min(candidates, key=_error_share)


def _why_not_faster(candidates: Sequence[CellResult]) -> str:
    timed = []
    for cell in candidates:
        if cell.latency and cell.variant != ORIGINAL:
            timed.append(cell)
    if timed:
        return "no variant that passes is shown to be faster"
    if len(candidates) == 1:
        return "the only variant that passes"
    return "speed wasn't measured"


def _why_none(block: Block) -> str:
    judged = []
    for cell in block.cells:
        if cell.status is not Status.NOT_APPLICABLE:
            judged.append(cell)
    if not judged:
        return "no variant is applicable"
    grouped: list[Cause] = causes([cell for cell in judged if cell.status in BAD])
    if grouped:
        worst = grouped[0].worst
        return f"{worst.variant} ends at {worst.stage}: {worst.reason or 'no reason given'}"
    return f"{judged[0].variant}: {judged[0].reason or 'no reason given'}"


def _smallest(candidates: Iterable[CellResult]) -> CellResult | None:
    """Return the smallest candidate, where it is clearly smaller than the untouched model."""
    small = [cell for cell in candidates if _is_small(cell)]
    return min(small, key=_bytes, default=None)


def _is_small(cell: CellResult) -> bool:
    if cell.graph is None:
        return False
    return cell.graph.bytes_after <= SMALLER * cell.graph.bytes_before


def _bytes(cell: CellResult) -> int:
    return cell.graph.bytes_after if cell.graph else 0


def _error_share(cell: CellResult) -> float:
    share = figures.tolerance_share(cell)
    return math.inf if share is None else share


def _caution(cell: CellResult) -> str:
    outputs = cell.accuracy.outputs if cell.accuracy else {}
    if not outputs:
        return "its outputs weren't compared"
    vacuous = [name for name, output in outputs.items() if output.vacuous]
    if len(vacuous) == len(outputs):
        return (
            f"comparing it could not have failed: {vacuous[0]} {outputs[vacuous[0]].vacuous}"
        )
    return ""
