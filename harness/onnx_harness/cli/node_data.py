"""Writing the figures of a cell's nodes from the command line, in a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from onnx_harness import providers
from onnx_harness.cell.matrix import Cell
from onnx_harness.cli.common import named_death, shown_progress, started_worker
from onnx_harness.cli.show import console, error_console, labelled, text
from onnx_harness.diagnose.repro import FOLDER, MODEL, TRANSFORMED
from onnx_harness.settings import Settings
from onnx_harness.settings.project import nearest_settings

NODE_DATA = "node_data"
"""The folder of what Model Explorer shows on a cell's nodes."""


def kept_models(reports: Path, cell_id: str) -> tuple[Path, Path] | None:
    """Return the original and the candidate that a run has kept of a failing cell, if it has."""
    folder = reports / FOLDER / cell_id
    files = folder / MODEL, folder / TRANSFORMED
    return files if all(file.is_file() for file in files) else None


def write_of_kept(cell_id: str, original: Path, candidate: Path) -> Path:
    """Write the figures of a failing cell's nodes next to its models, and return their folder.

    Raises:
        HarnessError: there are no figures, or the worker died.
    """
    from onnx_harness.diagnose.node_data import write_node_data

    folder = original.parent / NODE_DATA
    provider = cell_id.rpartition("-")[2]

    def work(settings: Settings) -> tuple[Callable[..., list[str]], tuple[object, ...]]:
        return write_node_data, (original, candidate, folder, provider, settings)

    return _written(cell_id, provider, folder, (original, candidate), work)


def write_of_variant(cell: Cell, original: Path, reports: Path) -> Path:
    """Make a cell's candidate, write the figures of its nodes, and return their folder.

    Raises:
        HarnessError: there are no figures, a step failed, or the worker died.
    """
    from onnx_harness.diagnose.node_data import write_variant_data

    folder = reports / NODE_DATA / cell.id

    def work(settings: Settings) -> tuple[Callable[..., list[str]], tuple[object, ...]]:
        return write_variant_data, (cell, original, folder, settings)

    return _written(cell.id, cell.provider, folder, (original, cell.card.path), work)


def _written(
    cell_id: str,
    provider: str,
    folder: Path,
    readable: Sequence[Path],
    work: Callable[[Settings], tuple[Callable[..., list[str]], tuple[object, ...]]],
) -> Path:
    """Have a worker write the figures, and say where they are and what is missing."""
    settings = nearest_settings({})
    environment = providers.get(provider).environment
    folder.mkdir(parents=True, exist_ok=True)
    function, arguments = work(settings)
    with (
        started_worker(
            settings, environment, readable=readable, writable=(folder,)
        ) as worker,
        named_death(f"{cell_id}: figures of its nodes"),
        shown_progress(worker),
    ):
        remarks = worker.call(function, *arguments)
    for remark in remarks:
        error_console().print(labelled("note: ", "yellow", remark), soft_wrap=True)
    console().print(text(f"the figures of its nodes are in {folder}"), soft_wrap=True)
    return folder
