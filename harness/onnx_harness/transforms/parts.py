"""The nodes that a conversion works on, as parts of it that can be left out by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from onnx_harness.transforms import Parts

if TYPE_CHECKING:
    import onnx

# These compute nothing that a conversion could spoil, and nothing is gained by leaving them out.
_NEVER = frozenset({"Cast", "Constant", "Shape"})


def node_parts(option: str, **further: bool) -> Parts:
    """Return the nodes of the main graph as parts of a conversion.

    Args:
        option: the name of the option that lists the nodes which stay as they are.
        further: options that go with it.
    """
    return Parts("node", partial(_names, option), partial(_without, option, further))


def inner_node_parts(option: str) -> Parts:
    """Return the nodes as `node_parts` does, but for those that give an output of the graph.

    For a conversion that changes the type of an output whose node stays as it is, though the
    outputs are to keep theirs: leaving such a node out is a failure of its own.
    """
    return Parts("node", partial(_inner_names, option), partial(_without, option, {}))


def _inner_names(
    option: str, model: onnx.ModelProto, options: Mapping[str, Any]
) -> Sequence[str]:
    outputs = {info.name for info in model.graph.output}
    last = {node.name for node in model.graph.node if not outputs.isdisjoint(node.output)}
    return tuple(name for name in _names(option, model, options) if name not in last)


def _names(option: str, model: onnx.ModelProto, options: Mapping[str, Any]) -> Sequence[str]:
    counts = Counter(node.name for node in model.graph.node)
    blocked = set(options.get(option) or ())
    parts = (node.name for node in model.graph.node if _is_part(node, counts))
    return tuple(name for name in parts if name not in blocked)


def _without(
    option: str,
    further: Mapping[str, bool],
    options: Mapping[str, Any],
    excluded: Sequence[str],
) -> Mapping[str, Any]:
    return {**options, **further, option: (*(options.get(option) or ()), *excluded)}


def _is_part(node: onnx.NodeProto, counts: Mapping[str, int]) -> bool:
    return bool(node.name) and counts[node.name] == 1 and node.op_type not in _NEVER
