"""The figures of a cell as properties of its test in JUnit XML."""

from __future__ import annotations

from onnx_harness.report import figures
from onnx_harness.results.cells import CellResult


def properties(cell: CellResult) -> list[tuple[str, str]]:
    """Return names and values; what wasn't measured is left out.

    ``error`` is the smallest relative tolerance by which the worst output would pass, ``tolerance``
    the one it was judged by; ``speedup`` is against the untouched model, ``interval`` its 95%
    interval; ``placement`` is the share of nodes on the provider asked for.
    """
    pairs: list[tuple[str, str]] = []
    worst = figures.worst_output(cell)
    if worst is not None:
        _, output = worst
        error = output.minimum_tolerance
        pairs.append(("error", "none would pass" if error is None else f"{error:.6g}"))
        pairs.append(("tolerance", f"{output.rtol:.6g}"))
    if cell.latency is not None:
        pairs.append(("speedup", f"{cell.latency.speedup:.6g}"))
        if cell.latency.speedup_ci95 is not None:
            low, high = cell.latency.speedup_ci95
            pairs.append(("interval", f"[{low:.6g}, {high:.6g}]"))
    if cell.placement is not None:
        pairs.append(("placement", f"{cell.placement.share:.6g}"))
    return pairs
