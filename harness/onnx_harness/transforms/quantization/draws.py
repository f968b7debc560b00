"""Seeds for what draws at random while a model is calibrated: else its ranges differ each time."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from onnx_harness.model.ops import is_standard, opset_of
from onnx_harness.model.seeding import DRAWING
from onnx_harness.model.walk import walk

_SEED = "seed"
_DROPOUT_SEED = 12
"""The opset since which a Dropout has one."""


def seed_draws(model: onnx.ModelProto) -> frozenset[float]:
    """Give each node that draws, and says nothing of a seed, one of its own.

    Returns:
        Those seeds; the model has no other node with one of them. Names don't tell the nodes again:
        the library renames what is quantized behind an output of the model.
    """
    own = {_seed_of(node) for node in _drawing(model)}
    given: set[float] = set()
    for node in _drawing(model):
        if _seed_of(node) is None:
            seed = len(given)
            while seed in own or seed in given:
                seed += 1
            given.add(float(seed))
            value = seed if node.op_type == "Dropout" else float(seed)
            node.attribute.append(helper.make_attribute(_SEED, value))
    return frozenset(given)


def take_seeds_back(model: onnx.ModelProto, seeds: frozenset[float]) -> None:
    """Let the nodes that have these seeds draw as they did."""
    for node in _drawing(model):
        if _seed_of(node) in seeds:
            others = [attribute for attribute in node.attribute if attribute.name != _SEED]
            node.ClearField("attribute")
            node.attribute.extend(others)


def _seed_of(node: onnx.NodeProto) -> float | None:
    for attribute in node.attribute:
        if attribute.name == _SEED:
            return float(helper.get_attribute_value(attribute))
    return None


def _drawing(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    seeds_dropout = opset_of(model) >= _DROPOUT_SEED
    for node in walk(model.graph):
        if is_standard(node, *DRAWING) and (node.op_type != "Dropout" or seeds_dropout):
            yield node
