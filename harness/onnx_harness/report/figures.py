"""How figures are written, the same in every report. Computes none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from onnx_harness.names import ORIGINAL, is_model_file
from onnx_harness.providers.profile import EMULATED
from onnx_harness.results.cells import NOT_SIMULATED, CellResult, Departure, OutputAccuracy, PlacementRecord, Status
from onnx_harness.results.outcome import Outcome

BAD = frozenset({Status.FAIL, Status.ERROR})
"""What a person has to look at."""

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


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """What is said about a model above its cells. What isn't known is left out.

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


def beside_levels(cells: Iterable[CellResult]) -> str:
    """How the latencies stand beside their accepted levels; empty where none was held against one."""
    decided = [cell.pinned for cell in cells if cell.pinned is not None and cell.pinned.verdict is not None]
    counts = Counter(record.verdict.outcome for record in decided if record.verdict is not None)
    if not counts:
        return ""
    told = ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if counts[outcome])
    again = sum(bool(record.confirming_log_ratios) for record in decided)
    measured = f", {again:,} of them measured again" if again else ""
    return f"latency beside the accepted levels: {told}{measured}; `onnx-harness gate` has the say"


def blocks(cells: Iterable[CellResult]) -> list[Block]:
    """Cells grouped by model and provider, groups in order of their first cell."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.provider), []).append(cell)
    return [Block(model, provider, tuple(group)) for (model, provider), group in groups.items()]


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 model``, ``10,000 models``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def tally(cells: Iterable[CellResult]) -> str:
    """``111 pass, 1 fail, 6 known failures``; statuses that nothing has are left out."""
    counts = Counter(cell.status for cell in cells)
    return ", ".join(counted(counts[status], *words) for status, words in _LONG.items() if counts[status])


def sentence(cells: Sequence[CellResult]) -> str:
    """``20 models, 120 cells on cpu: 119 pass, 1 fail``."""
    if not cells:
        return "no cell ran"
    models = len({cell.model for cell in cells})
    providers = ", ".join(dict.fromkeys(cell.provider for cell in cells))
    return f"{counted(models, 'model')}, {counted(len(cells), 'cell')} on {providers}: {tally(cells)}"


def about(model: str, headers: Mapping[str, ModelHeader]) -> list[str]:
    """``["Apache-2.0", "4.7 MB", "opset 12"]``, as far as known."""
    header = headers.get(model, ModelHeader())
    file = PurePath(header.path).name
    told = model.rpartition(".")[2] in file.lower()  # a name of another script doesn't show in the id
    return [
        *([file] if file and not told and is_model_file(PurePath(file)) else []),
        *([header.license] if header.license else []),
        *([size(header.bytes)] if header.bytes is not None else []),
        *([f"opset {header.opset}"] if header.opset is not None else []),
    ]


def size(number: int) -> str:
    """Bytes in decimal units, two digits or more: ``4.7 MB``."""
    value = float(number)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def milliseconds(value: float) -> str:
    """Three significant digits: ``28.4 ms``, ``0.0312 ms``."""
    if value >= 99.95:
        return f"{value:,.0f} ms"
    digits = 1 if value >= 9.995 else 2 if value >= 0.9995 else 3 if value >= 0.09995 else 4
    return f"{value:.{digits}f} ms"


def median(cell: CellResult) -> str:
    """The steady latency of a cell, empty when it wasn't timed."""
    return milliseconds(cell.latency.median_ms) if cell.latency else ""


def timing(cell: CellResult) -> str:
    """How a latency was taken and what disturbed it, in a sentence or two; empty when it wasn't timed."""
    latency = cell.latency
    if latency is None:
        return ""
    parts = [f"{counted(latency.samples, 'run')} in {counted(latency.pairs, 'pair')} of sessions"]
    parts[0] += f" on {counted(latency.input_sets, 'set')} of inputs"
    transfers = latency.end_to_end
    if transfers is not None:
        parts.append(f"with transfers {milliseconds(transfers.median_ms)}, {transfers.speedup:.2f}x")
    if latency.unsettled_pairs:
        parts.append(f"{latency.unsettled_pairs} of {counted(latency.pairs, 'pair')} never settled while warming up")
    seen = latency.conditions
    if seen is not None:
        cores = ", ".join(map(str, seen.affinity or ()))
        parts.append(f"kept on core {cores}" if cores else "not kept on a core")
        lost = counted(seen.involuntary_switches, "involuntary switch", "involuntary switches")
        load = "" if seen.load is None else f"load {seen.load:.2f}, "
        parts.append(f"{load}{seen.steal_share:.1%} stolen, {lost}")
    return "; ".join(parts)


def speedup(cell: CellResult) -> str:
    """``1.02x [1.01, 1.03]``, or ``baseline`` for the cell that others are judged against."""
    latency = cell.latency
    if latency is None:
        return ""
    if cell.variant == ORIGINAL:
        return "baseline"
    if latency.speedup_ci95 is None:
        return f"{latency.speedup:.2f}x"
    low, high = latency.speedup_ci95
    return f"{latency.speedup:.2f}x [{low:.2f}, {high:.2f}]"


def bites(cell: CellResult) -> str:
    """``bites 29/30, from 0.3%``: planted faults caught of those that change anything, and the smallest weight change.

    Empty when no fault was planted.
    """
    found = cell.sensitivity
    if found is None:
        return ""
    score = f"bites {found.caught}/{found.planted - found.equivalent}"
    return score if found.smallest_change is None else f"{score}, from {_percent(found.smallest_change)}"


