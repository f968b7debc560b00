"""The parts of a run, as folders that are merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx_harness.cli.show import error_console, labelled
from onnx_harness.results import store
from onnx_harness.results.shard_plan import read_plan
from onnx_harness.results.verdicts import VerdictFiles


def parts_that_began(names: Sequence[str]) -> list[str]:
    """Return the runs that can be merged, and say which parts are left out.

    Those that ended before their first result are. Where all did, nothing is left out: there is
    no merger, and reading them says why.
    """
    begun = [name for name in names if not _never_began(Path(name))]
    if not begun:
        return list(names)
    for name in names:
        if name not in begun:
            words = f"{name} has a shard's plan and no results: that part is left out"
            error_console().print(labelled("note: ", "yellow", words), soft_wrap=True)
    return begun


def _never_began(folder: Path) -> bool:
    if read_plan(folder) is None or (folder / store.FILE_NAME).exists():
        return False
    return not VerdictFiles(folder).runs()
