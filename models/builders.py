"""Builders of small models, each for something that the trained ones lack.

Seeded: the same weights everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Dims = Sequence[int | str | None]


class _Graph:
    """Collects nodes and seeded weights, and writes the model."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(
        self, name: str, *shape: int, scale: float | None = None, centre: float = 0.0
    ) -> str:
        """A normal weight; without ``scale``, its variance keeps that of what it multiplies."""
        if scale is None:
            scale = float(np.prod(shape[1:]) if len(shape) == 4 else shape[0]) ** -0.5
        return self.constant(
            name, (centre + scale * self.rng.standard_normal(shape)).astype(np.float32)
        )

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(
        self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any
    ) -> str:
        # Names are unique here, so that a tool's trouble with unnamed nodes isn't every model's
        # trouble.
        self.nodes.append(
            helper.make_node(op_type, inputs, [output], name=output, **attributes)
        )
        return output

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _float(name: str, dims: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def _integer(name: str, dims: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, dims)


def bn_cnn(out: Path) -> None:
    """Four Conv-BatchNormalization-Relu blocks of any image size and batch.

    They're small enough for every provider.
    """
    graph = _Graph()
    x = "image"
    channels = 3
    for index, width in enumerate((16, 32, 32, 64)):
        filters = graph.weight(f"conv{index}.weight", width, channels, 3, 3)
        x = graph.node(
            "Conv",
            [x, filters],
            f"conv{index}",
            pads=[1, 1, 1, 1],
            strides=[1 + index % 2] * 2,
        )
        statistics = [
            graph.weight(f"bn{index}.scale", width, centre=1.5, scale=0.1),
            graph.weight(f"bn{index}.bias", width, scale=0.1),
            graph.weight(f"bn{index}.mean", width, scale=0.1),
            graph.constant(
                f"bn{index}.var", graph.rng.uniform(0.5, 1.5, width).astype(np.float32)
            ),
        ]
        x = graph.node("BatchNormalization", [x, *statistics], f"bn{index}")
        x = graph.node("Relu", [x], f"relu{index}")
        channels = width
    x = graph.node("GlobalAveragePool", [x], "pool")
    x = graph.node("Flatten", [x], "flat")
    # Pooling leaves little variance; the scale brings it back to logits.
    head = [
        graph.weight("head.weight", channels, 10, scale=1.0),
        graph.weight("head.bias", 10),
    ]
    graph.node("Gemm", [x, *head], "logits")
    onnx.save(
        graph.model(
            "bn_cnn",
            [_float("image", ["batch", 3, "height", "width"])],
            [_float("logits", ["batch", 10])],
        ),
        out,
    )


def transformer_block(out: Path) -> None:
    """Token and position embeddings, one pre-norm block of 4 heads, a tied-size head.

    The batch and the sequence are dynamic.
    """
    vocabulary, positions, width, heads = 1000, 128, 64, 4
    graph = _Graph()
    node, weight = graph.node, graph.weight

    def number(name: str, *values: int) -> str:
        return graph.constant(name, np.array(values, np.int64))

    def scalar(name: str, value: float) -> str:
        return graph.constant(name, np.array(value, np.float32))

    def linear(x: str, name: str, rows: int, columns: int) -> str:
        product = node(
            "MatMul", [x, weight(f"{name}.weight", rows, columns)], f"{name}.matmul"
        )
        return node("Add", [product, weight(f"{name}.bias", columns, scale=0.02)], name)

    def norm(x: str, name: str) -> str:
        parameters = [
            weight(f"{name}.scale", width, centre=1.0, scale=0.1),
            weight(f"{name}.bias", width, scale=0.02),
        ]
        return node("LayerNormalization", [x, *parameters], name, axis=-1)

    def split_heads(x: str, order: list[int]) -> str:
        by_head = node("Reshape", [x, "head_shape"], f"{x}.heads")
        return node("Transpose", [by_head], f"{x}.transposed", perm=order)

    number("head_shape", 0, 0, heads, width // heads)
    number("merged_shape", 0, 0, width)
    tokens = node(
        "Gather",
        [weight("token.weight", vocabulary, width, scale=1.0), "input_ids"],
        "token",
    )
    shape = node("Shape", ["input_ids"], "shape")
    length = node("Gather", [shape, graph.constant("one", np.array(1, np.int64))], "length")
    ends = [graph.constant("zero", np.array(0, np.int64)), length, "one"]
    position_ids = node("Range", ends, "position_ids")
    places = node(
        "Gather",
        [weight("position.weight", positions, width, scale=0.5), position_ids],
        "position",
    )
    x = node("Add", [tokens, places], "embedding")

    normed = norm(x, "attention.norm")
    query = split_heads(linear(normed, "query", width, width), [0, 2, 1, 3])
    key = split_heads(linear(normed, "key", width, width), [0, 2, 3, 1])
    value = split_heads(linear(normed, "value", width, width), [0, 2, 1, 3])
    scores = node("MatMul", [query, key], "scores")
    scaled = node("Div", [scores, scalar("sqrt_head", (width // heads) ** 0.5)], "scaled")
    mixed = node("MatMul", [node("Softmax", [scaled], "attention", axis=-1), value], "mixed")
    merged = node(
        "Reshape",
        [node("Transpose", [mixed], "mixed.t", perm=[0, 2, 1, 3]), "merged_shape"],
        "merged",
    )
    x = node("Add", [x, linear(merged, "projection", width, width)], "after_attention")

    hidden = linear(norm(x, "ffn.norm"), "up", width, 4 * width)
    # GELU as exporters write it below opset 20.
    erf = node(
        "Erf", [node("Div", [hidden, scalar("sqrt_2", 2**0.5)], "gelu.div")], "gelu.erf"
    )
    gate = node(
        "Mul",
        [node("Add", [erf, scalar("one_f", 1.0)], "gelu.add"), scalar("half", 0.5)],
        "gelu.gate",
    )
    x = node(
        "Add",
        [x, linear(node("Mul", [hidden, gate], "gelu"), "down", 4 * width, width)],
        "after_ffn",
    )
    node("MatMul", [norm(x, "norm"), weight("head.weight", width, 100)], "logits")
    onnx.save(
        graph.model(
            "transformer_block",
            [_integer("input_ids", ["batch", "sequence"])],
            [_float("logits", ["batch", "sequence", 100])],
        ),
        out,
    )


def loop(out: Path) -> None:
    """A recurrent cell in a Loop whose trip count is an input, with every step scanned out."""
    width = 16
    graph = _Graph()
    cell = _Graph()
    # The body sees the weights of the graph around it.
    product = cell.node(
        "MatMul", ["h", graph.weight("cell.weight", width, width)], "product"
    )
    biased = cell.node(
        "Add", [product, graph.weight("cell.bias", width, scale=0.1)], "biased"
    )
    cell.node("Tanh", [biased], "h_next")
    cell.node("Identity", ["h_next"], "step")
    cell.node("Identity", ["go_on"], "go_on_next")
    boolean = TensorProto.BOOL
    body = helper.make_graph(
        cell.nodes,
        "body",
        [
            _integer("index", []),
            helper.make_tensor_value_info("go_on", boolean, []),
            _float("h", ["batch", width]),
        ],
        [
            helper.make_tensor_value_info("go_on_next", boolean, []),
            _float("h_next", ["batch", width]),
            _float("step", ["batch", width]),
        ],
    )
    always = graph.constant("always", np.array(True))
    graph.nodes.append(
        helper.make_node(
            "Loop",
            ["trips", always, "state"],
            ["last", "steps"],
            name="recurrence",
            body=body,
        )
    )
    model = graph.model(
        "loop",
        [_float("state", ["batch", width]), _integer("trips", [])],
        [_float("last", ["batch", width]), _float("steps", ["trips", "batch", width])],
    )
    onnx.save(model, out)


def external_data(out: Path) -> None:
    """A two-layer perceptron whose weights lie in a file of their own beside the model."""
    graph = _Graph()
    first = [
        graph.weight("first.weight", 256, 512),
        graph.weight("first.bias", 512, scale=0.1),
    ]
    second = [
        graph.weight("second.weight", 512, 64),
        graph.weight("second.bias", 64, scale=0.1),
    ]
    hidden = graph.node("Relu", [graph.node("Gemm", ["x", *first], "hidden")], "rectified")
    graph.node("Gemm", [hidden, *second], "y")
    model = graph.model(
        "external_data", [_float("x", ["batch", 256])], [_float("y", ["batch", 64])]
    )
    onnx.save(
        model,
        out,
        save_as_external_data=True,
        location=f"{out.stem}.data",
        size_threshold=1024,
    )


def random_forest(out: Path) -> None:
    """A random forest of scikit-learn's: TreeEnsembleClassifier and ZipMap.

    So an output is a list of maps.
    """
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 8)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.5)
    forest = RandomForestClassifier(n_estimators=24, max_depth=7, random_state=0).fit(x, y)
    onnx.save(
        to_onnx(forest, x[:1], name="random_forest", target_opset={"": 15, "ai.onnx.ml": 3}),
        out,
    )
