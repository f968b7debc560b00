"""Hold this process to some files and folders, by the kernel's Landlock.

Any process may put such a restriction on itself, and nothing lifts it: neither for the process nor
for those that it starts (https://docs.kernel.org/userspace-api/landlock.html). What is open already
stays open.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat
import struct
from collections.abc import Iterable
from enum import IntFlag

# uapi/asm-generic/unistd.h: the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_LEAST_VERSION = 2  # Linux 5.19: the first one refuses every rename from folder to folder
_TRUNCATE_VERSION = 3


class Right(IntFlag):
    """Rights to a file, or to what lies below a folder: LANDLOCK_ACCESS_FS_*, linux/landlock.h."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # link and rename across folders
    TRUNCATE = 1 << 14


RUN = Right.EXECUTE | Right.READ_FILE | Right.READ_DIR
READ = Right.READ_FILE | Right.READ_DIR
DEVICE = READ | Right.WRITE_FILE
CHANGE = DEVICE | Right.TRUNCATE | Right.REFER | Right.REMOVE_DIR | Right.REMOVE_FILE
CHANGE |= (
    Right.MAKE_DIR | Right.MAKE_REG | Right.MAKE_SOCK | Right.MAKE_FIFO | Right.MAKE_SYM
)

_OF_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE
_ALL = Right((1 << 15) - 1)

Rules = tuple[tuple[str, int], ...]
"""Paths, and a `Right` to each and to what lies below it."""


def unsupported() -> str | None:
    """Return why this kernel can't hold a process to some files; None: it can."""
    if platform.system() != "Linux":
        return f"{platform.system()} has no Landlock"
    version = _version()
    if version >= _LEAST_VERSION:
        return None
    if version > 0:
        return (
            "the kernel's Landlock is older than Linux 5.19, and would refuse every rename"
        )
    return "the kernel has no Landlock, or was started without it (lsm=…)"


def restrict(rules: Rules) -> str | None:
    """Give up every file but those of the rules, for this thread and all that it starts.

    Args:
        rules: a path that isn't there, or that can't be opened, is left out.

    Returns:
        None, or why nothing was given up.
    """
    why = unsupported()
    if why is not None:
        return why
    handled = _ALL if _version() >= _TRUNCATE_VERSION else _ALL & ~Right.TRUNCATE
    attributes = struct.pack("=Q", handled)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return f"the kernel refuses a set of rules: {_last_error()}"
    try:
        for path, right in rules:
            _add(ruleset, path, Right(right) & handled)
        # An administrator's process may do without the first, and keeps its right to run what makes
        # a device's nodes.
        if _call(_RESTRICT_SELF, ruleset, 0):
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if _call(_RESTRICT_SELF, ruleset, 0):
                return f"the kernel refuses the restriction: {_last_error()}"
    finally:
        os.close(ruleset)
    return None


def _add(ruleset: int, path: str, right: Right) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_PATH)
        try:
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                right &= _OF_FILES
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", right, handle), 0)
        finally:
            os.close(handle)


def _version() -> int:
    return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)


def _call(*arguments: object) -> int:
    try:
        syscall = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return -1
    plain: Iterable[object] = (
        ctypes.c_long(item) if isinstance(item, int) else item for item in arguments
    )
    syscall.restype = ctypes.c_long
    return int(syscall(*plain))


def _last_error() -> str:
    return errno.errorcode.get(ctypes.get_errno(), "unknown")
