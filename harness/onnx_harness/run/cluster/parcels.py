"""The files of a model on their way to another machine: by digest, each sent once.

A worker keeps them in its cache under the digest of the whole parcel. It reads them as bytes to
check their digests; only the cell process parses them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnx_harness.cards.card import PathSource
from onnx_harness.cell.content import external_locations
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import ModelError, ResultsError
from onnx_harness.judging.reference import recorded_files
from onnx_harness.model.copying import copy_file
from onnx_harness.model.links import is_lexically_inside
from onnx_harness.model.scan import scan
from onnx_harness.results.cache import Cache
from onnx_harness.results.cache_root import cache_root
from onnx_harness.results.locks import lock
from onnx_harness.settings import Settings

KIND = "shipped"
INLINE_BYTES = 1 << 18
"""Smaller files travel with the request: a question for each would take longer."""

CHUNK_BYTES = 16 << 20
_STALE_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a parcel.

    Attributes:
        place: where it lies in the parcel, relative and within it.
        sha256: of its content, in hexadecimal.
        size: in bytes.
        origin: where the coordinator has it: a worker that sees the same file there needs no copy
            sent.
    """

    place: str
    sha256: str
    size: int
    origin: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """All files that the cells of a model need."""

    parts: tuple[Part, ...]

    @property
    def key(self) -> str:
        """The digest of places and contents."""
        return Cache.key([[part.place, part.sha256] for part in self.parts])


def packed(
    cells: Iterable[Cell], model: Path, settings: Settings
) -> tuple[tuple[Cell, ...], Settings, Parcel]:
    """Take the paths out of cells of one model, and list the files that they stand for.

    Args:
        cells: of one card.
        model: the ``.onnx`` that the card stands for, on this machine.
        settings: of the run.

    Returns:
        The cells and the settings with places in the parcel for paths, and the parcel.

    Raises:
        OSError: a file can't be read.
    """
    members = tuple(cells)
    card = members[0].card
    parts: dict[str, Part] = {}

    def add(place: str, file: Path) -> Path:
        if place not in parts:
            parts[place] = _part(place, file)
        return Path(place)

    model_place = add(f"model/{model.name}", model)
    for location in _external(model):
        add(f"model/{os.path.normpath(location)}", model.parent / location)
    is_neighbour = card.path.parent.resolve() == model.parent.resolve()
    card_place = Path("model" if is_neighbour else "card", card.path.name)
    if card.path.is_file():
        add(str(card_place), card.path)
    for recorded in recorded_files(card, model):
        if recorded.parent == card.path.parent:
            add(str(card_place.with_name(recorded.name)), recorded)
        else:
            add(f"model/{recorded.parent.name}/{recorded.name}", recorded)
    of_card = tuple(
        add(f"ops/{at}/{file.name}", file) for at, file in enumerate(card.custom_ops)
    )
    of_run = tuple(
        add(f"ops/run-{at}/{file.name}", file) for at, file in enumerate(settings.custom_ops)
    )
    moved = replace(
        card, path=card_place, source=PathSource(model_place), custom_ops=of_card
    )
    return (
        tuple(replace(cell, card=moved) for cell in members),
        replace(settings, custom_ops=of_run),
        Parcel(tuple(parts.values())),
    )


def unpacked(
    cells: Iterable[Cell], settings: Settings, folder: Path
) -> tuple[tuple[Cell, ...], Settings]:
    """Return cells and settings with paths into the folder that their parcel was laid out in."""
    laid = []
    for cell in cells:
        source = cell.card.source
        assert isinstance(source, PathSource)
        card = replace(
            cell.card,
            path=folder / cell.card.path,
            source=PathSource(folder / source.path),
            custom_ops=tuple(folder / file for file in cell.card.custom_ops),
        )
        laid.append(replace(cell, card=card))
    libraries = tuple(folder / file for file in settings.custom_ops)
    return tuple(laid), replace(settings, custom_ops=libraries)


