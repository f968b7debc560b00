"""Small random forests and vocabularies for tests, built of attributes as exporters do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"


def forest(
    *,
    trees: int = 3,
    depth: int = 3,
    features: int = 4,
    modes: tuple[str, ...] = ("BRANCH_LEQ",),
    elem_type: int = TensorProto.FLOAT,
    rows: int | str = "n",
    before: tuple[onnx.NodeProto, ...] = (),
    whole: bool = False,
    missing: bool = False,
    post_transform: str = "NONE",
    seed: int = 0,
) -> onnx.ModelProto:
    """A regression forest on ``x``; ``before`` are nodes that make ``features`` of it."""
    rng = np.random.default_rng(seed)
    held: dict[str, Any] = {name: [] for name in _NODES + _LEAVES}
    for tree in range(trees):
        _grow(held, tree, depth, rng, features, modes, whole=whole, missing=missing)
    name = "features" if before else "x"
    node = helper.make_node(
        "TreeEnsembleRegressor",
        [name],
        ["y"],
        domain=ML,
        n_targets=1,
        post_transform=post_transform,
        **held,
    )
    x = helper.make_tensor_value_info("x", elem_type, [rows, features])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 1])
    return _model([*before, node], [x], [y])


def forest_5(splits: list[float], members: list[float] | None = None) -> onnx.ModelProto:
    """A TreeEnsemble of ai.onnx.ml 5: a chain of branches on one feature, the last on a set, if
    any.
    """
    count = len(splits) + (members is not None)
    modes = [0] * len(splits) + [6] * (members is not None)
    values = np.asarray([*splits, *[0.0] * (members is not None)], np.float32)
    attributes: dict[str, Any] = {
        "nodes_modes": numpy_helper.from_array(np.asarray(modes, np.uint8)),
        "nodes_splits": numpy_helper.from_array(values),
        "nodes_featureids": [0] * count,
        "nodes_truenodeids": list(range(count)),
        "nodes_trueleafs": [1] * count,
        "nodes_falsenodeids": [*range(1, count), count],
        "nodes_falseleafs": [0] * (count - 1) + [1],
        "leaf_targetids": [0] * (count + 1),
        "leaf_weights": numpy_helper.from_array(np.arange(1, count + 2, dtype=np.float32)),
        "tree_roots": [0],
        "n_targets": 1,
    }
    if members is not None:
        attributes["membership_values"] = numpy_helper.from_array(
            np.asarray([*members, np.nan], np.float32)
        )
    node = helper.make_node("TreeEnsemble", ["x"], ["y"], domain=ML, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    return _model([node], [x], [y], ml=5)


def set_attribute(model: onnx.ModelProto, name: str, at: int, value: Any) -> onnx.ModelProto:
    """A copy of the model in which one item of a list attribute is another.

    The first node that has it.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        for entry in node.attribute:
            if entry.name == name:
                items = next(
                    items
                    for items in (entry.floats, entry.strings, entry.ints)
                    if len(items)
                )
                items[at] = value
                return changed
    raise ValueError(name)


def words(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[Any]]], width: int
) -> onnx.ModelProto:
    """A model of ``inputs`` by name (element type, dimensions) whose output ``y`` has ``width``
    columns.
    """
    declared = [
        helper.make_tensor_value_info(name, kind, dims)
        for name, (kind, dims) in inputs.items()
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])
    return _model(nodes, declared, [y])


_NODES = [
    f"nodes_{part}"
    for part in (
        "treeids",
        "nodeids",
        "featureids",
        "modes",
        "values",
        "truenodeids",
        "falsenodeids",
    )
] + ["nodes_missing_value_tracks_true"]
_LEAVES = [f"target_{part}" for part in ("treeids", "nodeids", "ids", "weights")]


def _grow(
    held: dict[str, list[Any]],
    tree: int,
    depth: int,
    rng: np.random.Generator,
    features: int,
    modes: tuple[str, ...],
    *,
    whole: bool,
    missing: bool,
) -> None:
    inner = 2**depth - 1
    for number in range(2 * inner + 1):
        leaf = number >= inner
        split = float(np.float32(rng.normal() * 3))
        row = (
            tree,
            number,
            0 if leaf else int(rng.integers(features)),
            "LEAF" if leaf else modes[int(rng.integers(len(modes)))],
            0.0 if leaf else float(np.rint(split)) if whole else split,
            0 if leaf else 2 * number + 1,
            0 if leaf else 2 * number + 2,
            int(missing and not leaf and rng.random() < 0.5),
        )
        for name, value in zip(_NODES, row, strict=True):
            held[name].append(value)
        if leaf:
            for name, value in zip(
                _LEAVES, (tree, number, 0, float(rng.normal())), strict=True
            ):
                held[name].append(value)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    ml: int = 3,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "small", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
