"""Models written whole, or with their weights beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.saving import save
from tests.models import model

WIDE = np.arange(4 * 300, dtype=np.float32).reshape(4, 300)


def large() -> onnx.ModelProto:
    """A weight as bytes, one as a list of floats, one in a Constant node, and one in a branch."""
    made = model("""(float[n,4] x, bool c) => (float[n,300] y) {
        p = MatMul(x, w)  q = MatMul(x, listed)  k = Constant <value = float[1] {1.0}> ()  r = Add(p, q)  s = Add(r, k)
        y = If (c) <
            then_branch = a () => (float[n,300] t) { t = Add(s, inner) },
            else_branch = b () => (float[n,300] e) { e = Identity(s) }
        >
    }""")
    made.graph.initializer.append(numpy_helper.from_array(WIDE, "w"))
    made.graph.initializer.append(
        helper.make_tensor("listed", TensorProto.FLOAT, WIDE.shape, WIDE.reshape(-1))
    )
    made.graph.node[2].attribute[0].t.CopyFrom(numpy_helper.from_array(WIDE[0], "k"))
    made.graph.node[-1].attribute[0].g.initializer.append(
        numpy_helper.from_array(WIDE[1], "inner")
    )
    return made


def outputs(file: Path) -> np.ndarray:
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    value: np.ndarray = session.run(
        None, {"x": np.ones((2, 4), np.float32), "c": np.array(True)}
    )[0]
    return value


def test_a_large_model_is_written_beside_its_weights_and_stays_as_it_was(
    tmp_path: Path,
) -> None:
    made = large()
    before = made.SerializeToString()
    assert save(made, tmp_path / "m.onnx", inline_bytes=1000)
    assert made.SerializeToString() == before
    assert (
        (tmp_path / "m.onnx").stat().st_size
        < 2000
        < 2 * WIDE.nbytes
        < (tmp_path / "weights.bin").stat().st_size
    )
    assert not save(made, tmp_path / "whole.onnx")
    np.testing.assert_array_equal(
        outputs(tmp_path / "m.onnx"), outputs(tmp_path / "whole.onnx")
    )
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    loaded = onnx.load(str(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[1]), WIDE)
    assert not {path.name for path in tmp_path.iterdir()} - {
        "m.onnx",
        "weights.bin",
        "whole.onnx",
    }
