"""The process that opens models, as a run starts it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.cell import workers
from onnx_harness.cell.workers import cell_worker
from onnx_harness.errors import ResultsError
from onnx_harness.model.links import store_of
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


def test_a_worker_gets_what_its_run_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def files(*words: Any) -> str:
        asked.append(words)
        return "the files"

    def worker(*words: Any, **more: Any) -> str:
        asked.append((words, more))
        return "a worker"

    monkeypatch.setattr(workers, "Files", files)
    monkeypatch.setattr(workers, "Worker", worker)
    monkeypatch.setenv(TELEMETRY, "0")
    root, own, model = (tmp_path / name for name in ("root", "own", "model"))
    monkeypatch.setattr(workers, "cache_root", lambda: root)
    settings = Settings(allow_read=(tmp_path,), cell_memory=12345)
    started: object = cell_worker(
        settings, {"A": "b"}, preload=["numpy"], readable=[model], writable=[own]
    )
    assert started == "a worker"
    cache = {"ONNX_HARNESS_CACHE": str(root)}
    assert asked == [
        ([model], [own, root], (tmp_path,), store_of),
        (
            (settings.limits, {"A": "b", **cache}),
            {"preload": ["numpy"], "files": "the files"},
        ),
    ]

    def fails() -> Path:
        raise ResultsError("it can't be written")

    asked.clear()
    monkeypatch.setattr(workers, "cache_root", fails)
    cell_worker(settings)
    assert asked == [
        ((), [], (tmp_path,), store_of),
        ((settings.limits, {}), {"preload": (), "files": "the files"}),
    ]
