"""The limits of a call of a worker process, on time and memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

_CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one call.

    Attributes:
        seconds: of wall-clock time.
        memory_bytes: of resident memory. Address space isn't limited: CUDA reserves far more than
            it uses.
    """

    seconds: float
    memory_bytes: int


def default_memory_bytes() -> int:
    """Three quarters of the machine's memory, or of the container's when that has less."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(
        OSError, ValueError
    ):  # no container, version 1 of control groups, or the word "max"
        total = min(total, int(_CONTAINER_MEMORY.read_text()))
    return total * 3 // 4
