"""A package whose entry point can't be loaded is installed beside the harness."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import linear, save
from tests.plugin.running import install, run_pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path, "raise RuntimeError('broken on purpose')")
    save(linear(), tmp_path / "net.onnx")
    return tmp_path


def test_a_run_that_needs_nothing_of_it_passes(folder: Path) -> None:
    ended = run_pytest(folder, "net.onnx", "--variant=simplify", "--benchmark-skip")
    assert ended.code == pytest.ExitCode.OK
    assert "broken on purpose" not in ended.told


def test_a_run_that_asks_for_it_is_told(folder: Path) -> None:
    ended = run_pytest(folder, "net.onnx", "--variant=faults.scale")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert (
        "Entry point 'faults' of faults 1 can't be loaded: RuntimeError: broken on purpose."
        in ended.told
    )
