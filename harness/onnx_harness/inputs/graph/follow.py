"""The inputs' dimensions followed through a graph, node by node, by the rules of its operators."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import onnx

from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.positions import CUTTING, MEETING, note_positions
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.inputs.graph.shape_rules import RULES
from onnx_harness.inputs.graph.shapes import Dims, Shapes
from onnx_harness.inputs.graph.signature import Container, Dim, Input, addends
from onnx_harness.inputs.graph.terms import Maybe, Term
from onnx_harness.model.ops import is_standard


def read(scope: Scope, inputs: Mapping[str, Input]) -> Shapes:
    """Follow the inputs' dimensions through the main graph; bodies of other graphs are left out.

    Args:
        scope: the main graph.
        inputs: of the model.
    """
    result = Shapes(scope)
    for name, entry in inputs.items():
        if entry.dims is not None and entry.container is Container.TENSOR:
            result.dims[name] = tuple(_term(dim) for dim in entry.dims)
    for node in scope.nodes:
        with contextlib.suppress(IndexError, TypeError, ValueError):
            note_positions(result, node)
        if not is_standard(node):
            continue
        # A node that isn't what its operator asks for tells nothing; the reference will say what is
        # wrong with it.
        with contextlib.suppress(IndexError, TypeError, ValueError):
            if (numbers := _computed(result, node)) is not None:
                result.numbers[node.output[0]] = numbers
            if (rule := RULES.get(node.op_type)) is None:
                continue
            shapes = [result.shape(name) if name else None for name in node.input]
            for output, dims in zip(
                node.output, rule(result, node, shapes, f"in {label(node)}"), strict=False
            ):
                if output and dims is not None:
                    result.dims[output] = _refined(dims, scope.shape(output))
    return result


def _term(dim: Dim) -> Term:
    if isinstance(dim, int):
        return dim
    parts = addends(dim)
    total = terms.total([int(part) if part.isdigit() else part for part in parts])
    return dim if total is None else total


def _refined(dims: Dims, inferred: Sequence[int | str | None] | None) -> Dims:
    """``dims``, and the numbers that shape inference found where nothing is known."""
    if inferred is None or len(inferred) != len(dims):
        return dims
    refined = []
    for dim, size in zip(dims, inferred, strict=True):
        refined.append(size if dim is None and isinstance(size, int) else dim)
    return tuple(refined)


def _computed(shapes: Shapes, node: onnx.NodeProto) -> Dims | None:
    """The elements of a node's output where they are numbers computed from shapes."""
    op = node.op_type
    if op in ("Shape", "Size"):
        dims = shapes.shape(node.input[0])
        if dims is None:
            return None
        return (terms.product(dims),) if op == "Size" else dims[slice(*_ends(node))]
    whole = shapes.shape(node.input[0]) if node.input else None
    if whole is not None and len(whole) > 1:  # a table, and no shape
        return None
    numbers = [shapes.contents(name) if name else None for name in node.input]
    first = numbers[0] if numbers else None
    if first is None:
        return None
    if op in MEETING:
        for bounds in numbers[1:]:
            for size, bound in _pairs(first, bounds or ()):
                shapes.meet(size, bound, compared=op not in CUTTING)
    if op in ("Identity", "Squeeze", "Unsqueeze", "Reshape", "Floor", "Flatten"):
        return first
    if op == "Cast":
        return first if attribute(node, "to", 0) in _NUMBERS else None
    if op == "Concat":
        contents = [number for number in numbers if number is not None]
        if len(contents) < len(numbers):
            return None
        return tuple(itertools.chain.from_iterable(contents))
    if op == "Gather":
        indices = shapes.integers(node, 1, "")
        if indices is None or any(
            not -len(first) <= index < len(first) for index in indices
        ):
            return None
        return tuple(first[index] for index in indices)
    if op == "Slice":
        starts = shapes.integers(node, 1, "starts")
        ends = shapes.integers(node, 2, "ends")
        if (
            not starts
            or not ends
            or len(starts) != 1
            or len(ends) != 1
            or len(node.input) > 4
        ):
            return None
        return first[starts[0] : ends[0]]
    if op == "ReduceProd":
        return (terms.product(first),)
    if op in _ARITHMETIC and len(numbers) == 2 and numbers[1] is not None:
        return tuple(_elementwise(op, first, numbers[1]))
    return None


_NUMBERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_ARITHMETIC = {
    "Add": terms.add,
    "Sub": terms.subtract,
    "Mul": terms.multiply,
    "Div": terms.divide,
    "Min": terms.least,
}


def _ends(node: onnx.NodeProto) -> tuple[int | None, int | None]:
    return attribute(node, "start", None), attribute(node, "end", None)


def _elementwise(op: str, first: Dims, second: Dims) -> Iterator[Maybe]:
    for one_term, other_term in _pairs(first, second):
        yield _ARITHMETIC[op](one_term, other_term)


def _pairs(first: Dims, second: Dims) -> Iterator[tuple[Maybe, Maybe]]:
    """The elements that meet, where one of the two has one element or both have as many."""
    count = max(len(first), len(second))
    if {len(first), len(second)} <= {1, count}:
        for place in range(count):
            yield first[place % len(first)], second[place % len(second)]
