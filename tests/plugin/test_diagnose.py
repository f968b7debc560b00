"""``--diagnose`` as its users meet it: the last line of a failure, and a field of results.json."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.models import linear, save
from tests.plugin.running import SECONDS, install, read_cells, run_pytest, start_pytest

DEFECT = Path(__file__).parents[1] / "data" / "defects" / "83_ort_rmsnorm_keepdims0.onnx"


def test_the_sentence_is_the_last_line_of_the_failure_and_is_kept(tmp_path: Path) -> None:
    shutil.copy(DEFECT, tmp_path / "net.onnx")
    options = (
        "--variant=ort.extended",
        "--benchmark-skip",
        "--report-dir=reports",
        "--input-sets=1",
    )

    ended = run_pytest(tmp_path, "net.onnx", "--diagnose", *options)

    assert ended.code == pytest.ExitCode.TESTS_FAILED
    cell = ended.cells["net-ort.extended-cpu"]
    diagnosis = cell["diagnosis"]
    assert cell["detail"][-1] == diagnosis["sentence"]
    assert diagnosis["cause"]["optimizers"] == ["SimplifiedLayerNormFusion"]
    assert diagnosis["sentence"][:40] in ended.told


# Wrong in the run; the search, which applies it again, never ends.
SLOW = """
import pathlib, time
from onnx import numpy_helper
from onnx_harness.transforms import Transform

def spoil(model):
    if pathlib.Path("judged").exists():
        pathlib.Path("searched").write_text("")
        time.sleep(600)
    pathlib.Path("judged").write_text("")
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
    return model

TRANSFORM = Transform("spoils, and then never ends", spoil, {"slow": {}})
"""


@pytest.mark.usefixtures("unconfined", "interruptible")
def test_a_search_that_is_interrupted_keeps_the_verdict(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    install(tmp_path, SLOW)
    options = ("lin.onnx", "--variant=slow", "--benchmark-skip", "--report-dir=reports")

    process = start_pytest(tmp_path, *options, "--diagnose", start_new_session=True)
    ends = time.monotonic() + SECONDS
    while not (tmp_path / "searched").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)

    assert process.returncode == pytest.ExitCode.INTERRUPTED, told
    cell = read_cells(tmp_path)["lin-slow-cpu"]
    assert cell["status"] == "fail"
    assert "was interrupted; nothing was narrowed down" in cell["diagnosis"]["sentence"]
    assert cell["diagnosis"]["sentence"][:40] in told
