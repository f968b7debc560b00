"""The list of the files in a cache's entry, by which a damaged one is told from a whole one."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

NAME = ".manifest.json"

_WHOLE_BYTES = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 12
# Of a larger file, those 256 KiB: reading gigabytes for each cell would cost more than the cell.


def write_manifest(folder: Path) -> None:
    """Write down the size and a checksum of each file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    marks = {str(path.relative_to(folder)): _mark(path) for path in files}
    (folder / NAME).write_text(json.dumps(marks, sort_keys=True), "utf-8")


def is_whole(folder: Path) -> bool:
    """Return whether the files are there as they were written.

    A power cut leaves files that are too short, or of the right size and full of zeros. Of a file
    above 1 MiB, pieces all over it are compared.
    """
    try:
        marks = json.loads((folder / NAME).read_text("utf-8"))
        return bool(marks) and all(_is_as(folder / name, marks[name]) for name in marks)
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _is_as(path: Path, mark: object) -> bool:
    if isinstance(mark, int):  # of an entry that was made before there were checksums
        return path.stat().st_size == mark
    return _mark(path) == mark


def _mark(path: Path) -> list[int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            return [size, zlib.crc32(file.read())]
        checksum = 0
        for sample in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            checksum = zlib.crc32(file.read(_SAMPLE_BYTES), checksum)
        return [size, checksum]
