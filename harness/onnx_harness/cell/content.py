"""The content key of a cell: a hash of everything that its verdict depends on.

Two cells of one key have one verdict, whichever run, shard or machine judged it. So a verdict is
kept under its key, and a later run needn't find it out again. Nothing here parses a model with
native code or opens a session.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from onnx_harness import providers, transforms
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import ModelError
from onnx_harness.judging.reference import recorded_files
from onnx_harness.model.custom_ops import libraries_digest
from onnx_harness.model.scan import scan
from onnx_harness.model.scanned import Scan
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.run import HostInfo, this_host, versions
from onnx_harness.settings import Settings

# What names, places or speeds up a run, and decides no verdict.
_NOT_DECIDING = frozenset(
    {
        "provider",
        "variant",
        "variants",
        "report_dir",
        "jobs",
        "shard",
        "shard_times",
        "resume",
        "cluster",
        "latency_budget",
        "gate_reference",
    }
    | {"custom_ops", "sarif", "worst_first"}
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine's part in a verdict or a latency, beyond the content of its cell.

    Attributes:
        source: hash of this package's code.
        versions: of what is installed, as in `onnx_harness.results.run.versions`.
        host: the machine.
        fingerprint: hash of all that; times of two fingerprints are never compared.
    """

    source: str
    versions: dict[str, str]
    host: HostInfo
    fingerprint: str


@functools.cache
def this_machine() -> Machine:
    """Return the machine of this process."""
    return machine_of(this_host())


def machine_of(host: HostInfo) -> Machine:
    """Return a machine with what is installed in this process, and its fingerprint."""
    source, installed = source_digest(), versions()
    return Machine(source, installed, host, Cache.key(source, installed, asdict(host)))


def content_key(
    cell: Cell,
    model: Path,
    settings: Settings,
    machine: Machine | None = None,
    digest: str | None = None,
) -> str:
    """The key of a cell's verdict on accuracy: SHA-256, in hexadecimal.

    It covers the model with its external data, the custom operators, the recorded inputs, the card,
    the variant with the source of its transforms, the provider, the settings that decide verdicts,
    the versions of what is installed, this package's own source and the processor.

    Args:
        cell: to be judged.
        model: its ``.onnx`` on this machine.
        settings: of the run.
        machine: that judges it; None: this one.
        digest: of the model, where :func:`model_digest` was asked before.

    Raises:
        OSError: the model or a recorded input set can't be read.
    """
    judging = machine or this_machine()
    return Cache.key(
        digest or model_digest(cell, model),
        [[step.name, dict(step.options)] for step in cell.variant.steps],
        _of_parts(tuple(step.name for step in cell.variant.steps), cell.provider),
        cell.id,
        *_of_libraries((*cell.card.custom_ops, *settings.custom_ops)),
        _of_run(settings, judging),
    )


def timing_key(settings: Settings, machine: Machine | None = None) -> str:
    """The key of what a latency depends on beyond the accuracy's.

    The machine, and the time spent.
    """
    host = (machine or this_machine()).host
    return Cache.key(host.cpu, host.cores, host.os, settings.latency_budget)


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A model's hash, and what tells of its files whether they have changed since.

    Attributes:
        state: of the model, its card and its recorded inputs.
        outside: by the names that the model gives them, the files of its external data.
    """

    digest: str
    state: object
    outside: Mapping[str, object]


_models: dict[Path, _Hashed] = {}


def model_digest(cell: Cell, model: Path) -> str:
    """Hash the model, its external data, its recorded inputs and its card.

    Once for all cells of a model.
    """
    recorded = recorded_files(cell.card, model)
    files = [file for file in (model, cell.card.path, *recorded) if file.is_file()]
    state = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    hashed = _models.get(model)
    if (
        hashed is None
        or hashed.state != (state, cell.card)
        or any(_state(model.parent / name) != was for name, was in hashed.outside.items())
    ):
        digests = [_digest(file) if file.is_file() else None for file in (model, *recorded)]
        card = (
            [_digest(cell.card.path)]
            if cell.card.path != model and cell.card.path.is_file()
            else []
        )
        external, outside = _of_external_data(model)
        key = Cache.key(digests, card, external, cell.card.digest(), cell.card.suite)
        hashed = _models[model] = _Hashed(key, (state, cell.card), outside)
    return hashed.digest


def _of_external_data(model: Path) -> tuple[list[object], dict[str, object]]:
    """Hash what lies outside the file.

    What can't be read is the same nothing each time, and the verdict's to tell.

    Returns:
        The hashes, and by name the state that each file was in before it was read.
    """
    try:
        names = external_locations(scan(model))
    except ModelError as error:
        return [str(error)], {}
    folder = model.parent.resolve()
    outside: dict[str, object] = {name: _state(model.parent / name) for name in names}
    external: list[object] = []
    for name in names:
        try:
            file = (folder / name).resolve()
            external.append(
                [
                    name,
                    _digest(file)
                    if file.is_relative_to(folder) and file.is_file()
                    else None,
                ]
            )
        except (
            OSError,
            ValueError,
            RuntimeError,
        ):  # no path: too long, a null byte, a loop of links
            external.append([name, None])
    return external, outside


def _state(file: Path) -> tuple[int, int] | None:
    """Return what tells whether a file has changed; None where there is none."""
    try:
        status = file.stat()
    except (OSError, ValueError):  # no path: too long, a null byte, a loop of links
        return None
    return status.st_mtime_ns, status.st_size


def external_locations(scan: Scan) -> list[str]:
    """The files that hold external data, as the model names them: each once, sorted."""
    return sorted(
        {
            tensor.external["location"]
            for tensor in scan.tensors
            if "location" in tensor.external
        }
    )


def _of_libraries(libraries: tuple[Path, ...]) -> list[str]:
    """Hash the custom operators.

    What can't be read is the same nothing each time, and the verdict's to tell.
    """
    try:
        return [libraries_digest(libraries)] if libraries else []
    except ModelError as error:
        return [str(error)]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def _of_parts(steps: tuple[str, ...], provider: str) -> str:
    """Hash where the transforms and the provider come from.

    Other packages' change without our version.
    """
    sources: list[object] = []
    for step in steps:
        transform = transforms.registry()[step]
        required = {name: importlib.metadata.version(name) for name in transform.requires}
        sources.append([required, _source(transform.apply)])
    declared = providers.registry()[provider]
    return Cache.key(
        sources,
        _source(declared.load),
        repr(declared.accuracy_options),
        dict(declared.environment),
    )


def _source(function: object) -> str | None:
    code = getattr(function, "__code__", None)
    file = Path(code.co_filename) if code is not None else None
    return _digest(file) if file is not None and file.is_file() else None


def _of_run(settings: Settings, machine: Machine) -> str:
    # Ten thousand cells of a run have one and the same settings, and nearly always one machine.
    for last_settings, last_machine, key in _last_run:
        if last_settings is settings and last_machine is machine:
            return key
    key = Cache.key(_deciding(settings), machine.source, machine.versions, machine.host.cpu)
    _last_run[:] = [(settings, machine, key)]
    return key


_last_run: list[tuple[Settings, Machine, str]] = []


def _deciding(settings: Settings) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in asdict(settings).items():
        if name not in _NOT_DECIDING:
            # The same files by another spelling are another key: that judges anew, no more.
            is_paths = isinstance(value, tuple) and any(
                isinstance(item, Path) for item in value
            )
            fields[name] = [str(item) for item in value] if is_paths else value
    return fields
