"""The row of a cause's cost: transforms for a pass, sessions for a node, seconds for a network."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_harness.cards.card import Card
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.search import diagnose
from onnx_harness.names import ORIGINAL, parse_variant
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.cause_rows import of_tiny
from onnx_harness.selftest.planted_causes import STEP, one_of_48
from onnx_harness.selftest.table import Row, Step, none_bad, total
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Parts, Transform
from onnx_harness.transforms.variant import bind_variant

# The goals of issue 16: of passes, of nodes, and of a network on two cores.
_MOST_TRANSFORMS, _MORE_SESSIONS, _MOST_SECONDS = 16, 6, 30.0
_PASSES, _NODES, _BLOCKS = (0, 5, 17, 23, 30, 47), (16, 64, 256, 1000), 125
_QUICK_PASSES, _QUICK_NODES = (17,), (64,)
_WIDTH, _SIDE = 16, 32
_SETTINGS = Settings(input_sets=1)


def _steps(bench: Bench) -> Iterator[Step]:
    for number in _QUICK_PASSES if bench.quick else _PASSES:
        judge = partial(_of_pass, number=number)
        yield Step(f"pass {number} of 48", partial(of_tiny, judge), "pass")
    for count in _QUICK_NODES if bench.quick else _NODES:
        yield Step(f"a node of {count}", partial(_of_node, count), "node")
    if not bench.quick:
        yield Step("a network of 500 nodes", _of_network, "network")


def most_sessions(nodes: int) -> int:
    """Return how many sessions a node among so many may cost."""
    return math.floor(2 * math.log2(nodes)) + _MORE_SESSIONS


def _of_pass(card: Card, number: int) -> Outcome:
    fault = one_of_48(number)
    diagnosis = _diagnosed(card, fault.step)
    right = diagnosis.cause.passes == fault.parts
    spent = diagnosis.spent.transforms
    return _outcome(
        diagnosis, right, spent, _MOST_TRANSFORMS, "transforms", f"pass {number}"
    )


def _of_node(count: int) -> Outcome:
    """A conversion of a chain's nodes, one of which it spoils."""
    culprit = f"layer_{count // 3}"
    with tempfile.TemporaryDirectory(prefix="onnx-harness-cost-") as folder:
        file = Path(folder) / "chain.onnx"
        onnx.save(chain(count), str(file))
        diagnosis = _diagnosed(card_for(file), _spoiling(culprit))
    right = diagnosis.cause.rules == (culprit,)
    spent = diagnosis.spent.sessions
    return _outcome(
        diagnosis, right, spent, most_sessions(count), "sessions", f"{count} nodes"
    )


def _of_network() -> Outcome:
    """A convolutional network, and a copy with the weights of one layer scaled."""
    with tempfile.TemporaryDirectory(prefix="onnx-harness-cost-") as folder:
        model, candidate = Path(folder) / "network.onnx", Path(folder) / "candidate.onnx"
        made = network(_BLOCKS)
        onnx.save(made, str(model))
        tensor = made.graph.initializer[_BLOCKS // 2]
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name)
        )
        onnx.save(made, str(candidate))
        cell = Cell(card_for(model), parse_variant(ORIGINAL), "cpu")
        diagnosis = diagnose(Task(cell, model, _SETTINGS), candidate=candidate)
    node = diagnosis.cause.node
    right = node is not None and node.name == f"conv_{_BLOCKS // 2}"
    spent = diagnosis.spent.seconds
    return _outcome(diagnosis, right, spent, _MOST_SECONDS, "seconds", "500 nodes")


def _diagnosed(card: Card, step: BoundStep) -> Diagnosis:
    variant = parse_variant(ORIGINAL)
    bound = replace(bind_variant(variant), steps=(step,))
    return diagnose(
        Task(Cell(card, variant, "cpu"), materialize(card), _SETTINGS), bound=bound
    )


