"""Advisory locks on files and folders. Where the system has none (Windows), everybody gets one."""

from __future__ import annotations

try:
    import fcntl
# Windows: two processes may do the same work twice; files still appear whole or not at all.
except ImportError:
    fcntl = None  # type: ignore[assignment]


def lock(handle: int, *, wait: bool) -> None:
    """Take the lock on an open file or folder; it goes with the handle.

    Args:
        handle: a file descriptor.
        wait: until whoever has it gives it up.

    Raises:
        BlockingIOError: somebody has it, and ``wait`` is false.
        OSError: its file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def unlock(handle: int) -> None:
    """Give the lock up."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_UN)
