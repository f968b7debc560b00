"""The facts of a run as a whole: when, where, with which versions, by which command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

DISTRIBUTIONS = (
    "onnx-harness",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-ep-webgpu",
    "tensorrt-cu13",
    "onnx-ir",
    "onnxconverter-common",
    "onnxmltools",
    "onnxoptimizer",
    "onnxscript",
    "onnxsim",
    "onnxslim",
    "polygraphy",
    "skl2onnx",
    "numpy",
    "pytest",
    "pytest-benchmark",
)
"""The libraries a verdict may depend on. Absent ones are left out of a run's versions."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """The machine.

    Attributes:
        cpu: the processor's name.
        cores: logical cores that this process may use.
        memory_bytes: physical memory; 0 when unknown.
        os: such as ``Linux-6.1.0-x86_64``.
        devices: by provider, the name of the device that its sessions run on, where that isn't the
            processor.
    """

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    devices: dict[str, str] = field(default_factory=dict)

    def processor_of(self, provider: str) -> str:
        """Return what computes on ``provider`` here, as a key of history.

        Two machines of one name are compared.
        """
        device = self.devices.get(provider)
        return f"{self.cpu}, {device}" if device else self.cpu


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The head of results.json.

    Attributes:
        id: sorts by time and is unique across machines, such as ``20261104t021503z-9f3a61c2``.
        started: ISO 8601, UTC.
        command: what was typed, quoted for a shell.
        versions: ``python`` and distribution names to versions.
        shards: those whose cells it has, such as ``1/4 3f2a9c00d1e2``: the part, of how many, and a
            hash of the plan that they are parts of; empty where the run wasn't cut.
        selection: what chose the cells: providers, variants, paths, expressions; empty where that
            isn't known.
        planned: cells that the run set out to judge; None where that isn't known.
    """

    id: str
    started: str
    command: str
    seed: int
    host: HostInfo
    versions: dict[str, str]
    shards: tuple[str, ...] = ()
    selection: tuple[str, ...] = ()
    planned: int | None = None


def moment_of(run: RunInfo) -> datetime | None:
    """Return when a run started, with its zone; None where that can't be read."""
    try:
        moment = datetime.fromisoformat(run.started)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def gather(command: str, seed: int, devices: Mapping[str, str] | None = None) -> RunInfo:
    """Describe a run that starts now. Imports none of the libraries whose versions it names.

    Args:
        command: what was typed.
        seed: of the run.
        devices: by provider, the name of the device that its sessions run on, as probing them told.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    return RunInfo(
        id=f"{now:%Y%m%dt%H%M%Sz}-{secrets.token_hex(4)}",
        started=now.isoformat(),
        command=command,
        seed=seed,
        host=this_host(devices),
        versions=versions(),
    )


def this_host(devices: Mapping[str, str] | None = None) -> HostInfo:
    """Describe this machine; for ``devices`` see :func:`gather`."""
    return HostInfo(
        _processor(), _cores(), _memory_bytes(), platform.platform(), dict(devices or {})
    )


def versions() -> dict[str, str]:
    """Return what is installed here that a verdict may depend on.

    ``python`` and distribution names to versions.
    """
    installed = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    name = ""
    for line in lines:
        if line.startswith(("model name", "Hardware")):
            name = line.partition(":")[2].strip()
            break
    return name or platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def are_all_shards(labels: tuple[str, ...]) -> bool:
    """Whether shards, such as ``1/2 3f2a9c00d1e2``, are all the parts of one plan."""
    plans = {label.partition("/")[2] for label in labels}
    if len(plans) != 1:
        return False
    return len(set(labels)) == int(plans.pop().partition(" ")[0])
