"""Faults in tree ensembles and other classifiers of ``ai.onnx.ml``: a leaf, a threshold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_harness.mutation.atlas import Atlas, attributes
from onnx_harness.mutation.faults import Edit, Fault, FaultKind, called

_DOMAIN = "ai.onnx.ml"
_LEAVES = ("target_weights", "class_weights", "coefficients")
_LEAF_MODES = (b"LEAF", "LEAF")


def _find_leaves(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        if node.domain == _DOMAIN:
            values = attributes(node)
            names = []
            for name in _LEAVES:
                if values.get(name):
                    names.append((site, node, name, values[name]))
            places += names
    while places:
        for site, node, name, leaves in places:
            position = int(rng.choice(np.flatnonzero(np.asarray(leaves))))
            text = f"{name}[{position}] of {called(node)} with the other sign"
            yield Fault("wrong leaf", site, text, _LEAVES.index(name), (position,), -1.0)


def _spoil_leaf(edit: Edit) -> None:
    _multiply(edit, _LEAVES[edit.fault.slot])


def _find_thresholds(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        values = attributes(node) if node.domain == _DOMAIN else {}
        if "nodes_values" in values:
            modes = enumerate(values.get("nodes_modes", ()))
            inner = [position for position, mode in modes if mode not in _LEAF_MODES]
            if inner:
                places.append((site, node, inner))
    while places:
        for site, node, inner in places:
            position = int(rng.choice(inner))
            text = f"threshold {position} of {called(node)} with the other sign"
            yield Fault("wrong threshold", site, text, 0, (position,), -1.0)


def _spoil_threshold(edit: Edit) -> None:
    _multiply(edit, "nodes_values")


def _multiply(edit: Edit, name: str) -> None:
    values = list(edit.attribute(name))
    values[edit.fault.index[0]] *= edit.fault.factor
    edit.set_attribute(name, values)


KINDS = (
    FaultKind("wrong leaf", _find_leaves, _spoil_leaf),
    FaultKind("wrong threshold", _find_thresholds, _spoil_threshold),
)
