"""A worker has no network, files of its own alone, and a limit on their size.

One whose answers are forged is a crash, and runs nothing.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_harness import isolate
from onnx_harness.cell.workers import cell_worker
from onnx_harness.errors import WorkerCrashed, words_of
from onnx_harness.isolate import Limits, Worker, confine
from onnx_harness.isolate.files import VARIABLE
from onnx_harness.isolate.landlock import unsupported
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, save

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


@pytest.mark.skipif(
    platform.machine() not in confine._CALLS, reason="no filter for this machine"
)
def test_a_worker_reaches_no_network(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert worker.call(reach, server.getsockname()[1]) == "PermissionError"
    assert worker.call(families) == ["AF_UNIX"]
    assert worker.call(confine.network_is_left) is None
    assert families() == ["AF_INET", "AF_INET6", "AF_UNIX"]  # here it's as it was


def test_a_worker_that_keeps_the_network_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


needs_landlock = pytest.mark.skipif(unsupported() is not None, reason=str(unsupported()))


def text_of(path: str) -> str:
    """Takes a string: a path that a call names as such is one that the worker may read."""
    with open(path) as file:  # noqa: PTH123
        return file.read()


def text_by_child(path: str) -> str:
    code = "import sys; print(open(sys.argv[1]).read(), end='')"
    ended = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True
    )
    return ended.stdout if ended.returncode == 0 else ended.stderr.splitlines()[-1]


def text_of_named(path: Path) -> str:
    return path.read_text()


def write_text(path: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write("x")


def temporary_file() -> str:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        return file.name


def process_id() -> int:
    return os.getpid()


@pytest.fixture
def confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker as a run starts one for a model, with a secret in the home folder and outside."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/secret", "store/weights.bin", "other/weights.bin"):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(name)
    running = cell_worker(
        Settings(cell_timeout=60), readable=[save(linear(), tmp_path / "store" / "m.onnx")]
    )
    yield running
    running.close()


@needs_landlock
def test_a_worker_reads_nothing_but_the_models_folder_and_its_environment(
    confined: Worker, tmp_path: Path
) -> None:
    assert (
        confined.call(text_of, str(tmp_path / "store" / "weights.bin"))
        == "store/weights.bin"
    )
    for outside in (
        *(tmp_path / "home/secret", tmp_path / "other/weights.bin", "/etc/passwd"),
        *("/proc/1/environ", f"/proc/{os.getpid()}/environ", "/root/.profile"),
    ):
        with pytest.raises(PermissionError):
            confined.call(text_of, str(outside))
    assert "PermissionError" in confined.call(text_by_child, "/etc/passwd")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "home" / "secret")
    with pytest.raises(PermissionError):
        confined.call(text_of, str(tmp_path / "store" / "link"))
    assert text_of(str(tmp_path / "store" / "link")) == "home/secret"  # here it's as it was


def words_on(path: str) -> str:
    try:
        return text_of(path)
    except OSError as error:
        return words_of(error)


@needs_landlock
def test_a_refusal_says_what_lifts_it(confined: Worker) -> None:
    assert "--allow-read" in confined.call(words_on, "/etc/passwd")
    assert "--allow-read" not in words_of(PermissionError(13, "Permission denied"))


@needs_landlock
def test_a_worker_changes_nothing_but_its_own_folder_and_the_cache(
    confined: Worker, tmp_path: Path
) -> None:
    for outside in ("store/new", "store/m.onnx", "home/.bashrc", "other/new"):
        with pytest.raises(PermissionError):
            confined.call(write_text, str(tmp_path / outside))
    assert Path(confined.call(temporary_file)).is_relative_to(confined.folder.path)


@needs_landlock
def test_a_call_that_names_another_file_gets_a_process_that_may_read_it(
    confined: Worker, tmp_path: Path
) -> None:
    before = confined.call(process_id)
    assert (
        confined.call(text_of_named, tmp_path / "store" / "weights.bin")
        == "store/weights.bin"
    )
    assert confined.call(process_id) == before
    assert (
        confined.call(text_of_named, tmp_path / "other" / "weights.bin")
        == "other/weights.bin"
    )
    assert confined.call(process_id) != before
    with pytest.raises(PermissionError):
        confined.call(text_of, str(tmp_path / "home" / "secret"))


@needs_landlock
@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize(
    ("lifted", "reads"), [("other", True), ("store", False), ("/", True)]
)
def test_what_the_user_allows_is_read(lifted: str, reads: bool, tmp_path: Path) -> None:
    settings = Settings(allow_read=(tmp_path / lifted,))
    freed = cell_worker(settings)
    try:
        if reads:
            assert freed.call(text_of, str(tmp_path / "other" / "weights.bin"))
        else:
            with pytest.raises(PermissionError):
                freed.call(text_of, str(tmp_path / "other" / "weights.bin"))
    finally:
        freed.close()


@needs_landlock
@pytest.mark.usefixtures("confined")
def test_a_model_in_the_home_folder_opens_none_of_its_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "home" / ".ssh").mkdir()
    (tmp_path / "home" / ".ssh" / "key").write_text("key")
    runner = Runner(Settings(), readable=[save(linear(), tmp_path / "home" / "m.onnx")])
    try:
        assert runner.call(text_of, str(tmp_path / "home" / "secret")) == "home/secret"
        with pytest.raises(PermissionError):
            runner.call(text_of, str(tmp_path / "home" / ".ssh" / "key"))
    finally:
        runner.close()


@needs_landlock
def test_a_worker_that_keeps_its_files_would_be_seen(
    confined: Worker, worker: Worker
) -> None:
    assert confined.call(confine.files_are_left) is None
    with pytest.raises(RuntimeError, match="could be read"):
        worker.call(confine.files_are_left)


def test_a_system_without_landlock_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnx_harness.isolate.landlock._version", lambda: 0)
    assert "Landlock" in str(confine.files_are_left())


def test_no_door_starts_a_worker_that_may_open_everything() -> None:
    """Were one to, none of the tests above would notice."""
    package = Path(confine.__file__).parents[1]
    starting = [
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if " Worker(" in file.read_text("utf-8").replace("class Worker", "")
    ]
    assert starting == ["cell/workers.py"]
