"""Writing figures as text, the same in every report. Computes none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from onnx_harness.names import ORIGINAL, is_model_file
from onnx_harness.results.cells import (
    CellResult,
    Departure,
    OutputAccuracy,
    PlacementRecord,
    Status,
    Symptom,
)
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo
from onnx_harness.results.timings import ConditionsRecord

BAD = frozenset({Status.FAIL, Status.ERROR})
"""The statuses that a person has to look at."""

SHORT = {
    Status.PASS: "pass",
    Status.FAIL: "FAIL",
    Status.ERROR: "ERROR",
    Status.NOT_APPLICABLE: "n/a",
    Status.KNOWN_FAILURE: "known",
}

_LONG = {
    Status.PASS: ("pass", "pass"),
    Status.FAIL: ("fail", "fail"),
    Status.ERROR: ("error", "errors"),
    Status.KNOWN_FAILURE: ("known failure", "known failures"),
    Status.NOT_APPLICABLE: ("not applicable", "not applicable"),
}


_PRECISIONS = {"emulated": "float16 emulated", "mixed": "float16 partly emulated"}


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """The line about a model above its cells. What isn't known is left out.

    Attributes:
        license: SPDX expression.
        bytes: of the file with its external data.
        opset: of the default domain.
        path: of the ``.onnx`` or the card that was named, for commands to copy.
    """

    license: str = ""
    bytes: int | None = None
    opset: int | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """The cells of one model on one provider, in the order in which they ended."""

    model: str
    provider: str
    cells: tuple[CellResult, ...]


def compared_with_levels(cells: Iterable[CellResult]) -> str:
    """Count the latencies by how they compare with their accepted levels.

    Empty where none was compared with one.
    """
    outcomes: Counter[Outcome] = Counter()
    confirmed = 0
    for cell in cells:
        if cell.pinned is not None and cell.pinned.verdict is not None:
            outcomes[cell.pinned.verdict.outcome] += 1
            confirmed += bool(cell.pinned.confirming_log_ratios)
    if not outcomes:
        return ""
    levels = []
    for outcome in Outcome:
        if outcomes[outcome]:
            levels.append(f"{outcomes[outcome]:,} {outcome}")
    listed = ", ".join(levels)
    measured = f", {confirmed:,} of them measured again" if confirmed else ""
    compared = f"latency compared with the accepted levels: {listed}{measured}"
    return f"{compared}; `onnx-harness gate` decides"


def blocks(cells: Iterable[CellResult]) -> list[Block]:
    """Cells grouped by model and provider, groups in order of their first cell."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.provider), []).append(cell)
    return [
        Block(model, provider, tuple(group)) for (model, provider), group in groups.items()
    ]


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 model``, ``10,000 models``."""
    if number != 1:
        noun = plural or f"{noun}s"
    return f"{number:,} {noun}"


def tally(cells: Iterable[CellResult]) -> str:
    """``111 pass, 1 fail, 6 known failures``; statuses that nothing has are left out."""
    counts = Counter(cell.status for cell in cells)
    parts = []
    for status, words in _LONG.items():
        if counts[status]:
            parts.append(counted(counts[status], *words))
    return ", ".join(parts)


def sentence(cells: Sequence[CellResult]) -> str:
    """``20 models, 120 cells on cpu: 119 pass, 1 fail``."""
    if not cells:
        return "no cell ran"
    models = counted(len({cell.model for cell in cells}), "model")
    total = counted(len(cells), "cell")
    providers = ", ".join(dict.fromkeys(cell.provider for cell in cells))
    return f"{models}, {total} on {providers}: {tally(cells)}"


def about(model: str, headers: Mapping[str, ModelHeader]) -> list[str]:
    """``["Apache-2.0", "4.7 MB", "opset 12"]``, as far as known."""
    header = headers.get(model, ModelHeader())
    file = PurePath(header.path).name
    # A name of another script isn't in the id.
    shown = model.rpartition(".")[2] in file.lower()
    parts = []
    if file and not shown and is_model_file(PurePath(file)):
        parts.append(file)
    if header.license:
        parts.append(header.license)
    if header.bytes is not None:
        parts.append(size(header.bytes))
    if header.opset is not None:
        parts.append(f"opset {header.opset}")
    return parts


def size(number: int) -> str:
    """Bytes in decimal units, two digits or more: ``4.7 MB``."""
    value = float(number)
    for unit in ("B", "kB", "MB"):
        # From here on three digits would round up to four.
        if value < 999.5:
            whole = unit == "B" or value >= 99.95
            return f"{value:.0f} {unit}" if whole else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def milliseconds(value: float) -> str:
    """Three significant digits: ``28.4 ms``, ``0.0312 ms``."""
    # The least values that round to three digits before the point, two, one, and none.
    for least, digits in ((99.95, 0), (9.995, 1), (0.9995, 2), (0.09995, 3)):
        if value >= least:
            return f"{value:,.{digits}f} ms"
    return f"{value:.4f} ms"


def median(cell: CellResult) -> str:
    """The steady latency of a cell, empty when it wasn't timed."""
    return milliseconds(cell.latency.median_ms) if cell.latency else ""


