"""Constant folding: what depends on constants alone is computed once, by ONNX Runtime.

The result becomes a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from onnx_harness.model.graph import Editing, all_nodes, inner_graphs, ir_constant
from onnx_harness.model.ops import MOVES
from onnx_harness.model.types import Fact
from onnx_harness.transforms.simplification.no_ops import (
    can_be_constant,
    constant_array,
    remove_whole,
    replace_by_constant,
)

Array = npt.NDArray[np.generic]

# Element types that come out of ONNX Runtime as numpy arrays with every bit in place.
_FOLDED_DTYPES = frozenset(
    int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(code)))
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
)
_RANDOM = frozenset(
    (
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
# ONNX Runtime computes with the integers that a DequantizeLinear reads: the floats in their place
# it would quantize anew, with other levels, and the file would hold four bytes for each.
_KEEPS_INTEGERS = frozenset(("DequantizeLinear",))
# ONNX Runtime's CPU kernels compute float16 in float32, and round in between only where it meets a
# float16 kernel: a float16 result of arithmetic is rounded when it becomes a constant, and wasn't
# before. These don't compute.
_COMPUTES_NOTHING = MOVES | {"ConstantOfShape", "Pad", "Where"}
# Larger initializers are handed to the session as inputs: neither copied into the model nor bound
# by its 2 GB.
_FED_FROM_BYTES = 1 << 12
_BYTES_OF_A_RUN = 1 << 27

# Of what outgrows the limit together, values of up to this size are folded all the same if anything
# larger can stay.
_SMALL_COST = 512


@dataclass(frozen=True, slots=True)
class _Plan:
    """The nodes to fold.

    Attributes:
        nodes: constant nodes that go, in order.
        results: their values that something else reads: what they are replaced by.
    """

    nodes: tuple[ir.Node, ...]
    results: tuple[ir.Value, ...]


class ConstantFolder:
    """Folds a graph in rounds, and remembers the nodes that ONNX Runtime couldn't compute."""

    def __init__(self, editing: Editing) -> None:
        self._editing = editing
        self._refused: set[ir.Node] = set()

    def fold(self, facts: Mapping[str, Fact], budget: int) -> tuple[int, int]:
        """Fold what is constant.

        Args:
            facts: types of the values.
            budget: bytes by which the model may grow.

        Returns:
            The number of nodes removed, and the bytes by which the constants of the model grew
            (negative: shrank).
        """
        constant = self._constant_nodes()
        unfolded: set[ir.Node] = set()
        computed: dict[ir.Value, Array] = {}
        while True:
            plan = _plan(self._editing, constant, unfolded, facts)
            if not plan.results:
                return 0, 0
            costs = {value: _cost(value, facts, computed) for value in plan.results}
            unsized = [value for value, cost in costs.items() if cost is None]
            sized = {}
            for value, cost in costs.items():
                if cost is not None:
                    sized[value] = cost
            targets = unsized or [value for value in plan.results if value not in computed]
            freed = _freed(plan)
            growth = sum(sized.values()) - sum(freed.values())
            if growth > budget:
                unfolded |= _outgrowing(sized, growth - budget, freed)
            elif not targets:
                break
            elif not self._compute(constant, _first(targets, costs), facts, computed):
                constant = [node for node in constant if node not in self._refused]
        for value in plan.results:
            replace_by_constant(self._editing, value, ir.tensor(computed.pop(value)))
        for node in reversed(plan.nodes):
            remove_whole(node)
        return len(plan.nodes), growth

    def _constant_nodes(self) -> list[ir.Node]:
        """Return the nodes of all graphs that depend on constants alone.

        The ``Constant`` nodes themselves are left out.
        """
        editing = self._editing
        constants = set()
        for value in editing.graph.initializers.values():
            if not value.is_graph_input():
                constants.add(value)
        nodes: list[ir.Node] = []
        self._collect(editing.graph, constants, nodes)
        return [node for node in nodes if not _hands_on_a_constant(node)]

    def _collect(self, graph: ir.Graph, constants: set[ir.Value], nodes: list[ir.Node]) -> None:
        for node in graph:
            if self._editing.is_standard(node, "Constant"):
                constants.update(node.outputs)
            elif (
                # First what most nodes aren't, and is quickly seen.
                constants.issuperset(value for value in node.inputs if value is not None)
                and self._is_repeatable(node)
                and constants.issuperset(_reads(node))
                and node not in self._refused
            ):
                constants.update(node.outputs)
                nodes.append(node)
            else:
                for inner in inner_graphs(node):
                    self._collect(inner, constants, nodes)

    def _is_repeatable(self, node: ir.Node) -> bool:
        """Decide whether the node, and each inside it, gives the same result every time.

        All are standard operators then.
        """
        return not keeps_integers(node.op_type) and all(
            self._editing.is_standard(inner)
            and is_deterministic(inner.op_type, self._editing.opset)
            for inner in all_nodes(node)
        )

    def _compute(
        self,
        constant: Sequence[ir.Node],
        targets: Sequence[ir.Value],
        facts: Mapping[str, Fact],
        computed: dict[ir.Value, Array],
    ) -> bool:
        """Compute the wanted values in one run; False when some nodes had to be refused instead."""
        nodes = _leading_to(targets, constant)
        try:
            computed.update(self._run(nodes, targets, facts, {}))
        except Exception:  # any of ONNX Runtime's, which have no base class of their own
            refused = self._refusals(nodes, facts)
            # Each node runs, and all together don't: no telling which one to leave out.
            self._refused.update(refused or nodes)
            return False
        return True

    def _refusals(self, nodes: Sequence[ir.Node], facts: Mapping[str, Fact]) -> set[ir.Node]:
        """The nodes that ONNX Runtime can't compute, found by running each alone."""
        refused: set[ir.Node] = set()
        values: dict[ir.Value, Array] = {}
        for node in nodes:
            outputs = [value for value in node.outputs if value.name]
            ready = all(
                value in values or value.producer() is None or _is_constant(value.producer())
                for value in _reads(node)
            )
            try:
                if not ready or not all(
                    _foldable(self._editing, value, facts) for value in outputs
                ):
                    raise LookupError(node.op_type)
                values.update(self._run([node], outputs, facts, values))
            except Exception:  # as above
                refused.add(node)
        return refused

    def _run(
        self,
        nodes: Sequence[ir.Node],
        targets: Sequence[ir.Value],
        facts: Mapping[str, Fact],
        values: Mapping[ir.Value, Array],
    ) -> dict[ir.Value, Array]:
        """Run ``nodes`` in ONNX Runtime, unoptimized, on the CPU, and return the values."""
        model = onnx.ModelProto()
        model.ir_version = max(self._editing.model.ir_version, 4)
        model.opset_import.extend(self._editing.model.opset_import)
        graph = model.graph
        graph.name = "constants"
        feeds: dict[str, Array] = {}
        inside = set()
        for node in nodes:
            for value in node.outputs:
                inside.add(value)
        for value in dict.fromkeys(
            value for node in nodes for value in _reads(node) if value not in inside
        ):
            assert value.name is not None
            tensor = _tensor_of(value)
            if value in values:
                graph.initializer.append(
                    onnx.numpy_helper.from_array(np.asarray(values[value]), value.name)
                )
            elif tensor is None:
                producer = value.producer()
                assert producer is not None
                graph.node.append(ir.serde.serialize_node(producer))
            elif tensor.nbytes >= _FED_FROM_BYTES and tensor.dtype.value in _FOLDED_DTYPES:
                feeds[value.name] = tensor.numpy()
                dims = [int(dim) for dim in tensor.shape.numpy()]
                graph.input.append(
                    onnx.helper.make_tensor_value_info(value.name, tensor.dtype.value, dims)
                )
            else:
                ir.serde.serialize_tensor_into(graph.initializer.add(), tensor)
                graph.initializer[-1].name = value.name
        graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
        for value in targets:
            assert value.name is not None
            graph.output.append(
                onnx.helper.make_tensor_value_info(value.name, facts[value.name].dtype, None)
            )
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), _session_options(), providers=["CPUExecutionProvider"]
        )
        results = session.run([value.name for value in targets], feeds)
        for value, result in zip(targets, results, strict=True):
            expected = onnx.helper.tensor_dtype_to_np_dtype(facts[str(value.name)].dtype)
            if not isinstance(result, np.ndarray) or result.dtype != expected:
                raise TypeError(f"{value.name} should be {expected}")
        return dict(zip(targets, results, strict=True))


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # a node that can't run is expected here, and not worth a line
    return options


