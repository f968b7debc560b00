"""A cell that ends before its values are compared is offered what was judged and passes, or nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxoptimizer
import pytest
from onnx import numpy_helper

from onnx_harness.cell import mends, outputs
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.search import diagnose
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.diagnosis import Mend
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from onnx_harness.transforms import simplify
from tests.models import model, save

DEFECTS = Path(__file__).parents[1] / "data" / "defects"
CHAIN = "(float[n,8] x) => (float[n,8] y) { a = Exp(x)  b = Identity(a)  d = Tanh(b)  y = Neg(d) }"


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def cell_of(path: Path, variant: str) -> Cell:
    return Cell(card_for(path), parse_variant(variant), "cpu")


def judged(path: Path, variant: str) -> CellResult:
    return judge(Task(cell_of(path, variant), path, Settings(input_sets=1))).result


@pytest.mark.parametrize(
    ("defect", "variant", "stage", "line"),
    [
        (
            "53_fp16_unnamed_nodes_keep_io",
            "fp16.onnxmltools.io32",
            Stage.CHECK,
            "mend: `--variant fp16.io32` passes, and has no list of nodes to keep",
        ),
        (
            "67_fp16_lstm_optional_names",
            "fp16.onnxmltools",
            Stage.TRANSFORM,
            'mend: `--variant "fp16()"` passes, and has no list of nodes to keep',
        ),
        (
            "fp16_scatter",
            "fp16.onnxmltools.io32",
            Stage.RUN,
            "No mend was found: nothing is converted: what the model computes stays float32 "
            "(ScatterElements)",
        ),
        (
            "script_condition_may_be_given",
            "onnxscript",
            Stage.RUN,
            "mend: `--variant simplify` passes: simplify in the place of onnxscript",
        ),
        (
            "slim_domain_ai_onnx",
            "onnxslim+ort.basic",
            Stage.SESSION,
            "mend: `--variant simplify+ort.basic` passes: simplify in the place of onnxslim",
        ),
        (
            "85_ort_relu_clip_f64",
            "ort.basic",
            Stage.SESSION,
            "mend: `--variant ort.disable` passes: ONNX Runtime's optimizations above 'disable' "
            "are off",
        ),
        (
            "83_ort_rmsnorm_keepdims0",
            "ort.extended",
            Stage.COMPARE,
            "mend: `--variant ort.basic` passes: ONNX Runtime's optimizations above 'basic' are "
            "off",
        ),
        (
            "int8_softmax_of_double",
            "int8.static(op_types_to_exclude=[])",
            Stage.TRANSFORM,
            "mend: `--variant int8.static` passes: with the options that it has by itself",
        ),
    ],
)
def test_the_last_line_is_a_mend_that_passes(
    defect: str, variant: str, stage: Stage, line: str
) -> None:
    path = DEFECTS / f"{defect}.onnx"
    result = judged(path, variant)
    assert (result.status, result.stage) == (Status.FAIL, stage), result
    assert result.detail[-1] == line
    offered = re.match(r'mend: `--variant "?([^"`]+)', line)
    assert offered is None or judged(path, offered[1]).status is Status.PASS


@pytest.mark.parametrize(
    ("defect", "variant"),
    [("85_ort_relu_clip_f64", "ort.basic"), ("fp16_scatter", "fp16.onnxmltools.io32")],
)
def test_no_mend_is_looked_for_where_a_worker_died_of_that(
    defect: str, variant: str
) -> None:
    path = DEFECTS / f"{defect}.onnx"
    task = Task(cell_of(path, variant), path, Settings(input_sets=1), mending=False)
    result = judge(task).result
    assert result.status is Status.FAIL
    assert not any("mend" in line.lower() for line in result.detail)


def test_what_fails_as_well_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> onnx.ModelProto:
        raise RuntimeError("broken")

    monkeypatch.setattr(simplify, "simplify", broken)
    result = judged(DEFECTS / "slim_domain_ai_onnx.onnx", "onnxslim")
    assert result.detail[-1] == "No mend was found: simplify fails too, at transform"


def test_the_passes_that_a_step_of_ours_fails_by_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two passes at fault, each by itself."""
    optimize = onnxoptimizer.optimize

    def broken(
        source: onnx.ModelProto, passes: list[str], **options: Any
    ) -> onnx.ModelProto:
        optimized: onnx.ModelProto = optimize(source, passes, **options)
        if {"eliminate_identity", "fuse_bn_into_conv"} & set(passes):
            optimized.graph.node[0].input[0] = "nowhere"
        return optimized

    monkeypatch.setattr(onnxoptimizer, "optimize", broken)
    path = save(model(CHAIN), tmp_path / "m.onnx")
    result = judged(path, "optimize")
    assert result.status is Status.FAIL, result
    variant = "optimize(skipped_optimizers=['eliminate_identity', 'fuse_bn_into_conv'])"
    assert result.detail[-1] == (
        f'mend: `--variant "{variant}"` passes: without eliminate_identity, fuse_bn_into_conv'
    )
    assert judged(path, variant).status is Status.PASS


