"""Products of one value with several constant matrices, such as queries, keys and values, made one.

Each column of a product is computed of a column of the matrix alone: the values stay to the bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.bias_and_scale import take_over
from onnx_harness.transforms.simplification.constants import (
    constant_array,
    constant_value,
    new_constant,
)
from onnx_harness.transforms.simplification.no_ops import is_private

# A product and a Split take the place of them: two would be no fewer.
_FEWEST = 3
_SIZES_ARE_INPUTS = 13
_DTYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def merge_products(editing: Editing, budget: int) -> tuple[int, int]:
    """Multiply by the matrices side by side, and split the product.

    Precondition: three or more MatMuls in one graph read the same first input, and their second
    ones are matrices, constants of one type that no caller can override. Where an Add of a constant
    row is all that reads each product, the rows are joined too. Matrices that something else reads
    are copied, if that fits the budget.

    Args:
        editing: the graph.
        budget: bytes by which it may grow.

    Returns:
        How many nodes there are less, and the bytes by which the model grew.
    """
    fewer = growth = 0
    for graph in all_graphs(editing.graph):
        groups: dict[tuple[ir.Value, ir.DataType], list[ir.Node]] = defaultdict(list)
        for node in graph:
            matrix = _matrix(editing, node)
            source = node.inputs[0] if matrix is not None else None
            if source is not None and matrix is not None:
                groups[source, matrix.dtype].append(node)
        for nodes in groups.values():
            if len(nodes) >= _FEWEST:
                more = _copied_bytes(nodes)
                if growth + more <= budget:
                    fewer += _merge(editing, graph, nodes)
                    growth += more
    return fewer, growth


def _matrix(editing: Editing, node: ir.Node) -> ir.TensorProtocol | None:
    """The constant matrix that a MatMul multiplies by."""
    if not editing.is_standard(node, "MatMul") or not node.outputs[0].name:
        return None
    value = node.inputs[1]
    if value is None or value.is_graph_input() or not value.is_initializer():
        return None
    tensor = value.const_value
    if (
        tensor is None
        or tensor.dtype not in _DTYPES
        or len(tensor.shape) != 2
        or not tensor.size
    ):
        return None
    return tensor


def _copied_bytes(nodes: Sequence[ir.Node]) -> int:
    """The bytes of the matrices that stay beside the joined one."""
    copied = 0
    for node in nodes:
        matrix = node.inputs[1]
        assert matrix is not None
        assert matrix.const_value is not None
        if len(matrix.uses()) > 1 or matrix.is_graph_output():
            copied += matrix.const_value.nbytes
    return copied


def _merge(editing: Editing, graph: ir.Graph, nodes: Sequence[ir.Node]) -> int:
    matrices = [constant_array(node.inputs[1]) for node in nodes]
    widths = [matrix.shape[1] for matrix in matrices if matrix is not None]
    stem = str(nodes[0].outputs[0].name)
    joined = new_constant(
        editing,
        f"{stem}_matrices",
        np.concatenate([m for m in matrices if m is not None], axis=1),
    )
    product = ir.node(
        "MatMul",
        [nodes[0].inputs[0], joined],
        num_outputs=1,
        name=editing.fresh_name(f"{stem}_products"),
    )
    made = [product]
    sums = [
        _row_sum(editing, node, width) for node, width in zip(nodes, widths, strict=True)
    ]
    rows = [row for row in sums if row is not None]
    lasts = list(nodes)
    if len(rows) == len(nodes):
        lasts = [add for add, _ in rows]
        row = new_constant(editing, f"{stem}_rows", np.concatenate([row for _, row in rows]))
        name = editing.fresh_name(f"{stem}_sums")
        made.append(ir.node("Add", [product.outputs[0], row], num_outputs=1, name=name))
    made.append(_split(editing, made[-1].outputs[0], widths, stem))
    for node in made:
        for output in node.outputs:
            output.name = output.name or editing.fresh_name(f"{stem}_joined")
        graph.insert_before(nodes[0], node)
    gone = list(dict.fromkeys([*lasts, *nodes]))
    for last, output in zip(lasts, made[-1].outputs, strict=True):
        take_over(last.outputs[0], output)
    for node in gone:
        graph.remove(node, safe=True)
    return len(gone) - len(made)


def _row_sum(
    editing: Editing, node: ir.Node, width: int
) -> tuple[ir.Node, npt.NDArray[np.generic]] | None:
    """The Add that alone reads a product, and the constant row that it adds."""
    value = node.outputs[0]
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or not editing.is_standard(readers[0], "Add"):
        return None
    if not is_private(value, readers[0]):
        return None
    others = [operand for operand in readers[0].inputs if operand is not value]
    row = constant_array(others[0]) if others else None
    return (readers[0], row) if row is not None and row.shape == (width,) else None


def _split(editing: Editing, source: ir.Value, widths: Sequence[int], stem: str) -> ir.Node:
    name = editing.fresh_name(f"{stem}_split")
    inputs: list[ir.Value] = [source]
    attributes: dict[str, int | list[int]] = {"axis": -1}
    if editing.opset >= _SIZES_ARE_INPUTS:
        inputs.append(constant_value(editing, f"{stem}_widths", widths))
    else:
        attributes["split"] = list(widths)
    return ir.node("Split", inputs, attributes, num_outputs=len(widths), name=name)
