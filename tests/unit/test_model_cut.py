"""Parts of a graph as models."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnx_harness.model.cut import cut
from tests.models import model


def whole() -> onnx.ModelProto:
    made = model(
        """(float[n,4] x, bool c) => (float[n,4] y, float[n,4] z) {
        a = Mul(x, w)  b = Relu(a)  t, u = Split <num_outputs = 2, axis = 1> (b)  d = Concat <axis = 1> (u, t)
        y = If (c) <
            then_branch = yes () => (float[n,4] p) { p = Add(d, b) },
            else_branch = no () => (float[n,4] q) { q = Identity(d) }
        >
        z = Abs(a)
    }""",
        opset=18,
    )
    made.graph.initializer.append(numpy_helper.from_array(np.full(4, -2, np.float32), "w"))
    return made


def computed(made: onnx.ModelProto, **values: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(None, values)
    return found


def test_the_part_between_two_values_computes_what_the_whole_does() -> None:
    made = whole()
    before = made.SerializeToString()
    x = np.arange(8, dtype=np.float32).reshape(2, 4) - 4
    part = cut(made, ["a"], ["d", "b"])
    assert [node.op_type for node in part.graph.node] == ["Relu", "Split", "Concat"]
    assert [info.name for info in part.graph.input] == ["a"]
    assert not part.graph.initializer
    d, b = computed(part, a=x)
    np.testing.assert_array_equal(b, np.maximum(x, 0))
    np.testing.assert_array_equal(d, np.concatenate([b[:, 2:], b[:, :2]], 1))
    assert made.SerializeToString() == before


def test_what_bodies_read_comes_along_and_so_do_the_model_s_own_inputs() -> None:
    part = cut(whole(), ["d"], ["y"])
    assert [info.name for info in part.graph.input] == ["x", "c", "d"]
    assert [tensor.name for tensor in part.graph.initializer] == ["w"]
    x = np.ones((1, 4), np.float32)
    (y,) = computed(part, x=x, c=np.array(True), d=x * 5)
    np.testing.assert_array_equal(y, x * 5)


def test_a_start_beside_a_value_of_the_same_node_that_is_needed_is_refused_by_nobody() -> (
    None
):
    part = cut(whole(), ["b"], ["z", "d"])
    assert [node.op_type for node in part.graph.node] == ["Mul", "Split", "Concat", "Abs"]


def test_values_that_are_not_there_or_have_no_type_are_named() -> None:
    with pytest.raises(ValueError, match="no value 'nothing'"):
        cut(whole(), [], ["nothing"])
    made = model(
        "(float[n,4] x) => (float[n,4] y) { a = mine.Unknown(x)  y = Relu(a) }",
        domains=', "mine" : 1',
    )
    with pytest.raises(ValueError, match="type of 'a'"):
        cut(made, ["a"], ["y"])
