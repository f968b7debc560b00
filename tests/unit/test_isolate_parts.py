"""The parts of a worker process, in this one: its limits, its filter, its notes, its answers."""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import math
import os
import pickle
import socket
import struct
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from onnx_harness.errors import DiedBefore
from onnx_harness.isolate import answers, confine, limits, notes
from onnx_harness.isolate import serve as serving
from onnx_harness.isolate.answers import UnreadableAnswer, pack, unpack
from onnx_harness.isolate.limits import Limits, default_memory_bytes
from onnx_harness.isolate.notes import (
    STAGE_BYTES,
    note_stage,
    noted,
    noting,
    risking,
    take_notes,
)

resource = pytest.importorskip("resource")
UNLIMITED = resource.RLIM_INFINITY


class Resources:
    """The limits of a process that isn't this one."""

    RLIM_INFINITY = UNLIMITED
    RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_CPU = "core", "file", "processes", "time"
    RUSAGE_SELF = "self"

    def __init__(self, hard: int = UNLIMITED) -> None:
        self.set: dict[str, tuple[int, int]] = {}
        self.hard = hard
        self.refuses: type[Exception] | None = None

    def getrlimit(self, limit: str) -> tuple[int, int]:
        assert limit in {"core", "file", "processes", "time"}
        return self.set.get(limit, (self.hard, self.hard))

    def setrlimit(self, limit: str, values: tuple[int, int]) -> None:
        if self.refuses is not None:
            raise self.refuses("not allowed")
        self.set[limit] = values

    def getrusage(self, who: str) -> SimpleNamespace:
        assert who == "self"
        return SimpleNamespace(ru_utime=3.0, ru_stime=4.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Resources:
    """Three cores, and a user who isn't root and has five threads in two processes."""
    made = Resources()
    own, other = SimpleNamespace(real=1000), SimpleNamespace(real=0)
    processes = [(own, 4), (own, None), (other, 90), (None, 70)]
    infos = [SimpleNamespace(info={"uids": uids, "num_threads": n}) for uids, n in processes]
    monkeypatch.setattr(confine, "resource", made)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: {1, 2, 5} if pid == 0 else set()
    )
    iterate = {("uids", "num_threads"): infos}
    monkeypatch.setattr(psutil, "process_iter", lambda fields: iterate[tuple(fields)])
    return made


def test_a_process_is_held_to_files_processes_and_time(machine: Resources) -> None:
    confine.limit_resources(100.0, 5000)
    assert machine.set == {
        "core": (0, UNLIMITED),
        "file": (5000, UNLIMITED),
        "processes": (5 + confine.SPARE_PROCESSES, UNLIMITED),
        "time": (7 + 600 + 10, UNLIMITED),
    }


