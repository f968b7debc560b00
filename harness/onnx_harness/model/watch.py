"""One more output that tells of any values of a model, in graphs inside it too.

A number for each, by any reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.ops import is_standard, opset_of
from onnx_harness.model.rewrite import fresh_name, replace_nodes, value_names
from onnx_harness.model.walk import subgraphs

T = TypeVar("T")

_BODIES = ("If", "Loop", "Scan")
_STEM = "onnx_harness_watched"


@dataclass(frozen=True, slots=True)
class Reduction:
    """A tensor of floats as one number.

    Attributes:
        elementwise: the operator that every element goes through first; empty for none.
        total: the reduction of all elements.
        iterations: the reduction over the runs of a body.
        start: the number of no elements, of a body that doesn't run and of a branch that isn't
            taken.
        axes_since: the version of the operators in which ``iterations`` takes its axes as an input.
    """

    elementwise: str
    total: str
    iterations: str
    start: float = 0.0
    axes_since: int = 18


GREATEST_MAGNITUDE = Reduction("Abs", "ReduceMax", "ReduceMax")
LEAST = Reduction("", "ReduceMin", "ReduceMin", start=float("inf"))
SUM_OF_SQUARES = Reduction("", "ReduceSumSquare", "ReduceSum", axes_since=13)


def watch(
    model: onnx.ModelProto,
    choose: Callable[[onnx.NodeProto], Iterable[tuple[str, T]]],
    output: str,
    reduction: Reduction = GREATEST_MAGNITUDE,
    *,
    casts: Collection[str] = (),
    with_empty: bool = False,
) -> list[T]:
    """Add an output that holds a number for each value that is chosen.

    Args:
        model: without functions; it is changed. Nodes that are added carry names of their own.
        choose: gives the outputs of a node that are watched, and what the caller wants to know them
            by.
        output: the name of the new output: float32, one-dimensional.
        reduction: how a value becomes a number.
        casts: names of values that aren't float32, and become it before they are reduced.
        with_empty: values without elements are expected. It costs a copy of every value: a
            reduction to the greatest or least element fails on none.

    Returns:
        What each element of the output is about, in order. Empty where nothing is chosen: there is
        no such output then.
    """
    watcher = _Watcher(
        choose,
        reduction,
        opset_of(model),
        frozenset(casts),
        with_empty,
        value_names(model.graph),
    )
    vector, places = watcher.watch(model.graph)
    if vector is not None:
        model.graph.initializer.extend(watcher.constants())
        model.graph.node.append(helper.make_node("Identity", [vector], [output]))
        model.graph.output.append(
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [len(places)])
        )
    return places


@dataclass(slots=True)
class _Watcher(Generic[T]):
    """Adds, to a graph and those inside it, what gives the numbers as one vector a graph."""

    choose: Callable[[onnx.NodeProto], Iterable[tuple[str, T]]]
    reduction: Reduction
    opset: int
    casts: frozenset[str]
    with_empty: bool
    taken: set[str]
    _flat: str = field(init=False)
    _start: str = field(init=False)

    def __post_init__(self) -> None:
        self._flat, self._start = self._name(), self._name()

    def constants(self) -> list[TensorProto]:
        """Return what the added nodes read, from any graph: they belong to the main one."""
        return [
            numpy_helper.from_array(np.array([-1], np.int64), self._flat),
            numpy_helper.from_array(
                np.array([self.reduction.start], np.float32), self._start
            ),
        ]

    def watch(self, graph: onnx.GraphProto) -> tuple[str | None, list[T]]:
        """Add to ``graph`` what gives one vector.

        Its name, None when there's nothing to watch, and what it tells.
        """
        nodes: list[onnx.NodeProto] = []
        parts: list[str] = []
        places: list[T] = []
        for node in list(graph.node):
            after: list[onnx.NodeProto] = []
            if is_standard(node, *_BODIES):
                vector, inside = self._inside(node, after)
                if vector is not None:
                    parts.append(vector)
                    places += inside
            nodes += [node, *after]
            for name, place in self.choose(node):
                parts.append(self._number(name, nodes))
                places.append(place)
        if not parts:
            return None, []
        vector = self._name()
        nodes.append(helper.make_node("Concat", parts, [vector], axis=0))
        replace_nodes(graph, nodes)
        return vector, places

    def _number(self, value: str, nodes: list[onnx.NodeProto]) -> str:
        """Reduce a value to a vector of one element."""

        def add(op_type: str, inputs: list[str], **attributes: int) -> str:
            result = self._name()
            nodes.append(helper.make_node(op_type, inputs, [result], **attributes))  # type: ignore[arg-type]
            return result

        result = add("Cast", [value], to=TensorProto.FLOAT) if value in self.casts else value
        result = add("Reshape", [result, self._flat])
        if self.with_empty:
            result = add("Concat", [result, self._start], axis=0)
        if self.reduction.elementwise:
            result = add(self.reduction.elementwise, [result])
        return add(self.reduction.total, [result], keepdims=1)

    def _inside(
        self, node: onnx.NodeProto, after: list[onnx.NodeProto]
    ) -> tuple[str | None, list[T]]:
        """Bring the vector of the graphs inside ``node`` outside, as one more output of it."""
        bodies = list(subgraphs(node))
        vectors = [self.watch(body) for body in bodies]
        places = []
        for _, inside in vectors:
            for place in inside:
                places.append(place)
        if not places:
            return None, []
        before = 0
        for body, (vector, inside) in zip(bodies, vectors, strict=True):
            # Branches give vectors of one length: fillings stand for what another branch tells.
            behind = len(places) - before - len(inside)
            parts = [self._filling(body, before), vector, self._filling(body, behind)]
            row = self._name()
            body.node.append(
                helper.make_node("Concat", [part for part in parts if part], [row], axis=0)
            )
            carried = len(body.output) - (
                node.op_type == "Loop"
            )  # a Loop's condition isn't among its outputs
            body.output.append(
                helper.make_tensor_value_info(row, TensorProto.FLOAT, [len(places)])
            )
            before += len(inside)
        while len(node.output) < carried:
            node.output.append("")
        outside = self._name()
        node.output.append(outside)
        if node.op_type == "If":
            return outside, places
        for attribute in node.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.append(0)
        return self._over_iterations(outside, len(places), after), places

    def _filling(self, body: onnx.GraphProto, count: int) -> str | None:
        return (
            self._constant(np.full(count, self.reduction.start, np.float32), body.node)
            if count
            else None
        )

    def _over_iterations(self, stacked: str, count: int, after: list[onnx.NodeProto]) -> str:
        """Reduce every element over the iterations; the start where there was none."""
        table, all_rows, result = (self._name() for _ in range(3))
        start = self._constant(np.full((1, count), self.reduction.start, np.float32), after)
        shape = self._constant(np.array([-1, count], np.int64), after)
        after.append(helper.make_node("Reshape", [stacked, shape], [table]))
        after.append(helper.make_node("Concat", [table, start], [all_rows], axis=0))
        op_type = self.reduction.iterations
        if self.opset < self.reduction.axes_since:
            after.append(
                helper.make_node(op_type, [all_rows], [result], axes=[0], keepdims=0)
            )
        else:
            axes = self._constant(np.zeros(1, np.int64), after)
            after.append(helper.make_node(op_type, [all_rows, axes], [result], keepdims=0))
        return result

    def _constant(self, array: np.ndarray, nodes: list[onnx.NodeProto]) -> str:
        name = self._name()
        nodes.append(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        )
        return name

    def _name(self) -> str:
        return fresh_name(_STEM, self.taken)
