"""Confine a worker process before it opens a model.

It gives up the network, and more than its share of the machine.

The network goes by a filter of system calls (seccomp,
https://docs.kernel.org/userspace-api/seccomp_filter.html), which any process may put on itself: no
socket of the Internet's families, no raw packets. Sockets of the same machine stay, which drivers
of devices use. Limits (setrlimit) hold the size of files, the number of processes and the time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import socket
import struct
from pathlib import Path

import psutil

from onnx_harness.isolate.files import VARIABLE, allowed_paths
from onnx_harness.isolate.landlock import unsupported

try:
    import resource
except ImportError:  # Windows has no such limits: what runs is watched from outside alone
    resource = None  # type: ignore[assignment]

# linux/prctl.h, linux/seccomp.h.
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
# linux/bpf_common.h.
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_ARCHITECTURE, _NUMBER, _FIRST_ARGUMENT = 4, 0, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
# By machine: AUDIT_ARCH, and the numbers of socket and io_uring_setup, which makes sockets without
# the first.
_CALLS = {"x86_64": (0xC000003E, 41, 425), "aarch64": (0xC00000B7, 198, 425)}
_FAMILIES = (
    socket.AF_INET,
    socket.AF_INET6,
    getattr(socket, "AF_PACKET", 17),
    40,
)  # and virtual machines'

SPARE_PROCESSES = 4096
"""Processes and threads that a worker's user may have beyond those there are.

Enough for any library's pools.
"""


def leave_network() -> str | None:
    """Give up the network, for this process and all that it starts. There is no way back.

    Returns:
        None, or why it can't be given up here.
    """
    numbers = _CALLS.get(platform.machine())
    if platform.system() != "Linux" or numbers is None:
        return (
            f"seccomp's filter isn't written for {platform.system()} on {platform.machine()}"
        )
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        code = b"".join(_filter(*numbers))
        room = ctypes.create_string_buffer(code)
        program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(room))
        header = ctypes.create_string_buffer(program)
        if not libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(header), 0, 0):
            # an administrator's process may, and keeps its right to run what makes a device's nodes
            return None
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(header), 0, 0):
            return (
                f"the kernel refuses a filter of system calls: "
                f"{errno.errorcode.get(ctypes.get_errno(), 'unknown')}"
            )
    except (OSError, AttributeError, struct.error) as error:
        return f"the C library offers no prctl ({error})"
    return None


def limit_resources(seconds: float, file_bytes: int) -> None:
    """Hold this process to a size of files, a number of processes, and a time of the processor.

    No core is dumped. On Windows it does nothing.

    Args:
        seconds: of wall-clock time that a call may take: the processor's, on all cores, is a
            multiple.
        file_bytes: of the largest file that it may write.
    """
    if resource is None:
        return
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    if os.getuid():  # the limit doesn't hold for an administrator
        _lower(resource.RLIMIT_NPROC, _processes_of_user() + SPARE_PROCESSES)
    renew_time(seconds)


def renew_time(seconds: float) -> None:
    """Allow so much of the processor's time from here on.

    It suffices as long as the wall-clock limit lasts on every core.
    """
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    # macOS doesn't say which of its cores this process may use.
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = len(allowed) or os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, OverflowError):
        soft = int(used.ru_utime + used.ru_stime + 2 * seconds * cores) + 10
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if hard == resource.RLIM_INFINITY or soft <= hard:
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def network_is_left() -> str | None:
    """Why a worker would keep the network here, or None.

    It is tried, in the process that this is called in.

    Raises:
        RuntimeError: it was given up, and a socket could be made all the same.
    """
    why = leave_network()
    if why is not None:
        return why
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return None
    raise RuntimeError("a socket could be made after the network was given up")


def files_are_left() -> str | None:
    """Why a worker may open files beyond its own here, or None.

    It is tried, in the process that this is called in.

    Raises:
        RuntimeError: files were given up, and one could be opened all the same.
    """
    why = unsupported()
    if why is not None:
        return why
    outside = Path(__file__).anchor
    try:
        os.listdir(outside)  # noqa: PTH208 - a Path would only hide the call that is refused
    except PermissionError:
        return None
    if Path(outside) in allowed_paths():
        return f"{VARIABLE} names {outside}"
    raise RuntimeError(f"{outside} could be read after files were given up")


def limits_are_set() -> str | None:
    """Why a worker has no limits on files, processes and the processor's time here, or None."""
    if resource is None:
        return f"{platform.system()} has no such limits; time and memory are watched from outside"
    return None


def _filter(architecture: int, socket_call: int, uring_call: int) -> list[bytes]:
    """Return the filter's program.

    Another architecture's calls and io_uring are refused, and sockets of some families.
    """
    refuse = _step(_RETURN, _REFUSE | errno.EACCES)
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture, 1, 0),
        refuse,
        _step(_LOAD, _NUMBER),
        _step(_JUMP_GREATER_EQUAL, _X32, 0, 1),
        refuse,
        _step(_JUMP_EQUAL, uring_call, 0, 1),
        refuse,
        _step(_JUMP_EQUAL, socket_call, 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _FIRST_ARGUMENT),
    ]
    for family in _FAMILIES:
        steps += [_step(_JUMP_EQUAL, int(family), 0, 1), refuse]
    return [*steps, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    """Return one step of a filter; a jump passes over so many."""
    return struct.pack("HBBI", code, when_true, when_false, value)


def _lower(limit: int, value: int) -> None:
    """Set a limit, or leave the one that is lower already."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(limit)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (allowed, hard))


def _processes_of_user() -> int:
    count = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids = process.info["uids"]
        if uids is not None and uids.real == os.getuid():
            count += process.info["num_threads"] or 1
    return count