def test_an_administrator_has_no_limit_of_processes(
    machine: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    confine.limit_resources(100.0, 5000)
    assert set(machine.set) == {"core", "file", "time"}


@pytest.mark.parametrize(
    ("hard", "file", "time"),
    [(616, 616, None), (617, 617, (617, 617)), (6000, 5000, (617, 6000)), (0, 0, None)],
)
def test_a_lower_limit_of_the_system_stays(
    machine: Resources, hard: int, file: int, time: tuple[int, int] | None
) -> None:
    machine.hard = hard
    confine.limit_resources(100.0, 5000)
    assert machine.set["file"] == (file, hard)
    assert machine.set.get("time") == time


@pytest.mark.parametrize("error", [OSError, PermissionError, ValueError])
def test_what_the_system_refuses_is_left(machine: Resources, error: type[Exception]) -> None:
    machine.refuses = error
    confine.limit_resources(100.0, 5000)
    assert machine.set == {}


def test_without_a_limit_of_time_there_is_none_of_the_processor_s(
    machine: Resources,
) -> None:
    confine.renew_time(math.inf)
    assert machine.set == {}
    confine.renew_time(1.0)
    assert machine.set == {"time": (7 + 6 + 10, UNLIMITED)}


def test_without_an_affinity_the_cores_are_counted(
    machine: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    for cores, time in ((8, 7 + 16 + 10), (None, 7 + 2 + 10)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        confine.renew_time(1.0)
        assert machine.set["time"] == (time, UNLIMITED)


def test_where_there_are_no_limits_nothing_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert confine.limits_are_set() is None
    monkeypatch.setattr(confine, "resource", None)
    confine.limit_resources(1.0, 1)
    confine.renew_time(1.0)
    assert "has no such limits" in str(confine.limits_are_set())


ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
ARCHITECTURE, SOCKET, URING = 0xC000003E, 41, 425


def verdict_on(call: int, argument: int = 0, architecture: int = ARCHITECTURE) -> int:
    """What the filter says of a system call, by the rules of a kernel's filter program."""
    program = confine._filter(ARCHITECTURE, SOCKET, URING)
    data = struct.pack("=IIQQ", call, architecture, 0, argument)
    accumulator = place = 0
    while True:
        code, when_true, when_false, value = struct.unpack("HBBI", program[place])
        place += 1
        kind, test = code & 0x07, code & 0xF0
        if kind == 0x06:
            return int(value)
        if kind == 0x00:
            (accumulator,) = struct.unpack_from("=I", data, value)
            continue
        holds = accumulator == value if test == 0x10 else accumulator >= value
        place += when_true if holds else when_false


@pytest.mark.parametrize(
    ("call", "argument", "architecture", "said"),
    [
        (0, 0, ARCHITECTURE, ALLOW),
        (SOCKET, int(socket.AF_UNIX), ARCHITECTURE, ALLOW),
        (SOCKET, int(socket.AF_INET), ARCHITECTURE, REFUSE),
        (SOCKET, int(socket.AF_INET6), ARCHITECTURE, REFUSE),
        (SOCKET + 1, int(socket.AF_INET), ARCHITECTURE, ALLOW),
        (URING, 0, ARCHITECTURE, REFUSE),
        (URING + 1, 0, ARCHITECTURE, ALLOW),
        (0, 0, ARCHITECTURE + 1, REFUSE),
        (0x40000000, 0, ARCHITECTURE, REFUSE),
        (0x40000000 + 1, 0, ARCHITECTURE, REFUSE),
        (0x3FFFFFFF, 0, ARCHITECTURE, ALLOW),
    ],
)
def test_the_filter_refuses_sockets_io_uring_and_other_architectures(
    call: int, argument: int, architecture: int, said: int
) -> None:
    assert verdict_on(call, argument, architecture) == said


class Library:
    """A C library whose ``prctl`` gives these answers in turn."""

    def __init__(self, *gives: int) -> None:
        self._gives = list(gives)
        self.asked: list[int] = []

    def prctl(self, option: int, *_: object) -> int:
        self.asked.append(option)
        return self._gives.pop(0)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux alone has the filter"
)
@pytest.mark.parametrize(
    ("gives", "asked", "why"),
    [
        ((0,), [22], None),
        ((-1, 0, 0), [22, 38, 22], None),
        ((-1, 0, -1), [22, 38, 22], "the kernel refuses a filter of system calls: EINVAL"),
    ],
)
def test_the_network_is_left_with_the_rights_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
    gives: tuple[int, ...],
    asked: list[int],
    why: str | None,
) -> None:
    library = Library(*gives)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)
    assert confine.leave_network() == why
    assert library.asked == asked


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux alone has the filter"
)
def test_a_c_library_without_the_call_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    assert str(confine.leave_network()).startswith("the C library offers no prctl (")


def test_leaving_the_network_is_tried_with_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "leave_network", lambda: "why not")
    assert confine.network_is_left() == "why not"
    monkeypatch.setattr(confine, "leave_network", lambda: None)
    with pytest.raises(RuntimeError, match="a socket could be made"):
        confine.network_is_left()
    wanted: list[tuple[int, ...]] = []

    def refuses(*words: int) -> None:
        wanted.append(words)
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuses)
    assert confine.network_is_left() is None
    assert wanted == [(socket.AF_INET, socket.SOCK_STREAM)]