class Store:
    """The files that a worker was sent, by content.

    Workers of one machine share it.
    """

    def __init__(self, root: Path | None = None) -> None:
        place = root or cache_root()
        self._cache = Cache(place)
        self._blobs = place / "cluster"

    def missing(self, parcel: Parcel, inline: Mapping[str, bytes]) -> tuple[str, ...]:
        """Return the digests of what has to be sent before the parcel can be laid out."""
        if self._laid_out(parcel) is not None:
            return ()
        needed = {}
        for part in parcel.parts:
            if part.sha256 not in inline:
                needed[part.sha256] = part
        digests = []
        for digest, part in needed.items():
            if not self._blob(digest).is_file() and not _is_content(Path(part.origin), part):
                digests.append(digest)
        return tuple(digests)

    def lay_out(self, parcel: Parcel, inline: Mapping[str, bytes]) -> Path:
        """Return the folder that has the parcel's files, each checked against its digest.

        Raises:
            ResultsError: a file is missing or isn't what its digest says, a place leads out of the
                parcel, or the cache can't be written.
        """
        for part in parcel.parts:
            if not is_lexically_inside(part.place):
                raise ResultsError(f"a parcel has a file outside of it: {part.place!r}")
        with self._alone():
            folder = self._laid_out(parcel)
            if folder is None:
                folder = self._cache.put(
                    KIND, parcel.key, lambda empty: self._fill(empty, parcel, inline)
                )
        return folder

    def receive(self, digest: str, offset: int, data: bytes, size: int) -> bool:
        """Take a piece of a file; with the last one the file is there.

        Args:
            digest: SHA-256 of the whole file.
            offset: of the piece; pieces come in order.
            data: its bytes.
            size: of the whole file.

        Returns:
            Whether the file is there, whole and as its digest says.

        Raises:
            ResultsError: what came isn't what its digest says.
        """
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        partial = self._blobs / f".{digest}-{os.getpid()}"
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
        if offset + len(data) < size:
            return False
        if sha256_of(partial) != digest:
            partial.unlink(missing_ok=True)
            raise ResultsError(f"a file that was sent isn't the one of the digest {digest}")
        partial.replace(self._blob(digest))
        return True

    def _fill(self, folder: Path, parcel: Parcel, inline: Mapping[str, bytes]) -> None:
        for part in parcel.parts:
            target = folder / part.place
            target.parent.mkdir(parents=True, exist_ok=True)
            blob = self._blob(part.sha256)
            if part.sha256 in inline:
                target.write_bytes(inline[part.sha256])
            elif blob.is_file():
                copy_file(blob, target)
            else:
                copy_file(Path(part.origin), target)
            if sha256_of(target) != part.sha256:
                raise ResultsError(f"{part.place} isn't the file of its digest any more")
        for part in parcel.parts:
            self._blob(part.sha256).unlink(missing_ok=True)

    def _laid_out(self, parcel: Parcel) -> Path | None:
        """Return the folder of a parcel whose files are what they were; drop a changed one."""
        folder = self._cache.get(KIND, parcel.key)
        if folder is None:
            return None
        if all(_is_content(folder / part.place, part) for part in parcel.parts):
            return folder
        self._cache.drop(KIND, parcel.key)
        return None

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off the other workers of this machine: one lays a parcel out, the others find it."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._blobs / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # A file system without locks: both lay it out.
            with contextlib.suppress(OSError):
                lock(handle, wait=True)
            yield
        finally:
            os.close(handle)

    def _remove_stale(self) -> None:
        """Remove what was sent and never used: its coordinator is gone."""
        for file in self._blobs.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                    file.unlink()


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pieces(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file piece by piece, each with its offset; an empty file has one empty piece."""
    with file.open("rb") as stream:
        offset = 0
        while True:
            data = stream.read(CHUNK_BYTES)
            if data or offset == 0:
                yield offset, data
            offset += len(data)
            if not data:
                return


def _part(place: str, file: Path) -> Part:
    return Part(place, sha256_of(file), file.stat().st_size, str(file.resolve()))


def _is_content(file: Path, part: Part) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return file.stat().st_size == part.size and sha256_of(file) == part.sha256
    return False


def _external(model: Path) -> list[str]:
    """Return the files of external data that are the model's own.

    The others are the verdict's to tell.
    """
    try:
        locations = external_locations(scan(model))
    except ModelError:
        return []
    folder = model.parent.resolve()
    inside = []
    for location in locations:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            file = (folder / location).resolve()
            own = is_lexically_inside(location) and file.is_relative_to(folder)
            if own and file.is_file():
                inside.append(location)
    return inside
