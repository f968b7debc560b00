"""The node that a departure is blamed on, and what watching values changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_harness.diagnose.watched_graph import sources
from onnx_harness.judging.simulation import PREFIX

# The first node whose own error is so near the greatest one is the cause: others are as wrong for
# its like.
NEAR = 0.1
# A node that departs by less is no cause: it is the order of its additions.
LEAST = 3e-6


@dataclass(frozen=True, slots=True)
class NodeError:
    """The departure of a node.

    Attributes:
        name: of the node; of its first output where it has none.
        value: the output that departs.
        own: relative L2 error of that output where its inputs are the reference's; infinite where
            it isn't finite.
        inherited: the greatest of the errors of its inputs as the candidate runs.
    """

    name: str
    op_type: str
    value: str
    own: float
    inherited: float


def relative_error(right: Any, actual: Any) -> float:
    """||actual - right|| / ||right||; infinite where shapes, NaN or infinities differ."""
    if getattr(right, "shape", None) != getattr(actual, "shape", None):
        return math.inf
    if right.dtype.kind not in "f":
        return 0.0 if np.array_equal(right, actual) else 1.0
    a, b = right.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    norm = float(np.linalg.norm(a[finite]))
    gap = float(np.linalg.norm((b - a)[finite]))
    if gap == 0:
        return 0.0
    return gap / norm if norm else math.inf


def greatest_change(
    right: Mapping[str, Any], unwatched: Mapping[str, Any], watched: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Return the greatest errors of the outputs without and with values exposed.

    Returns:
        Relative L2 errors; None where an output changes by less than a tenth of its error, or by
        the order of its additions.
    """
    for name, value in right.items():
        if name not in unwatched or name not in watched:
            continue
        change, error = (
            relative_error(unwatched[name], watched[name]),
            relative_error(value, unwatched[name]),
        )
        if change > max(LEAST, NEAR * error if math.isfinite(error) else 0.0):
            break
    else:
        return None
    names = []
    for name in right:
        if name in unwatched and name in watched:
            names.append(name)
    before = max(relative_error(right[name], unwatched[name]) for name in names)
    return before, max(relative_error(right[name], watched[name]) for name in names)


def observer_words(level: str, change: tuple[float, float], *, passes: bool) -> str:
    """Return what is said of a result that changes when values are exposed.

    Args:
        level: ONNX Runtime's, at which it was watched.
        change: the greatest errors without and with values exposed.
        passes: it's right with them.
    """
    before, error = change
    after = (
        "it passes" if passes else f"its error is {error:.1e} in the place of {before:.1e}"
    )
    if level == "disable":
        return f"watching values changes the result: with them as outputs {after}"
    return (
        "watching values changes the result: with them as outputs ONNX Runtime optimizes less, "
        f"and {after}; so its optimized graph was replayed, cut into its nodes"
    )


def blamed(
    original: onnx.GraphProto,
    graph: onnx.GraphProto,
    errors: Mapping[str, tuple[float, float]],
    matched: Mapping[str, int],
) -> NodeError | None:
    """The first node in order whose own error is about as great as any."""
    greatest = max((own for own, _ in errors.values()), default=0.0)
    if greatest <= LEAST:
        return None
    read_by = sources(graph, matched)
    least = NEAR * greatest if math.isfinite(greatest) else math.inf
    name = next(name for name in matched if errors.get(name, (0.0, 0.0))[0] >= least)
    inherited = max(
        (errors[source][1] for source in read_by[name] if source in errors), default=0.0
    )
    node = _maker_of(name, original, graph)
    return NodeError(node.name or name, node.op_type, name, errors[name][0], inherited)


def _maker_of(
    name: str, original: onnx.GraphProto, graph: onnx.GraphProto
) -> onnx.NodeProto:
    """The node that a value is blamed on.

    It's the candidate's, but for a Cast that a conversion put behind a node: the value is that
    node's, and the Cast only shows what the type makes of it. Then it's the untouched model's.
    """
    makers, untouched = _makers(graph), _makers(original)
    node = makers[name]
    # What rounds it in simulated float16.
    while node.op_type == "Cast" and node.input[0].startswith(PREFIX):
        node = makers[node.input[0]]
    return untouched[name] if node.op_type == "Cast" else node


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    makers: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        makers.update(dict.fromkeys(node.output, node))
    return makers