def test_where_every_part_is_at_fault_none_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> onnx.ModelProto:
        raise RuntimeError("broken")

    monkeypatch.setattr(onnxoptimizer, "optimize", broken)
    result = judged(save(model(CHAIN), tmp_path / "m.onnx"), "optimize")
    assert result.detail[-1] == "No mend was found: optimize fails whatever it leaves out"


def test_a_library_that_ends_the_process_is_mended_as_well(tmp_path: Path) -> None:
    path = Path(
        shutil.copy(DEFECTS / "93_sim_bn_value_floats_segv.onnx", tmp_path / "m.onnx")
    )
    runner = Runner(Settings(input_sets=1, cell_timeout=120))
    try:
        result = runner.judge(cell_of(path, "onnxsim"))
    finally:
        runner.close()
    assert "SIGSEGV" in str(result.reason)
    line = "mend: `--variant simplify` passes: simplify in the place of onnxsim"
    assert result.detail[-1] == line


def test_a_mend_takes_no_more_time_than_a_person_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = DEFECTS / "slim_domain_ai_onnx.onnx"
    monkeypatch.setattr(mends, "_MOST_SECONDS", -1.0)
    assert not any("mend" in line.lower() for line in judged(path, "onnxslim").detail)
    monkeypatch.undo()
    monkeypatch.setattr(mends, "_MOST_BYTES", 1)
    assert not any("mend" in line.lower() for line in judged(path, "onnxslim").detail)


def test_what_passes_and_what_does_not_apply_has_no_mend(tmp_path: Path) -> None:
    path = save(model(CHAIN), tmp_path / "m.onnx")
    for variant in ("onnxsim", "fp16.io32"):
        assert judged(path, variant).detail == ()


def test_what_is_asked_for_in_vain_has_no_other_mend_than_its_words(tmp_path: Path) -> None:
    path = save(model(CHAIN), tmp_path / "m.onnx")
    result = judged(path, "onnxsim+fp16.io32(node_block_list=['nowhere'])")
    assert (result.status, result.detail) == (Status.FAIL, ()), result


def test_a_diagnosis_has_the_mend_too() -> None:
    path = DEFECTS / "slim_domain_ai_onnx.onnx"
    task = Task(cell_of(path, "onnxslim"), path, Settings(input_sets=1))
    assert diagnose(task).mend == Mend("simplify", True)


def test_float16_that_the_provider_computes_as_such_is_mended_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Weights that float16 can't tell apart are as wrong where nothing is emulated."""
    text = (
        "(float[n,8] x) => (float[n,8] y) "
        "{ a = MatMul(x, w)  b = MatMul(x, v)  d = Sub(a, b)  e = Mul(d, c)  y = MatMul(e, u) }"
    )
    source = model(text)
    drawn = np.random.default_rng(0).normal(size=(2, 8, 8))
    weights = {"w": drawn[0], "v": drawn[0] * 1.0001, "c": 1e4, "u": drawn[1]}
    for name, value in weights.items():
        source.graph.initializer.append(
            numpy_helper.from_array(np.asarray(value, np.float32), name)
        )
    monkeypatch.setattr(outputs, "EMULATED", frozenset())
    result = judged(save(source, tmp_path / "m.onnx"), "fp16.io32")
    assert (result.status, result.stage) == (Status.FAIL, Stage.COMPARE), result
    assert result.detail[-1].startswith("mend: `--variant fp16.mixed` keeps "), result.detail