def timing(cell: CellResult) -> str:
    """Describe how a latency was measured and what disturbed it; empty when it wasn't timed."""
    latency = cell.latency
    if latency is None:
        return ""
    pairs = counted(latency.pairs, "pair")
    sets = counted(latency.input_sets, "set")
    parts = [f"{counted(latency.samples, 'run')} in {pairs} of sessions on {sets} of inputs"]
    transfers = latency.end_to_end
    if transfers is not None:
        median_ms = milliseconds(transfers.median_ms)
        parts.append(f"with transfers {median_ms}, {transfers.speedup:.2f}x")
    if latency.unsettled_pairs:
        parts.append(f"{latency.unsettled_pairs} of {pairs} never settled while warming up")
    if latency.conditions is not None:
        parts += _conditions(latency.conditions)
    return "; ".join(parts)


def _conditions(conditions: ConditionsRecord) -> tuple[str, str]:
    cores = ", ".join(map(str, conditions.affinity or ()))
    pinned = f"kept on core {cores}" if cores else "not kept on a core"
    lost = counted(
        conditions.involuntary_switches, "involuntary switch", "involuntary switches"
    )
    load = "" if conditions.load is None else f"load {conditions.load:.2f}, "
    return pinned, f"{load}{conditions.steal_share:.1%} stolen, {lost}"


def speedup(cell: CellResult) -> str:
    """``1.02x [1.01, 1.03]``, or ``baseline`` for the cell that others are compared with."""
    latency = cell.latency
    if latency is None:
        return ""
    if cell.variant == ORIGINAL:
        return "baseline"
    if latency.speedup_ci95 is None:
        return f"{latency.speedup:.2f}x"
    low, high = latency.speedup_ci95
    return f"{latency.speedup:.2f}x [{low:.2f}, {high:.2f}]"


def catches(cell: CellResult) -> str:
    """``catches 29/30, from 0.3%``: planted faults caught, and the smallest weight change.

    Of the faults that change anything. Empty when no fault was planted.
    """
    record = cell.sensitivity
    if record is None:
        return ""
    score = f"catches {record.caught}/{record.planted - record.equivalent}"
    if record.smallest_change is None:
        return score
    return f"{score}, from {_percent(record.smallest_change)}"


def _percent(share: float) -> str:
    """One significant digit below 1%: ``0.3%``, ``0.0002%``, ``1.8%``, ``12%``."""
    value = share * 100
    if value >= 10:
        return f"{value:.0f}%"
    if value >= 1:
        return f"{value:.1f}%"
    one_digit = float(f"{value:.1g}")
    return f"{one_digit:.7f}".rstrip("0") + "%"


def nodes(cell: CellResult) -> str:
    """``672 -> 331``, or ``672 nodes`` when there are as many as before."""
    if cell.graph is None:
        return ""
    before, after = cell.graph.nodes_before, cell.graph.nodes_after
    return counted(after, "node") if before == after else f"{before:,} -> {after:,}"


def growth(cell: CellResult) -> str:
    """Return ``0.50x size`` where the file's size changed by 1% or more; empty otherwise."""
    if cell.graph is None or not cell.graph.bytes_before:
        return ""
    ratio = cell.graph.bytes_after / cell.graph.bytes_before
    return "" if abs(ratio - 1) < 0.01 else f"{ratio:.2f}x size"


def precision(cell: CellResult) -> str:
    """Name the type that float arithmetic really ran in: ``float16``, ``float16 emulated``.

    Empty where none was run.
    """
    used = (cell.placement.precision if cell.placement else None) or ""
    return _PRECISIONS.get(used, used)


