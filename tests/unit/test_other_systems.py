"""Windows and macOS lack modules and calls of Linux: nothing needs them to be imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import resource_tracker

import pytest

from onnx_harness.isolate import Limits, Worker, confine

WITHOUT = """
import importlib, os, pkgutil, signal, sys

# Libraries of others first: what they import for this system is their own matter.
import numpy, onnx, onnxruntime, psutil, pytest, rich.console
import concurrent.futures.process, multiprocessing.spawn, multiprocessing.synchronize, sqlite3, tarfile

for name in ("resource", "fcntl", "pwd", "grp", "termios", "pty", "tty"):
    sys.modules[name] = None  # importing it raises an ImportError
for module, names in ((os, ("fork", "getuid", "killpg", "sched_getaffinity", "sched_setaffinity")),
                      (signal, ("SIGKILL", "SIGHUP", "SIG_BLOCK", "pthread_sigmask"))):
    for name in names:
        delattr(module, name)

import onnx_harness

for module in pkgutil.walk_packages(onnx_harness.__path__, "onnx_harness."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from onnx_harness.cli import main

main(["--help"])
"""


def test_every_module_is_imported_without_what_linux_alone_has() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "usage: onnx-harness" in ended.stdout


def test_a_worker_is_started_without_signal_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    resource_tracker.ensure_running()  # which needs the masks where there are some
    monkeypatch.delattr(signal, "pthread_sigmask")
    worker = Worker(Limits(30, 2**40))
    try:
        assert worker.call(abs, -3) == 3
    finally:
        worker.close()


@pytest.mark.parametrize(
    "call", [lambda: confine.limit_resources(1.0, 1), lambda: confine.renew_time(1.0)]
)
def test_limits_that_the_system_lacks_are_left_out(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]
) -> None:
    monkeypatch.setattr(confine, "resource", None)
    monkeypatch.delattr(os, "getuid")
    call()
