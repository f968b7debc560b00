"""The models that accepted levels refer to, kept in the reference environment's folder.

A model under test that has become slower is only seen beside the one that was accepted.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from onnx_harness.errors import ModelError
from onnx_harness.model.file import Model

FOLDER = "onnx-harness-models"


def reference_model(model: Path, accepted: str, kept: Path) -> tuple[Path, str]:
    """The model to run in the reference environment, and its hash.

    Args:
        model: the one under test; it's kept, so that it's there when it has changed.
        accepted: hash of the one that ran there when the level was accepted; empty when nothing was accepted.
        kept: folder of those that ran there.

    Returns:
        The accepted one where it's to be had, else the one under test.

    Raises:
        ModelError: ``model`` can't be read.
        OSError: ``kept`` can't be written.
    """
    current = Model(model).sha256
    old = kept / accepted / model.name
    if accepted and accepted != current and _is(old, accepted):
        return old, accepted
    _keep(Model(model), kept / current)
    return model, current


def forget(kept: Path, wanted: set[str]) -> None:
    """Remove the models that no level refers to."""
    for folder in kept.glob("*"):
        if folder.name not in wanted:
            shutil.rmtree(folder, ignore_errors=True)


def _is(path: Path, sha256: str) -> bool:
    """Whether the file is there, whole."""
    try:
        return path.is_file() and Model(path).sha256 == sha256
    except (ModelError, OSError):
        return False


def _keep(model: Model, folder: Path) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    base = model.path.parent.resolve()
    try:
        shutil.copyfile(model.path, made / model.path.name)
        for file in model.external_files:
            copy = made / file.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        with contextlib.suppress(OSError):  # another run was quicker
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
