"""The cells of a run as CSV, a row each."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from onnx_harness.report import figures
from onnx_harness.report.escape import printable
from onnx_harness.results.cells import CellResult

_FORMULA = ("=", "+", "-", "@")
"""The characters that a spreadsheet takes for the beginning of a formula."""


def rows(cells: Sequence[CellResult]) -> list[dict[str, object]]:
    """Return a row of figures for each cell; None for a figure that doesn't exist."""
    return [_row(cell) for cell in cells]


def as_csv(cells: Sequence[CellResult]) -> str:
    """Return the cells as CSV with a head, RFC 4180. Texts are printable, and none is a formula."""
    written = io.StringIO()
    table = rows(cells)
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(table[0] if table else ["id"])
    for row in table:
        writer.writerow(
            [_text(value) if isinstance(value, str) else value for value in row.values()]
        )
    return written.getvalue()


def _text(value: str) -> str:
    """Disarm a text: OWASP's CSV injection page asks for the apostrophe."""
    value = printable(value)
    return f"'{value}" if value.startswith(_FORMULA) else value


def _row(cell: CellResult) -> dict[str, object]:
    graph, placement, latency = cell.graph, cell.placement, cell.latency
    name, output = figures.worst_output(cell) or ("", None)
    low, high = (latency.speedup_ci95 if latency else None) or (None, None)
    return {
        "id": cell.id,
        "model": cell.model,
        "variant": cell.variant,
        "provider": cell.provider,
        "status": str(cell.status),
        "stage": str(cell.stage),
        "reason": cell.reason or "",
        "nodes_before": graph and graph.nodes_before,
        "nodes_after": graph and graph.nodes_after,
        "bytes_before": graph and graph.bytes_before,
        "bytes_after": graph and graph.bytes_after,
        "placement_share": placement and placement.share,
        "precision": figures.precision(cell),
        "worst_output": name,
        "minimum_tolerance": output and output.minimum_tolerance,
        "rtol": output and output.rtol,
        "atol": output and output.atol,
        "rel_l2": output and output.rel_l2,
        "sqnr_db": output and output.sqnr_db,
        "departure": figures.departure(cell),
        "faithful": output and output.faithful,
        "usable": output and output.usable,
        "median_ms": latency and latency.median_ms,
        "baseline_median_ms": latency and latency.baseline_median_ms,
        "p90_ms": latency and latency.p90_ms,
        "p99_ms": latency and latency.p99_ms,
        "speedup": latency and latency.speedup,
        "speedup_low": low,
        "speedup_high": high,
        "pairs": latency and latency.pairs,
        "sensitivity": cell.sensitivity and cell.sensitivity.score,
    }
