"""Models of a few nodes for tests of placement, and a session that lets itself be watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult
from onnx_harness.settings import Settings
from tests.models import model


def build(
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: list[str],
    weights: dict[str, Any],
) -> bytes:
    """A serialized model with float inputs of the given shapes and float outputs of any shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in weights.items()
        ],
    )
    return bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
    )


def cnn(*, channels: int = 4, layers: int = 1) -> bytes:
    """Convolutions with ReLU, global pooling, and a flattening whose shape is computed in the
    graph.
    """
    random = np.random.default_rng(0)
    nodes, weights, value = [], {}, "image"
    for layer in range(layers):
        weight = random.normal(0, 0.2, (channels, channels if layer else 3, 3, 3)).astype(
            np.float32
        )
        weights[f"w{layer}"] = weight
        nodes.append(
            helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    weights |= {"first": np.array([0]), "rest": np.array([-1])}
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Shape", ["pooled"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["pooled", "flat"], ["scores"]),
    ]
    return build(nodes, {"image": ["n", 3, "h", "w"]}, ["scores"], weights)


def with_determinant() -> bytes:
    """A product followed by Det, which ONNX Runtime has on the CPU and on hardly any device."""
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["product"]),
        helper.make_node("Det", ["product"], ["det"]),
        helper.make_node("Relu", ["det"], ["positive"]),
    ]
    return build(nodes, {"a": [2, 3, 3], "b": [2, 3, 3]}, ["positive"], {})


class Watched:
    """A session that keeps the bindings it hands out."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.bindings: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def io_binding(self) -> Any:
        self.bindings.append(self._session.io_binding())
        return self.bindings[-1]


def with_infinities_marked() -> onnx.ModelProto:
    """Two nodes of a device's and, between them, one that devices leave to the CPU: IsInf."""
    marked = model(
        """(float[n,8] x) => (float[n,8] y) {
          a = MatMul(x, w)  i = IsInf(x)  f = Cast<to = 1>(i)  y = Add(a, f) }""",
        opset=20,
    )
    weights = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    marked.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    for node in marked.graph.node:
        node.name = f"make_{node.output[0]}"
    return marked


def halved(path: Path, variant: str, provider: str) -> CellResult:
    """Judge a variant of a model whose nodes needn't all lie on the provider."""
    cell = Cell(card_for(path), parse_variant(variant), provider)
    return judge(Task(cell, path, Settings(input_sets=2, min_placement=0.5))).result
