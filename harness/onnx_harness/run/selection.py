"""The selection of a run's cells, in words that two runs can be compared by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from onnx_harness.settings import Settings

_CHOOSING = (
    "keyword",
    "markexpr",
    "deselect",
    "ignore",
    "ignore_glob",
    "lf",
    "onnx_backend_suite",
)
"""Options that leave tests out, by their names in pytest's configuration."""


def selection(config: pytest.Config, settings: Settings) -> tuple[str, ...]:
    """Return the words that chose the cells: paths from the root, providers, variants, options.

    What changes no cell's presence (seed, report folder, verbosity) isn't among them.

    Args:
        config: of the run.
        settings: of the run, as they were asked for: groups of variants by their names.
    """
    words = sorted(_from_root(config, argument) for argument in config.args)
    words += [f"--provider {name}" for name in sorted(settings.provider)]
    words += [f"--variant {name}" for name in sorted(settings.variant)]
    for option in _CHOOSING:
        value = config.getoption(option, None)
        if value:
            words.append(f"{option}={_in_words(value)}")
    return tuple(words)


def planned_cells(tests: Sequence[pytest.Item]) -> int:
    """Return how many cells the tests judge."""
    return len({test.callspec.params["onnx_cell"].id for test in tests})  # type: ignore[attr-defined]


def from_here(item: pytest.Item) -> str:
    """Return a test as a command line names it in the folder where pytest was begun.

    Its node id begins at the root of the tests.
    """
    path, separator, test = str(item.nodeid).partition("::")
    here = item.config.invocation_params.dir
    return os.path.relpath(item.config.rootpath / path, here) + separator + test


def _from_root(config: pytest.Config, argument: str) -> str:
    path, separator, test = argument.partition("::")
    full = Path(os.path.abspath(config.invocation_params.dir / path))  # noqa: PTH100
    return os.path.relpath(full, config.rootpath) + separator + test


def _in_words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)
