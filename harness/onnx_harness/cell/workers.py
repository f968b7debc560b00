"""The worker process of a run, with the files that it may open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onnx_harness.errors import ResultsError
from onnx_harness.isolate import Worker
from onnx_harness.isolate.files import Files
from onnx_harness.model.links import store_of
from onnx_harness.results.cache_root import VARIABLE, cache_root
from onnx_harness.settings import Settings

_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def cell_worker(
    settings: Settings,
    environment: Mapping[str, str] | None = None,
    *,
    preload: Sequence[str] = (),
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
) -> Worker:
    """Start a worker that opens models.

    It may read its environment, the cache, the files that its calls name (a model's with its
    folder) and what ``--allow-read`` names. It may change the cache and its own folder. Where the
    kernel has no Landlock it may open whatever its user may, which ``doctor`` says.

    Args:
        settings: of the run.
        environment: variables set in the process before it imports anything of weight.
        preload: modules that it imports while nobody waits for it.
        readable: what its calls are going to name: a process that is told so late is replaced.
        writable: folders that it may change beyond its own.

    Raises:
        WorkerNotStarted: the system gives no process, or no folder for it.
    """
    variables = {**_default_environment(), **(environment or {})}
    changed = list(writable)
    with contextlib.suppress(ResultsError):  # whoever needs it says so
        root = cache_root()
        variables[VARIABLE] = str(root)
        changed.append(root)
    files = Files(readable, changed, settings.allow_read, store_of)
    return Worker(settings.limits, variables, preload=preload, files=files)


def _default_environment() -> dict[str, str]:
    """Return what is set where the user has said nothing.

    ONNX Runtime's telemetry (1.32 and later) starts a thread and writes to the home folder, which
    is closed here: its complaint would stand where a dying process's last words are looked for.
    """
    return {} if _TELEMETRY in os.environ else {_TELEMETRY: "1"}
