"""The process that opens models, as a run starts it."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from onnx_harness.cell.workers import cell_worker
from onnx_harness.settings import Settings

TELEMETRY = "ORT_DISABLE_TELEMETRY"


@pytest.mark.parametrize(("said", "expected"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_where_nobody_asks_for_it(
    said: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TELEMETRY, raising=False)
    if said is not None:
        monkeypatch.setenv(TELEMETRY, said)
    with closing(cell_worker(Settings())) as worker:
        assert worker.call(os.getenv, TELEMETRY) == expected
