"""A worker has no network, and a limit on files.

One whose answers are forged is a crash, and runs nothing.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_harness import isolate
from onnx_harness.errors import WorkerCrashed
from onnx_harness.isolate import Limits, Worker, confine

FILE_BYTES = 1 << 30


@pytest.fixture
def worker() -> Iterator[Worker]:
    running = Worker(Limits(60, FILE_BYTES))
    yield running
    running.close()


def families() -> list[str]:
    opened = []
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
            opened.append(family.name)
        except PermissionError:
            continue
    return opened


def reach(port: int) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return "reached"
    except OSError as error:
        return type(error).__name__


def write_large(path: str) -> str:
    try:
        with open(path, "wb") as file:  # noqa: PTH123
            file.seek(FILE_BYTES)
            file.write(b"x")
            file.flush()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "written"


def forge(to: str) -> None:
    """Answer with a pickle that writes a file, as whoever took over the worker would."""

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (to,)

    pipe = next(frame for frame in _frames() if "pipe" in frame)["pipe"]
    pipe.send_bytes(pickle.dumps(Bomb()))


def _frames() -> Iterator[dict[str, Any]]:
    import sys

    frame = sys._getframe()
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]


@pytest.mark.skipif(platform.machine() not in confine._CALLS, reason="no filter for this machine")
def test_a_worker_reaches_no_network(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert worker.call(reach, server.getsockname()[1]) == "PermissionError"
    assert worker.call(families) == ["AF_UNIX"]
    assert worker.call(confine.network_is_left) is None
    assert families() == ["AF_INET", "AF_INET6", "AF_UNIX"]  # here it's as it was


def test_a_worker_that_keeps_the_network_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "leave_network", lambda: None)
    with pytest.raises(RuntimeError, match="a socket could be made"):
        confine.network_is_left()


def test_a_machine_whose_calls_arent_known_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    assert "abacus" in str(confine.network_is_left())


def test_a_worker_writes_no_file_beyond_the_limit(worker: Worker, tmp_path: Path) -> None:
    assert worker.call(write_large, str(tmp_path / "large")) == "File too large"


def test_a_forged_answer_is_a_crash_and_nothing_of_it_is_run(
    worker: Worker, tmp_path: Path
) -> None:
    with pytest.raises(WorkerCrashed, match="answer"):
        worker.call(forge, str(tmp_path / "owned"))
    assert list(tmp_path.iterdir()) == []
    assert worker.call(isolate.noted) == ""
