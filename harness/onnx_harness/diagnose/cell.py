"""The diagnosis of a cell that a run judged."""

from __future__ import annotations

from onnx_harness.cell.matrix import Cell
from onnx_harness.diagnose.repro import FOLDER
from onnx_harness.diagnose.search import diagnose
from onnx_harness.errors import words_of
from onnx_harness.results.cells import CellResult
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.run.runner import Runner


def diagnose_cell(runner: Runner, cell: Cell, result: CellResult) -> Diagnosis:
    """Search for the cause of a failure within the run's budget.

    The smallest model that shows it is kept.

    The verdict stands without it: no error of the search is raised.

    Raises:
        SearchInterrupted: by Ctrl-C; it has what is known so far.
    """
    try:
        task = runner.task(cell)
        seconds = runner.settings.diagnose_budget
        reports = runner.settings.report_dir
        folder = None if reports is None else reports / FOLDER / cell.id
        return diagnose(
            task, seconds=seconds, known_failure=result.reason or "", folder=folder
        )
    except Exception as error:  # whatever a search meets, it says nothing about the cell
        return Diagnosis(
            f"No cause was found: the search itself failed ({words_of(error)})."
        )
