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


def seed_draws(model: onnx.ModelProto) -> frozenset[str]:
    """Give each node that draws, and says nothing of a seed, one of its own.

    Returns:
        The first outputs of those nodes.
    """
    names = set()
    for number, node in enumerate(_drawing(model)):
        if all(attribute.name != _SEED for attribute in node.attribute):
            seed = number if node.op_type == "Dropout" else float(number)
            node.attribute.append(helper.make_attribute(_SEED, seed))
            names.add(node.output[0])
    return frozenset(names)


def take_seeds_back(model: onnx.ModelProto, names: frozenset[str]) -> None:
    """Let the nodes that give these outputs draw as they did."""
    for node in _drawing(model):
        if node.output[0] in names:
            for place, attribute in enumerate(node.attribute):
                if attribute.name == _SEED:
                    del node.attribute[place]
                    break


def _drawing(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    seeds_dropout = opset_of(model) >= _DROPOUT_SEED
    for node in walk(model.graph):
        if is_standard(node, *DRAWING) and (node.op_type != "Dropout" or seeds_dropout):
            yield node
