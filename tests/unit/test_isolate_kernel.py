"""What the kernel is asked for, as its documentation states it, by a C library that only records.

https://docs.kernel.org/userspace-api/landlock.html and .../seccomp_filter.html give the calls, their
order and the structures; linux/landlock.h, linux/filter.h and linux/audit.h the numbers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_harness.isolate import confine, landlock
from onnx_harness.isolate.landlock import (
    CHANGE,
    DEVICE,
    READ,
    RUN,
    Right,
    restrict,
    unsupported,
)

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux alone has these calls"
)

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
NO_NEW_PRIVS = 38


class RecordingLibrary:
    """A C library that confines nothing: it writes down what it is asked for.

    Args:
        version: of Landlock; -1: the kernel has none.
        refuses: how often ``landlock_restrict_self`` fails before it works.
        creates: whether a set of rules is given.
        handle: of the set of rules; None: one that is open.
    """

    def __init__(
        self,
        version: int = 3,
        refuses: int = 0,
        creates: bool = True,
        handle: int | None = None,
    ) -> None:
        self.version, self.refuses, self.creates = version, refuses, creates
        self.handle = handle
        self.done: list[tuple[Any, ...]] = []
        self.handles: list[int] = []
        self.syscall = self._result_of_syscall()

    def _result_of_syscall(self) -> Any:
        def syscall(number: Any, *arguments: Any) -> int:
            assert syscall.restype is ctypes.c_long  # type: ignore[attr-defined]
            words = [number, *arguments]
            plain = [
                word.value if isinstance(word, ctypes.c_long) else word for word in words
            ]
            # Each of a register's width.
            assert not any(isinstance(word, int) for word in words)
            return int(getattr(self, f"call_{plain[0]}")(*plain[1:]))

        return syscall

    def call_444(self, attributes: Any, size: int, flags: int) -> int:
        if flags == 1:  # LANDLOCK_CREATE_RULESET_VERSION
            assert (attributes, size) == (None, 0)
            return self.version
        assert (size, flags) == (8, 0)
        (handled,) = struct.unpack("=Q", attributes)
        self.done.append(("create", handled))
        if not self.creates:
            return -1
        if self.handle is None:
            self.handle = os.open(os.devnull, os.O_RDONLY)
        self.handles.append(self.handle)
        return self.handle

    def call_445(self, ruleset: int, rule: int, attributes: Any, flags: int) -> int:
        # LANDLOCK_RULE_PATH_BENEATH.
        assert (ruleset, rule, flags) == (self.handles[0], 1, 0)
        allowed, handle = struct.unpack("=Qi", attributes)  # packed
        assert fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_PATH
        assert fcntl.fcntl(handle, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        self.handles.append(handle)
        self.done.append(("rule", str(Path(f"/proc/self/fd/{handle}").readlink()), allowed))
        return 0

    def call_446(self, ruleset: int, flags: int) -> int:
        assert (ruleset, flags) == (self.handles[0], 0)
        os.fstat(ruleset)  # still open
        self.done.append(("restrict",))
        self.refuses -= 1
        return -1 if self.refuses >= 0 else 0

    def prctl_without_number(self, *arguments: int) -> int:
        self.done.append(("prctl", *arguments))
        return 0


def use(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    """Let ``library`` take the place of the C library."""

    def load(name: object, use_errno: bool = False) -> Any:
        assert name is None
        if use_errno:
            return library
        # Who doesn't ask for the error's number can't tell it.
        return SimpleNamespace(prctl=getattr(library, "prctl_without_number", None))

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.fixture
def error_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EPERM)


OLD = "the kernel's Landlock is older than Linux 5.19, and would refuse every rename"
NONE = "the kernel has no Landlock, or was started without it (lsm=…)"


@pytest.mark.parametrize(
    ("version", "why"), [(-1, NONE), (0, NONE), (1, OLD), (2, None), (3, None), (7, None)]
)
def test_landlock_is_used_from_its_second_version_on(
    monkeypatch: pytest.MonkeyPatch, version: int, why: str | None
) -> None:
    library = RecordingLibrary(version)
    use(monkeypatch, library)
    assert unsupported() == why
    assert library.done == []
    assert restrict(()) == why
    asked = [entry[0] for entry in library.done]
    assert asked == ([] if why else ["create", "restrict"])


def test_another_system_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SimpleNamespace())
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(landlock, "_call", lambda *_: 3)
    assert unsupported() == "Darwin has no Landlock"
    assert restrict((("/", int(READ)),)) == "Darwin has no Landlock"


def test_a_c_library_without_system_calls_has_no_landlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, SimpleNamespace(prctl=None))
    assert unsupported() == NONE

    def fails(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", fails)
    assert unsupported() == NONE


# linux/landlock.h: the first 13 rights came with version 1, REFER with 2, TRUNCATE with 3.
REFER, TRUNCATE = 1 << 13, 1 << 14
SECOND, THIRD = (1 << 14) - 1, (1 << 15) - 1


@pytest.mark.parametrize(("version", "handled"), [(2, SECOND), (3, THIRD), (6, THIRD)])
def test_everything_is_given_up_that_the_version_knows_of_but_what_rules_allow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, handled: int
) -> None:
    library = RecordingLibrary(version)
    use(monkeypatch, library)
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    rules = (
        (str(folder), int(CHANGE)),
        (str(tmp_path / "missing"), int(READ)),
        (str(file), int(CHANGE)),
        (str(file), int(RUN)),
        (str(folder), int(READ)),
        (os.devnull, int(DEVICE)),
    )
    assert restrict(rules) is None
    truncate = TRUNCATE & handled
    assert library.done == [
        ("create", handled),
        ("rule", str(folder), int(CHANGE) & handled),
        # Write and read; the rest is of folders.
        ("rule", str(file), 1 << 1 | 1 << 2 | truncate),
        ("rule", str(file), 1 << 0 | 1 << 2),  # execute and read
        ("rule", str(folder), 1 << 2 | 1 << 3),
        ("rule", os.devnull, 1 << 1 | 1 << 2),
        ("restrict",),
    ]
    assert int(CHANGE) & REFER
    for handle in library.handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


@pytest.mark.parametrize(
    ("refuses", "asked", "why"),
    [
        (0, ["create", "restrict"], None),
        (1, ["create", "restrict", "prctl", "restrict"], None),
        (
            2,
            ["create", "restrict", "prctl", "restrict"],
            "the kernel refuses the restriction: EPERM",
        ),
    ],
)
@pytest.mark.usefixtures("error_number")
def test_rights_that_grow_are_given_up_where_the_kernel_asks_for_that(
    monkeypatch: pytest.MonkeyPatch, refuses: int, asked: list[str], why: str | None
) -> None:
    library = RecordingLibrary(refuses=refuses)
    use(monkeypatch, library)
    assert restrict(()) == why
    assert [entry[0] for entry in library.done] == asked
    told = [entry[1:] for entry in library.done if entry[0] == "prctl"]
    assert told == [(NO_NEW_PRIVS, 1, 0, 0, 0)] * asked.count("prctl")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(library.handles[0])


def test_a_set_of_rules_may_be_the_first_handle_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[int] = []
    use(monkeypatch, RecordingLibrary(handle=0))
    monkeypatch.setattr(os, "close", closed.append)
    assert restrict(()) is None
    assert closed == [0]


@pytest.mark.parametrize(("number", "name"), [(errno.EPERM, "EPERM"), (99_999, "unknown")])
def test_a_refused_set_of_rules_is_told_with_its_error(
    monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    library = RecordingLibrary(creates=False)
    use(monkeypatch, library)
    monkeypatch.setattr(ctypes, "get_errno", lambda: number)
    assert restrict((("/", int(READ)),)) == f"the kernel refuses a set of rules: {name}"
    assert [entry[0] for entry in library.done] == ["create"]


def test_the_rights_are_those_of_the_kernel() -> None:
    assert int(RUN) == 0b1101
    assert int(READ) == 0b1100
    assert int(DEVICE) == 0b1110
    # No right to make devices' nodes, and none to run what was written.
    assert int(CHANGE) == THIRD & ~(1 << 0 | 1 << 6 | 1 << 11)
    assert (Right.REFER, Right.TRUNCATE) == (REFER, TRUNCATE)


PROGRAM = 22  # PR_SET_SECCOMP


class RecordingFilters:
    """A C library that takes filters without using them: their bytes are written down."""

    def __init__(self, *gives: int) -> None:
        self.gives = list(gives)
        self.done: list[tuple[Any, ...]] = []

    def prctl(self, option: int, *arguments: Any) -> int:
        if option != PROGRAM:
            self.done.append((option, *arguments))
            return 0
        mode, header, *rest = arguments
        # struct sock_fprog: how many steps of 8 bytes, and where they lie.
        steps, address = struct.unpack("HxxxxxxP", header._obj.raw[:16])
        self.done.append((option, mode, ctypes.string_at(address, 8 * steps), *rest))
        return self.gives.pop(0)


def program(architecture: int, socket_call: int) -> bytes:
    """Assemble the filter as linux/filter.h spells it: load, compare, return."""
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    refuse = (end, 0, 0, 0x00050000 | errno.EACCES)
    steps = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        refuse,
        (load, 0, 0, 0),
        (at_least, 0, 1, 0x40000000),
        refuse,
        (equal, 0, 1, 425),
        refuse,
        (equal, 1, 0, socket_call),
        (end, 0, 0, 0x7FFF0000),
        (load, 0, 0, 16),
    ]
    for family in (socket.AF_INET, socket.AF_INET6, 17, 40):
        steps += [(equal, 0, 1, int(family)), refuse]
    steps.append((end, 0, 0, 0x7FFF0000))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


@pytest.mark.parametrize(
    ("machine", "architecture", "socket_call"),
    [("x86_64", 0xC000003E, 41), ("aarch64", 0xC00000B7, 198)],
)
@pytest.mark.parametrize("gives", [(0,), (-1, 0), (-1, -1)])
@pytest.mark.usefixtures("error_number")
def test_the_filter_is_the_machine_s_and_goes_to_the_kernel_whole(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    architecture: int,
    socket_call: int,
    gives: tuple[int, ...],
) -> None:
    library = RecordingFilters(*gives)
    use(monkeypatch, library)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    why = "the kernel refuses a filter of system calls: EPERM" if gives[-1] else None
    assert confine.leave_network() == why
    put = (PROGRAM, 2, program(architecture, socket_call), 0, 0)
    expected = [put] if len(gives) == 1 else [put, (NO_NEW_PRIVS, 1, 0, 0, 0), put]
    assert library.done == expected


def test_an_error_that_has_no_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, RecordingFilters(-1, -1))
    monkeypatch.setattr(ctypes, "get_errno", lambda: 99_999)
    assert str(confine.leave_network()).endswith("a filter of system calls: unknown")


@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "riscv64"), ("Darwin", "x86_64"), ("Windows", "AMD64")]
)
def test_where_there_is_no_filter_the_kernel_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    library = RecordingFilters(0)
    use(monkeypatch, library)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    why = f"seccomp's filter isn't written for {system} on {machine}"
    assert confine.leave_network() == why
    assert library.done == []


def test_a_c_library_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no library")

    monkeypatch.setattr(ctypes, "CDLL", fails)
    assert confine.leave_network() == "the C library offers no prctl (no library)"


def test_giving_up_files_is_tried_by_reading_what_lies_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed: list[str] = []

    def lists(folder: str) -> list[str]:
        listed.append(folder)
        return []

    def refuses(folder: str) -> list[str]:
        listed.append(folder)
        raise PermissionError

    monkeypatch.setattr(confine, "unsupported", lambda: "why not")
    assert confine.files_are_left() == "why not"
    monkeypatch.setattr(confine, "unsupported", lambda: None)
    monkeypatch.setattr(os, "listdir", refuses)
    assert confine.files_are_left() is None
    monkeypatch.setattr(os, "listdir", lists)
    monkeypatch.setenv("ONNX_HARNESS_ALLOW_READ", str(tmp_path))
    with pytest.raises(RuntimeError, match="/ could be read after files were given up"):
        confine.files_are_left()
    monkeypatch.setenv("ONNX_HARNESS_ALLOW_READ", f"{tmp_path}:/")
    assert confine.files_are_left() == "ONNX_HARNESS_ALLOW_READ names /"
    assert listed == ["/"] * 3


def test_the_numbers_are_the_kernel_s_own() -> None:
    numbers = (landlock._CREATE_RULESET, landlock._ADD_RULE, landlock._RESTRICT_SELF)
    assert numbers == (CREATE_RULESET, ADD_RULE, RESTRICT_SELF)
