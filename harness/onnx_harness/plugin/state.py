"""The plugin's state of a session: settings, runner and verdicts, under typed keys."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnx_harness.errors import UsageError
from onnx_harness.names import is_model_file
from onnx_harness.settings import Settings
from onnx_harness.settings.project import combine

if TYPE_CHECKING:
    from onnx_harness.cards import backend_suite
    from onnx_harness.cards.card import Card
    from onnx_harness.names import Variant
    from onnx_harness.results.cells import CellResult
    from onnx_harness.results.recorder import Entry
    from onnx_harness.run.runner import Runner
    from onnx_harness.run.sharding import Shard

SETTINGS = pytest.StashKey[Settings]()
SELECTIONS = pytest.StashKey[Sequence["backend_suite.Selection"]]()
VARIANTS = pytest.StashKey[tuple["Variant", ...]]()
RUNNER = pytest.StashKey["Runner"]()
OWN_RESULTS = pytest.StashKey[list["CellResult"]]()
RESULT = pytest.StashKey["CellResult"]()
ENTRY: pytest.StashKey[Entry] = pytest.StashKey()
SHARD: pytest.StashKey[Shard] = pytest.StashKey()
MODULES = pytest.StashKey[dict[Path, Path]]()
"""By a model's card (or the model itself): the file that its module is made of."""


def settle(
    config: pytest.Config, project: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Keep the settings and variants of the run.

    Raises:
        UsageError: a value is out of its range, or there is no such provider or variant.
    """
    from onnx_harness.cell import matrix

    settings = combine(project, options)
    settings = replace(settings, provider=matrix.check_providers(settings.provider))
    if settings.resume and settings.report_dir is None:
        raise UsageError(
            "--resume takes verdicts from the report folder: name it with --report-dir"
        )
    if settings.resume and settings.gate_reference is not None:
        raise UsageError(
            "--resume and --gate-reference exclude each other: a night is measured as a whole"
        )
    if settings.cluster and settings.gate_reference is not None:
        raise UsageError(
            "--cluster and --gate-reference exclude each other: a night is measured on one machine"
        )
    config.stash[SETTINGS] = settings
    config.stash[VARIANTS] = matrix.expand_variants(settings.variant, settings.variants)


def settings_of(config: pytest.Config) -> Settings:
    """Return the settings of the run.

    Nothing is settled before it's needed where nothing was said.
    """
    if SETTINGS not in config.stash:
        settle(config, {}, {})
    return config.stash[SETTINGS]


def runner_of(config: pytest.Config) -> Runner:
    """Return the runner of the session; it's made when it is first asked for."""
    if RUNNER not in config.stash:
        # Numpy and the rest of the rooms: not for a mere collection.
        from onnx_harness.run.runner import Runner

        folders = [*arguments(config), *map(Path, config.getini("onnx_model_paths"))]
        readable = [path for path in folders if path.exists()]
        config.stash[RUNNER] = Runner(settings_of(config), readable=readable)
    return config.stash[RUNNER]


def dest(name: str) -> str:
    """Return what pytest calls the value of an option."""
    return f"onnx_{key(name)}"


def key(name: str) -> str:
    """Return an option's key in pyproject.toml."""
    return name.replace("-", "_")


def attach(report: pytest.TestReport, card: Card, line: str, entry: Entry) -> None:
    """Put a cell's verdict on the report of its test, as plain values that xdist can send.

    Args:
        report: of the phase ``call``.
        card: of the cell.
        line: its verdict, by `codec.line_of`.
        entry: what the file of the verdict is called by.
    """
    vars(report).update(
        onnx_result=line,
        onnx_license=card.license,
        onnx_suite=card.suite,
        onnx_entry=asdict(entry),
    )


def arguments(config: pytest.Config) -> list[Path]:
    """The paths on the command line, as pytest makes them absolute.

    Links stay what they were called.
    """
    paths: list[Path] = []
    for argument in config.args:
        path = config.invocation_params.dir / argument.split("::")[0]
        paths.append(Path(os.path.abspath(path)))  # noqa: PTH100
    return paths


def named_folders(config: pytest.Config) -> list[Path]:
    """Return the folders on the command line whose models are meant.

    A provider or a variant was asked for.

    Where ``onnx_model_paths`` has a say about a folder, that decides.
    """
    if config.args_source is not pytest.Config.ArgsSource.ARGS or not asked_for_cells(
        config
    ):
        return []
    listed = config.getini("onnx_model_paths")
    named = [path for path in arguments(config) if path.is_dir()]
    paths: list[Path] = []
    for path in named:
        if not any(folder.is_relative_to(path) for folder in listed):
            paths.append(path)
    return paths


def is_written_by_a_run(folder: Path, config: pytest.Config) -> bool:
    """Return whether a folder holds the models of an earlier run's failing cells, and isn't named.

    Nor does anything in its report folder stand on the command line.
    """
    from onnx_harness.names import REPRO_FOLDER

    if folder.name != REPRO_FOLDER:
        return False
    verdicts, results = folder.with_name("verdicts"), folder.with_name("results.json")
    if not verdicts.is_dir() and not results.is_file():
        return False
    return not any(path.is_relative_to(folder.parent) for path in arguments(config))


def folder_hint(config: pytest.Config) -> str:
    """Return what to do about models in folders that were named, and that weren't collected.

    Empty without any.
    """
    from onnx_harness.cell import matrix
    from onnx_harness.report.figures import counted

    folders = [path for path in arguments(config) if path.is_dir()]
    models_by_folder = {folder: matrix.models_below(folder) for folder in folders}
    said = []
    for folder, models in models_by_folder.items():
        if models:
            count, further = counted(len(models), "model"), " …" if len(models) > 1 else ""
            first = os.path.relpath(models[0])
            said.append(f"{count} in {os.path.relpath(folder)} ({first}{further})")
    if not said:
        return ""
    return (
        f"{'; '.join(said)}: not collected. Name them, add --provider or --variant to have a "
        f"folder's models "
        "collected, or set onnx_model_paths in pytest's configuration."
    )


def asked_for_cells(config: pytest.Config) -> bool:
    """Return whether the command line itself names a provider or a variant."""
    return any(
        config.getoption(dest(name)) for name in ("provider", "variant", "backend-suite")
    )


def only_models(config: pytest.Config) -> bool:
    """Decide whether the command line names nothing but models.

    Folders of them and the suite of ONNX's operators count as models.
    """
    folders = config.getini("onnx_model_paths")
    paths = arguments(config)
    return bool(paths or config.stash[SELECTIONS]) and all(
        is_model_file(path) or any(path.is_relative_to(folder) for folder in folders)
        for path in paths
    )


def most_cells(config: pytest.Config) -> int | None:
    """Return how many cells a run can have at most; None where collection has to say it."""
    paths = arguments(config)
    if config.stash[SELECTIONS] or not all(map(is_model_file, paths)):
        return None
    return len(paths) * len(settings_of(config).provider) * len(config.stash[VARIANTS])
