"""Two nodes in a row that move, reshape or convert, made one. No value is computed differently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from harness.transforms.surgery.editing import Editing, all_graphs
from harness.transforms.surgery.rules import Facts, constant_array, constant_value, fact_of

_AXES_ARE_INPUTS = 13
_LOSSLESS = {
    ir.DataType.BOOL: frozenset(
        (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT)
    ),
    ir.DataType.INT32: frozenset((ir.DataType.INT64, ir.DataType.DOUBLE)),
    ir.DataType.UINT8: frozenset((ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT)),
    ir.DataType.INT8: frozenset((ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT)),
    ir.DataType.FLOAT: frozenset((ir.DataType.DOUBLE,)),
}


def merge_chains(editing: Editing, facts: Facts) -> int:
    """Let the second of two Transposes, Reshapes, Unsqueezes, Slices or Casts read what the first read.

    Preconditions are with each rule. The first stays for its other readers, and is dead without any.
    """
    merged = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            merge = _RULES.get(node.op_type)
            first = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
            if merge is None or first is None or first.op_type != node.op_type:
                continue
            if not editing.is_standard(node) or not editing.is_standard(first) or first.inputs[0] is None:
                continue
            merged += merge(editing, first, node, facts)
    return merged


def _transposes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """Both say their ``perm``: without one it depends on the rank."""
    perms = [node.attributes.get("perm") for node in (first, second)]
    if any(perm is None or perm.is_ref() for perm in perms):
        return False
    inner, outer = (list(perm.as_ints()) for perm in perms if perm is not None)
    if len(inner) != len(outer):
        return False
    second.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    second.replace_input_with(0, first.inputs[0])
    return True


def _reshapes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """The second shape is constant, without a 0: that copies a dimension of what the first gives."""
    shape = constant_array(second.inputs[1]) if len(second.inputs) > 1 else None
    if shape is None or (shape == 0).any():
        return False
    second.replace_input_with(0, first.inputs[0])
    return True


def _unsqueezes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """All axes are constant and, where negative, the rank is known; each axis counts in the result of its own node."""
    if editing.opset < _AXES_ARE_INPUTS:
        return False
    before = fact_of(first.inputs[0], facts)
    axes = [constant_array(node.inputs[1]) for node in (first, second)]
    if before is None or before.shape is None or any(part is None or part.ndim != 1 for part in axes):
        return False
    inner, outer = (part.astype(np.int64) for part in axes if part is not None)
    rank = len(before.shape) + inner.size
    added = {int(axis) % rank for axis in inner} if rank else set()
    total = rank + outer.size
    placed = {int(axis) % total for axis in outer} if total else set()
    if len(added) != inner.size or len(placed) != outer.size:
        return False
    kept = [axis for axis in range(total) if axis not in placed]
    merged = sorted(placed | {kept[axis] for axis in added})
    second.replace_input_with(0, first.inputs[0])
    second.replace_input_with(1, constant_value(editing, f"{second.outputs[0].name}_axes", merged))
    return True


def _slices(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """All bounds are constant, and no axis is cut by both: each axis is cut on its own, so that the order is free."""
    fact = fact_of(first.outputs[0], facts)
    rank = None if fact is None or fact.shape is None else len(fact.shape)
    cuts = [_cuts(node, rank) for node in (first, second)]
    if cuts[0] is None or cuts[1] is None or cuts[0].keys() & cuts[1].keys():
        return False
    merged = sorted({**cuts[0], **cuts[1]}.items())
    columns = {
        "starts": [start for _, (start, _, _) in merged],
        "ends": [end for _, (_, end, _) in merged],
        "axes": [axis for axis, _ in merged],
        "steps": [step for _, (_, _, step) in merged],
    }
    second.resize_inputs(5)
    second.replace_input_with(0, first.inputs[0])
    for index, (word, numbers) in enumerate(columns.items(), start=1):
        second.replace_input_with(index, constant_value(editing, f"{second.outputs[0].name}_{word}", numbers))
    return True


def _cuts(node: ir.Node, rank: int | None) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis; None where one isn't constant, or before the opset that has them as inputs."""
    if len(node.inputs) < 3:
        return None
    starts, ends = constant_array(node.inputs[1]), constant_array(node.inputs[2])
    if starts is None or ends is None or starts.ndim != 1 or starts.shape != ends.shape:
        return None
    defaults = (np.arange(starts.size), np.ones(starts.size, np.int64))
    given = [*node.inputs[3:5], None, None][:2]
    axes, steps = (
        default if value is None else constant_array(value) for value, default in zip(given, defaults, strict=True)
    )
    if axes is None or steps is None or axes.shape != starts.shape or steps.shape != starts.shape:
        return None
    bounds = zip(starts.tolist(), ends.tolist(), steps.tolist(), strict=True)
    if any(axis < 0 for axis in axes) and not rank:
        return None
    cuts = {int(axis) % rank if rank else int(axis): bound for axis, bound in zip(axes, bounds, strict=True)}
    return cuts if len(cuts) == starts.size else None


def _casts(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """The first loses nothing, so that the second sees the same values without it."""
    before, between = fact_of(first.inputs[0], facts), fact_of(first.outputs[0], facts)
    if before is None or between is None:
        return False
    if between.dtype not in _LOSSLESS.get(ir.DataType(before.dtype), frozenset()):
        return False
    second.replace_input_with(0, first.inputs[0])
    return True


_RULES: dict[str, Callable[[Editing, ir.Node, ir.Node, Facts], bool]] = {
    "Transpose": _transposes,
    "Reshape": _reshapes,
    "Unsqueeze": _unsqueezes,
    "Slice": _slices,
    "Cast": _casts,
}
