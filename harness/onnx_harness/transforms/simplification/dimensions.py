"""Shapes that a graph computes at run time although they're known before.

They're known wholly or but for equal dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import (
    can_be_constant,
    constant_array,
    constant_value,
    replace_by_constant,
)
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of

# One dimension: its size, or the name of one that isn't static (None: nothing is known).
Entry = int | str | None
_LONGEST = 64
_ZERO_COPIES = 5
_SHAPED = ("Expand", "Reshape", "Squeeze", "Tile", "Unsqueeze")


class Tracer:
    """Follows small integer values back to the shapes that they're taken from."""

    def __init__(self, editing: Editing, facts: Facts) -> None:
        self._editing = editing
        self._facts = facts
        self._known: dict[ir.Value, tuple[list[Entry], bool] | None] = {}

    def trace(self, value: ir.Value | None) -> tuple[list[Entry], bool] | None:
        """The entries of a vector, or of a scalar (then True); None when it is anything else."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = None
            self._known[value] = self._traced(value)
        return self._known[value]

    def _traced(self, value: ir.Value) -> tuple[list[Entry], bool] | None:
        constant = constant_array(value)
        if constant is not None:
            if (
                constant.dtype not in (np.int64, np.int32)
                or constant.ndim > 1
                or constant.size > _LONGEST
            ):
                return None
            return [int(number) for number in constant.reshape(-1)], constant.ndim == 0
        return self._followed(value) or self._counted(value)

    def _counted(self, value: ir.Value) -> tuple[list[Entry], bool] | None:
        """As many unknown entries as the value has elements, where that is certain."""
        fact = fact_of(value, self._facts)
        if (
            fact is None
            or fact.dtype not in (ir.DataType.INT64, ir.DataType.INT32)
            or fact.static_shape is None
        ):
            return None
        if len(fact.static_shape) > 1 or sum(fact.static_shape) > _LONGEST:
            return None
        return [None] * (
            fact.static_shape[0] if fact.static_shape else 1
        ), not fact.static_shape

    def _followed(self, value: ir.Value) -> tuple[list[Entry], bool] | None:
        node = value.producer()
        if node is None or not self._editing.is_standard(node):
            return None
        match node.op_type:
            case "Shape":
                return self._shape(node)
            case "Identity":
                return self.trace(node.inputs[0])
            case "Cast":
                # Dimensions fit into int32: no tensor that is in memory has a longer one.
                to = node.attributes["to"].as_int()
                return (
                    self.trace(node.inputs[0])
                    if to in (ir.DataType.INT64, ir.DataType.INT32)
                    else None
                )
            case "Slice":
                return self._slice(node)
            case "Gather":
                return self._gather(node)
            case "Concat":
                parts = [self.trace(part) for part in node.inputs]
                if any(part is None or part[1] for part in parts):
                    return None
                return [
                    entry for part in parts if part is not None for entry in part[0]
                ], False
            case "Unsqueeze" | "Squeeze":
                source = self.trace(node.inputs[0])
                scalar = node.op_type == "Unsqueeze"
                fact = fact_of(value, self._facts)
                if source is None or source[1] is not scalar or len(source[0]) != 1:
                    return None
                if fact is None or fact.shape is None or len(fact.shape) != int(scalar):
                    return None
                return source[0], not scalar
        return None

    def trace_shape(self, value: ir.Value | None) -> list[Entry] | None:
        """The dimensions of a tensor; None when not even the rank is certain."""
        fact = fact_of(value, self._facts)
        return None if fact is None or fact.dimensions is None else list(fact.dimensions)

    def _shape(self, node: ir.Node) -> tuple[list[Entry], bool] | None:
        dims = self.trace_shape(node.inputs[0])
        if dims is None:
            return None
        start, end = node.attributes.get("start"), node.attributes.get("end")
        return dims[
            start.as_int() if start is not None else 0 : end.as_int()
            if end is not None
            else None
        ], False

    def _slice(self, node: ir.Node) -> tuple[list[Entry], bool] | None:
        source = self.trace(node.inputs[0])
        # Before opset 10 the bounds were attributes.
        if source is None or source[1] or len(node.inputs) < 3:
            return None
        bounds = [constant_array(value) for value in node.inputs[1:3]]
        step = (
            constant_array(node.inputs[4])
            if len(node.inputs) > 4 and node.inputs[4] is not None
            else np.array([1])
        )
        if step is None or step.size != 1 or step.reshape(-1)[0] < 1:
            return None
        if any(bound is None or bound.size != 1 for bound in bounds):
            return None
        slices = []
        for bound in bounds:
            if bound is not None:
                slices.append(int(bound.reshape(-1)[0]))
        first, last = slices
        return source[0][first : last : int(step.reshape(-1)[0])], False

    def _gather(self, node: ir.Node) -> tuple[list[Entry], bool] | None:
        source = self.trace(node.inputs[0])
        indices = constant_array(node.inputs[1])
        if source is None or source[1] or indices is None or indices.ndim > 1:
            return None
        places = [int(index) for index in indices.reshape(-1)]
        if any(not -len(source[0]) <= index < len(source[0]) for index in places):
            return None
        return [source[0][index] for index in places], indices.ndim == 0


def hiding_shapes(editing: Editing, outputs: Sequence[str]) -> frozenset[str]:
    """Return the computed shapes that hide the true shapes of these outputs of the model.

    There's a name for each.
    """
    hiding = set()
    for output in editing.graph.outputs:
        node = output.producer() if output.name in outputs else None
        while node is not None and node.inputs and node.inputs[0] is not None:
            shape = (
                node.inputs[1]
                if editing.is_standard(node, *_SHAPED) and len(node.inputs) > 1
                else None
            )
            if shape is not None and shape.name and constant_array(shape) is None:
                hiding.add(shape.name)
                break
            node = node.inputs[0].producer()
    return frozenset(hiding)


def fold_dimensions(editing: Editing, facts: Facts) -> int:
    """Replace what is computed from static dimensions alone.

    Precondition: every entry is known to be that number, whatever the caller feeds.
    """
    tracer, folded = Tracer(editing, facts), 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(
                node, "Shape", "Cast", "Slice", "Gather", "Concat", "Unsqueeze", "Squeeze"
            ):
                continue
            traced = tracer.trace(node.outputs[0])
            fact = fact_of(node.outputs[0], facts)
            if (
                traced is None
                or fact is None
                or fact.dtype not in (ir.DataType.INT64, ir.DataType.INT32)
            ):
                continue
            if not can_be_constant(editing, node.outputs[0], fact.dtype):
                continue
            numbers = [entry for entry in traced[0] if isinstance(entry, int)]
            if len(numbers) != len(traced[0]) or node.outputs[0].name in editing.opaque:
                continue
            array = np.array(numbers, np.int64).astype(ir.DataType(fact.dtype).numpy())
            replace_by_constant(
                editing,
                node.outputs[0],
                ir.tensor(array.reshape(()) if traced[1] else array),
            )
            graph.remove(node, safe=True)
            folded += 1
    return folded


def fold_reshapes(editing: Editing, facts: Facts) -> int:
    """Give a Reshape a constant shape where it copies dimensions of its own input: 0 says so.

    Precondition: each entry is a number or known to be the dimension at its own place; one other
    may become -1, when the rest are positive numbers: beside a 0 that copies an empty dimension, -1
    would be ambiguous.
    """
    if editing.opset < _ZERO_COPIES:
        return 0
    tracer, folded = Tracer(editing, facts), 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if (
                not editing.is_standard(node, "Reshape")
                or constant_array(node.inputs[1]) is not None
            ):
                continue
            if node.inputs[1] is not None and node.inputs[1].name in editing.opaque:
                continue
            allowzero = node.attributes.get("allowzero")
            traced = tracer.trace(node.inputs[1])
            if (
                traced is None
                or traced[1]
                or (allowzero is not None and allowzero.as_int() != 0)
            ):
                continue
            shape = reshape_numbers(traced[0], tracer.trace_shape(node.inputs[0]) or ())
            if shape is None:
                continue
            node.replace_input_with(
                1, constant_value(editing, f"{node.outputs[0].name}_shape", shape)
            )
            folded += 1
    return folded


def reshape_numbers(entries: Sequence[Entry], dims: Sequence[Entry]) -> list[int] | None:
    """The constant shape for a Reshape from ``dims`` to ``entries``, where 0 copies and one is -1.

    None without any.
    """
    shape: list[int | None] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, int):
            shape.append(entry)
        elif entry is not None and index < len(dims) and dims[index] == entry:
            shape.append(0)
        else:
            shape.append(None)
    sizes = [size for size in shape if size is not None]
    if len(sizes) == len(shape):
        return sizes
    if len(shape) - len(sizes) == 1 and all(size > 0 for size in sizes):
        return [-1 if size is None else size for size in shape]
    return None
