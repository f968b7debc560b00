"""Graphs inside nodes: their constants are moved out.

A branch that is always taken is put in place of its If.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import (
    constant_array,
    replace_by_initializer,
)
from onnx_harness.transforms.simplification.no_ops import remove_whole


def lift_initializers(editing: Editing) -> int:
    """Move the initializers of inner graphs to the main one, where every graph sees them.

    Precondition: the initializer is neither an input nor an output of its graph. Names are unique
    in all graphs.
    """
    lifted = 0
    for graph in all_graphs(editing.graph):
        if graph is editing.graph:
            continue
        for name, value in list(graph.initializers.items()):
            if (
                value.is_graph_input()
                or value.is_graph_output()
                or value.const_value is None
            ):
                continue
            del graph.initializers[name]
            replace_by_initializer(editing, value, value.const_value)
            lifted += 1
    return lifted


def inline_branches(editing: Editing) -> int:
    """Put the branch of an If with a constant condition in its place.

    Precondition: the condition is a constant of one element that no caller can override. Each
    output becomes an Identity, so that it keeps its name wherever it is an output of a graph
    itself; another rule removes the rest.
    """
    inlined = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, "If") or node.graph is not graph:
                continue
            condition = constant_array(node.inputs[0])
            if condition is None or condition.size != 1:
                continue
            branch = node.attributes.get(
                "then_branch" if condition.reshape(-1)[0] else "else_branch"
            )
            if (
                branch is None
                or branch.is_ref()
                or len(branch.as_graph().outputs) != len(node.outputs)
            ):
                continue  # an invalid model that the checker lets pass
            put_branch(editing, graph, node, branch.as_graph())
            inlined += 1
    return inlined


def put_branch(editing: Editing, graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Put ``branch`` of the If ``node`` of ``graph`` in its place."""
    results = list(branch.outputs)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        assert value.const_value is not None
        del branch.initializers[name]
        constant = value.const_value
        places = [index for index, result in enumerate(results) if result is value]
        replace_by_initializer(editing, value, constant)
        for index in places:
            results[index] = editing.graph.initializers[name]
    for moved in list(branch):
        branch.remove(moved)
        graph.insert_before(node, moved)
    for output, result in zip(node.outputs, results, strict=True):
        if not output.name:
            continue
        handed_on = ir.node(
            "Identity",
            [result],
            num_outputs=1,
            name=editing.fresh_name(f"{output.name}_inlined"),
        )
        graph.insert_before(node, handed_on)
        name, kind, shape = output.name, output.type, output.shape
        output.name = editing.fresh_name(name)
        new = handed_on.outputs[0]
        new.name, new.type, new.shape = name, kind, shape
        ir.convenience.replace_all_uses_with(output, new, replace_graph_outputs=True)
    remove_whole(node)
