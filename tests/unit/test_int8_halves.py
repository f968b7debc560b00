"""INT8 and INT4 of models that compute in float16 or float64 themselves, wholly or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.errors import NotApplicable
from onnx_harness.judging.quantizing import Scheme, quantize_through, watch, watched
from onnx_harness.judging.runs import open_cpu
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import run
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms import bind
from onnx_harness.transforms.quantization.halves import half_outputs
from tests.models import model, save

MATMUL = frozenset({"MatMul"})
TWO_LAYERS = "(float16[n,32] x) => (float16[n,16] y) { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }"
CAST_INSIDE = """(float[n,32] x) => (float[n,16] y) { h = MatMul(x, w)  a = Cast <to = 10> (h)
  b = Add(a, a)  c = Cast <to = 1> (b)  r = Relu(c)  y = MatMul(r, v) }"""


def weighted(text: str, opset: int, dtype: Any = np.float16) -> onnx.ModelProto:
    made = model(text, opset=opset)
    rng = np.random.default_rng(3)
    for name, shape in (("w", (32, 32)), ("v", (32, 16))):
        array = rng.normal(size=shape) / np.sqrt(shape[0])
        made.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
    return made


def judged(source: onnx.ModelProto, folder: Path, variant: str) -> CellResult:
    path = save(source, folder / "m.onnx")
    cell = Cell(card_for(path), parse_variant(variant), "cpu")
    return judge(Task(cell, path, Settings(input_sets=2))).result


def kinds(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node if node.op_type != "Constant"]


@pytest.mark.parametrize("variant", ["int8.static", "int8.mixed", "int4"])
def test_a_float16_model_is_compared_with_an_ideal_of_its_own_type(
    variant: str, tmp_path: Path
) -> None:
    result = judged(weighted(TWO_LAYERS, 21), tmp_path, variant)
    assert result.status is Status.PASS, result


def test_float16_matrices_that_keep_their_signs_alone_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx_harness.transforms import int4

    library = int4._run_library

    def coarse(source: onnx.ModelProto, **arguments: Any) -> onnx.ModelProto:
        for tensor in source.graph.initializer:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.sign(array) / 8, tensor.name))
        return library(source, **arguments)

    monkeypatch.setattr(int4, "_run_library", coarse)
    result = judged(weighted(TWO_LAYERS, 21), tmp_path, "int4(block_size=64)")
    assert result.status is Status.FAIL
    assert "not faithful" in str(result.reason)


def test_levels_of_float16_are_found_in_float32() -> None:
    source = weighted(TWO_LAYERS, 17)
    ranges = {"x": (-1.0, 1.0), "h": (-2.0, 2.0), "r": (0.0, 2.0), "y": (-1.0, 1.0)}
    scheme = Scheme(MATMUL, static=True)
    pair = ["Cast", "QuantizeLinear", "DequantizeLinear", "Cast"]
    # An operator of opset 17 quantizes no float16, and neither does the library.
    before = quantize_through(weighted(TWO_LAYERS, 17), scheme, ranges)
    assert kinds(before.graph) == kinds(source.graph)
    after = quantize_through(weighted(TWO_LAYERS, 19), scheme, ranges)
    product = ["MatMul", *pair]
    assert kinds(after.graph) == [*pair, *product, "Relu", *pair, *product]
    onnx.checker.check_model(after, full_check=True)
    blocks = quantize_through(weighted(TWO_LAYERS, 17), Scheme(MATMUL, False, block=16), {})
    levels = [
        node.attribute[0].t for node in blocks.graph.node if node.op_type == "Constant"
    ]
    assert [tensor.data_type for tensor in levels] == [TensorProto.FLOAT16] * 2
    assert len(np.unique(numpy_helper.to_array(levels[0])[:16, 0])) <= 16


def test_dynamic_quantization_takes_no_float16() -> None:
    source = weighted(TWO_LAYERS, 21)
    changed = quantize_through(source, Scheme(MATMUL, static=False), {})
    assert kinds(changed.graph) == ["MatMul", "Relu", "MatMul"]


def test_the_ends_of_a_float16_range_are_float32() -> None:
    made = model(
        "(float16[2,2] x) => (float16[2,2] y) { y = Relu(x) }",
        opset=19,
    )
    assert watched(made, Scheme(frozenset({"Relu"}), static=True)) == ["x", "y"]
    names = watch(made, ["x"])
    assert names == {"x": ("least/0", "most/0")}
    found = run(open_cpu(made), {"x": np.array([[-3, 1], [2, 0.5]], np.float16)})
    ends = [found[end] for end in names["x"]]
    assert [(end.dtype, float(end)) for end in ends] == [
        (np.float32, -3.0),
        (np.float32, 2.0),
    ]


@pytest.mark.parametrize(
    ("text", "opset", "outputs"),
    [
        (CAST_INSIDE, 17, {"a", "b", "c"}),
        (CAST_INSIDE, 19, set()),
        ("(float16[2] x) => (float[2] y) { y = Cast <to = 1> (x) }", 17, {"y"}),
        ("(float[2] x) => (float[2] y) { y = Neg(x) }", 17, set()),
    ],
)
def test_nodes_of_float16_stay_before_the_opset_that_quantizes_it(
    text: str, opset: int, outputs: set[str]
) -> None:
    assert half_outputs(model(text, opset=opset)) == outputs


def test_a_model_that_casts_to_float16_inside_is_quantized_around_it(tmp_path: Path) -> None:
    result = judged(weighted(CAST_INSIDE, 17, np.float32), tmp_path, "int8.static")
    assert result.status is Status.PASS, result


def test_int4_leaves_float64_matrices() -> None:
    text = (
        "(float[n,32] x) => (double[n,16] y) "
        "{ h = MatMul(x, w)  d = Cast <to = 11> (h)  y = MatMul(d, v) }"
    )
    source = weighted(text, 21, np.float32)
    wide = numpy_helper.to_array(source.graph.initializer[1]).astype(np.float64)
    source.graph.initializer[1].CopyFrom(numpy_helper.from_array(wide, "v"))
    int4 = bind(parse_variant("int4").steps[0])
    assert kinds(int4(source).graph) == ["MatMulNBits", "Cast", "MatMul"]
    alone = model("(double[n,32] x) => (double[n,16] y) { y = MatMul(x, v) }", opset=21)
    alone.graph.initializer.append(numpy_helper.from_array(wide, "v"))
    with pytest.raises(NotApplicable, match="no MatMul has a constant matrix of float32"):
        int4(alone)