@pytest.mark.parametrize(
    ("container", "expected"), [("400", 300), ("max", 752), ("4000", 752)]
)
def test_three_quarters_of_the_memory_that_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, container: str, expected: int
) -> None:
    file = tmp_path / "memory.max"
    monkeypatch.setattr(limits, "_CONTAINER_MEMORY", file)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1003))
    assert default_memory_bytes() == 752
    file.write_text(f"{container}\n")
    assert default_memory_bytes() == expected


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Memory that notes are written to, as in a worker that two processes died in."""
    shared = SimpleNamespace(value=b"")
    monkeypatch.setattr(notes, "_noted", None)
    monkeypatch.setattr(notes, "_died_of", ())
    take_notes(shared, ("at risk: one", f"at risk: {'x' * 300}"[: STAGE_BYTES - 1]))
    return shared


def test_notes_are_cut_and_go_back_to_what_they_were(memory: SimpleNamespace) -> None:
    note_stage("load")
    with noting("run é"):
        assert (memory.value, noted()) == ("run é".encode(), "run é")
    assert noted() == "load"
    with pytest.raises(KeyError), noting("fails"):
        raise KeyError
    assert noted() == "load"
    note_stage("x" * 300)
    assert memory.value == b"x" * (STAGE_BYTES - 1)
    memory.value = b"\xff"
    assert noted() == "�"


@pytest.mark.parametrize("what", ["one", "x" * 300])
def test_what_a_process_died_of_is_not_done_again(
    memory: SimpleNamespace, what: str
) -> None:
    with pytest.raises(DiedBefore, match="ONNX Runtime dies of it"), risking(what):
        raise AssertionError("it was done")
    with risking("another"):
        assert noted() == "at risk: another"
    assert (noted(), memory.value) == ("", b"")


def test_what_is_noted_of_a_risk_is_the_whole_of_it(memory: SimpleNamespace) -> None:
    with risking("a mend"):
        note_stage("transform")
        with noting("run"):
            assert noted() == "at risk: a mend"
        with risking("a part of it"):
            assert noted() == "at risk: a part of it"
        assert noted() == "at risk: a mend"
    note_stage("compare")
    assert memory.value == b"compare"


def test_elsewhere_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_noted", None)
    note_stage("load")
    assert noted() == ""


def double(number: int) -> int:
    return 2 * number


def fails() -> None:
    raise ValueError("no such thing")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> tuple[Connection, list[tuple[Any, ...]]]:
    """The life of a worker in a thread, and what it did to confine itself."""
    done: list[tuple[Any, ...]] = []

    def notes_that(name: str) -> Callable[..., None]:
        return lambda *words: done.append((name, *words))

    for name in ("take_notes", "_begin", "limit_resources", "leave_network", "renew_time"):
        monkeypatch.setattr(serving, name, notes_that(name))
    monkeypatch.setattr(serving, "_leave_with", lambda _parent: None)
    monkeypatch.setattr(serving, "_has_bytecode", lambda _module: True)
    imported: list[str] = []

    def imports(name: str) -> None:
        imported.append(name)
        if name == "nothing":
            raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", imports)
    ours, theirs = Pipe()
    arguments = (theirs, "stage", ("died",), "log", {"A": "1"}, ("nothing", "json"))
    thread = threading.Thread(
        target=serving.serve, args=(*arguments, Limits(5.0, 99), None, 7, True), daemon=True
    )
    thread.start()
    assert ours.poll(10)
    assert ours.recv_bytes() == b"hello"
    done.append(("thread", thread, imported))
    return ours, done


def test_a_worker_confines_itself_before_it_says_hello_and_answers_till_the_parent_leaves(
    worker: tuple[Connection, list[tuple[Any, ...]]],
) -> None:
    pipe, done = worker
    assert done[:4] == [
        ("take_notes", "stage", ("died",)),
        ("_begin", "log", {"A": "1"}, True),
        ("limit_resources", 5.0, 99),
        ("leave_network",),
    ]
    pipe.send_bytes(pickle.dumps((double, (21,))))
    assert pipe.poll(10)
    assert unpack(pipe.recv_bytes()) == [42]
    _, thread, imported = done[4]
    assert imported == ["nothing", "json"]
    assert done[5:] == [("renew_time", 5.0)]
    pipe.send_bytes(pickle.dumps((fails, ())))
    assert pipe.poll(10)
    error, where = unpack(pipe.recv_bytes())
    assert repr(error) == "ValueError('no such thing')"
    assert "in fails" in where
    pipe.close()
    thread.join(10)
    assert not thread.is_alive()


def document(value: object) -> bytes:
    head = json.dumps(value).encode()
    return struct.pack("<Q", len(head)) + head


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"!": "nonsense"}, "something of no known kind: 'nonsense'"),
        (
            {"!": "enum", "t": "onnx_harness.isolate.limits:Limits", "v": 1},
            "isn't an enumeration",
        ),
        (
            {"!": "record", "t": "onnx_harness.results.cells:Status", "v": {}},
            "isn't a record",
        ),
        (
            {"!": "tuple", "t": "onnx_harness.isolate.limits:Limits", "v": []},
            "isn't a named tuple",
        ),
        ({"!": "bytes", "n": 1}, "is shorter than it says"),
        ({"!": "bytes", "n": -1}, "is shorter than it says"),
        ({"!": "array", "d": "|O", "s": [0], "n": 0, "scalar": False}, "would hold objects"),
        ({"!": "enum", "t": "os:path", "v": 1}, "a type of another package: 'os:path'"),
        (
            {"!": "enum", "t": "onnx_harness.isolate.answers:json", "v": 1},
            "something that isn't a type",
        ),
        (
            {"!": "enum", "t": "onnx_harness.isolate.answers:Path", "v": 1},
            "something that isn't a type",
        ),
        (
            {"!": "enum", "t": "onnx_harness.nothing:X", "v": 1},
            "can't be read: ModuleNotFound",
        ),
    ],
)
def test_what_is_no_answer_is_refused_in_words(value: object, words: str) -> None:
    with pytest.raises(UnreadableAnswer, match=words.replace("(", r"\(")):
        unpack(document(value))


def test_blocks_lie_one_behind_the_other() -> None:
    assert unpack(pack([b"ab", b"", bytearray(b"cde"), b"f"])) == [b"ab", b"", b"cde", b"f"]


@pytest.mark.parametrize(
    "number", [0, -1, (1 << 63) - 1, 1 << 63, -(1 << 63) + 1, -(1 << 63), 10**300]
)
def test_whole_numbers_of_any_size_travel(number: int) -> None:
    assert unpack(pack(number)) == number
    assert (answers._TAG in json.dumps(answers._packed(number, []))) is (
        abs(number) >= 1 << 63
    )