def _outcome(
    diagnosis: Diagnosis,
    right: bool,
    spent: float,
    most: float,
    unit: str,
    what: str,
) -> Outcome:
    words = []
    if not right:
        words.append(f"{what}: {diagnosis.sentence}")
    if spent > most:
        words.append(f"{what}: {spent:.3g} {unit}, and at most {most:.3g} are asked for")
    return Outcome(1, int(bool(words)), tuple(words), {unit: spent, f"most {unit}": most})


def _spoiling(culprit: str) -> BoundStep:
    """Return a conversion of nodes that scales the weight of one of them."""
    parts = Parts("node", _node_names, _without)
    transform = Transform("", partial(_spoil, culprit=culprit), {STEP: {}}, parts=parts)
    return BoundStep(STEP, transform, {})


def _spoil(
    model: onnx.ModelProto,
    culprit: str,
    skipped: Sequence[str] = (),
) -> onnx.ModelProto:
    if culprit in skipped:
        return model
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.name == culprit)
    tensor = weights[node.input[1]]
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name)
    )
    return model


def _node_names(model: onnx.ModelProto, _: Mapping[str, Any]) -> Sequence[str]:
    return tuple(node.name for node in model.graph.node)


def _without(options: Mapping[str, Any], skipped: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(skipped)}


def chain(count: int) -> onnx.ModelProto:
    """Return so many products, each with a matrix that keeps lengths: no value grows or fades."""
    generator = np.random.default_rng(7)
    nodes, weights, name = [], [], "x"
    for number in range(count):
        after = "y" if number == count - 1 else f"h{number}"
        weight, _ = np.linalg.qr(generator.normal(size=(8, 8)))
        weights.append(numpy_helper.from_array(weight.astype("f4"), f"w{number}"))
        nodes.append(
            helper.make_node("MatMul", [name, f"w{number}"], [after], f"layer_{number}")
        )
        name = after
    return _model(nodes, weights, [4, 8])


def network(blocks: int) -> onnx.ModelProto:
    """Return blocks of Conv, Mul, Relu and Add: four nodes each, over images of 32 x 32."""
    generator = np.random.default_rng(8)
    scale = numpy_helper.from_array(np.array(0.1, "f4"), "scale")
    nodes, weights, name = [], [], "x"
    for number in range(blocks):
        after = "y" if number == blocks - 1 else f"sum_{number}"
        conv, scaled, relu = f"conv_{number}", f"scaled_{number}", f"relu_{number}"
        weight = generator.normal(size=(_WIDTH, _WIDTH, 3, 3)) / (3 * math.sqrt(_WIDTH))
        weights.append(numpy_helper.from_array(weight.astype("f4"), f"w{number}"))
        padded = helper.make_node(
            "Conv",
            [name, f"w{number}"],
            [conv],
            conv,
            pads=[1, 1, 1, 1],
        )
        nodes.append(padded)
        nodes.append(helper.make_node("Mul", [conv, "scale"], [scaled], scaled))
        nodes.append(helper.make_node("Relu", [scaled], [relu], relu))
        nodes.append(helper.make_node("Add", [name, relu], [after], after))
        name = after
    return _model(nodes, [*weights, scale], [1, _WIDTH, _SIDE, _SIDE])


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    shape: Sequence[int],
) -> onnx.ModelProto:
    ends = []
    for name in ("x", "y"):
        ends.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, "cost", ends[:1], ends[1:], weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def _figure(outcomes: Sequence[Outcome]) -> str:
    parts = []
    for unit, of in (
        ("transforms", "48 passes"),
        ("sessions", "a node"),
        ("seconds", "500 nodes"),
    ):
        for outcome in sorted(outcomes, key=lambda each: each.figures.get(unit, 0.0))[-1:]:
            if unit in outcome.figures:
                most = outcome.figures[f"most {unit}"]
                parts.append(
                    f"{of}: at most {outcome.figures[unit]:.3g} {unit} of {most:.3g}"
                )
    return "; ".join(parts)


COST = Row(
    "cause-cost",
    "the cost of a cause: one of 48 passes, a node among n (to 1,000), a CNN of 500 nodes",
    "16 transforms; 2 log2 n + 6 sessions; 30 s",
    _steps,
    _figure,
    lambda outcomes: none_bad(outcomes) and total(outcomes) > 0,
)
