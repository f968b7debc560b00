"""What a transform remarks reaches the cell's notes, also when the transformed model was kept from
an earlier run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_harness import transforms
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.settings import Settings
from tests.models import linear


def test_remarks_are_notes_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    model = linear()
    bias = onnx.numpy_helper.to_array(model.graph.initializer[1]).copy()
    bias[0] = 1e-9
    model.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(bias.astype(np.float32), "b")
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    task = Task(
        Cell(card_for(path), parse_variant("fp16.io32"), "cpu"), path, Settings(input_sets=1)
    )

    first, again = judge(task).result, judge(task).result

    assert first.status is Status.PASS, first
    assert "1 weight of 1 tensor was raised to 1e-07; the smallest was 1e-09" in first.notes
    assert first.notes == again.notes


def test_remarks_inside_remarks_belong_to_the_inner() -> None:
    with transforms.remarks() as outer:
        transforms.remark("before")
        with transforms.remarks() as inner:
            transforms.remark("inside")
        transforms.remark("after")
    assert (outer, inner) == (["before", "after"], ["inside"])
