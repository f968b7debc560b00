"""Runs of pytest within these tests leave nothing behind, and don't load what they don't need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_harness.isolate.files import VARIABLE
from tests.plugin.running import LEAN


@pytest.fixture(autouse=True)
def _apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester")  # it clears the variable that follows
    monkeypatch.setenv("PYTEST_ADDOPTS", LEAN)
    for variable in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(variable)  # of the run that these tests are part of
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers write where the test's own transforms do."""
    monkeypatch.setenv(VARIABLE, "/")
