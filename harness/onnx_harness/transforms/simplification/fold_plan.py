"""Plan which constants are folded: those whose result costs no more than the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_nodes, ir_constant
from onnx_harness.model.ops import MOVES
from onnx_harness.model.types import Fact
from onnx_harness.transforms.simplification.constants import can_be_constant, constant_array

Array = npt.NDArray[np.generic]

# Element types that come out of ONNX Runtime as numpy arrays with every bit in place.
_FOLDED_DTYPES = frozenset(
    int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(code)))
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
)


# ONNX Runtime's CPU kernels compute float16 in float32, and round in between only where it meets a
# float16 kernel: a float16 result of arithmetic is rounded when it becomes a constant, and wasn't
# before. These don't compute.
_COMPUTES_NOTHING = MOVES | {"ConstantOfShape", "Pad", "Where"}


_BYTES_OF_A_RUN = 1 << 27


# Of what outgrows the limit together, values of up to this size are folded all the same if anything
# larger can stay.
_SMALL_COST = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes to fold.

    Attributes:
        nodes: constant nodes that go, in order.
        results: their values that something else reads: what they are replaced by.
    """

    nodes: tuple[ir.Node, ...]
    results: tuple[ir.Value, ...]


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values from outside that a node reads, the nodes inside it included."""
    nodes = list(all_nodes(node))
    inside = set()
    for inner in nodes[1:]:
        for value in inner.outputs:
            inside.add(value)
    for graph in {inner.graph for inner in nodes[1:] if inner.graph is not None}:
        assert isinstance(graph, ir.Graph)
        inside.update(graph.inputs)
        inside.update(graph.initializers.values())
    for inner in nodes:
        yield from (
            value for value in inner.inputs if value is not None and value not in inside
        )


def is_constant(node: ir.Node | None) -> bool:
    """Return whether a node is a constant."""
    return node is not None and node.op_type == "Constant" and node.domain == ""


def tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or a dense ``Constant`` node, or what an Identity hands on."""
    producer = value.producer()
    if producer is None:
        return value.const_value
    if (
        producer.op_type == "Identity"
        and producer.domain == ""
        and producer.inputs[0] is not None
    ):
        return tensor_of(producer.inputs[0])
    return ir_constant(producer) if is_constant(producer) else None


def _foldable(editing: Editing, value: ir.Value, facts: Mapping[str, Fact]) -> bool:
    fact, producer = facts.get(value.name or ""), value.producer()
    if fact is None or producer is None or fact.dtype not in _FOLDED_DTYPES:
        return False
    if not can_be_constant(editing, value, fact.dtype):
        return False
    return (
        fact.dtype != onnx.TensorProto.FLOAT16
        or producer.op_type in _COMPUTES_NOTHING
        or _rounds_nothing(producer)
    )


def _rounds_nothing(node: ir.Node) -> bool:
    """Return whether it's a Cast of a constant whose every element float16 holds as it is."""
    source = constant_array(node.inputs[0]) if node.op_type == "Cast" else None
    if source is None or source.dtype != np.float32:
        return False
    with np.errstate(over="ignore"):
        return bool((source.astype(np.float16).astype(np.float32) == source).all())


def make_plan(
    editing: Editing,
    constant: Sequence[ir.Node],
    unfolded: set[ir.Node],
    facts: Mapping[str, Fact],
) -> Plan:
    """Choose the nodes that go, readers first.

    All but the ``kept`` ones and those whose results can't be constants.
    """
    going = set(constant) - unfolded
    owner = {}
    for node in constant:
        for inner in all_nodes(node):
            owner[inner] = node
    results: list[ir.Value] = []
    for node in reversed(constant):
        if node not in going:
            continue
        read = []
        for value in node.outputs:
            if value.is_graph_output() or any(
                owner.get(use.node) not in going for use in value.uses()
            ):
                read.append(value)
        if all(_foldable(editing, value, facts) for value in read):
            results += read
        else:
            going.discard(node)
    nodes = []
    for node in constant:
        if node in going:
            nodes.append(node)
    return Plan(tuple(nodes), tuple(reversed(results)))


def first_of(
    targets: Sequence[ir.Value], costs: Mapping[ir.Value, int | None]
) -> list[ir.Value]:
    """The wanted values that one run computes.

    All of them, unless that would take a lot of memory.
    """
    chosen: list[ir.Value] = []
    room = _BYTES_OF_A_RUN
    for value in targets:
        room -= costs[value] or 0
        if room < 0 and chosen:
            break
        chosen.append(value)
    return chosen


def leading_to(targets: Sequence[ir.Value], constant: Sequence[ir.Node]) -> list[ir.Node]:
    """The constant nodes that the wanted values depend on, in order."""
    needed = set(targets)
    leading: list[ir.Node] = []
    for node in reversed(constant):
        if not needed.isdisjoint(node.outputs):
            needed.update(reads(node))
            leading.append(node)
    return leading[::-1]


def freed_bytes(plan: Plan) -> dict[ir.Value, int]:
    """The initializers that nobody reads any more when the plan is carried out, and their bytes."""
    going = set()
    for node in plan.nodes:
        for inner in all_nodes(node):
            going.add(inner)
    nbytes: dict[ir.Value, int] = {}
    for value in {value for node in plan.nodes for value in reads(node)}:
        if (
            value.const_value is not None
            and value.is_initializer()
            and not value.is_graph_output()
            and all(use.node in going for use in value.uses())
        ):
            nbytes[value] = value.const_value.nbytes
    return nbytes


def cost_of(
    value: ir.Value, facts: Mapping[str, Fact], computed: Mapping[ir.Value, Array]
) -> int | None:
    """Bytes that the value takes as a constant; None when only computing it can tell."""
    fact = facts[str(value.name)]
    if value in computed:
        elements, rank = computed[value].size, computed[value].ndim
    elif fact.static_shape is not None:
        elements, rank = math.prod(fact.static_shape), len(fact.static_shape)
    else:
        return None
    # Beside the elements: dimensions, name and their tags.
    return (
        elements * onnx.helper.tensor_dtype_to_np_dtype(fact.dtype).itemsize
        + 11 * rank
        + 2 * len(str(value.name))
        + 64
    )


def outgrowing(
    costs: Mapping[ir.Value, int], excess: int, freed: Mapping[ir.Value, int]
) -> set[ir.Node]:
    """The nodes to keep so that the model grows by ``excess`` bytes less.

    Those that outgrow what they read by most.
    """
    costs_by_node: dict[ir.Node, int] = {}
    for value, cost in costs.items():
        producer = value.producer()
        assert producer is not None
        costs_by_node[producer] = costs_by_node.get(producer, 0) + cost
    outgrown = {
        node: cost - sum(freed.get(read, 0) for read in set(reads(node)))
        for node, cost in costs_by_node.items()
    }
    unfolded: set[ir.Node] = set()
    for node, more in sorted(outgrown.items(), key=lambda item: item[1], reverse=True):
        if excess <= 0 or more <= _SMALL_COST:
            break
        unfolded.add(node)
        excess -= more
    # What they free together is more than any takes: then the largest, never what costs next to
    # nothing.
    return unfolded or {max(costs_by_node, key=lambda node: costs_by_node[node])}
