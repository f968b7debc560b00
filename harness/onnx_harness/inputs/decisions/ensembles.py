"""The tree ensembles of a graph as arrays: branches, splits, leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.graph.attributes import label
from onnx_harness.inputs.graph.tables import ML

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TREE_OPS = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"})
# Elements of the leaf weights; beyond, targets are folded into one number.
_MOST_PAYLOAD = 1 << 22


class Mode(IntEnum):
    """A branch's comparison of its feature with its split, numbered as in ai.onnx.ml 5."""

    LEQ = 0
    LT = 1
    GTE = 2
    GT = 3
    EQ = 4
    NEQ = 5
    MEMBER = 6
    LEAF = 7


_MODE_NAMES = {
    "BRANCH_LEQ": Mode.LEQ,
    "BRANCH_LT": Mode.LT,
    "BRANCH_GTE": Mode.GTE,
    "BRANCH_GT": Mode.GT,
    "BRANCH_EQ": Mode.EQ,
    "BRANCH_NEQ": Mode.NEQ,
    "LEAF": Mode.LEAF,
}


@dataclass(frozen=True, eq=False)
class Ensemble:
    """All trees of one node. Arrays are by tree node, branches and leaves alike.

    Attributes:
        name: of the node, as messages call it.
        source: the value that holds the features.
        roots: of the trees, [T].
        feature: column that a branch looks at, [N].
        split: what it compares with, [N].
        mode: how, a :class:`Mode`, [N].
        yes: where it leads when the comparison holds, [N].
        no: where it leads otherwise, [N].
        missing: whether NaN counts as holding, [N].
        weights: what a leaf adds to each target, [N, K]; 0 for branches.
        base: what every sum starts from, [K].
        members: for branches of mode MEMBER, the set of values.
        saturating: whether a sigmoid or the like follows, so that great scores hide small changes.
    """

    name: str
    source: str
    roots: Ints
    feature: Ints
    split: Floats
    mode: Ints
    yes: Ints
    no: Ints
    missing: Bools
    weights: Floats
    base: Floats
    members: dict[int, Floats]
    saturating: bool

    @property
    def branches(self) -> Ints:
        """The positions of the branches."""
        return np.flatnonzero(self.mode != Mode.LEAF)

    @property
    def leaves(self) -> Ints:
        """The positions of the leaves."""
        return np.flatnonzero(self.mode == Mode.LEAF)

    @cached_property
    def _kinds(self) -> list[Mode]:
        """The comparisons other than the usual one that occur."""
        return [kind for kind in _COMPARE if (self.mode == kind).any()]

    def holds(self, at: Ints, values: NDArray[Any]) -> Bools:
        """Return whether the comparison of each branch ``at`` holds for its value, both [n]."""
        mode, split = self.mode[at], self.split[at]
        with np.errstate(invalid="ignore"):
            result = np.asarray(values <= split)
            for kind in self._kinds:
                mine = mode == kind
                result[mine] = _COMPARE[kind](values[mine], split[mine])
        for place in np.flatnonzero(mode == Mode.MEMBER) if self.members else ():
            result[place] = bool(np.isin(values[place], self.members[int(at[place])]))
        unknown = np.isnan(values)
        return np.asarray(np.where(unknown, self.missing[at] | (mode == Mode.NEQ), result))

    def leaf_of(self, features: NDArray[Any], start: Ints) -> Ints:
        """The leaf that each row ends in.

        Args:
            features: [R, F].
            start: the tree node that each row starts from, [R] or [R, T] for several.
        """
        width = features.shape[1]
        offset = np.arange(len(features)).reshape(-1, *[1] * (start.ndim - 1)) * width
        row = np.broadcast_to(offset, start.shape).reshape(-1)
        values = np.ascontiguousarray(features).reshape(-1)
        plain = not self._kinds and not self.members and not np.isnan(values).any()
        current = start.reshape(-1).copy()
        active = np.flatnonzero(self._inner[current])
        at, row = current[active], row[active]
        while active.size:
            looked = values.take(row + self.feature.take(at))
            holds = looked <= self.split.take(at) if plain else self.holds(at, looked)
            at = np.where(holds, self.yes.take(at), self.no.take(at))
            current[active] = at
            inner = self._inner.take(at)
            active, at, row = active[inner], at[inner], row[inner]
        return current.reshape(start.shape)

    @cached_property
    def _inner(self) -> Bools:
        return np.asarray(self.mode != Mode.LEAF)


_COMPARE = {
    Mode.LT: np.less,
    Mode.GTE: np.greater_equal,
    Mode.GT: np.greater,
    Mode.EQ: np.equal,
    Mode.NEQ: np.not_equal,
}


def read(node: onnx.NodeProto) -> Ensemble | None:
    """The ensemble that ``node`` is; None where it isn't one, or is broken."""
    if node.domain != ML or node.op_type not in TREE_OPS:
        return None
    try:
        attributes = {}
        for entry in node.attribute:
            attributes[entry.name] = onnx.helper.get_attribute_value(entry)
        return (
            _version_5(node, attributes)
            if node.op_type == "TreeEnsemble"
            else _version_1(node, attributes)
        )
    except (KeyError, IndexError, ValueError, TypeError):
        return None  # a broken ensemble is ONNX Runtime's to refuse


def _numbers(attributes: dict[str, Any], name: str) -> Floats:
    tensor = attributes.get(f"{name}_as_tensor")
    values = (
        onnx.numpy_helper.to_array(tensor)
        if tensor is not None
        else attributes.get(name, ())
    )
    return np.asarray(values, np.float64).reshape(-1)


