"""Two nodes of different operators made one. No value is computed differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.bias_and_scale import take_over
from onnx_harness.transforms.simplification.chains import axis_of
from onnx_harness.transforms.simplification.constants import constant_array
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, is_private

Rule = Callable[[Editing, ir.Node, Facts], bool]
"""Changes the graph at a node, and says whether it did."""

_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
_ARGS = ("ArgMax", "ArgMin")
# What a ConstantOfShape can hold, and numpy casts as ONNX does.
_FILLABLE = frozenset(
    (
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    )
)


def merge_pairs(editing: Editing, facts: Facts) -> int:
    """Apply the rules of this file; the preconditions are with each."""
    return apply_rules(editing, facts, _RULES)


def apply_rules(editing: Editing, facts: Facts, rules: Mapping[str, Rule]) -> int:
    """Apply to each node of a standard operator the rule for it; return how often one applied."""
    merged = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            rule = rules.get(node.op_type)
            if rule is not None and node.graph is graph and editing.is_standard(node):
                merged += rule(editing, node, facts)
    return merged


def _keep_dimensions(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    """Let a reduction keep the axes that an Unsqueeze after it puts back.

    It drops those that a Squeeze takes out.

    Precondition: the axes of both are constant and the same, and nothing else reads the reduction.
    """
    value = node.inputs[0]
    first = value.producer() if value is not None else None
    if (
        value is None
        or first is None
        or not editing.is_standard(first, *_REDUCTIONS, *_ARGS)
    ):
        return False
    keeps = first.attributes.get("keepdims")
    keeps_dims = keeps is None or (not keeps.is_ref() and keeps.as_int() != 0)
    fact = fact_of(first.inputs[0], facts)
    if (
        keeps_dims is not (node.op_type == "Squeeze")
        or (keeps is not None and keeps.is_ref())
        or not is_private(value, node)
    ):
        return False
    if fact is None or fact.shape is None:
        return False
    reduced = _reduced_axes(first, len(fact.shape))
    placed = axes_of(node, len(fact.shape))
    if reduced is None or reduced != placed:
        return False
    first.attributes["keepdims"] = ir.AttrInt64("keepdims", 0 if keeps_dims else 1)
    take_over(node.outputs[0], value)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return True


def _reduced_axes(node: ir.Node, rank: int) -> set[int] | None:
    """The axes that a reduction of a tensor of that rank goes over.

    None where they aren't certain.
    """
    if node.op_type in _ARGS:
        axis = axis_of(node, rank)
        return None if axis is None else {axis}
    axes = axes_of(node, rank)
    if axes is not None:
        return axes
    absent = "axes" not in node.attributes and (
        len(node.inputs) < 2 or node.inputs[1] is None
    )
    idle = node.attributes.get("noop_with_empty_axes")
    reduces_all = idle is None or (not idle.is_ref() and idle.as_int() == 0)
    return set(range(rank)) if absent and reduces_all else None


def axes_of(node: ir.Node, rank: int) -> set[int] | None:
    """The constant, distinct axes of a node, as an attribute or its second input.

    None where it has none.
    """
    attribute = node.attributes.get("axes")
    if attribute is not None:
        numbers = None if attribute.is_ref() else list(attribute.as_ints())
    else:
        constant = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
        numbers = None if constant is None or constant.ndim != 1 else constant.tolist()
    if not numbers or any(not -rank <= axis < rank for axis in numbers):
        return None
    axes = {int(axis) % rank for axis in numbers}
    return axes if len(axes) == len(numbers) else None


def _swap_branches(editing: Editing, node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """Let a Where choose the other way round instead of negating its condition.

    The Not stays for other readers.

    Exact as ONNX defines it. ONNX Runtime's kernel gives +0 for a -0 that a true condition chooses:
    what kept its sign may lose it here, and the reverse.
    """
    condition = node.inputs[0]
    first = condition.producer() if condition is not None else None
    if first is None or not editing.is_standard(first, "Not"):
        return False
    chosen, otherwise = node.inputs[1:3]
    node.replace_input_with(0, first.inputs[0])
    node.replace_input_with(1, otherwise)
    node.replace_input_with(2, chosen)
    return True


def _name_target(editing: Editing, node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """Turn a CastLike into the Cast that it is where the type of its second input is known."""
    target = fact_of(node.inputs[1], facts)
    if target is None:
        return False
    node.op_type = "Cast"
    node.attributes["to"] = ir.AttrInt64("to", target.dtype)
    node.resize_inputs(1)
    return True


def _fill_with_target_type(editing: Editing, node: ir.Node, facts: Facts) -> bool:  # noqa: ARG001
    """Let a ConstantOfShape fill with what a Cast after it makes of its value.

    Precondition: nothing else reads it, both types are numpy's, and the value is in the range of
    the new one: what becomes of a NaN or of 1e9 in an int8, ONNX leaves open.
    """
    value, to = node.inputs[0], node.attributes.get("to")
    first = value.producer() if value is not None else None
    if value is None or first is None or not editing.is_standard(first, "ConstantOfShape"):
        return False
    if (
        to is None
        or to.is_ref()
        or to.as_int() not in _FILLABLE
        or not is_private(value, node)
    ):
        return False
    filled = first.attributes.get("value")
    if filled is not None and (filled.is_ref() or filled.as_tensor().dtype not in _FILLABLE):
        return False
    number = (
        np.zeros(1, np.float32) if filled is None else filled.as_tensor().numpy().reshape(-1)
    )
    target = ir.DataType(to.as_int()).numpy()
    if number.size != 1 or not _is_in_range(number, target):
        return False
    with np.errstate(over="ignore"):
        first.attributes["value"] = ir.AttrTensor("value", ir.tensor(number.astype(target)))
    take_over(node.outputs[0], value)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return True


def _is_in_range(number: np.ndarray, target: np.dtype) -> bool:
    if target.kind not in "iu":
        return True
    if number.dtype.kind == "f" and not np.isfinite(number).all():
        return False
    limits = np.iinfo(target)
    return limits.min <= int(number[0]) <= limits.max


_RULES: dict[str, Rule] = {
    "Unsqueeze": _keep_dimensions,
    "Squeeze": _keep_dimensions,
    "Where": _swap_branches,
    "CastLike": _name_target,
    "Cast": _fill_with_target_type,
}
