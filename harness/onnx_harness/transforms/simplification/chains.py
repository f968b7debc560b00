"""Two nodes in a row that move, reshape or convert, made one. No value is computed differently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import constant_array, constant_value
from onnx_harness.transforms.simplification.dimensions import reshape_numbers
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, permutation

_AXES_ARE_INPUTS = 13
_SHAPE_IS_INPUT = 5
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
# Exporters say so for "to the end"; no dimension is longer.
TO_THE_END = (1 << 31) - 1
_BEFORE_ALL = -(1 << 63)
_IDEMPOTENT = ("Abs", "Ceil", "Floor", "Relu", "Round", "Sign")
_LOSSLESS = {
    ir.DataType.BOOL: frozenset(
        (
            ir.DataType.INT8,
            ir.DataType.UINT8,
            ir.DataType.INT32,
            ir.DataType.INT64,
            ir.DataType.FLOAT,
        )
    ),
    ir.DataType.INT32: frozenset((ir.DataType.INT64, ir.DataType.DOUBLE)),
    ir.DataType.UINT8: frozenset((ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT)),
    ir.DataType.INT8: frozenset((ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT)),
    ir.DataType.FLOAT: frozenset((ir.DataType.DOUBLE,)),
}


def merge_chains(editing: Editing, facts: Facts) -> int:
    """Let the second of two nodes that move, reshape or convert read what the first read.

    Preconditions are with each rule. The first stays for its other readers, and is dead without
    any.
    """
    merged = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            first = (
                node.inputs[0].producer()
                if node.inputs and node.inputs[0] is not None
                else None
            )
            if (
                first is None
                or not editing.is_standard(node)
                or not editing.is_standard(first)
            ):
                continue
            if first.inputs and first.inputs[0] is not None:
                merged += _merge(editing, first, node, facts)
    return merged


def _merge(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    if first.op_type == second.op_type:
        if second.op_type in _IDEMPOTENT:
            second.replace_input_with(0, first.inputs[0])
            return True
        rule = _RULES.get(second.op_type)
        if rule is not None and rule(editing, first, second, facts):
            return True
    if _keeps_order(first, facts) and _keeps_order(second, facts):
        return _reshapes(editing, first, second, facts)
    return False


def _keeps_order(node: ir.Node, facts: Facts) -> bool:
    """Return whether a node leaves the elements in their order.

    A reshape does, and a Transpose that moves dimensions of 1 alone.
    """
    if node.op_type != "Transpose":
        return node.op_type in _RESHAPES
    perm, fact = permutation(node, facts), fact_of(node.inputs[0], facts)
    if perm is None or fact is None or fact.shape is None or len(perm) != len(fact.shape):
        return False
    longer = [axis for axis in perm if fact.shape[axis] != 1]
    return longer == sorted(longer)


def _transposes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    inner, outer = (permutation(node, facts) for node in (first, second))
    if inner is None or outer is None or len(inner) != len(outer):
        return False
    second.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    second.replace_input_with(0, first.inputs[0])
    return True


def _reshapes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """Merge two Reshapes; the second has a constant shape without a 0.

    A 0 would copy a dimension of what the first gives.

    Or the result's dimensions are known, or those of what the first reads, but for one, and none is
    a constant 0.
    """
    if editing.opset < _SHAPE_IS_INPUT:
        return False
    shape = constant_array(second.inputs[1]) if second.op_type == "Reshape" else None
    if shape is not None and (shape != 0).all():
        second.replace_input_with(0, first.inputs[0])
        return True
    before = fact_of(first.inputs[0], facts)
    after = fact_of(second.outputs[0], facts)
    if before is None or after is None or after.dimensions is None or 0 in after.dimensions:
        return False
    numbers = reshape_numbers(after.dimensions, before.dimensions or ())
    if numbers is None:
        return False
    # In place: a Squeeze, a Flatten or the like becomes the Reshape.
    second.op_type = "Reshape"
    second.attributes.clear()
    second.resize_inputs(2)
    second.replace_input_with(0, first.inputs[0])
    second.replace_input_with(
        1, constant_value(editing, f"{second.outputs[0].name}_shape", numbers)
    )
    return True


def axis_of(node: ir.Node, rank: int) -> int | None:
    """Return the axis of a node whose default is 0, from the front.

    None where a function's caller chooses it, and for scalars.
    """
    attribute = node.attributes.get("axis")
    if rank == 0 or (attribute is not None and attribute.is_ref()):
        return None
    return (0 if attribute is None else attribute.as_int()) % rank


def fuse_transposes(editing: Editing, facts: Facts) -> int:
    """Let a Gemm transpose for itself.

    Precondition: the Transpose swaps the two axes of a matrix.
    """
    fused = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, "Gemm"):
                continue
            for index, name in enumerate(("transA", "transB")):
                value = node.inputs[index]
                first = value.producer() if value is not None else None
                if first is None or not editing.is_standard(first, "Transpose"):
                    continue
                flag = node.attributes.get(name)
                if permutation(first, facts) == [1, 0] and (
                    flag is None or not flag.is_ref()
                ):
                    node.attributes[name] = ir.AttrInt64(
                        name, int(flag is None or flag.as_int() == 0)
                    )
                    node.replace_input_with(index, first.inputs[0])
                    fused += 1
    return fused


def _unsqueezes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """All axes are constant and, where negative, the rank is known.

    Each axis counts in the result of its own node.
    """
    if editing.opset < _AXES_ARE_INPUTS:
        return False
    before = fact_of(first.inputs[0], facts)
    axes = [constant_array(node.inputs[1]) for node in (first, second)]
    if (
        before is None
        or before.shape is None
        or any(part is None or part.ndim != 1 for part in axes)
    ):
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
    second.replace_input_with(
        1, constant_value(editing, f"{second.outputs[0].name}_axes", merged)
    )
    return True


def _squeezes(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """As two Unsqueezes; each axis counts in what its own node reads."""
    if editing.opset < _AXES_ARE_INPUTS or any(
        len(node.inputs) < 2 for node in (first, second)
    ):
        return False
    before = fact_of(first.inputs[0], facts)
    axes = [constant_array(node.inputs[1]) for node in (first, second)]
    if (
        before is None
        or before.shape is None
        or any(part is None or part.ndim != 1 for part in axes)
    ):
        return False
    inner, outer = (part.tolist() for part in axes if part is not None)
    rank = len(before.shape)
    gone = {axis % rank for axis in inner} if rank else set()
    left = [axis for axis in range(rank) if axis not in gone]
    if len(gone) != len(inner) or (outer and not left):
        return False
    merged = sorted(gone | {left[axis % len(left)] for axis in outer})
    if len(merged) != len(inner) + len(outer):
        return False
    second.replace_input_with(0, first.inputs[0])
    second.replace_input_with(
        1, constant_value(editing, f"{second.outputs[0].name}_axes", merged)
    )
    return True


def _slices(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """All bounds are constant. An axis that one alone cuts is cut as it was.

    Each is cut on its own, so that the order is free. For one that both cut, its size or the bounds
    tell.
    """
    fact = fact_of(first.outputs[0], facts)
    rank = None if fact is None or fact.shape is None else len(fact.shape)
    cuts = [cuts_of(node, rank) for node in (first, second)]
    if cuts[0] is None or cuts[1] is None:
        return False
    before = fact_of(first.inputs[0], facts)
    both: dict[int, tuple[int, int, int]] = {}
    for axis in cuts[0].keys() & cuts[1].keys():
        known = (
            before is not None and before.shape is not None and 0 <= axis < len(before.shape)
        )
        size = before.shape[axis] if known and before is not None and before.shape else None
        cut = _cut_twice(cuts[0][axis], cuts[1][axis], size)
        if cut is None:
            return False
        both[axis] = cut
    merged = sorted({**cuts[0], **cuts[1], **both}.items())
    columns = {
        "starts": [start for _, (start, _, _) in merged],
        "ends": [end for _, (_, end, _) in merged],
        "axes": [axis for axis, _ in merged],
        "steps": [step for _, (_, _, step) in merged],
    }
    second.resize_inputs(5)
    second.replace_input_with(0, first.inputs[0])
    for index, (word, numbers) in enumerate(columns.items(), start=1):
        second.replace_input_with(
            index, constant_value(editing, f"{second.outputs[0].name}_{word}", numbers)
        )
    return True


def _cut_twice(
    inner: tuple[int, int, int], outer: tuple[int, int, int], size: int | None
) -> tuple[int, int, int] | None:
    """One cut of an axis of that size, None where it isn't static, that does what two do in a row.

    None where that hangs on the size.
    """
    if size is not None:
        # Python starts before the first element where ONNX starts at it.
        if any(
            step == 0 or (step < 0 and start < -size) for start, _, step in (inner, outer)
        ):
            return None
        left = range(size)[slice(*inner)][slice(*outer)]
        if not left:
            return 0, 0, 1
        return left.start, left.stop if left.stop >= 0 else _BEFORE_ALL, left.step
    (start, end, step), (skipped, count, next_step) = inner, outer
    if step != 1 or next_step != 1 or start < 0 or skipped < 0 or count < 0:
        return None
    # A negative end counts from a size that isn't known: the second has to take all that is left.
    if end < 0 and count < TO_THE_END:
        return None
    last = end if count >= TO_THE_END else min(end, start + count)
    return min(start + skipped, TO_THE_END), last, 1


def cuts_of(node: ir.Node, rank: int | None) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis.

    None where one isn't constant, or before the opset that has them as inputs.
    """
    if len(node.inputs) < 3:
        return None
    starts = constant_array(node.inputs[1])
    ends = constant_array(node.inputs[2])
    if starts is None or ends is None or starts.ndim != 1 or starts.shape != ends.shape:
        return None
    defaults = (np.arange(starts.size), np.ones(starts.size, np.int64))
    given = [*node.inputs[3:5], None, None][:2]
    entries = []
    for value, default in zip(given, defaults, strict=True):
        entries.append(default if value is None else constant_array(value))
    axes, steps = entries
    if (
        axes is None
        or steps is None
        or axes.shape != starts.shape
        or steps.shape != starts.shape
    ):
        return None
    bounds = zip(starts.tolist(), ends.tolist(), steps.tolist(), strict=True)
    if any(axis < 0 for axis in axes) and not rank:
        return None
    cuts = {}
    for axis, bound in zip(axes, bounds, strict=True):
        cuts[int(axis) % rank if rank else int(axis)] = bound
    return cuts if len(cuts) == starts.size else None


def _casts(editing: Editing, first: ir.Node, second: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """The first loses nothing, so that the second sees the same values without it."""
    before = fact_of(first.inputs[0], facts)
    between = fact_of(first.outputs[0], facts)
    if before is None or between is None:
        return False
    if between.dtype not in _LOSSLESS.get(ir.DataType(before.dtype), frozenset()):
        return False
    second.replace_input_with(0, first.inputs[0])
    return True


_RULES: dict[str, Callable[[Editing, ir.Node, ir.Node, Facts], bool]] = {
    "Transpose": _transposes,
    "Squeeze": _squeezes,
    "Unsqueeze": _unsqueezes,
    "Slice": _slices,
    "Cast": _casts,
}
