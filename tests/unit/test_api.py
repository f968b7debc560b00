"""The harness as a library: its verdicts are those of pytest and of the commands."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_harness
from onnx_harness.errors import InputError, ModelError, UsageError
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.models import linear, model, save
from tests.unit.test_floors import heavy_after


def scaled(factor: float) -> onnx.ModelProto:
    """``linear`` with one column of its weights times a factor."""
    changed = linear()
    weights = numpy_helper.to_array(changed.graph.initializer[0]).copy()
    weights[:, 0] *= np.float32(factor)
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    return changed


def test_the_face_of_the_package_imports_nothing_heavy() -> None:
    assert heavy_after("import onnx_harness; dir(onnx_harness)") == []
    with pytest.raises(AttributeError, match="has no attribute 'verifi'"):
        onnx_harness.verifi  # noqa: B018


def test_a_variant_is_verified(tmp_path: Path) -> None:
    verdict = onnx_harness.verify(save(linear(), tmp_path / "m.onnx"), variant="simplify")
    assert verdict
    assert verdict.reason is None
    assert set(verdict.outputs) == {"y"}
    assert verdict.report().startswith("m-simplify-cpu: pass")


def test_a_candidate_is_held_to_the_judge_of_a_cell() -> None:
    """A weight column off by 4e-5 is within every bound, and beyond the model's noise."""
    assert onnx_harness.verify(linear(), candidate=linear())
    verdict = onnx_harness.compare(linear(), scaled(1.00004))
    assert not verdict
    assert verdict.reason is not None
    assert "noise" in verdict.reason
    assert verdict.reason in verdict.report()


def test_float16_that_the_cpu_hides_is_a_failure_by_every_door() -> None:
    centre = model(
        (
            "(float[4,64] x) => (float[4,64] y) {  m = ReduceMean<axes = [1], keepdims = 1>(x) y = "
            "Sub(x, m) }"
        ),
    )
    inputs = {"x": np.random.default_rng(0).normal(3000, 1, (4, 64)).astype(np.float32)}
    by_variant = onnx_harness.verify(centre, variant="fp16.io32", inputs=inputs)
    assert not by_variant
    half = convert_float_to_float16(copy.deepcopy(centre), keep_io_types=True)
    assert not onnx_harness.compare(centre, half, inputs=inputs)


def test_given_inputs_are_the_only_ones(tmp_path: Path) -> None:
    blind = {"x": np.zeros((2, 4), np.float32)}, {"x": np.zeros((3, 4), np.float32)}
    verdict = onnx_harness.compare(linear(), scaled(2.0), inputs=blind)
    assert "no output reacts" in verdict.report()
    assert not onnx_harness.compare(
        linear(), scaled(2.0), inputs={"x": np.ones((2, 4), np.float32)}
    )
    np.savez(tmp_path / "given.npz", x=np.ones((2, 4), np.float32))
    assert not onnx_harness.compare(linear(), scaled(2.0), inputs=tmp_path / "given.npz")


def test_tolerances_are_those_of_the_call() -> None:
    assert (
        onnx_harness.compare(linear(), scaled(1.001), rtol=0.5, atol=0.5).outputs["y"].rtol
        == 0.5
    )


def test_a_variant_that_is_called_as_a_group_is_meant() -> None:
    assert onnx_harness.verify(linear(), variant="fp16").subject.endswith("-fp16-cpu")


def test_given_inputs_are_what_static_quantization_is_calibrated_on() -> None:
    """Invented ones are within a few units: all beyond their range would be cut off."""
    inputs = {"x": np.linspace(-500, 500, 256, dtype=np.float32).reshape(64, 4)}
    verdict = onnx_harness.verify(linear(), variant="int8.static", inputs=inputs)
    assert verdict, verdict.report()
    assert any("calibrated on 1 of the 1 input sets" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: onnx_harness.verify("no.onnx"), ModelError, "there is no file no.onnx"),
        (
            lambda: onnx_harness.verify(linear(), variant="simplfy"),
            UsageError,
            "Did you mean 'simplify'",
        ),
        (
            lambda: onnx_harness.verify(linear(), variant="default"),
            UsageError,
            "is a group of variants",
        ),
        (
            lambda: onnx_harness.verify(linear(), provider="cud"),
            UsageError,
            "Did you mean 'cuda'",
        ),
        (
            lambda: onnx_harness.verify(linear(), tolerance=1),
            UsageError,
            "there is no setting 'tolerance'",
        ),
        (
            lambda: onnx_harness.compare(linear(), linear(), inputs="no.npz"),
            InputError,
            "there is no file no.npz",
        ),
    ],
)
def test_mistakes_of_the_caller_are_named(
    call: object, error: type[Exception], words: str
) -> None:
    assert callable(call)
    with pytest.raises(error, match=words):
        call()
