"""Say in how many cells a half type was simulated."""

from __future__ import annotations

from collections.abc import Iterable

from onnx_harness.providers.profile import EMULATED
from onnx_harness.report.figures import counted
from onnx_harness.results.cells import BF16_SIMULATED, NOT_SIMULATED, CellResult


def emulation(cells: Iterable[CellResult]) -> str:
    """Return ``float16 was simulated in 38 cells …``; empty where float32 computed no such type."""
    cells = list(cells)
    emulated = []
    for cell in cells:
        if cell.placement and cell.placement.precision in EMULATED:
            emulated.append(cell)
    without = sum(map(_is_not_simulated, emulated))
    parts = []
    if len(emulated) > without:
        simulated = counted(len(emulated) - without, "cell")
        parts.append(
            f"float16 was simulated in {simulated}: its accuracy and range are those of float16 "
            "with sums in float32; its speed isn't measured"
        )
    if without:
        parts.append(
            f"{NOT_SIMULATED} in {counted(without, 'cell')}: its accuracy is float32's, judged "
            "with what overflows; its speed isn't measured"
        )
    wide = sum(any(note.startswith(BF16_SIMULATED) for note in cell.notes) for cell in cells)
    if wide:
        parts.append(
            f"bfloat16 was simulated in {counted(wide, 'cell')}: its accuracy is that of bfloat16 "
            "with sums in float32; its speed isn't measured"
        )
    return "; ".join(parts)


def _is_not_simulated(cell: CellResult) -> bool:
    return any(note.startswith(NOT_SIMULATED) for note in cell.notes)
