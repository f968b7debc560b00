"""Models too large to be held twice: counted without being written, read a weight at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.errors import NotApplicable
from onnx_harness.model import size, streaming
from onnx_harness.model.file import Model
from onnx_harness.model.size import byte_size
from onnx_harness.names import parse_variant
from onnx_harness.transforms import BoundStep

ROWS = 600  # times as many columns in float32: above what is read with the model


def two_weights(folder: Path) -> Model:
    """A MatMul with a large weight, a Gather from a large table of int64, and a small bias."""
    generator = np.random.default_rng(0)
    arrays = {
        "w": generator.standard_normal((ROWS, ROWS)).astype(np.float32),
        "table": np.arange(ROWS * ROWS, dtype=np.int64),
        "b": generator.standard_normal(ROWS).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
        helper.make_node("Gather", ["table", "i"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "two",
        [info("x", TensorProto.FLOAT, ["n", ROWS]), info("i", TensorProto.INT64, [1])],
        [info("y", TensorProto.FLOAT, ["n", ROWS]), info("z", TensorProto.INT64, [1])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "two.onnx"
    onnx.save_model(made, str(path), save_as_external_data=True, location="two.data")
    return Model(path)


def step(name: str) -> BoundStep:
    return transforms.bind(parse_variant(name).steps[0])


def test_float16_reads_large_weights_from_their_file_and_gives_the_same_bits(
    tmp_path: Path,
) -> None:
    model, fp16 = two_weights(tmp_path), step("fp16.io32")
    with fp16.opened(model) as light:
        places = {tensor.name: tensor.data_location for tensor in light.graph.initializer}
        assert places["w"] == places["table"] == TensorProto.EXTERNAL
        assert places["b"] == TensorProto.DEFAULT
        streamed = fp16(light)
    whole = fp16(model.load())
    assert [tensor.data_location for tensor in streamed.graph.initializer] == [0] * 3
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in streamed.graph.initializer} == {
        t.name: numpy_helper.to_array(t).tobytes() for t in whole.graph.initializer
    }
    assert streaming.weights_folder() is None


def test_a_step_that_holds_the_weights_gets_them_all(tmp_path: Path) -> None:
    with step("simplify").opened(two_weights(tmp_path)) as model:
        assert not any(tensor.data_location for tensor in model.graph.initializer)


def test_a_model_that_a_step_does_not_take_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimize = step("optimize")
    small = replace(optimize, transform=replace(optimize.transform, most_bytes=1000))
    model = two_weights(tmp_path)
    monkeypatch.setattr(Model, "load", None)
    with pytest.raises(NotApplicable, match=r"'optimize' takes models .*Mend: `simplify`"):
        small.opened(model).__enter__()


def test_the_size_of_a_large_model_is_counted_without_writing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = two_weights(tmp_path).load()
    assert byte_size(model) == model.ByteSize()
    monkeypatch.setattr(size, "INLINE_BYTES", 1000)
    assert byte_size(model) == sum(
        numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer
    )
