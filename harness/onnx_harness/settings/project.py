"""The settings of a project's pyproject.toml, and the command line that overrides them."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.settings import OPTIONS, Settings
from onnx_harness.settings.kinds import TABLE


def read_project(folder: Path) -> dict[str, Any]:
    """The table ``[tool.onnx-harness]`` of ``folder/pyproject.toml``, checked.

    Empty when there is none.

    Raises:
        UsageError: a key is unknown, or a value isn't what the key takes.
    """
    file = folder / "pyproject.toml"
    if not file.is_file():
        return {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}") from error
    for part in TABLE.split("."):
        table = table.get(part, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"[{TABLE}] of {file} should be a table, but '{part}' is {table!r}"
            )
    values = {key: _value(key, value) for key, value in table.items()}
    for key in ("report_dir", "gate_reference", "sarif"):
        if key in values:
            values[key] = folder / str(values[key])
    for key in ("custom_ops", "allow_read"):
        if key in values:
            paths: Any = values[key]
            values[key] = tuple(folder / path for path in paths)
    return values


def nearest_settings(overrides: Mapping[str, Any]) -> Settings:
    """Return the settings of the nearest pyproject.toml, with ``overrides``.

    It's searched for from the working directory upwards.

    Raises:
        UsageError: a value is out of its range, or pyproject.toml is malformed.
    """
    here = Path.cwd()
    projects = (
        path for path in (here, *here.parents) if (path / "pyproject.toml").is_file()
    )
    folder = next(projects, here)
    return combine(read_project(folder), overrides)


def combine(project: Mapping[str, Any], command: Mapping[str, Any]) -> Settings:
    """Combine the project's table and the command line.

    The latter counts where it says something (not None, not empty).

    Raises:
        UsageError: a value is out of its range, or one tolerance comes without the other.
    """
    command_line = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in command.items()
        if value not in (None, [], ())
    }
    for source, where in ((project, f", in [{TABLE}] too"), (command_line, "")):
        # Half of one pair and half of another is a pair nobody chose.
        if ("rtol" in source) != ("atol" in source):
            raise UsageError(
                f"--rtol and --atol go together{where}: give both, or neither and let provider, "
                f"dtype and card choose"
            )
    settings = replace(Settings(), **{**project, **command_line})
    for option in OPTIONS.values():
        value = getattr(settings, option.key)
        if value is not None and not option.holds(value):
            raise UsageError(f"{option.key} is {value}; it has to be {option.range}")
    return settings


def _value(key: str, value: object) -> object:
    """Read one value of the table."""
    option = OPTIONS.get(key)
    if option is None:
        raise UsageError(f"[{TABLE}] has no key '{key}'. {did_you_mean(key, OPTIONS)}")
    try:
        return option.kind.read(value)
    except TypeError:
        raise UsageError(
            f"[{TABLE}] {key} = {value!r}: it takes {option.kind.words}"
        ) from None
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"[{TABLE}] {key}: {error}") from None