@cache
def is_deterministic(op_type: str, opset: int) -> bool:
    """Decide whether a standard operator of that opset gives the same result every time."""
    return op_type not in _RANDOM and onnx.defs.has(op_type, opset)


def keeps_integers(op_type: str) -> bool:
    """Return whether an operator stays although all that it reads is constant."""
    return op_type in _KEEPS_INTEGERS


def _reads(node: ir.Node) -> Iterator[ir.Value]:
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
        yield from (value for value in inner.inputs if value is not None and value not in inside)


def _is_constant(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Constant" and node.domain == ""


def _tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a dense ``Constant`` node."""
    producer = value.producer()
    if producer is None:
        return value.const_value
    return ir_constant(producer) if _is_constant(producer) else None


def _hands_on_a_constant(node: ir.Node) -> bool:
    """Return whether it's the identity of a constant.

    An output of the model, then, and as good as can be.
    """
    source = node.inputs[0] if node.op_type == "Identity" else None
    return source is not None and (source.producer() is None or _is_constant(source.producer()))


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


def _plan(
    editing: Editing, constant: Sequence[ir.Node], unfolded: set[ir.Node], facts: Mapping[str, Fact]
) -> _Plan:
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
    return _Plan(tuple(nodes), tuple(reversed(results)))


def _first(targets: Sequence[ir.Value], costs: Mapping[ir.Value, int | None]) -> list[ir.Value]:
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


def _leading_to(targets: Sequence[ir.Value], constant: Sequence[ir.Node]) -> list[ir.Node]:
    """The constant nodes that the wanted values depend on, in order."""
    needed = set(targets)
    leading: list[ir.Node] = []
    for node in reversed(constant):
        if not needed.isdisjoint(node.outputs):
            needed.update(_reads(node))
            leading.append(node)
    return leading[::-1]


def _freed(plan: _Plan) -> dict[ir.Value, int]:
    """The initializers that nobody reads any more when the plan is carried out, and their bytes."""
    going = set()
    for node in plan.nodes:
        for inner in all_nodes(node):
            going.add(inner)
    nbytes: dict[ir.Value, int] = {}
    for value in {value for node in plan.nodes for value in _reads(node)}:
        if (
            value.const_value is not None
            and value.is_initializer()
            and not value.is_graph_output()
            and all(use.node in going for use in value.uses())
        ):
            nbytes[value] = value.const_value.nbytes
    return nbytes


def _cost(
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


def _outgrowing(
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
        node: cost - sum(freed.get(read, 0) for read in set(_reads(node)))
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
