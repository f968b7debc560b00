"""Forests with seeds, grown as the libraries that export them do.

Every mistake of one unit is made in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"
FEATURES = 6
# Below a third of the depth every branch splits on; further down, as many stop as in a tree that is
# grown on data.
_STOPS = 0.15
_LEAST, _MOST = -4.0, 4.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape that a forest grows to.

    Attributes:
        name: of the forest.
        trees: how many.
        depth: of each.
        mode: of its comparisons, as ai.onnx.ml 1 calls them.
        targets: outputs of a row; more than one: the votes of classes.
        whole: thresholds lie between whole numbers.
        missing: half of the branches send NaN to their true side.
        version: of ai.onnx.ml.
        seed: of the growth.
    """

    name: str
    trees: int
    depth: int
    mode: str = "BRANCH_LEQ"
    targets: int = 1
    whole: bool = False
    missing: bool = False
    version: int = 3
    seed: int = 0


FULL = (
    Shape("boosted", 20, 4, seed=1),
    Shape("voting", 4, 7, targets=3, seed=2),
    Shape("strict", 15, 4, mode="BRANCH_LT", missing=True, seed=3),
    Shape("counts", 10, 5, whole=True, seed=4),
    Shape("version5", 10, 5, version=5, seed=5),
    Shape("single", 1, 8, seed=7),
)
_QUICK_DEPTH = 3
QUICK = tuple(
    replace(
        shape, trees=1 if shape.trees == 1 else max(2, shape.trees // 5), depth=_QUICK_DEPTH
    )
    for shape in FULL
)
LARGE = Shape("large", 80, 7, seed=6)
"""About 10,000 branches: what making rows for them takes is measured on it."""


@dataclass(slots=True)
class Trees:
    """The nodes of all trees, in order; those without ``feature`` are leaves."""

    tree: list[int] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    feature: list[int | None] = field(default_factory=list)
    split: list[float] = field(default_factory=list)
    yes: list[int] = field(default_factory=list)
    no: list[int] = field(default_factory=list)
    missing: list[bool] = field(default_factory=list)
    leaf: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, tree: int, number: int) -> int:
        """Add a leaf without a value; its position."""
        self.tree.append(tree)
        self.number.append(number)
        self.feature.append(None)
        self.split.append(0.0)
        self.yes.append(0)
        self.no.append(0)
        self.missing.append(False)
        self.leaf.append(())
        return len(self.tree) - 1

    @property
    def branches(self) -> list[int]:
        """The positions of the branches."""
        splits_at: list[int] = []
        for at, feature in enumerate(self.feature):
            if feature is not None:
                splits_at.append(at)
        return splits_at

    @property
    def leaves(self) -> list[int]:
        """The positions of the leaves."""
        return [at for at, feature in enumerate(self.feature) if feature is None]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One unit in one place of a forest.

    Attributes:
        kind: of mistake.
        at: the tree node.
        value: what stands there instead; of a comparison: None.
    """

    kind: str
    at: int
    value: float | None = None


UP, DOWN = (
    "a threshold one unit in the last place up",
    "a threshold one unit in the last place down",
)
COMPARISON = "at most for less, or less for at most"
LEAF = "a leaf's value one unit in the last place up"
# The sum over many trees is rounded, and by how many threads it is added up decides its last bits.
LEAF_OF_MANY = "a leaf's value up by a ten-thousandth"
_TEN_THOUSANDTH = 1e-4


def grown(shape: Shape) -> Trees:
    """Return a forest in which every leaf can be reached.

    Each threshold lies inside what comes to its branch.
    """
    rng = np.random.default_rng([97, shape.seed])
    trees = Trees()
    for tree in range(shape.trees):
        root = trees.add(tree, 0)
        pending = [(root, 0, np.full(FEATURES, _LEAST), np.full(FEATURES, _MOST))]
        count = 1
        while pending:
            at, depth, low, high = pending.pop()
            feature = int(rng.integers(FEATURES))
            split = _split(shape, low[feature], high[feature], rng)
            stops = depth > shape.depth // 3 and rng.random() < _STOPS
            if depth == shape.depth or stops or split is None:
                weights = []
                for value in rng.normal(size=shape.targets):
                    weights.append(float(np.float32(value)))
                trees.leaf[at] = tuple(weights)
                continue
            trees.feature[at], trees.split[at] = feature, split
            trees.missing[at] = shape.missing and bool(rng.random() < 0.5)
            trees.yes[at] = trees.add(tree, count)
            trees.no[at] = trees.add(tree, count + 1)
            count += 2
            below, above = high.copy(), low.copy()
            below[feature] = above[feature] = split
            pending += [
                (trees.yes[at], depth + 1, low, below),
                (trees.no[at], depth + 1, above, high),
            ]
    return trees


def mistakes(shape: Shape, trees: Trees) -> Iterator[Mistake]:
    """Yield each mistake of one unit that a forest can have."""
    for at in trees.branches:
        split = np.float32(trees.split[at])
        yield Mistake(UP, at, float(np.nextafter(split, np.float32(np.inf))))
        yield Mistake(DOWN, at, float(np.nextafter(split, np.float32(-np.inf))))
        yield Mistake(COMPARISON, at)
    for at in trees.leaves:
        value = np.float32(trees.leaf[at][0])
        if shape.trees == 1:
            yield Mistake(
                LEAF, at, float(np.nextafter(value, np.copysign(np.float32(np.inf), value)))
            )
        else:
            yield Mistake(LEAF_OF_MANY, at, float(np.float32(value + _TEN_THOUSANDTH)))


def built(shape: Shape, trees: Trees, mistake: Mistake | None = None) -> onnx.ModelProto:
    """Return the forest as a model, with a mistake in it, if any."""
    modes = [shape.mode if feature is not None else "LEAF" for feature in trees.feature]
    splits, leaves = list(trees.split), list(trees.leaf)
    if mistake is not None and mistake.kind == COMPARISON:
        modes[mistake.at] = "BRANCH_LT" if shape.mode == "BRANCH_LEQ" else "BRANCH_LEQ"
    elif mistake is not None and mistake.value is not None:
        if mistake.kind in (LEAF, LEAF_OF_MANY):
            leaves[mistake.at] = (mistake.value, *leaves[mistake.at][1:])
        else:
            splits[mistake.at] = mistake.value
    if shape.version >= 5:
        op_type, attributes = "TreeEnsemble", _version_5(trees, modes, splits, leaves)
    else:
        op_type, attributes = _version_1(shape, trees, modes, splits, leaves)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", shape.targets])]
    names = ["y"]
    if op_type == "TreeEnsembleClassifier":
        names = ["label", "y"]
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    node = helper.make_node(op_type, ["x"], names, domain=ML, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])
    graph = helper.make_graph([node], shape.name, [x], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, shape.version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _split(shape: Shape, low: float, high: float, rng: np.random.Generator) -> float | None:
    """A threshold inside an interval; None where there is no room."""
    if shape.whole:
        choices = np.arange(np.ceil(low - 0.5) + 0.5, high, 1.0)
        choices = choices[(choices > low) & (choices < high)]
        return float(rng.choice(choices)) if choices.size else None
    width = high - low
    return float(np.float32(low + width * rng.uniform(0.2, 0.8))) if width > 0.05 else None


def _version_1(
    shape: Shape,
    trees: Trees,
    modes: list[str],
    splits: list[float],
    leaves: list[tuple[float, ...]],
) -> tuple[str, dict[str, Any]]:
    classes = shape.targets > 1
    prefix = "class" if classes else "target"
    at_leaves = trees.leaves
    attributes: dict[str, Any] = {
        "nodes_treeids": trees.tree,
        "nodes_nodeids": trees.number,
        "nodes_featureids": [feature or 0 for feature in trees.feature],
        "nodes_modes": modes,
        "nodes_values": splits,
        "nodes_truenodeids": [trees.number[at] if at else 0 for at in trees.yes],
        "nodes_falsenodeids": [trees.number[at] if at else 0 for at in trees.no],
        "nodes_missing_value_tracks_true": [int(flag) for flag in trees.missing],
        f"{prefix}_treeids": [
            trees.tree[at] for at in at_leaves for _ in range(shape.targets)
        ],
        f"{prefix}_nodeids": [
            trees.number[at] for at in at_leaves for _ in range(shape.targets)
        ],
        f"{prefix}_ids": list(range(shape.targets)) * len(at_leaves),
        f"{prefix}_weights": [value for at in at_leaves for value in leaves[at]],
        "post_transform": "NONE",
    }
    if classes:
        attributes["classlabels_int64s"] = list(range(shape.targets))
        return "TreeEnsembleClassifier", attributes
    attributes["n_targets"] = shape.targets
    return "TreeEnsembleRegressor", attributes


def _version_5(
    trees: Trees, modes: list[str], splits: list[float], leaves: list[tuple[float, ...]]
) -> dict[str, Any]:
    inner = {at: place for place, at in enumerate(trees.branches)}
    outer = {at: place for place, at in enumerate(trees.leaves)}
    numbers = {"BRANCH_LEQ": 0, "BRANCH_LT": 1}

    def children(side: list[int]) -> tuple[list[int], list[int]]:
        to = [side[at] for at in inner]
        return [inner.get(at, outer.get(at, 0)) for at in to], [
            int(at in outer) for at in to
        ]

    (yes, yes_leaf), (no, no_leaf) = children(trees.yes), children(trees.no)
    return {
        "nodes_modes": numpy_helper.from_array(
            np.asarray([numbers[modes[at]] for at in inner], np.uint8)
        ),
        "nodes_splits": numpy_helper.from_array(
            np.asarray([splits[at] for at in inner], np.float32)
        ),
        "nodes_featureids": [trees.feature[at] or 0 for at in inner],
        "nodes_truenodeids": yes,
        "nodes_trueleafs": yes_leaf,
        "nodes_falsenodeids": no,
        "nodes_falseleafs": no_leaf,
        "leaf_targetids": [0] * len(outer),
        "leaf_weights": numpy_helper.from_array(
            np.asarray([leaves[at][0] for at in outer], np.float32)
        ),
        "tree_roots": [inner[at] for at in inner if trees.number[at] == 0],
        "n_targets": 1,
    }