def where(record: PlacementRecord) -> str:
    """``Nodes by provider: …; share …``: all that is known about where a cell ran, in one line."""
    nodes = ", ".join(f"{number:,} on {name}" for name, number in record.nodes.items())
    share = f"share of the provider asked for: {record.share:.0%}"
    if record.time_share is not None:
        share += f", of the time: {record.time_share:.0%}"
    parts = [f"Nodes: {nodes or 'none'}", share]
    if record.memcpy:
        parts.append(f"copies between memories: {record.memcpy:,}")
    if record.inserted_casts:
        parts.append(f"Casts inserted: {record.inserted_casts:,}")
    if record.arithmetic:
        counts = [
            f"{number:,} in {type_name}" for type_name, number in record.arithmetic.items()
        ]
        parts.append(f"arithmetic: {', '.join(counts)}")
    return "; ".join(parts)


def machine(cell: CellResult, run: RunInfo) -> str:
    """``A Processor, 2 cores; cuda on A Device``: the machine that judged a cell.

    Where the machine itself is why it ended so, that is said.
    """
    host = cell.machine or run.host
    text = f"{host.cpu}, {counted(host.cores, 'core')}"
    if cell.provider in host.devices:
        text += f"; {cell.provider} on {host.devices[cell.provider]}"
    if cell.symptom is Symptom.ENVIRONMENT:
        text += ". This end is the machine's, and says nothing about the model"
    return text


def worst_output(cell: CellResult) -> tuple[str, OutputAccuracy] | None:
    """Return the output that is furthest from its tolerance, with its name, or None."""
    if cell.accuracy is None or not cell.accuracy.outputs:
        return None
    return max(cell.accuracy.outputs.items(), key=lambda item: _badness(item[1]))


def tolerance_share(cell: CellResult) -> float | None:
    """Return the worst output's smallest passing tolerance over the one used; above 1 it fails.

    None where nothing was compared, where no tolerance would pass, and where the tolerance used
    is 0.
    """
    worst = worst_output(cell)
    if worst is None:
        return None
    _, output = worst
    if output.nonfinite or output.minimum_tolerance is None:
        return None
    if output.minimum_tolerance == 0:
        return 0.0
    return output.minimum_tolerance / output.rtol if output.rtol else None


def departure(cell: CellResult) -> str:
    """``exact``, ``noise`` or ``change``: the output that departs most; empty if not measured."""
    outputs = cell.accuracy.outputs.values() if cell.accuracy else ()
    departures = {output.departure for output in outputs}
    if not departures or None in departures:
        return ""
    return next(word for word in reversed(Departure) if word in departures)


def _badness(output: OutputAccuracy) -> tuple[float, float, float]:
    minimum = output.minimum_tolerance
    if minimum is None:
        return output.nonfinite, float("inf"), output.max_abs or 0.0
    share = minimum / output.rtol if output.rtol else minimum
    return output.nonfinite, share, minimum


def worst_error(cell: CellResult) -> str:
    """``1.1e-06 of 1.0e-04``: the smallest tolerance that would pass, and the one used.

    Those of the worst output.
    """
    worst = worst_output(cell)
    if worst is None:
        return ""
    _, output = worst
    if output.nonfinite:
        return f"{output.nonfinite:,} nonfinite"
    if not output.rtol and output.atol and output.max_abs is not None:
        return f"{_short(output.max_abs)} of {_short(output.atol)} absolute"
    if output.minimum_tolerance is not None:
        return f"{_short(output.minimum_tolerance)} of {_short(output.rtol)}"
    return "" if output.max_abs is None else f"{_short(output.max_abs)} absolute"


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def notes(block: Block) -> list[str]:
    """List the remarks on verdicts, each once, with the number of cells that it is about."""
    counts: Counter[str] = Counter()
    for cell in block.cells:
        counts.update(_remarks(cell))
    total = len(block.cells)
    remarks = []
    for note, number in counts.items():
        remarks.append(note if number == total else f"{note} ({number} of {total} cells)")
    return remarks


def _remarks(cell: CellResult) -> list[str]:
    remarks = list(cell.notes)
    outputs = cell.accuracy.outputs if cell.accuracy else {}
    for name, output in outputs.items():
        if output.vacuous and not any(output.vacuous in remark for remark in remarks):
            remarks.append(f"{name}: {output.vacuous}")
    return list(dict.fromkeys(remarks))


def explanation(cell: CellResult) -> tuple[str, ...]:
    """Return the lines about a cell, nothing twice: its reason, then the detail line by line.

    The detail begins with the worst failure, which is what the reason tells of.
    """
    lines: list[str] = []
    for text in cell.detail:
        lines += text.split("\n")
    if not cell.reason:
        return tuple(lines)
    if lines and cell.reason in lines[0]:
        return tuple(lines)
    if lines and f"output {lines[0]}" in cell.reason:
        lines = lines[1:]
    return (cell.reason, *lines)
