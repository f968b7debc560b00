"""``--diagnose`` as its users meet it: the last line of a failure, and a field of results.json."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.plugin.running import run_pytest

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
