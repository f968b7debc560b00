"""What a worker writes lies in one folder, which goes with it however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from onnx_harness.errors import WorkerDied
from onnx_harness.isolate import Limits, Worker
from onnx_harness.isolate.own_folder import PREFIX, OwnFolder, remove_leftovers

MEMORY = 1 << 30


def litter() -> str:
    """Write where libraries write, as a transform or a profile does."""
    folder = tempfile.mkdtemp(prefix="onnx-harness-profile-")
    Path(folder, "profile.json").write_text("x")
    return folder


def litter_and_crash() -> None:
    litter()
    os.kill(os.getpid(), signal.SIGSEGV)


def litter_and_hang() -> None:
    litter()
    time.sleep(60)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("work", [litter_and_crash, litter_and_hang, litter])
def test_a_worker_leaves_nothing_however_it_ends(work: object, temporary: Path) -> None:
    worker = Worker(Limits(2, MEMORY))
    try:
        made = Path(str(worker.call(work)))  # type: ignore[arg-type]
        assert made.is_relative_to(worker.folder.temporary)
    except WorkerDied:
        assert list(worker.folder.temporary.iterdir()) == []
    finally:
        worker.close()
    assert list(temporary.iterdir()) == []


KILLED = """
import os, signal, sys
from onnx_harness.isolate import Limits, Worker
from tests.unit.test_own_folder import litter
worker = Worker(Limits(60, 1 << 30))
worker.call(litter)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_leaves_goes_at_the_next_one(temporary: Path) -> None:
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ended = subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    assert left.name.startswith(PREFIX)
    os.utime(left, (0, 0))
    own = OwnFolder()
    assert list(temporary.iterdir()) == [own.path]
    own.remove()
    assert list(temporary.iterdir()) == []


def test_a_living_workers_folder_stays_however_old_it_is(temporary: Path) -> None:
    own, other = OwnFolder(), temporary / "somebody-elses"
    other.mkdir()
    os.utime(own.path, (0, 0))
    remove_leftovers()
    assert own.log.is_file()
    assert other.is_dir()
    own.remove()


def test_a_folder_whose_number_another_process_has_now_goes_too(temporary: Path) -> None:
    left = temporary / f"{PREFIX}{os.getpid()}-left"
    left.mkdir()
    remove_leftovers()
    assert left.is_dir()  # it may be about to take its lock
    os.utime(left, (0, 0))
    remove_leftovers()
    assert not left.exists()
