"""Models with sparse initializers, which some libraries don't read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_harness.errors import NotApplicable
from onnx_harness.names import parse_variant
from onnx_harness.transforms import bind
from tests.models import model


def sparse() -> onnx.ModelProto:
    made = model("(float[n,4] x) => (float[n,3] y) { y = MatMul(x, w) }")
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([[0, 1], [3, 2]]), "places")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3]))
    return made


@pytest.mark.parametrize(
    ("variant", "who"),
    [
        ("optimize", "onnxoptimizer"),
        ("pass.eliminate_identity", "onnxoptimizer"),
        ("int8.dynamic", "onnxruntime.quantization"),
        ("int4", "onnxruntime.quantization"),
    ],
)
def test_what_a_library_does_not_read_is_refused_with_the_mend(
    variant: str, who: str
) -> None:
    with pytest.raises(NotApplicable, match=rf"{who} doesn't read .*'w'.*Mend: "):
        bind(parse_variant(variant).steps[0])(sparse())


def test_simplify_takes_them() -> None:
    result = bind(parse_variant("simplify").steps[0])(sparse())
    assert [node.op_type for node in result.graph.node] == ["MatMul"]
