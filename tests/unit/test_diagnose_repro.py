"""A failing cell by itself: everything that it takes to see the failure, and nothing of this
package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.diagnose import repro
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, model, save, with_external_data

NARROW = "fp16.io32(max_finite_val=0.1)"
"""A conversion that's wrong on purpose: it cuts the weights off at a tenth."""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(Settings(report_dir=tmp_path / "reports", input_sets=2))
    yield made
    made.close()


def settled(runner: Runner, path: Path, variant: str) -> tuple[Path, str | None]:
    cell = Cell(card_for(path), parse_variant(variant), "cpu")
    line = repro.settle(runner, cell, runner.judge(cell))
    assert runner.settings.report_dir is not None
    return runner.settings.report_dir / repro.FOLDER / cell.id, line


def ran(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", folder / repro.SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_failing_cell_shows_its_failure_by_itself(runner: Runner, tmp_path: Path) -> None:
    folder, line = settled(runner, save(linear(), tmp_path / "lin.onnx"), NARROW)
    assert line == f"kept by itself: {os.path.relpath(folder)}"
    found = ran(folder)
    assert found.returncode == 1, found.stderr
    assert found.stdout.startswith("fail at compare: not faithful: output y departs by ")
    assert "test_data_set_0\n  as this provider computes it\n    y: " in found.stdout
    assert " apart at [" in found.stdout
    page = (folder / repro.PAGE).read_text("utf-8")
    assert "fail at compare: " in page
    assert "onnxruntime 1." in page
    assert "--variant 'fp16.io32(max_finite_val=0.1)'" in page


def test_what_is_kept_is_what_was_judged(runner: Runner, tmp_path: Path) -> None:
    folder, _ = settled(runner, save(linear(), tmp_path / "lin.onnx"), NARROW)
    assert (folder / repro.MODEL).read_bytes() == (tmp_path / "lin.onnx").read_bytes()
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(folder / repro.TRANSFORMED).graph.initializer
    ]
    cut = [
        np.abs(weight.astype("f4")).max() for weight in weights if weight.dtype == np.float16
    ]
    assert max(cut) == pytest.approx(0.1, 1e-3)
    cell = Cell(card_for(tmp_path / "lin.onnx"), parse_variant("original"), "cpu")
    assert runner.judge(cell).status is Status.PASS
    recorded = numpy_helper.to_array(
        onnx.load_tensor(folder / "test_data_set_0" / "input_0.pb")
    )
    expected = numpy_helper.to_array(
        onnx.load_tensor(folder / "test_data_set_0" / "output_0.pb")
    )
    w, b = (numpy_helper.to_array(each) for each in linear().graph.initializer)
    np.testing.assert_allclose(expected, recorded @ w + b, rtol=1e-5)


def test_the_harness_reads_what_it_kept(runner: Runner, tmp_path: Path) -> None:
    folder, _ = settled(runner, save(linear(), tmp_path / "lin.onnx"), NARROW)
    again, line = settled(runner, folder / repro.MODEL, NARROW)
    assert line is not None
    assert "recorded in test_data_set_0" in (again / repro.PAGE).read_text("utf-8")


def test_a_failure_in_the_transform_leaves_the_model_and_the_inputs(
    runner: Runner, tmp_path: Path
) -> None:
    folder, line = settled(
        runner, save(linear(), tmp_path / "lin.onnx"), "fp16.io32(max_finite_val=1e9)"
    )
    assert line == f"kept by itself: {os.path.relpath(folder)}"
    assert "fail at transform: " in (folder / repro.PAGE).read_text("utf-8")
    assert sorted(each.name for each in folder.iterdir()) == [
        repro.PAGE,
        repro.MODEL,
        "test_data_set_0",
        "test_data_set_1",
        "test_data_set_2",
    ]


def test_what_is_no_model_is_not_kept(runner: Runner, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    folder, line = settled(runner, broken, "original")
    assert line is None
    assert not folder.exists()


def test_external_data_comes_along(runner: Runner, tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "ext.onnx", "weights.bin")
    folder, _ = settled(runner, path, "fp16.io32(max_finite_val=0.5)")
    assert (folder / "weights.bin").read_bytes() == (tmp_path / "weights.bin").read_bytes()
    assert ran(folder).returncode == 1


def test_a_large_model_is_named_and_not_copied(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "MOST_BYTES", 10)
    cell = Cell(
        card_for(save(linear(), tmp_path / "lin.onnx")), parse_variant(NARROW), "cpu"
    )
    judged = runner.judge(cell)
    folder = tmp_path / "kept"
    repro.keep(runner.task(cell), runner._judged[cell.id], folder, judged)
    assert not (folder / repro.MODEL).exists()
    assert str(tmp_path / "lin.onnx") in (folder / repro.PAGE).read_text("utf-8")
    assert ran(folder).returncode == 1


def test_what_passes_leaves_nothing_and_takes_away_what_an_earlier_run_left(
    runner: Runner, tmp_path: Path
) -> None:
    path = save(linear(), tmp_path / "lin.onnx")
    folder, _ = settled(runner, path, "fp16.io32")
    assert not folder.exists()
    folder.mkdir(parents=True)
    assert settled(runner, path, "fp16.io32") == (folder, None)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_told_and_ends_nothing(
    runner: Runner, tmp_path: Path
) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / repro.FOLDER).write_text("in the way")
    _, line = settled(runner, save(linear(), tmp_path / "lin.onnx"), NARROW)
    assert line is not None
    assert "couldn't be kept by itself" in line
    assert "Mend: " in line


def test_an_equal_pair_ends_with_0(runner: Runner, tmp_path: Path) -> None:
    """The script can tell: with the untouched model in the transformed one's place nothing differs."""
    folder, _ = settled(runner, save(linear(), tmp_path / "lin.onnx"), NARROW)
    for name in (repro.TRANSFORMED, repro.HALF):
        (folder / name).write_bytes((folder / repro.MODEL).read_bytes())
    found = ran(folder)
    assert (found.returncode, found.stdout.count("y: equal")) == (
        0,
        2 * found.stdout.count("test_data_set_"),
    )


def test_an_overflow_that_float32_hides_shows_in_the_script(
    runner: Runner, tmp_path: Path
) -> None:
    """As this provider computes it nothing differs: what float16 hardware makes of it is what
    failed.
    """
    square = model(
        "(float[n,4] x) => (float[n,4] y) { a = Mul(x, c)  b = Mul(a, a)  y = Sqrt(b) }"
    )
    square.graph.initializer.append(
        numpy_helper.from_array(np.array([300], np.float32), "c")
    )
    folder, line = settled(runner, save(square, tmp_path / "square.onnx"), "fp16.io32")
    assert line is not None
    found = ran(folder)
    assert found.returncode == 1, found.stderr
    assert "float16 overflows unseen" in found.stdout
    shown = found.stdout.splitlines()
    assert "inf apart at" in shown[shown.index("  as float16 hardware computes it") + 1]
    assert "`float16/model.onnx`" in (folder / repro.PAGE).read_text("utf-8")
