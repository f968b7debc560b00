"""Weights that a transform has left as they were, in a file that is shared and not copied."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

import onnx

from onnx_harness.model.copying import shared_file
from onnx_harness.model.file import Model, external_tensors, least_bytes


class _Place(NamedTuple):
    file: Path
    offset: int
    length: int
    kind: int
    dims: tuple[int, ...]


class Unchanged:
    """The external weights of a model, for writing another one that has some of them still."""

    def __init__(self, source: Model, folder: Path) -> None:
        """Look where they lie.

        Args:
            source: the model before its transforms.
            folder: where the other one is written.
        """
        self._folder = folder
        self._places = {}
        self._shared: dict[Path, str | None] = {}
        base = source.path.parent.resolve()
        if source.external_files:
            for tensor in external_tensors(source.skeleton):
                self._places[tensor.name] = _place_of(tensor, base)

    def place(self, tensor: onnx.TensorProto, data: bytes) -> dict[str, str] | None:
        """Return the external data of a tensor whose bytes are the source's, in a shared file.

        Args:
            tensor: of the other model.
            data: its bytes.

        Returns:
            Keys and values as ONNX has them; None where it is another tensor, or no file can be
            shared.
        """
        place = self._places.get(tensor.name)
        if place is None or (place.kind, place.dims) != (
            tensor.data_type,
            tuple(tensor.dims),
        ):
            return None
        if place.length != len(data) or not _holds(place, data):
            return None
        name = self._shared_name(place.file)
        if name is None:
            return None
        return {"location": name, "offset": str(place.offset), "length": str(place.length)}

    def _shared_name(self, file: Path) -> str | None:
        if file not in self._shared:
            name = f"unchanged.{len(self._shared)}.bin"
            made = shared_file(file, self._folder / name)
            self._shared[file] = name if made else None
        return self._shared[file]


def _place_of(tensor: onnx.TensorProto, base: Path) -> _Place:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = int(entries.get("length", "0")) or least_bytes(tensor)
    return _Place(
        (base / entries.get("location", "")).resolve(),
        int(entries.get("offset", "0")),
        length,
        tensor.data_type,
        tuple(tensor.dims),
    )


def _holds(place: _Place, data: bytes) -> bool:
    """Compare the bytes in a file with those in memory, without a copy of the former."""
    if not data:
        return False
    start = place.offset - place.offset % mmap.ALLOCATIONGRANULARITY
    skipped = place.offset - start
    size = skipped + len(data)
    with (
        place.file.open("rb") as file,
        mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ, offset=start) as mapped,
        memoryview(mapped) as view,
        view[skipped:] as part,
    ):
        return part == data
