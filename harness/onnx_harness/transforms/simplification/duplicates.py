"""Merge what is there twice.

It's constants that are equal to the bit, and nodes that compute the same of the same.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping

import onnx_ir as ir

from onnx_harness.model.graph import Editing, inner_graphs
from onnx_harness.transforms.simplification.folding import is_deterministic

_SMALL_BYTES = 1 << 12
_END_BYTES = 256
_WEIGHTED = ("BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul")


def merge_initializers(editing: Editing, small: bool) -> int:
    """Let equal initializers of the main graph be one.

    Precondition: type, shape and every bit agree, and no caller can override or read either. A
    BatchNormalization that trains reads neither: ONNX Runtime writes the new mean and variance over
    the old ones.

    Args:
        editing: the graph.
        small: look at small ones alone, which is quick: what makes nodes equal is an index or an
            axis.
    """
    alike: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in editing.graph.initializers.values():
        tensor = value.const_value
        if (
            tensor is None
            or tensor.dtype == ir.DataType.STRING
            or value.is_graph_input()
            or value.is_graph_output()
        ):
            continue
        if any(
            use.node.op_type == "BatchNormalization" and len(use.node.outputs) > 1
            for use in value.uses()
        ):
            continue
        if not small or tensor.nbytes <= _SMALL_BYTES:
            alike[tensor.dtype, tuple(tensor.shape.numpy())].append(value)
    merged = 0
    for same in (same for values in alike.values() for same in _equal(values)):
        for value in same[1:]:
            ir.convenience.replace_all_uses_with(value, same[0])
            del editing.graph.initializers[str(value.name)]
            merged += 1
    return merged


def _equal(values: list[ir.Value]) -> list[list[ir.Value]]:
    """Groups of initializers that hold the same bytes, those of one type and shape given."""
    groups = [values]
    # Their ends tell most weights apart. What is kept to compare is never a weight itself: memory
    # would be twice it.
    for mark in (_ends, _hash):
        finer: dict[tuple[int, Hashable], list[ir.Value]] = defaultdict(list)
        for number, group in enumerate(groups):
            for value in group if len(group) > 1 else ():
                assert value.const_value is not None
                finer[number, mark(value.const_value.tobytes())].append(value)
        groups = list(finer.values())
    return groups


def _ends(data: bytes) -> Hashable:
    return data[:_END_BYTES], data[-_END_BYTES:]


def _hash(data: bytes) -> Hashable:
    return hashlib.sha256(data).digest()


def merge_nodes(editing: Editing, weighted: bool) -> int:
    """Let a node read the outputs of an earlier one that is the same.

    That is in its own graph or in one around it.

    Precondition: standard operators that aren't random and hold no graph; the same inputs,
    attributes and named outputs; no output of the second is an output of its graph.

    Args:
        editing: the graph.
        weighted: merge also what has weights that may take in what comes after: once two are one,
            they can't.
    """
    return _merge_nodes(editing, editing.graph, {}, weighted)


def _merge_nodes(
    editing: Editing, graph: ir.Graph, around: Mapping[Hashable, ir.Node], weighted: bool
) -> int:
    merged = 0
    seen = dict(around)
    for node in list(graph):
        inner = list(inner_graphs(node))
        for body in inner:
            merged += _merge_nodes(editing, body, seen, weighted)
        if (
            inner
            or not editing.is_standard(node)
            or not is_deterministic(node.op_type, editing.opset)
        ):
            continue
        if node.op_type in _WEIGHTED and not weighted:
            continue
        original = seen.setdefault(_key(node), node)
        if original is node or any(value.is_graph_output() for value in node.outputs):
            continue
        for value, same in zip(node.outputs, original.outputs, strict=True):
            ir.convenience.replace_all_uses_with(value, same)
        graph.remove(node, safe=True)
        merged += 1
    return merged


def _key(node: ir.Node) -> Hashable:
    keys = []
    for name, attribute in node.attributes.items():
        keys.append(
            (
                name,
                ir.serde.serialize_attribute(attribute).SerializeToString(
                    deterministic=True
                ),
            )
        )
    attributes = sorted(keys)
    named = tuple(bool(value.name) for value in node.outputs)
    return node.op_type, tuple(node.inputs), tuple(attributes), named
