"""Artifacts that are kept by content hash between runs."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import onnx_harness
from onnx_harness.errors import ResultsError
from onnx_harness.names import check_name
from onnx_harness.results.cache_root import cannot_cache
from onnx_harness.results.codec import Codec
from onnx_harness.results.files import cannot_write
from onnx_harness.results.locks import lock
from onnx_harness.results.manifest import is_whole, write_manifest
from onnx_harness.results.pruning import prune, remove_stale, subfolders

T = TypeVar("T")

SIZE_LIMIT = 8 * 2**30
"""Bytes that the artifacts of all runs together may take: some hundred variants of the public zoo.
"""

IN_USE_SECONDS = 3600.0
"""An entry that was used this recently isn't pruned: another run may be reading it."""

_SCRATCH_PREFIX = "onnx-harness-cache-"
_MOST_IN_MEMORY = 8
_STORAGE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EIO,
}


@functools.cache
def source_digest() -> str:
    """Return a hash of this package's code, for cache keys: what another state of it made is stale.

    One hash for the whole package: a key that names the rooms it depends on forgets one sooner or
    later. How things are shown (``report``, ``cli``) changes nothing that is kept.
    """
    folder = Path(onnx_harness.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        if not {"report", "cli"} & {*file.relative_to(folder).parts}:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def version(distribution: str) -> str:
    """Return the version of what is installed, for cache keys: it's looked up once.

    Raises:
        importlib.metadata.PackageNotFoundError: it isn't installed.
    """
    return importlib.metadata.version(distribution)


class Cache:
    """Artifacts by kind and key.

    An entry is a folder; it appears whole or not at all, and never changes.

    Processes that share a cache need no coordination: whoever is first puts the entry, the others
    get it.

    Attributes:
        warnings: what went wrong without stopping anybody, each thing once.
    """

    def __init__(self, root: Path, *, limit_bytes: int = SIZE_LIMIT) -> None:
        self._root = root / "artifacts"
        self._unfinished = self._root / ".unfinished"
        self._limit_bytes = limit_bytes
        self._scratch: Path | None = None
        self._in_memory: dict[tuple[str, str], Any] = {}
        self.warnings: list[str] = []

    @classmethod
    def temporary(cls) -> Cache:
        """A cache of what isn't worth keeping: it goes with this object.

        Raises:
            ResultsError: the temporary folder can't be written.
        """
        cache = cls(Path(tempfile.gettempdir()))
        cache._scratch = cache._new_scratch()
        cache._root = cache._scratch / "artifacts"
        return cache

    @staticmethod
    def key(*parts: object) -> str:
        """A key of everything that an artifact depends on.

        The SHA-256 of the parts' canonical JSON.

        Raises:
            TypeError: a part has no JSON form.
        """
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def folder(self, kind: str, key: str) -> Path:
        """Where the entry is, or would be."""
        check_name(kind, "kind of artifact")
        return self._root / kind / key[:2] / key

    def get(self, kind: str, key: str) -> Path | None:
        """The entry's folder, marked as just used; None when there is none, or a damaged one."""
        folder = self.folder(kind, key)
        if not is_whole(folder):
            return None
        with contextlib.suppress(
            OSError
        ):  # A cache that can be read and not written is still of use.
            os.utime(folder)
        return folder

    def drop(self, kind: str, key: str) -> None:
        """Remove an entry that isn't what it was."""
        shutil.rmtree(self.folder(kind, key), ignore_errors=True)

    def put(self, kind: str, key: str, writer: Callable[[Path], object]) -> Path:
        """Have ``writer`` fill an empty folder, and make that the entry.

        When another process puts the same entry meanwhile, theirs stays.

        Args:
            kind: such as ``model`` or ``reference``.
            key: from :meth:`key`.
            writer: called with a folder that nobody else sees; what it raises goes through, and no
                entry is made.

        Returns:
            The entry's folder.

        Raises:
            ResultsError: the cache can't be written, or the disk is full.
        """
        final = self.folder(kind, key)
        try:
            with self._unfinished_folder() as folder:
                writer(folder)
                write_manifest(folder)
                final.parent.mkdir(parents=True, exist_ok=True)
                self._publish(folder, final)
        except OSError as error:
            if error.errno in _STORAGE_ERRORS and self._is_ours(error):
                raise cannot_cache(final, error) from error
            raise
        return final

    def get_or_put(self, kind: str, key: str, writer: Callable[[Path], object]) -> Path:
        """The entry, made by ``writer`` if need be.

        Goes on without a cache when it can't be written.

        What can't be kept goes to a temporary folder that lives as long as this object;
        :attr:`warnings` says so.

        Raises:
            ResultsError: the temporary folder can't be written either.
        """
        if (entry := self.get(kind, key)) is not None:
            return entry
        if self._scratch is None:
            try:
                return self.put(kind, key, writer)
            except ResultsError as error:
                self.warnings.append(f"Going on without a cache. {error}")
        return self._put_in_scratch(kind, key, writer)

    def remember(
        self,
        kind: str,
        key: str,
        make: Callable[[], T],
        codec: Codec[T],
        *,
        in_memory: bool = False,
    ) -> T:
        """Return the value that is kept under the key; where none is, make it and keep it.

        Args:
            kind: of artifact.
            key: from :meth:`key`.
            make: makes the value. What it raises goes through, and nothing is kept.
            codec: how a file holds the value.
            in_memory: hold the last few such values in this object too: they're small and asked for
                again and again.

        Raises:
            ResultsError: see :meth:`get_or_put`.
        """
        if (kind, key) in self._in_memory:
            value: T = self._in_memory[kind, key]
            return value
        stored = self._stored(kind, key, codec)
        if stored is None:
            value = make()
            data = codec.dumps(value)
            self.get_or_put(
                kind, key, lambda folder: _file(folder, kind, codec).write_bytes(data)
            )
        else:
            value = stored[0]
        if in_memory:
            while len(self._in_memory) >= _MOST_IN_MEMORY:
                self._in_memory.pop(next(iter(self._in_memory)))
            self._in_memory[kind, key] = value
        return value

    def prune_if_due(self) -> int:
        """:meth:`prune`, unless some run did it within the hour.

        Looking at every entry takes a while.
        """
        stamp = self._root / ".pruned"
        with contextlib.suppress(OSError):
            if time.time() - stamp.stat().st_mtime < IN_USE_SECONDS:
                return 0
        with contextlib.suppress(OSError):
            stamp.touch()
        return self.prune()

    def prune(self, *, in_use_seconds: float = IN_USE_SECONDS) -> int:
        """Remove least recently used entries above the size limit, and what crashed writers left.

        Call it at the end of a run.

        Returns:
            Bytes removed. Nothing is raised: an entry that can't be removed stays, and a warning
            says so.
        """
        return prune(
            self._root,
            self._unfinished,
            self._limit_bytes,
            in_use_seconds,
            self.warnings.append,
        )

    def _stored(self, kind: str, key: str, codec: Codec[T]) -> tuple[T] | None:
        """Return the value under a key; None where there is none, or none that can be read."""
        entry = self.get(kind, key)
        if entry is None and self._scratch is not None:
            scratch = self._scratch / kind / key
            entry = scratch if scratch.is_dir() else None
        if entry is None:
            return None
        try:
            return (codec.loads(_file(entry, kind, codec).read_bytes()),)
        except Exception:  # whatever the bytes of a damaged or planted file bring about
            self.drop(kind, key)  # it makes way for a whole one
            return None

    @contextlib.contextmanager
    def _unfinished_folder(self) -> Iterator[Path]:
        """Open a new folder on the cache's file system, locked while its writer lives.

        It's gone afterwards.
        """
        self._unfinished.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._unfinished))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # File systems without locks fall back on age alone.
            with contextlib.suppress(OSError):
                lock(handle, wait=False)
            yield folder
        finally:
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, folder: Path, final: Path) -> None:
        folder.chmod(0o755)
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            if self.get(final.parent.parent.name, final.name) is None:
                # What stands there is damaged: it makes way for the whole one.
                shutil.rmtree(final, ignore_errors=True)
                folder.rename(final)

    def _is_ours(self, error: OSError) -> bool:
        """Decide whether an error is about the cache.

        It may be about something that the writer read elsewhere.
        """
        if not isinstance(error.filename, str | os.PathLike):
            return True
        named = Path(error.filename)  # Making a folder, the system may name one above it.
        return named.is_relative_to(self._root) or self._root.is_relative_to(named)

    def _put_in_scratch(self, kind: str, key: str, writer: Callable[[Path], object]) -> Path:
        if self._scratch is None:
            self._scratch = self._new_scratch()
        folder = self._scratch / kind / key
        if folder.exists():
            return folder
        try:
            folder.parent.mkdir(exist_ok=True)
            filling = Path(tempfile.mkdtemp(dir=self._scratch))
            try:
                writer(filling)
                filling.rename(folder)
            finally:
                shutil.rmtree(filling, ignore_errors=True)
        except OSError as error:
            if error.errno in _STORAGE_ERRORS and (
                error.filename is None or str(self._scratch) in str(error.filename)
            ):
                raise cannot_write(
                    "A temporary artifact", folder, error, "TMPDIR"
                ) from error
            raise
        return folder

    def _new_scratch(self) -> Path:
        """A temporary folder that goes with this object, and those of killed processes removed."""
        parent = Path(tempfile.gettempdir())
        folders = []
        for folder in subfolders(parent):
            if folder.name.startswith(_SCRATCH_PREFIX):
                folders.append(folder)
        remove_stale(folders)
        try:
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX))
            handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise cannot_write("A temporary artifact", parent, error, "TMPDIR") from error
        with contextlib.suppress(OSError):
            lock(handle, wait=False)
        weakref.finalize(self, _remove_scratch, scratch, handle, os.getpid())
        return scratch


def _remove_scratch(folder: Path, handle: int, owner: int) -> None:
    os.close(handle)
    if (
        os.getpid() == owner
    ):  # A forked worker has a copy of the cache, and mustn't tidy up for everybody.
        shutil.rmtree(folder, ignore_errors=True)


def _file(entry: Path, kind: str, codec: Codec[Any]) -> Path:
    return entry / f"{kind}.{codec.suffix}"
