"""A run that is ended from outside keeps what it has found, and leaves no process behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from onnx_harness.cli import main
from tests.models import linear, save
from tests.plugin.running import SECONDS, install, read_cells, run_pytest, start_pytest

pytestmark = pytest.mark.usefixtures("unconfined")  # their transforms write files

SLEEPY = """
import os, pathlib, time
from onnx_harness.transforms import Transform
def sleep(model):
    pathlib.Path("asleep").write_text("")
    time.sleep(600)

TRANSFORM = Transform("never ends", sleep, {"sleepy": {}})
"""

SOON_SECONDS = 30  # under xdist, execnet gives its workers 10 s before it kills them


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    """Whether ``what`` became true within ``seconds``."""
    ends = time.monotonic() + seconds
    while not what() and time.monotonic() < ends:
        time.sleep(0.05)
    return what()


def begin(folder: Path, *args: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run whose first cell has ended and whose second never will, and every process below it."""
    save(linear(), folder / "lin.onnx")
    install(folder, SLEEPY)
    cells = [
        "lin.onnx",
        "--variant=original",
        "--variant=sleepy",
        "-k",
        "accuracy",
        "--report-dir=reports",
    ]
    process = start_pytest(folder, *cells, *args, start_new_session=True)
    mid_run = wait_until(
        lambda: (folder / "asleep").exists() and bool(read_cells(folder)), SECONDS
    )
    below = psutil.Process(process.pid).children(recursive=True)
    if not mid_run or not below:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"the run didn't get to its second cell: {process.communicate()[0]}")
    return process, below


def left(processes: list[psutil.Process]) -> list[str]:
    """The processes that are still there after a while."""

    def alive() -> list[psutil.Process]:
        return [
            each
            for each in processes
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
        ]

    wait_until(lambda: not alive(), SOON_SECONDS)
    found = [" ".join(each.cmdline()) for each in alive()]
    for each in alive():
        each.kill()
    return found


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "under xdist"])
def test_a_killed_run_keeps_its_finished_cells_and_leaves_no_worker(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    process, below = begin(tmp_path, *workers)
    process.kill()
    process.communicate(timeout=SOON_SECONDS)
    assert left(below) == []
    cells = read_cells(tmp_path)
    assert {key: cell["status"] for key, cell in cells.items()} == {
        "lin-original-cpu": "pass"
    }


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_run_with_its_reports_written(tmp_path: Path) -> None:
    process, below = begin(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the worker gets it too
    told, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, told
    assert left(below) == []
    assert {key: cell["status"] for key, cell in read_cells(tmp_path).items()} == {
        "lin-original-cpu": "pass"
    }
    assert "1 model, 1 cell on cpu: 1 pass" in told
    for name in ("summary.md", "report.html"):
        assert "lin" in (tmp_path / "reports" / name).read_text("utf-8")


FAILS_OR_SLEEPS = """
import pathlib, time
from onnx_harness.transforms import Transform
def apply(model, awake=False):
    if awake:
        raise ValueError("no")
    pathlib.Path("asleep").write_text("")
    time.sleep(600)

TRANSFORM = Transform("fails or never ends", apply, {"failing": {"awake": True}, "sleepy": {}})
"""


@pytest.mark.parametrize(
    ("first", "status", "options"),
    [("failing", "fail", []), ("original", "pass", ["--sensitivity"])],
    ids=["kept by itself", "its sensitivity measured"],
)
def test_a_cell_that_the_worker_has_more_to_do_for_is_written_before_the_next_has_ended(
    tmp_path: Path, first: str, status: str, options: list[str]
) -> None:
    save(linear(), tmp_path / "lin.onnx")
    install(tmp_path, FAILS_OR_SLEEPS)
    cells = [f"--variant={first}", "--variant=sleepy", "-k=accuracy", "--report-dir=reports"]
    process = start_pytest(tmp_path, "lin.onnx", *cells, *options)
    try:
        assert wait_until((tmp_path / "asleep").exists, SECONDS)
        assert {key: cell["status"] for key, cell in read_cells(tmp_path).items()} == {
            f"lin-{first}-cpu": status
        }
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_amid_the_reports_says_how_to_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "conftest.py").write_text(
        "import signal\nfrom onnx_harness.run import account\n"
        "account.write_reports = lambda *_: signal.raise_signal(signal.SIGINT)\n"
    )
    ended = run_pytest(
        tmp_path, "lin.onnx", "--variant=original", "-k=accuracy", "--report-dir=reports"
    )
    assert ended.code == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in ended.told
    assert "1 model, 1 cell on cpu: 1 pass" in ended.told
    assert "The writing of the reports was interrupted." in ended.told
    assert list(ended.cells) == ["lin-original-cpu"]
    command = shlex.split(ended.told.rpartition("write them by ")[2].splitlines()[0])
    assert command[0] == "onnx-harness"
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    assert "lin" in (tmp_path / "reports" / "report.html").read_text("utf-8")
