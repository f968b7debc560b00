"""Bfloat16 conversion: valid, and right by emulation: ONNX Runtime's CPU provider computes next to
nothing in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.errors import NotApplicable
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import BF16_SIMULATED, CellResult, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms import remarks
from onnx_harness.transforms.bf16 import (
    MAX_FINITE_VAL,
    convert_float_to_bfloat16,
    round_to_bfloat16,
)
from tests.unit.test_transforms_fp16_nasty import FEEDS, TEXTS
from tests.unit.transform_models import copy_of, floats, model_of, run

MLP = """agraph (float[N,3] x) => (float[N,3] z)
    <float[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[3] b = {0.1, 0.2, 0.3}>
    { m = MatMul(x, w) a = Add(m, b) r = Relu(a) s = Sigmoid(r) z = Mul(s, a) }"""


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model computing in float32 and rounding everything that was bfloat16 to it: Casts around
    each node.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in (*inferred.graph.value_info, *inferred.graph.input)
    }
    types |= {info.name: info.type.tensor_type.elem_type for info in inferred.graph.output}
    types |= {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        around = [node]
        if node.op_type not in ("Cast", "Constant", "ConstantOfShape", "If", "Loop", "Scan"):
            for index, name in enumerate(node.input):
                if types.get(name) == TensorProto.BFLOAT16:
                    node.input[index] = f"{name}_{number}_{index}_in"
                    around.insert(
                        0,
                        helper.make_node(
                            "Cast", [name], [node.input[index]], to=TensorProto.FLOAT
                        ),
                    )
            for index, name in enumerate(node.output):
                if types.get(name) == TensorProto.BFLOAT16:
                    node.output[index] = f"{name}_out"
                    around.append(
                        helper.make_node(
                            "Cast", [f"{name}_out"], [name], to=TensorProto.BFLOAT16
                        )
                    )
        nodes += around
    result = copy_of(model)
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    return result


def test_a_model_computes_in_bfloat16_between_float32_inputs_and_outputs() -> None:
    model, x = model_of(MLP), floats(4, 3)
    result = convert_float_to_bfloat16(copy_of(model), keep_io_types=True)

    onnx.checker.check_model(result, full_check=True)
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    assert {tensor.data_type for tensor in result.graph.initializer} == {
        TensorProto.BFLOAT16
    }
    expected = run(model, x=x)[0]
    error = np.abs(run(emulated(result), x=x)[0] - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.04  # neither float32 nor wrong


def test_inputs_and_outputs_become_bfloat16() -> None:
    result = convert_float_to_bfloat16(model_of(MLP))
    onnx.checker.check_model(result, full_check=True)
    types = {
        info.type.tensor_type.elem_type
        for info in (*result.graph.input, *result.graph.output)
    }
    assert types == {TensorProto.BFLOAT16}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_breaks_conversions_stays_valid_and_keeps_its_interface(text: str) -> None:
    model = model_of(text)
    result = convert_float_to_bfloat16(copy_of(model), keep_io_types=True)
    onnx.checker.check_model(result, full_check=True)
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    if any(node.op_type in ("If", "Loop", "Scan") for node in model.graph.node):
        return
    feeds = {info.name: FEEDS[info.name] for info in model.graph.input}
    for one, other in zip(run(emulated(result), **feeds), run(model, **feeds), strict=True):
        np.testing.assert_allclose(
            one, other, rtol=8e-2, atol=4e-2 * np.abs(other).max(initial=0)
        )


def test_rounding_is_to_the_nearest_and_keeps_what_is_finite_finite() -> None:
    ordinary = (
        np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32).view(np.float32)
    )
    special = np.array(
        [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            3.4e38,
            -3.4e38,
            MAX_FINITE_VAL,
            1e-45,
            1.00390625,
        ],
        "f4",
    )
    values = np.concatenate([special, ordinary])
    places: list[np.ndarray[tuple[int], np.dtype[np.intp]]] = []

    rounded = round_to_bfloat16(values, places)

    back = rounded.array.astype(np.float32)
    (found,) = places
    assert set(found) >= {5, 6}
    assert rounded.lowered == len(found)
    assert np.isfinite(back[np.isfinite(values)]).all()
    assert (np.abs(back[found]) == np.float32(MAX_FINITE_VAL)).all()
    assert (np.signbit(back) == np.signbit(values))[~np.isnan(values)].all()
    assert np.isnan(back[np.isnan(values)]).all()
    same = np.setdiff1d(np.flatnonzero(~np.isnan(values)), found)
    bits = values[same].view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # ties to even, on the integers
    np.testing.assert_array_equal(rounded.array[same].view(np.uint16), nearest)


def test_a_clipped_weight_is_remarked() -> None:
    with remarks() as said:
        convert_float_to_bfloat16(
            model_of("agraph (float x) => (float z) <float w = {3.4e38}> { z = Mul(x, w) }")
        )
    assert said == ["1 weight of 'w' was clipped at 3.38953e+38; the largest was 3.4e+38"]


def test_a_model_of_an_older_opset_is_refused() -> None:
    with pytest.raises(NotApplicable, match="since opset 13, and the model is of opset 11"):
        convert_float_to_bfloat16(model_of(MLP, opset=11))


# Clip's definition selects with a Where that takes no bfloat16.
CLIP = "agraph (float[3] x) => (float[3] z) <float low = {0.5}> { z = Clip(x, low) }"


def judged(text: str, variant: str, folder: Path) -> CellResult:
    onnx.save(model_of(text), folder / "mlp.onnx")
    card = card_for(folder / "mlp.onnx")
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), folder / "mlp.onnx", Settings())
    ).result


@pytest.mark.parametrize(
    "text", [MLP, CLIP], ids=["no kernel", "a definition older than bfloat16"]
)
@pytest.mark.parametrize("variant", ["bf16", "bf16.io32"])
def test_where_the_cpu_has_no_kernels_it_is_simulated(
    variant: str, text: str, tmp_path: Path
) -> None:
    result = judged(text, variant, tmp_path)
    assert result.status is Status.PASS, result
    assert any(
        note.startswith(BF16_SIMULATED) and "provider 'cpu' has no" in note
        for note in result.notes
    )
    assert result.accuracy is not None
    assert result.accuracy == result.accuracy_simulated
    distance = result.accuracy.outputs["z"].rel_l2
    assert distance is not None
    assert 1e-4 < distance < 1e-2  # of bfloat16, whose unit is 2^-8, and not of float32


def test_what_bfloat16_breaks_fails(tmp_path: Path) -> None:
    text = (
        "agraph (float[n,64] x) => (float[n,64] z) <float c = {300.0}> { a = Add(x, c) z = "
        "Sub(a, c) }"
    )
    result = judged(text, "bf16.io32", tmp_path)
    assert result.status is Status.FAIL, result
    assert result.stage == "compare"
    assert "bfloat16 as hardware computes it departs" in str(result.reason)


def test_what_cannot_be_simulated_is_not_applicable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "onnx_harness.judging.emulation._not_simulated", lambda _: "it says so"
    )
    result = judged(MLP, "bf16.io32", tmp_path)
    assert result.status is Status.NOT_APPLICABLE
    assert "in bfloat16, and it could not be simulated: it says so" in str(result.reason)


@pytest.mark.parametrize(
    "text",
    [
        """agraph (float[3] x, bool c) => (float[3] z) {
          a = Exp(x)
          b = If (c) <then_branch = one () => (float[3] t) { t = Neg(a) },
                      else_branch = two () => (float[3] s) { s = Abs(x) }>
          z = Mul(b, a) }""",
        """agraph (float[3] x, int64 n) => (float[3] z) <bool go = {1}> {
          a = Neg(x)
              z = Loop (n, go, a) <body = step (int64 i, bool k, float[3] v) => (bool l, float[3] w) {
            l = Identity(k) w = Exp(v) }> }""",
        """agraph (float[2,3] x2, float[3] x) => (float[3] z, float[2,3] y) {
          a = Neg(x)
          z, y = Scan<num_scan_inputs = 1, body = step (float[3] s, float[3] v) => (float[3] t, float[3] o) {
            t = Add(s, v) o = Exp(t) }>(a, x2) }""",
        """agraph (float[3] x) => (float[3] z) {
          s = Shape(x) c = ConstantOfShape<value = float[1] {2.5}>(s) z = Mul(x, c) }""",
    ],
    ids=["If", "Loop", "Scan", "ConstantOfShape"],
)
def test_what_took_bfloat16_later_than_the_rest_stays_float32(text: str) -> None:
    model = model_of(text, opset=13)
    result = convert_float_to_bfloat16(copy_of(model), keep_io_types=True)
    onnx.checker.check_model(result, full_check=True)
    assert any(node.op_type == "Cast" for node in result.graph.node)
