"""The models of the experiment, and models with work put into them on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.cards import fetch
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.cell.timing import timing_inputs
from onnx_harness.names import parse_variant
from onnx_harness.settings import Settings

MODELS = Path(__file__).parents[3] / "models"
# From 0.05 to 5 ms on one thread of a server: seven models, seven costs.
SUBJECTS = (
    "transformer_block",
    "livekit_melspectrogram",
    "ppocr_v2_cls",
    "livekit_embedding",
    "bn_cnn",
    "shufflenet",
    "squeezenet",
)
# Work of 2% has to be more than what a few more nodes cost by being there.
INJECTABLE = ("ppocr_v2_cls", "livekit_embedding", "bn_cnn", "shufflenet", "squeezenet")
TWO_MS = "bn_cnn"
# From 0.05 to over 200 ms; the number is a batch size, where the card's own isn't wanted.
SPREAD = (
    *((name, None) for name in SUBJECTS),
    ("ppocr_v4_det", None),
    ("densenet121", None),
    ("ppocr_v4_rec", 8),
)
WIDTH = 64


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the inputs that it is timed on."""

    name: str
    model: bytes
    sets: tuple[Mapping[str, Any], ...]


@cache
def subject(name: str, batch: int | None = None) -> Subject:
    card = card_for(MODELS / f"{name}.model.toml")
    path = fetch.materialize(card)
    sets = timing_inputs(
        Task(Cell(card, parse_variant("original"), "cpu"), path, Settings())
    )
    if batch is not None:
        sets = [
            {key: np.repeat(value[:1], batch, axis=0) for key, value in each.items()}
            for each in sets
        ]
    return Subject(name, onnx.load(str(path)).SerializeToString(), tuple(sets))


def with_work(model: bytes, rows: int) -> bytes:
    """``model`` and, beside it, two products of ``rows`` by 64 by 64 that depend on its input: real
    work, unfoldable.

    Their largest element is a further output, so that ONNX Runtime can't leave them out.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> str:
        values = (rng.standard_normal(shape) / WIDTH**0.5).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, f"injected_{name}"))
        return f"injected_{name}"

    def number(name: str, *values: int) -> str:
        graph.initializer.append(
            numpy_helper.from_array(np.array(values, np.int64), f"injected_{name}")
        )
        return f"injected_{name}"

    def node(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        name = f"injected_{output}"
        graph.node.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    flat = node("Reshape", [graph.input[0].name, number("all", -1)], "flat")
    first = node(
        "Cast",
        [node("Gather", [flat, number("zero", 0)], "first")],
        "scale",
        to=TensorProto.FLOAT,
    )
    product = node("Mul", [weight("left", rows, WIDTH), first], "scaled")
    for index in range(2):
        product = node(
            "MatMul", [product, weight(f"right{index}", WIDTH, WIDTH)], f"product{index}"
        )
    largest = node("ReduceMax", [product], "largest", keepdims=0)
    graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    return bytes(proto.SerializeToString())