def _version_1(node: onnx.NodeProto, attributes: dict[str, Any]) -> Ensemble:
    trees, ids = (
        np.asarray(attributes["nodes_treeids"], np.int64),
        np.asarray(attributes["nodes_nodeids"], np.int64),
    )
    most = int(ids.max()) + 1
    keys = trees * most + ids
    order = np.argsort(keys, kind="stable")

    def position(tree: Ints, number: Ints) -> Ints:
        keys_of_nodes = tree * most + number
        positions = order[
            np.minimum(np.searchsorted(keys[order], keys_of_nodes), len(order) - 1)
        ]
        if not np.array_equal(keys[positions], keys_of_nodes):
            raise ValueError("a tree node is missing")
        return np.asarray(positions)

    names = np.asarray(
        [
            text.decode(errors="replace") if isinstance(text, bytes) else text
            for text in attributes["nodes_modes"]
        ]
    )
    mode = np.asarray([_MODE_NAMES[name] for name in names], np.int64)
    inner = mode != Mode.LEAF
    yes = np.arange(len(ids))
    no = np.arange(len(ids))
    yes[inner] = position(
        trees[inner], np.asarray(attributes["nodes_truenodeids"], np.int64)[inner]
    )
    no[inner] = position(
        trees[inner], np.asarray(attributes["nodes_falsenodeids"], np.int64)[inner]
    )
    root = np.ones(len(ids), bool)
    root[yes[inner]] = root[no[inner]] = False
    kind = "target" if node.op_type == "TreeEnsembleRegressor" else "class"
    at = position(
        np.asarray(attributes[f"{kind}_treeids"], np.int64),
        np.asarray(attributes[f"{kind}_nodeids"], np.int64),
    )
    weights = _weights(
        len(ids), at, attributes[f"{kind}_ids"], _numbers(attributes, f"{kind}_weights")
    )
    return Ensemble(
        label(node),
        node.input[0],
        np.flatnonzero(root),
        np.asarray(attributes["nodes_featureids"], np.int64),
        _numbers(attributes, "nodes_values"),
        mode,
        yes,
        no,
        _flags(attributes, len(ids)),
        weights,
        _base(_numbers(attributes, "base_values"), weights.shape[1]),
        {},
        _text(attributes.get("post_transform", b"NONE")) != "NONE",
    )


def _version_5(node: onnx.NodeProto, attributes: dict[str, Any]) -> Ensemble:
    tensors = {}
    for name in ("nodes_modes", "nodes_splits"):
        tensors[name] = np.asarray(onnx.numpy_helper.to_array(attributes[name]))
    leaf_weights = np.asarray(
        onnx.numpy_helper.to_array(attributes["leaf_weights"]), np.float64
    )
    inner, leaves = len(tensors["nodes_modes"]), len(leaf_weights)

    def children(side: str) -> Ints:
        to = np.asarray(attributes[f"nodes_{side}nodeids"], np.int64)
        leaf = np.asarray(attributes[f"nodes_{side}leafs"], bool)
        return np.concatenate(
            [np.where(leaf, to + inner, to), np.arange(inner, inner + leaves)]
        )

    mode = np.concatenate(
        [tensors["nodes_modes"].astype(np.int64), np.full(leaves, Mode.LEAF)]
    )
    members: dict[int, Floats] = {}
    if "membership_values" in attributes:
        values = np.asarray(
            onnx.numpy_helper.to_array(attributes["membership_values"]), np.float64
        )
        pieces = np.split(values, np.flatnonzero(np.isnan(values)))
        sets = [piece[~np.isnan(piece)] for piece in pieces]
        members = dict(zip(np.flatnonzero(mode == Mode.MEMBER).tolist(), sets, strict=False))
    padding = np.zeros(leaves)
    weights = _weights(
        inner + leaves,
        np.arange(inner, inner + leaves),
        attributes["leaf_targetids"],
        leaf_weights,
    )
    return Ensemble(
        label(node),
        node.input[0],
        np.asarray(attributes["tree_roots"], np.int64),
        np.concatenate(
            [np.asarray(attributes["nodes_featureids"], np.int64), padding.astype(np.int64)]
        ),
        np.concatenate([tensors["nodes_splits"].astype(np.float64), padding]),
        mode,
        children("true"),
        children("false"),
        np.concatenate([_flags(attributes, inner), padding.astype(bool)]),
        weights,
        _base(np.zeros(0), weights.shape[1]),
        members,
        bool(attributes.get("post_transform", 0)),
    )


def _weights(count: int, at: Ints, targets: Sequence[int], values: Floats) -> Floats:
    ids = np.asarray(targets, np.int64)
    width = int(ids.max()) + 1 if ids.size else 1
    if count * width > _MOST_PAYLOAD:
        # Any two leaves still differ, but for a chance that doesn't matter.
        values, ids, width = (
            values * np.random.default_rng(0).uniform(0.5, 1.5, width)[ids],
            ids * 0,
            1,
        )
    weights = np.zeros((count, width))
    np.add.at(weights, (at, ids), values)
    return weights


def _flags(attributes: dict[str, Any], count: int) -> Bools:
    flags = np.asarray(attributes.get("nodes_missing_value_tracks_true", ()), bool)
    return flags if len(flags) == count else np.zeros(count, bool)


def _base(values: Floats, width: int) -> Floats:
    return values if len(values) == width else np.zeros(width)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
