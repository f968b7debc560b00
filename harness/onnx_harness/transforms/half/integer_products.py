"""Products that float16 would spoil, and one that ONNX Runtime dies of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from onnx_harness.model.constants import constant_tensor
from onnx_harness.model.ops import MOVES, is_standard
from onnx_harness.model.rewrite import fresh_name, value_names_of
from onnx_harness.model.walk import walk
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import FLOAT, FLOAT16
from onnx_harness.transforms.half.steps import Step

_OF_INTEGERS = frozenset({"ConvInteger", "MatMulInteger"})
_TRANSPOSES = frozenset({"", "Transpose"})
_KEEP_TOTALS = MOVES | {"Add", "Sub"}


def dequantizing(reading: Reading) -> tuple[set[Step], set[str]]:
    """Return what brings products of integers back to floats.

    A Cast, the Mul by a scale, and the product of two scales.

    The second of the pair are the names of the integers that are such products, and sums of them.

    A product of 8-bit integers is beyond 65504 after four terms or so, and the scale that brings it
    back is often too small for float16. So dynamic quantization writes it.
    """
    steps: set[Step] = set()
    products: set[str] = set()
    for scope in reading.scopes if reading.has(_OF_INTEGERS) else ():
        totals: set[str] = set()
        casts: dict[str, Step] = {}
        for step in scope.steps:
            if step.op in _OF_INTEGERS:
                totals.update(step.outs)
            elif not totals:
                continue
            elif step.op in _KEEP_TOTALS and not totals.isdisjoint(step.ins):
                names = []
                for name in step.outs:
                    if reading.types[name] == onnx.TensorProto.INT32:
                        names.append(name)
                totals.update(names)
            elif (
                step.op == "Cast"
                and step.ins[0] in totals
                and reading.types[step.outs[0]] == FLOAT
            ):
                casts[step.outs[0]] = step
            elif step.op == "Mul" and not casts.keys().isdisjoint(step.ins):
                steps.add(step)
                for name in step.ins:
                    maker = casts.get(name) or reading.makers.get(name)
                    if isinstance(maker, Step) and maker.op in ("Cast", "Mul"):
                        steps.add(maker)
        products |= totals
    return steps, products


def may_multiply_before_moving(reading: Reading) -> bool:
    """Return whether `multiply_before_moving` may find something to change.

    Args:
        reading: the graphs of the model, before or after they were converted.
    """
    if not {"MatMul", "Transpose"} <= reading.op_types:
        return False
    # The operator of a step is empty where a function of the model has the name of a standard one.
    movers = (
        step for scope in reading.scopes for step in scope.steps if step.op in _TRANSPOSES
    )
    return any(_moves_first_axis(step.node) for step in movers)


def multiply_before_moving(graphs: Sequence[onnx.GraphProto]) -> None:
    """Let a float16 product with a constant matrix come before a Transpose.

    The Transpose moves the first axis of the other factor.

    Rows are multiplied by a matrix, so it's all the same in what order they lie. ONNX Runtime 1.32
    fuses the two once it has put Casts around them, on its CPU provider, and dies of it while the
    session is made: so it does of a recurrent network, sequence first, before a linear layer.

    Args:
        graphs: of a model, outer ones first; they are changed.
    """
    for graph in graphs:
        movers: dict[str, onnx.NodeProto] = {}
        products: list[tuple[int, onnx.NodeProto]] = []
        matrices: set[str] = set()
        for at, node in enumerate(graph.node):
            op = node.op_type
            if op == "Transpose" and _moves_first_axis(node):
                movers[node.output[0]] = node
            elif op == "MatMul" and is_standard(node):
                products.append((at, node))
            elif op == "Constant" and _is_matrix(node):
                matrices.add(node.output[0])
        if not (movers and products):
            continue
        for tensor in graph.initializer:
            if _is_matrix(tensor):
                matrices.add(tensor.name)
        moved = []
        for at, node in products:
            if node.input[0] in movers and node.input[1] in matrices:
                moved.append((at, node))
        if moved:
            _multiply_first(graph, movers, moved, graphs)


def _multiply_first(
    graph: onnx.GraphProto,
    movers: Mapping[str, onnx.NodeProto],
    products: Sequence[tuple[int, onnx.NodeProto]],
    graphs: Sequence[onnx.GraphProto],
) -> None:
    """Put those products before what moves their first factor, and remove what nobody reads then.

    Args:
        graph: is changed.
        movers: its Transposes that move a first axis, by what they give.
        products: its places and nodes to change.
        graphs: all of the model.
    """
    names = value_names_of(graphs)
    for at, node in reversed(products):
        mover, last = movers[node.input[0]], onnx.NodeProto()
        last.CopyFrom(mover)
        last.ClearField("name")
        between = fresh_name(f"{node.output[0]}_unmoved", names)
        last.input[0], last.output[0] = between, node.output[0]
        node.input[0], node.output[0] = mover.input[0], between
        graph.node.insert(at + 1, last)
    nodes = walk(graph) if len(graphs) > 1 else graph.node
    read = {name for node in nodes for name in node.input[:]}
    read |= {info.name for info in graph.output}
    unread = movers.keys() - read
    _delete(
        graph.node, [at for at, node in enumerate(graph.node) if node.output[0] in unread]
    )
    _delete(
        graph.value_info,
        [at for at, info in enumerate(graph.value_info) if info.name in unread],
    )


def _moves_first_axis(node: onnx.NodeProto) -> bool:
    """Decide whether a Transpose puts the first axis before the last, which stays."""
    if not is_standard(node, "Transpose"):
        return False
    perm = next(
        (list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"),
        [],
    )
    return len(perm) > 2 and perm == [*range(1, len(perm) - 1), 0, len(perm) - 1]


def _is_matrix(constant: onnx.TensorProto | onnx.NodeProto) -> bool:
    """Return whether an initializer or a node is a constant matrix in float16."""
    if isinstance(constant, onnx.NodeProto):
        tensor = constant_tensor(constant) if is_standard(constant, "Constant") else None
        return tensor is not None and _is_matrix(tensor)
    return len(constant.dims) == 2 and constant.data_type == FLOAT16


def _delete(field: Any, places: list[int]) -> None:
    for at in reversed(places):
        del field[at]
