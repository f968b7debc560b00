"""Models of a few lines for tests: ONNX's own text form, parsed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(graph: str, *, opset: int = 17, domains: str = "") -> onnx.ModelProto:
    """``(float[n,4] x) => (float[n,4] y) { y = Relu(x) }`` as a model.

    ``domains`` such as ``, "my": 1``.
    """
    return onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : {opset}{domains}]> small {graph}'
    )


def linear() -> onnx.ModelProto:
    """``y = x @ w + b`` with weights that tell every element apart."""
    rng = np.random.default_rng(5)
    made = model(
        "(float[n,4] x) => (float[n,3] y) { product = MatMul(x, w)  y = Add(product, b) }"
    )
    weights = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}
    made.graph.initializer.extend(
        numpy_helper.from_array(value.astype("f4"), key) for key, value in weights.items()
    )
    return made


def two_outputs() -> onnx.ModelProto:
    """Two outputs of one type: nothing but their names tells them apart."""
    return model(
        "(float[n,4] x) => (float[n,4] up, float[n,4] down) { up = Relu(x)  down = Neg(x) }"
    )


def with_external_data(path: Path, location: str) -> Path:
    """A model in ``path`` whose weights lie in the file ``location`` beside it."""
    weight = numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in "xy"
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "external", [x], [y], [weight]
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(made, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def save(made: onnx.ModelProto, path: Path) -> Path:
    """Write ``made`` to ``path``, and return that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return path
