"""The models that accepted levels refer to, stored in the reference environment's folder.

A slower model under test is only noticed in comparison with the one that was accepted.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from onnx_harness.errors import ModelError
from onnx_harness.model.file import Model

FOLDER = "onnx-harness-models"


def reference_model(model: Path, accepted: str, store: Path) -> tuple[Path, str]:
    """Return the model to run in the reference environment, and its hash.

    Args:
        model: the one under test; it's stored, so that it's there when it has changed.
        accepted: hash of the one that ran there when the level was accepted; empty when nothing was
            accepted.
        store: folder of those that ran there.

    Returns:
        The accepted one where it's stored, else the one under test.

    Raises:
        ModelError: ``model`` can't be read.
        OSError: ``store`` can't be written.
    """
    current = Model(model).sha256
    if accepted and accepted != current:
        stored = store / accepted / model.name
        if _is_intact(stored, accepted):
            return stored, accepted
    _store(Model(model), store / current)
    return model, current


def forget(store: Path, referred: set[str]) -> None:
    """Remove the models whose hashes no level refers to."""
    for folder in store.glob("*"):
        if folder.name not in referred:
            shutil.rmtree(folder, ignore_errors=True)


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and Model(path).sha256 == sha256
    except (ModelError, OSError):
        return False


def _store(model: Model, folder: Path) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed once it's whole: a run that is killed leaves no half a model.
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    base = model.path.parent.resolve()
    try:
        shutil.copyfile(model.path, scratch / model.path.name)
        for file in model.external_files:
            copy = scratch / file.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        with contextlib.suppress(OSError):  # another run was quicker
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
