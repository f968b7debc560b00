"""What tests of several folders share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from onnx_harness.isolate.files import VARIABLE


@pytest.fixture(scope="session", autouse=True)
def readable_by_workers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let workers read what tests write: each new folder would cost a new process.

    Set and empty, the variable has them told of every folder, as in a user's run.
    """
    os.environ.setdefault(VARIABLE, str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that the test starts can be interrupted.

    A shell's job in the background can't, nor what it starts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
