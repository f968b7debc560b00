"""The parts of a run, as folders that are merged."""

from __future__ import annotations

from pathlib import Path

from onnx_harness.cli.show import error_console, labelled
from onnx_harness.results import store
from onnx_harness.results.shard_plan import read_plan
from onnx_harness.results.verdicts import VerdictFiles


def never_began(folder: Path) -> bool:
    """Return whether a part of a run ended before its first result: the merger lacks it."""
    if (
        read_plan(folder) is None
        or (folder / store.FILE_NAME).exists()
        or VerdictFiles(folder).runs()
    ):
        return False
    words = f"{folder} has a shard's plan and no results: that part is left out"
    error_console().print(labelled("note: ", "yellow", words), soft_wrap=True)
    return True
