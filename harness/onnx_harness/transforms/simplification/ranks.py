"""An If of which one branch can't be taken.

A node that always runs after it accepts results of another rank alone.

A model that took that branch would end in an error. Where the model runs, its values stay.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.branches import put_branch
from onnx_harness.transforms.simplification.constants import constant_array
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of

# Inputs of a fixed rank, by operator: X and the initial states of a recurrent layer, matrices.
_FIXED_RANKS = {
    "LSTM": {0: 3, 5: 3, 6: 3},
    "GRU": {0: 3, 5: 3},
    "RNN": {0: 3, 5: 3},
    "Gemm": {0: 2, 1: 2},
}
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# Their first input and their output have one rank.
_KEEPS_RANK = frozenset(
    (
        *(
            "Abs",
            "Cast",
            "Ceil",
            "Clip",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "HardSigmoid",
            "Identity",
        ),
        *(
            "LeakyRelu",
            "Log",
            "Neg",
            "Not",
            "Reciprocal",
            "Relu",
            "Round",
            "Sigmoid",
            "Sign",
        ),
        *("Softplus", "Sqrt", "Tanh"),
    )
)
_STEPS = {"Squeeze": -1, "Unsqueeze": 1}
# Chains of Ifs that feed one another are short; the number bounds what is followed.
_FARTHEST = 32


def drop_impossible_branches(editing: Editing, facts: Facts) -> int:
    """Put the branch of an If in its place where the other one is impossible.

    The other one's results have a rank that no run survives.

    Precondition: a node of the same graph accepts one rank alone of an output of the If, and the
    ranks that the other branch can give it are known.
    """
    dropped = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, "If") or node.graph is not graph:
                continue
            branches = [node.attributes.get(name) for name in ("then_branch", "else_branch")]
            possible = []
            for branch in branches:
                if branch is not None and not branch.is_ref():
                    possible.append(branch.as_graph())
            if len(possible) != len(branches):
                continue
            if any(len(branch.outputs) != len(node.outputs) for branch in possible):
                continue
            possible = [
                branch
                for branch in possible
                if not _is_impossible(editing, node, branch, facts)
            ]
            if len(possible) == 1:
                put_branch(editing, graph, node, possible[0])
                dropped += 1
    return dropped


def _is_impossible(editing: Editing, node: ir.Node, branch: ir.Graph, facts: Facts) -> bool:
    for output, result in zip(node.outputs, branch.outputs, strict=True):
        accepted = _accepted_rank(editing, output, facts)
        possible_ranks = _possible_ranks(editing, result, facts)
        if (
            accepted is not None
            and possible_ranks is not None
            and accepted not in possible_ranks
        ):
            return True
    return False


def _possible_ranks(
    editing: Editing, value: ir.Value, facts: Facts, far: int = 0
) -> frozenset[int] | None:
    """The ranks that a value may have; None where nothing is known."""
    fact, node = fact_of(value, facts), value.producer()
    if fact is not None and fact.shape is not None:
        return frozenset((len(fact.shape),))
    if node is None or far > _FARTHEST:
        return None
    if editing.is_standard(node, "If"):
        place = list(node.outputs).index(value)
        parts = []
        for attribute in node.attributes.values():
            if not attribute.is_ref() and len(attribute.as_graph().outputs) == len(
                node.outputs
            ):
                parts.append(
                    _possible_ranks(
                        editing, attribute.as_graph().outputs[place], facts, far + 1
                    )
                )
        ranks = [part for part in parts if part is not None]
        return frozenset().union(*ranks) if len(ranks) == 2 else None
    step = _rank_step(editing, node)
    source = node.inputs[0] if step is not None else None
    before = None if source is None else _possible_ranks(editing, source, facts, far + 1)
    return (
        None if before is None or step is None else frozenset(rank + step for rank in before)
    )


def _accepted_rank(
    editing: Editing, value: ir.Value, facts: Facts, far: int = 0
) -> int | None:
    """The one rank of ``value`` with which the graph that computes it runs to its end."""
    producer = value.producer()
    if producer is None or far > _FARTHEST:
        return None
    for reader, place in value.uses():
        if reader.graph is not producer.graph:
            continue  # a branch, which may not be taken
        accepted = _rank_at(editing, reader, place)
        if accepted is not None:
            return accepted
        step = _rank_step(editing, reader) if place == 0 else None
        if step is not None:
            after = _accepted_rank(editing, reader.outputs[0], facts, far + 1)
            if after is not None:
                return after - step
    return None


def _rank_at(editing: Editing, reader: ir.Node, place: int) -> int | None:
    """The rank that an operator asks of that input; None where it takes several."""
    if not editing.is_standard(reader):
        return None
    if reader.op_type in _FIXED_RANKS:
        return _FIXED_RANKS[reader.op_type].get(place)
    if reader.op_type in _CONVOLUTIONS and place == 0:
        weight = constant_array(reader.inputs[1])
        return None if weight is None else weight.ndim
    permutation = reader.attributes.get("perm") if reader.op_type == "Transpose" else None
    if permutation is None or permutation.is_ref():
        return None
    return len(permutation.as_ints())


def _rank_step(editing: Editing, node: ir.Node) -> int | None:
    """By how much the rank of the output is above that of the first input; None if not known."""
    if not editing.is_standard(node) or not node.inputs:
        return None
    if node.op_type in _KEEPS_RANK:
        return 0
    if node.op_type not in _STEPS:
        return None
    attribute = node.attributes.get("axes")
    axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if attribute is not None and not attribute.is_ref():
        return _STEPS[node.op_type] * len(attribute.as_ints())
    return None if axes is None else _STEPS[node.op_type] * int(axes.size)
