"""Models too large to be held twice: counted without being written, read a weight at a time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.errors import NotApplicable
from onnx_harness.model import copying, size, streaming
from onnx_harness.model.copying import shared_file
from onnx_harness.model.file import Model
from onnx_harness.model.saving import save
from onnx_harness.model.size import byte_size
from onnx_harness.model.unchanged import Unchanged
from onnx_harness.names import parse_variant
from onnx_harness.transforms import BoundStep

ROWS = 600  # times as many columns in float32: above what is read with the model


def two_weights(folder: Path) -> Model:
    """A MatMul with a large weight, a Gather from a large table of int64, and a small bias."""
    generator = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
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
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
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
    assert {
        t.name: numpy_helper.to_array(t).tobytes() for t in streamed.graph.initializer
    } == {t.name: numpy_helper.to_array(t).tobytes() for t in whole.graph.initializer}
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
    monkeypatch.setattr(size, "_WRITTEN_BYTES", 1000)
    assert byte_size(model) == sum(
        numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer
    )


def reflinked(read: int, write: int) -> bool:
    """Stand in for a file system that shares blocks: the content of a file in another one."""
    os.sendfile(write, read, 0, os.fstat(read).st_size)
    return True


def test_weights_that_did_not_change_are_shared_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_reflinked", reflinked)
    model = two_weights(tmp_path)
    made = model.load()
    weight = next(tensor for tensor in made.graph.initializer if tensor.name == "w")
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), "w")
    )
    folder = tmp_path / "entry"
    folder.mkdir()
    save(made, folder / "model.onnx", inline_bytes=1000, unchanged=Unchanged(model, folder))
    written = Model(folder / "model.onnx")
    again = {
        t.name: numpy_helper.to_array(t).tobytes() for t in written.load().graph.initializer
    }
    assert again == {
        t.name: numpy_helper.to_array(t).tobytes() for t in made.graph.initializer
    }
    shared, own = folder / "unchanged.0.bin", folder / "weights.bin"
    assert set(written.external_files) == {shared.resolve(), own.resolve()}
    changed = ROWS * ROWS * 4
    assert changed <= own.stat().st_size < changed + 8192  # and the bias, which is small


def test_without_shared_blocks_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_reflinked", lambda *_: False)
    model, folder = two_weights(tmp_path), tmp_path / "entry"
    folder.mkdir()
    unchanged = Unchanged(model, folder)
    save(model.load(), folder / "model.onnx", inline_bytes=1000, unchanged=unchanged)
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "weights.bin"}
    assert not shared_file(model.path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_is_made_of_external_weights_has_external_weights(tmp_path: Path) -> None:
    assert two_weights(tmp_path).inline_bytes < 1 << 30
    inline = tmp_path / "inline.onnx"
    onnx.save_model(two_weights(tmp_path).load(), str(inline))
    assert Model(inline).inline_bytes > 1 << 30
