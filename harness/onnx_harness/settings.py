"""What a run was asked to do: ``[tool.onnx-harness]`` in pyproject.toml, overridden by the command line."""

from __future__ import annotations

import argparse
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.isolate import Limits, default_memory_bytes
from onnx_harness.names import check_name

TABLE = "tool.onnx-harness"

_SIZE = re.compile(r"([0-9.]+)\s*([kMGT]?)(i?)B?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that shapes a run's verdicts.

    Attributes:
        provider: names of execution providers.
        variant: variants and groups of them, as written.
        variants: the project's own named variants, name to chain.
        input_sets: how many sets of inputs a model is judged on; recorded ones come on top.
        seed: of the generated inputs and of the order of timed runs.
        report_dir: where results go; None writes nothing.
        rtol: relative tolerance that overrides every other; None leaves the choice to provider, dtype and card.
        atol: absolute tolerance; both or neither.
        min_placement: share of nodes that the provider must own, in [0, 1]; None asks the provider.
        cell_timeout: seconds of wall-clock time for the way of one cell.
        cell_memory: bytes of resident memory for it.
        latency_budget: seconds of timed running for one cell.
        gate_reference: folder of the virtual environment with the last accepted versions; None compares with none.
        sensitivity: whether faults are planted in each cell that passes, to see what its verdict catches.
    """

    provider: tuple[str, ...] = ("cpu",)
    variant: tuple[str, ...] = ("default",)
    variants: Mapping[str, str] = field(default_factory=dict)
    input_sets: int = 4
    seed: int = 0
    report_dir: Path | None = None
    rtol: float | None = None
    atol: float | None = None
    min_placement: float | None = None
    cell_timeout: float = 300.0
    cell_memory: int = field(default_factory=default_memory_bytes)
    latency_budget: float = 1.5
    gate_reference: Path | None = None
    sensitivity: bool = False

    @property
    def limits(self) -> Limits:
        """The limits of the worker process."""
        return Limits(self.cell_timeout, self.cell_memory)

    @property
    def tolerance_override(self) -> tuple[float, float] | None:
        """(rtol, atol) when the command line sets them."""
        return None if self.rtol is None or self.atol is None else (self.rtol, self.atol)


def read_project(folder: Path) -> dict[str, Any]:
    """The table ``[tool.onnx-harness]`` of ``folder/pyproject.toml``, checked; empty when there is none.

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
            raise UsageError(f"[{TABLE}] of {file} should be a table, but '{part}' is {table!r}")
    values = {key: _value(key, value) for key, value in table.items()}
    for key in ("report_dir", "gate_reference"):
        if key in values:
            values[key] = folder / str(values[key])
    return values


def nearest_settings(overrides: Mapping[str, Any]) -> Settings:
    """The settings of the nearest pyproject.toml, from the working directory upwards, with ``overrides``.

    Raises:
        UsageError: a value is out of its range, or pyproject.toml is malformed.
    """
    here = Path.cwd()
    folder = next((parent for parent in (here, *here.parents) if (parent / "pyproject.toml").is_file()), here)
    return combine(read_project(folder), overrides)


def byte_count(word: str) -> int:
    """``4G``, ``500MiB``, ``1000000``: what an option or a key takes as a size.

    Raises:
        argparse.ArgumentTypeError: it's none.
    """
    match = _SIZE.fullmatch(word.strip())
    try:
        number = float(match[1]) if match else -1.0
    except ValueError:
        number = -1.0
    if match is None or number <= 0:
        raise argparse.ArgumentTypeError(f"{word!r} isn't a size; write 500M, 4G or a number of bytes")
    base = 1024 if match[3] else 1000
    return int(number * base ** " kmgt".index(match[2].lower() or " "))


def combine(project: Mapping[str, Any], command: Mapping[str, Any]) -> Settings:
    """Settings from the project's table and, where it says something (not None, not empty), the command line.

    Raises:
        UsageError: a value is out of its range, or one tolerance comes without the other.
    """
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in command.items()
        if value not in (None, [], ())
    }
    for source, where in ((project, f", in [{TABLE}] too"), (given, "")):
        if ("rtol" in source) != ("atol" in source):  # half of one pair and half of another is a pair nobody chose
            raise UsageError(
                f"--rtol and --atol go together{where}: give both, or neither and let provider, dtype and card choose"
            )
    settings = replace(Settings(), **{**project, **given})
    for key, value, holds, range_ in (
        ("rtol", settings.rtol, 0 <= (settings.rtol or 0) < math.inf, "0 or more, and finite"),
        ("atol", settings.atol, 0 <= (settings.atol or 0) < math.inf, "0 or more, and finite"),
        ("min_placement", settings.min_placement, 0 <= (settings.min_placement or 0) <= 1, "between 0 and 1"),
        ("input_sets", settings.input_sets, settings.input_sets >= 1, "1 or more"),
        ("seed", settings.seed, settings.seed >= 0, "0 or more"),
        ("cell_timeout", settings.cell_timeout, settings.cell_timeout > 0, "more than 0 seconds"),
        ("cell_memory", settings.cell_memory, settings.cell_memory > 0, "more than 0 bytes"),
        ("latency_budget", settings.latency_budget, 0 < settings.latency_budget < math.inf, "more than 0 seconds"),
    ):
        if not holds:
            raise UsageError(f"{key} is {value}; it has to be {range_}")
    return settings


def _value(key: str, value: object) -> object:
    """Check one value of the table by the type of its default."""
    known = {field.name for field in fields(Settings)}
    if key not in known:
        raise UsageError(f"[{TABLE}] has no key '{key}'. {did_you_mean(key, known)}")
    match key:
        case "variants":
            if isinstance(value, dict) and all(isinstance(chain, str) for chain in value.values()):
                return {check_name(name, f"in [{TABLE}.variants]: variant"): chain for name, chain in value.items()}
            wanted = 'a table of name = "chain"'
        case "provider" | "variant":
            if isinstance(value, str):
                return (value,)
            if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
                return tuple(value)
            wanted = "a string or a list of strings"
        case "report_dir" | "gate_reference":
            if isinstance(value, str):
                return Path(value)
            wanted = "a string"
        case "sensitivity":
            if isinstance(value, bool):
                return value
            wanted = "true or false"
        case "cell_memory" if isinstance(value, str):
            try:
                return byte_count(value)
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"[{TABLE}] {key}: {error}") from None
        case "input_sets" | "seed" | "cell_memory":
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            wanted = "a whole number"
        case _:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            wanted = "a number"
    raise UsageError(f"[{TABLE}] {key} = {value!r}: it takes {wanted}")
