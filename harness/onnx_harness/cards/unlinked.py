"""A model whose external data are links, as plain files: what readers of ONNX models agree to open.

onnx refuses external data behind symbolic and hard links, ONNX Runtime follows some of them. So
that the untouched model and all its variants are judged alike, a copy without links is put into the
cache, once for a content.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from onnx_harness.errors import ModelError, ResultsError
from onnx_harness.model.file import Model, external_locations
from onnx_harness.model.links import has_links, is_lexically_inside
from onnx_harness.results.cache import Cache
from onnx_harness.results.workbench import workbench

KIND = "unlinked"


def unlinked(path: Path) -> Path:
    """Return a path to the model of which no external file is a link.

    Its own, or that of a copy in the cache.

    Meant to run in the worker, since it parses the model. What is wrong with the model is left to
    whoever loads it.
    """
    with contextlib.suppress(ModelError, ResultsError, OSError):
        return _unlinked(path)
    return path


def may_be_linked(path: Path) -> bool:
    """Return whether a model's external data may be links, without a look into the model."""
    # A pipe would be waited for.
    return path.is_file() and (path.is_symlink() or has_links(path.parent))


def _unlinked(path: Path) -> Path:
    if not may_be_linked(path):
        return path
    model = Model(path)
    if (
        not model.external_files
    ):  # which also refuses what lies outside the model's folder and its store
        return path
    locations = external_locations(model.skeleton)
    if not all(map(is_lexically_inside, locations)):
        return path
    if not path.is_symlink() and not any(
        _is_link(path.parent, location) for location in locations
    ):
        return path
    key = Cache.key(
        path.name,
        _state(path),
        [[name, _state(path.parent / name)] for name in locations],
        data_sets_of(path),
    )
    cache = workbench().cache
    entry = cache.get(KIND, key)
    if entry is None:
        entry = cache.put(KIND, key, lambda folder: _copy(path, locations, folder))
    return entry / path.name


def _is_link(folder: Path, location: str) -> bool:
    file = folder / location
    plain = Path(os.path.normpath(folder.resolve() / location))
    return file.resolve() != plain or file.stat().st_nlink > 1


def _state(file: Path) -> list[object]:
    """Return what changes when a file's content does."""
    status = file.stat()
    return [str(file.resolve()), status.st_ino, status.st_size, status.st_mtime_ns]


def _copy(path: Path, locations: tuple[str, ...], folder: Path) -> None:
    shutil.copyfile(path, folder / path.name)
    for location in locations:
        target = folder / os.path.normpath(location)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / location, target)
    link_data_sets(path, folder)


def data_sets_of(path: Path) -> list[tuple[str, str]]:
    """Return the names of a model's recorded input sets, which lie next to it, and their places.

    A part of the key of whatever links to them: equal models in two places have sets of their own.
    """
    folders = path.parent.glob("test_data_set_*")
    return sorted((folder.name, str(folder.resolve())) for folder in folders)


def link_data_sets(path: Path, folder: Path) -> None:
    """Let a folder have links to the recorded input sets of a model."""
    for name, place in data_sets_of(path):
        (folder / name).symlink_to(place)