def _percent(share: float) -> str:
    """One significant digit below 1%: ``0.3%``, ``0.0002%``, ``1.8%``, ``12%``."""
    value = share * 100
    if value >= 1:
        return f"{value:.0f}%" if value >= 10 else f"{value:.1f}%"
    return f"{float(f'{value:.1g}'):.7f}".rstrip("0") + "%"


def nodes(cell: CellResult) -> str:
    """``672 -> 331``, or ``672 nodes`` when there are as many as before."""
    if cell.graph is None:
        return ""
    if cell.graph.nodes_before == cell.graph.nodes_after:
        return counted(cell.graph.nodes_after, "node")
    return f"{cell.graph.nodes_before:,} -> {cell.graph.nodes_after:,}"


def growth(cell: CellResult) -> str:
    """Return ``0.50x size`` where the file's size changed by 1% or more; empty otherwise."""
    if cell.graph is None or not cell.graph.bytes_before:
        return ""
    ratio = cell.graph.bytes_after / cell.graph.bytes_before
    return "" if abs(ratio - 1) < 0.01 else f"{ratio:.2f}x size"


def precision(cell: CellResult) -> str:
    """What float arithmetic really ran in: ``float16``, ``float16 emulated``; empty where none was run."""
    ran = cell.placement.precision if cell.placement else None
    return {"emulated": "float16 emulated", "mixed": "float16 partly emulated"}.get(ran or "", ran or "")


def emulation(cells: Iterable[CellResult]) -> str:
    """``float16 was simulated in 38 cells …``; empty where no float16 was computed in float32."""
    emulated = [cell for cell in cells if cell.placement and cell.placement.precision in EMULATED]
    without = sum(any(note.startswith(NOT_SIMULATED) for note in cell.notes) for cell in emulated)
    told = []
    if len(emulated) > without:
        told.append(
            f"float16 was simulated in {counted(len(emulated) - without, 'cell')}: its accuracy and range are those of "
            "float16 with sums in float32; its speed isn't measured"
        )
    if without:
        told.append(
            f"{NOT_SIMULATED} in {counted(without, 'cell')}: its accuracy is float32's, judged with what overflows; "
            "its speed isn't measured"
        )
    return "; ".join(told)


def where(record: PlacementRecord) -> str:
    """``Nodes by provider: …; share …``: all that is known about where a cell ran, in one line."""
    nodes = ", ".join(f"{number:,} on {name}" for name, number in record.nodes.items())
    parts = [f"Nodes: {nodes or 'none'}", f"share of the provider asked for: {record.share:.0%}"]
    if record.time_share is not None:
        parts[-1] += f", of the time: {record.time_share:.0%}"
    if record.memcpy:
        parts.append(f"copies between memories: {record.memcpy:,}")
    if record.inserted_casts:
        parts.append(f"Casts inserted: {record.inserted_casts:,}")
    if record.arithmetic:
        parts.append("arithmetic: " + ", ".join(f"{number:,} in {kind}" for kind, number in record.arithmetic.items()))
    return "; ".join(parts)


def worst_output(cell: CellResult) -> tuple[str, OutputAccuracy] | None:
    """The output that is furthest from its tolerance, with its name; None when nothing was compared."""
    if cell.accuracy is None or not cell.accuracy.outputs:
        return None
    return max(cell.accuracy.outputs.items(), key=lambda item: _badness(item[1]))


def tolerance_share(cell: CellResult) -> float | None:
    """Return the worst output's smallest passing tolerance over the one used; above 1 it fails.

    None where nothing was compared, where no tolerance would pass, and where the tolerance used is 0.
    """
    worst = worst_output(cell)
    if worst is None:
        return None
    output = worst[1]
    if output.nonfinite or output.minimum_tolerance is None:
        return None
    if output.minimum_tolerance == 0:
        return 0.0
    return output.minimum_tolerance / output.rtol if output.rtol else None


def departure(cell: CellResult) -> str:
    """``exact``, ``noise`` or ``change``, of the output that departs most; empty where that wasn't measured."""
    found = {output.departure for output in cell.accuracy.outputs.values()} if cell.accuracy else set()
    if not found or None in found:
        return ""
    return next(word for word in reversed(Departure) if word in found)


def _badness(output: OutputAccuracy) -> tuple[float, float, float]:
    needed = output.minimum_tolerance
    if needed is None:
        return (output.nonfinite, float("inf"), output.max_abs or 0.0)
    return (output.nonfinite, needed / output.rtol if output.rtol else needed, needed)


def worst_error(cell: CellResult) -> str:
    """``1.1e-06 of 1.0e-04``: the smallest tolerance that would pass, and the one used, of the worst output."""
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
    """Remarks on verdicts that stand, each once, with the number of cells that it is about."""
    counts: Counter[str] = Counter()
    for cell in block.cells:
        said = list(cell.notes)
        for name, output in (cell.accuracy.outputs if cell.accuracy else {}).items():
            if output.vacuous and not any(output.vacuous in note for note in said):
                said.append(f"{name}: {output.vacuous}")
        counts.update(list(dict.fromkeys(said)))
    total = len(block.cells)
    return [note if number == total else f"{note} ({number} of {total} cells)" for note, number in counts.items()]


def explanation(cell: CellResult) -> tuple[str, ...]:
    """Everything said about a cell, nothing twice: its reason, then the detail line by line.

    The detail begins with the worst failure, which is what the reason tells of.
    """
    lines = tuple(line for text in cell.detail for line in text.split("\n"))
    if not cell.reason or (lines and cell.reason in lines[0]):
        return lines
    return (cell.reason, *(lines[1:] if lines and f"output {lines[0]}" in cell.reason else lines))
