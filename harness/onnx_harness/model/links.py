"""Stores of files that links lead into.

Model hubs' caches, DVC, git-annex keep each file's content once.

A model that somebody names may be a link into such a store, and so may its external data. Links are
followed there because the *user's* path leads there; a location that a model itself names leads
nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path

_MOST_SHARDS = 3
_SHARD_LETTERS = 2
"""Stores spread their files over folders named by a few letters of the hash.

``ab/cdef…``, ``Wx/3q/KEY/KEY``.
"""


def store_of(path: Path) -> Path | None:
    """Return the folder of the store that the model's path leads into; None where it is no link.

    It is the folder of the file that is linked to, or the one above its shards. It never holds the
    folder in which the link lies: that would open more to a model than its own store.
    """
    target = path.resolve()
    named = path.parent.resolve()
    if target.parent == named:
        return None
    store = target.parent
    for _ in range(_MOST_SHARDS):
        is_shard = len(store.name) <= _SHARD_LETTERS or store.name == target.name
        above = store.parent
        if not is_shard or above == above.parent or named.is_relative_to(above):
            break
        store = above
    return store


def is_reachable(location: str, path: Path) -> bool:
    """Return whether external data at ``location`` is the model's own.

    In its folder, or in the store of its path.

    Args:
        location: as the model has it, relative to its folder.
        path: of the model, as it was named.

    Raises:
        OSError, ValueError, RuntimeError: the location is no path to a file.
    """
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if file.is_relative_to(folder) and file != folder:
        return True
    store = store_of(path)
    return store is not None and is_lexically_inside(location) and file.is_relative_to(store)


def is_lexically_inside(location: str) -> bool:
    """Return whether a location stays in the model's folder by its words alone, without links."""
    plain = Path(os.path.normpath(location))
    return not plain.is_absolute() and os.pardir not in plain.parts


def has_links(folder: Path, most: int = 2000) -> bool:
    """Return whether a folder may hold links, symbolic or hard.

    True where it has too many files to look at.
    """
    count = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            count += 1
            entry = Path(place, name)
            try:
                linked = entry.is_symlink() or (name in files and entry.stat().st_nlink > 1)
            except OSError:
                linked = True
            if linked or count > most:
                return True
    return False
