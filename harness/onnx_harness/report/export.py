"""The cells of a run as CSV and as Parquet, a row each."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_harness.errors import UsageError
from onnx_harness.report import figures
from onnx_harness.report.escape import printable
from onnx_harness.results.cells import CellResult

_TEXTS = (
    *("id", "model", "variant", "provider", "status", "stage", "reason"),
    *("precision", "worst_output", "departure"),
)
_COUNTS = ("nodes_before", "nodes_after", "bytes_before", "bytes_after", "pairs")
_FLAGS = ("faithful", "usable")
_NUMBERS = (
    *("placement_share", "minimum_tolerance", "rtol", "atol", "rel_l2", "sqnr_db"),
    *("median_ms", "baseline_median_ms", "p90_ms", "p99_ms"),
    *("speedup", "speedup_low", "speedup_high", "sensitivity"),
)
COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(_TEXTS, "string"),
    **dict.fromkeys(_COUNTS, "int64"),
    **dict.fromkeys(_FLAGS, "bool"),
    **dict.fromkeys(_NUMBERS, "double"),
}
"""The columns of a Parquet file with their types, as pyarrow calls them.

They're the same in each file, so that those of many nights make one table.
"""

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


def parquet_library() -> tuple[Any, Any]:
    """Return pyarrow and its part for Parquet.

    Raises:
        UsageError: it isn't installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            "--parquet needs pyarrow, which isn't installed here. "
            "Mend: pip install 'onnx-harness[parquet]', or use --csv"
        ) from error


def write_parquet(cells: Sequence[CellResult], path: Path) -> None:
    """Write the cells as a Parquet file: the columns of the CSV.

    Raises:
        UsageError: pyarrow isn't installed.
        OSError: the file can't be written.
    """
    arrow, parquet = parquet_library()
    table = rows(cells)
    columns = {}
    for name, kind in COLUMNS.items():
        values = [_plain(row[name]) for row in table]
        columns[name] = arrow.array(values, type=arrow.type_for_alias(kind))
    parquet.write_table(arrow.table(columns), str(path))


def _plain(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


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
