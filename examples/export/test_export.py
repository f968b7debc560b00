"""An export verified by what it was exported from.

Any framework will do: its forward takes arrays and gives arrays. `export_torch` has PyTorch's; here
numpy stands in for the framework.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def forward(x: np.ndarray) -> np.ndarray:
    """Compute the framework's own answer."""
    return np.tanh(x @ WEIGHT)


def exported() -> onnx.ModelProto:
    """Build what an exporter would write."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 8), ("y", 4))
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Tanh", ["product"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(WEIGHT, "w")])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def test_the_export_computes_what_the_framework_does(onnx_verify):
    """Hold the exported model against the framework."""
    onnx_verify(exported(), reference=forward)
