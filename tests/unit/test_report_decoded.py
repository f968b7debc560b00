"""Greedy decoding is told on the terminal, in the summary and on the page."""

from __future__ import annotations

import base64
import gzip
import json
import re

from onnx_harness.report.decoded import facts, generation
from onnx_harness.report.html import page
from onnx_harness.report.summary import page as summary
from onnx_harness.report.table import lines
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.generation import GenerationRecord
from tests.unit.results_examples import RUN, cell

SAME = GenerationRecord(16, 1.0, None, None, None, 0.05, "static", 1.2, 0.9)
OTHER = GenerationRecord(16, 15 / 16, 9, 0.012, 0.031, 0.05, "growing", 2.4, None)
CELLS = [
    cell("original", generation=SAME),
    cell("fp16", generation=OTHER, status=Status.FAIL),
    cell("simplify"),
]


def rows(cells: list[CellResult], width: int = 160) -> list[str]:
    return [line.text for line in lines(RUN, cells, width=width, models={})]


def test_a_cell_that_decodes_says_how() -> None:
    assert generation(CELLS[2]) == ""
    assert generation(CELLS[0]) == (
        "16 of 16 tokens agree; 1.20 ms to the first token, 0.900 ms for a further one"
    )
    assert generation(CELLS[1]) == (
        "15 of 16 tokens agree, another one at step 9 (margin 0.012); "
        "2.40 ms to the first token"
    )


def test_the_terminal_says_it_below_the_cell() -> None:
    written = rows(CELLS)
    original = next(place for place, row in enumerate(written) if "original" in row)
    assert written[original + 1] == f"    decoding: {generation(CELLS[0])}"
    assert sum("decoding:" in row for row in written) == 2
    assert not any("decoding" in row for row in rows(CELLS[2:]))


def test_the_summary_has_a_table_of_it() -> None:
    written = summary(RUN, CELLS, {})
    assert "Greedy decoding" in written
    assert "| net-original-cpu | 16 of 16 | none |  | 1.20 ms | 0.900 ms |" in written
    assert "| net-fp16-cpu | 15 of 16 | step 9 | 0.012 | 2.40 ms |  |" in written
    assert "Greedy decoding" not in summary(RUN, CELLS[2:], {})


def test_the_page_has_the_figures_of_each_cell() -> None:
    packed = re.search(r'id="data"[^>]*>([A-Za-z0-9+/=]+)<', page(RUN, CELLS, {}))
    assert packed is not None
    data = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    decoded = {each["variant"]: each["decoded"] for each in data["cells"]}
    assert decoded == {"original": facts(SAME), "fp16": facts(OTHER), "simplify": None}
    assert decoded["fp16"]["time to the first token"] == "2.40 ms"
