"""Copies of large files that cost no room where the file system allows that."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FICLONE = 0x40049409  # linux/fs.h: share the blocks of a whole file (btrfs, XFS, bcachefs)
_PIECE = 1 << 26


def copy_file(source: Path, target: Path) -> None:
    """Copy a file: as a reflink where there are any, else its data without its holes.

    Never as a hard link: whoever changes the copy in place would change the original.

    Raises:
        OSError: the source can't be read or the target written.
    """
    with source.open("rb") as read, target.open("wb") as write:
        if _reflinked(read.fileno(), write.fileno()):
            return
        try:
            _copy_data(read.fileno(), write.fileno())
            return
        except OSError as error:
            if error.errno not in {
                errno.EINVAL,
                errno.ENOSYS,
                errno.EXDEV,
                errno.EOPNOTSUPP,
            }:
                raise
    shutil.copyfile(source, target)


def shared_file(source: Path, target: Path) -> bool:
    """Make a file that shares the blocks of another one, as a reflink, where there are any.

    Never as a hard link: onnx refuses to read external data that have several names.

    Args:
        source: the file.
        target: it isn't there yet.

    Returns:
        Whether it was made. A copy would cost as much as writing the target anew.
    """
    with contextlib.suppress(OSError):
        with source.open("rb") as read, target.open("xb") as write:
            shared = _reflinked(read.fileno(), write.fileno())
        if shared:
            return True
        target.unlink()
    return False


def _reflinked(read: int, write: int) -> bool:
    if fcntl is None:
        return False
    with contextlib.suppress(OSError):
        fcntl.ioctl(write, _FICLONE, read)
        return True
    return False


def _copy_data(read: int, write: int) -> None:
    """Copy what isn't a hole, in the kernel (copy_file_range)."""
    size = os.fstat(read).st_size
    os.ftruncate(write, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(read, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole until the end
                return
            raise
        end = os.lseek(read, start, os.SEEK_HOLE)
        while start < end:
            copied = os.copy_file_range(read, write, min(_PIECE, end - start), start, start)
            if copied == 0:
                raise OSError(errno.EINVAL, "the file has become shorter")
            start += copied
        offset = end
